"""A stream of numbered UDP packets, with the time at which each left and arrived.

usage: numbered.py send ADDRESS PORT MBIT SECONDS    prints when each left
       numbered.py receive ADDRESS PORT              until SIGTERM; prints when each came

Times are CLOCK_MONOTONIC, which all network namespaces share.  iperf3 counts losses too, but does not say when.
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import struct
import sys
import time
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rig.topology import Host  # the program itself runs on hosts and does not need it

PAYLOAD_BYTES = 1200
PORT = 7007
SO_RCVBUFFORCE = 33  # asm-generic/socket.h
BUFFER_BYTES = 8 << 20  # so that a receiver that waits for the processor loses no packet
SETTLE_S = 1.0  # after the last packet left, for packets still on their way


@dataclass(frozen=True, slots=True)
class Account:
    """What became of each packet.  sent_at, came_at: by number, if it arrived.  repeated: how many came twice."""

    sent_at: list[float]
    came_at: dict[int, float]
    repeated: int

    @property
    def lost(self) -> list[int]:
        """The numbers of the packets that never arrived."""
        return [number for number in range(len(self.sent_at)) if number not in self.came_at]

    @property
    def lost_ms(self) -> float:
        """How long packets were lost: from the first lost one to the one after the last, as sent."""
        lost = self.lost
        if not lost:
            return 0.0
        after = min(lost[-1] + 1, len(self.sent_at) - 1)
        return (self.sent_at[after] - self.sent_at[lost[0]]) * 1000

    def healed_ms(self, broken_at: float) -> float:
        """Return how long after broken_at packets arrived again and no more were lost."""
        first = self.lost[-1] + 1 if self.lost else 0
        arrivals = sorted(at for number, at in self.came_at.items() if number >= first and at > broken_at)
        if not self.lost:  # every packet was kept: the end of the longest silence counts
            _, end = max((later - at, later) for at, later in pairwise([broken_at, *arrivals]))
            return (end - broken_at) * 1000
        return (arrivals[0] - broken_at) * 1000


class Numbered:
    """Numbered packets from one host to another, under way."""

    def __init__(self, source: Host, target: Host, address: str, *, mbit: float, seconds: float) -> None:
        from rig.topology import wait_for

        self._receiver = target.spawn("receive", sys.executable, __file__, "receive", address, str(PORT))
        wait_for(
            lambda: "ready" in self._receiver.output(), "the receiver being ready", within_s=5, logs=(self._receiver,)
        )
        self._seconds = seconds
        self._sender = source.spawn(
            "send", sys.executable, __file__, "send", address, str(PORT), str(mbit), str(seconds)
        )

    def ended(self) -> bool:
        """Return whether the last packet has left."""
        return self._sender.exit_code is not None

    def account(self) -> Account:
        """Wait until all are sent and have had time to arrive."""
        self._sender.wait(self._seconds + 15)
        time.sleep(SETTLE_S)
        self._receiver.signal(signal.SIGTERM)
        self._receiver.wait(10)
        sent_at = json.loads(self._sender.output())
        came = json.loads(self._receiver.output().splitlines()[-1])
        return Account(sent_at, dict(reversed(came)), len(came) - len({number for number, _ in came}))


def _open(address: str) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)


def send(address: str, port: int, mbit: float, seconds: float) -> None:
    """Send at an even rate; after a delay of this process at most four packets follow at once."""
    every_s = PAYLOAD_BYTES * 8 / (mbit * 1e6)
    sent_at: list[float] = []
    with _open(address) as sender:
        sender.connect((address, port))
        started = due = time.monotonic()
        while due < started + seconds:
            now = time.monotonic()
            if now < due:
                time.sleep(due - now)
                now = time.monotonic()
            sender.send(struct.pack(">Q", len(sent_at)).ljust(PAYLOAD_BYTES, b"."))
            sent_at.append(now)
            due = max(due + every_s, now - 4 * every_s)
    print(json.dumps(sent_at))


def receive(address: str, port: int) -> None:
    """Receive until SIGTERM; print the number and time of each packet."""
    came: list[tuple[int, float]] = []
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    with _open(address) as receiver:
        with contextlib.suppress(PermissionError):  # in a user namespace the system's usual bound holds
            receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
        receiver.settimeout(0.1)
        receiver.bind((address, port))
        print("ready", flush=True)
        while not stopped:
            try:
                data = receiver.recv(2048)
            except TimeoutError:
                continue
            came.append((struct.unpack(">Q", data[:8])[0], time.monotonic()))
    print(json.dumps(came))


if __name__ == "__main__":
    if sys.argv[1] == "send":
        send(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), float(sys.argv[5]))
    else:
        receive(sys.argv[2], int(sys.argv[3]))
