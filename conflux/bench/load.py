"""The traffic of ordinary programs, in processes of their own: a TCP flow, a flood of UDP packets, pings.

A worker lives in one network namespace, reads one request a line and answers each with a line, both JSON.  It knows
nothing of engines: it uses sockets as any program does.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from typing import IO, Any, Final

from conflux.bench import child
from conflux.bench.figure import PartFailed

PORT: Final = 5001
CONGESTION_CONTROL: Final = "cubic"  # as most systems have it, so that boards with another default compare
UDP_BYTES: Final = 72  # of payload: 100 with IPv4 and UDP headers

_SEND_BYTES = 256 * 1024
_RECEIVE_BYTES = 1024 * 1024
_FLOW_S_MAX = 20.0  # a flow that stands still does not hang the bench
_ECHO_REQUEST, _ECHO_REPLY = 8, 0
_PING_BYTES = 56
_PING_WAIT_S = 1.0
_UDP_BATCH = 64  # sent before the clock is read again

Answer = dict[str, Any]


class Worker:
    """Starts a worker process in the namespace of the calling thread, and asks it for traffic."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(  # noqa: S603  # our own interpreter and module
            child.command(__name__ if __name__ != "__main__" else "conflux.bench.load"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=child.environment(),
        )
        self.answer()  # it is up

    def ask(self, do: str, **arguments: object) -> None:
        """Have the worker begin a task; answer() waits for its end."""
        stdin = self._process.stdin
        assert stdin is not None
        stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
        stdin.flush()

    def answer(self) -> Answer:
        """Return the worker's next answer.  Raises PartFailed if the task failed, or no answer comes."""
        stdout = self._process.stdout
        assert stdout is not None
        if not select.select([stdout], [], [], child.WAIT_S)[0] or not (line := stdout.readline()):
            raise PartFailed("a process that makes traffic does not answer")
        said: Answer = json.loads(line)
        if trouble := said.get("trouble"):
            raise PartFailed(str(trouble))
        return said

    def call(self, do: str, **arguments: object) -> Answer:
        """Have the worker do a task, and return its answer.  Raises PartFailed."""
        self.ask(do, **arguments)
        return self.answer()

    def close(self) -> None:
        """End the worker."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        self._process.kill()
        self._process.wait()


# ── the worker ──


class _Sockets:
    """The worker's state between requests."""

    def __init__(self) -> None:
        self.listener: socket.socket | None = None
        self.udp: socket.socket | None = None
        self.sequence = 0


def _listen(sockets: _Sockets) -> Answer:
    """Take TCP flows, one by one, and UDP packets, which are not read.

    The UDP socket is there so that the kernel does not answer every packet with an ICMP message.  The engine counts the
    packets.
    """
    sockets.listener = socket.create_server(("", PORT))
    sockets.listener.settimeout(_FLOW_S_MAX)
    sockets.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sockets.udp.bind(("", PORT))
    return {}


def _tcp_receive(sockets: _Sockets) -> Answer:
    """Take one flow until its end; return its bytes and the seconds from the first to the last."""
    assert sockets.listener is not None
    flow, _ = sockets.listener.accept()
    with flow:
        flow.settimeout(_FLOW_S_MAX)
        buffer = bytearray(_RECEIVE_BYTES)
        total = flow.recv_into(buffer)
        began = last = time.perf_counter()
        while size := flow.recv_into(buffer):
            total += size
            last = time.perf_counter()
    return {"bytes": total, "seconds": last - began}


def _tcp_send(_sockets: _Sockets, address: str, seconds: float) -> Answer:
    """Send one flow for a while; return the congestion control it had."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as flow:
        with contextlib.suppress(OSError):  # this kernel does not have it
            flow.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, CONGESTION_CONTROL.encode())
        control = flow.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode()
        flow.settimeout(_FLOW_S_MAX)
        flow.connect((address, PORT))
        data = bytes(_SEND_BYTES)
        deadline = time.perf_counter() + seconds
        while time.perf_counter() < deadline:
            flow.sendall(data)
    return {"control": control}


def _udp_send(_sockets: _Sockets, address: str, seconds: float) -> Answer:
    """Send packets as fast as one process can for a while; return how many."""
    count, data = 0, bytes(UDP_BYTES)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((address, PORT))
        deadline = time.perf_counter() + seconds
        while time.perf_counter() < deadline:
            for _ in range(_UDP_BATCH):
                with contextlib.suppress(BlockingIOError, ConnectionError):
                    sock.send(data)
            count += _UDP_BATCH
    return {"sent": count}


def _ping(sockets: _Sockets, address: str, count: int, interval: float) -> Answer:
    """Send echo requests, one after another; return the round trips in milliseconds and how many were lost."""
    times: list[float] = []
    lost = 0
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
        sock.connect((address, 0))
        for _ in range(count):
            sockets.sequence = (sockets.sequence + 1) & 0xFFFF
            began = time.perf_counter()
            sock.send(_echo_request(sockets.sequence))
            answered = _echo_reply_came(sock, sockets.sequence, began + _PING_WAIT_S)
            took = time.perf_counter() - began
            if answered:
                times.append(took * 1e3)
            else:
                lost += 1
            time.sleep(max(0.0, interval - took))
    return {"times_ms": times, "lost": lost}


def _echo_reply_came(sock: socket.socket, sequence: int, deadline: float) -> bool:
    while (left := deadline - time.perf_counter()) > 0 and select.select([sock], [], [], left)[0]:
        packet = sock.recv(2048)
        at = (packet[0] & 0xF) * 4
        if packet[at] == _ECHO_REPLY and struct.unpack_from("!H", packet, at + 6)[0] == sequence:
            return True
    return False


def _echo_request(sequence: int) -> bytes:
    data = struct.pack("!BBHHH", _ECHO_REQUEST, 0, 0, 0, sequence) + bytes(_PING_BYTES)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return data[:2] + struct.pack("!H", ~total & 0xFFFF) + data[4:]


_REQUESTS: Final[dict[str, Callable[..., Answer]]] = {
    "listen": _listen,
    "tcp-receive": _tcp_receive,
    "tcp-send": _tcp_send,
    "udp-send": _udp_send,
    "ping": _ping,
}


def serve(requests: IO[str], answers: IO[str]) -> None:
    """Carry out requests until their end."""
    sockets = _Sockets()

    def say(answer: Answer) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    say({})
    for line in requests:
        request = json.loads(line)
        do = request.pop("do")
        try:
            say(_REQUESTS[do](sockets, **request))
        except OSError as error:
            say({"trouble": f"{do}: {error.strerror or error}"})


if __name__ == "__main__":
    child.die_with_parent()
    serve(sys.stdin, sys.stdout)
