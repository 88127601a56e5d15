"""Where the frames of an Ethernet switch go, and when: no socket, no clock.

    frame from a port ──► learn its sender ──► each port that it is for ──► cut? lost? ──► wait ──► due()

A port is a cable to one machine.  Its delay and its loss count in both directions: a frame passes two cables.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

FRAME_BYTES_MIN = 14  # two addresses and a type
FRAME_BYTES_MAX = 65_536
ADDRESSES_MAX = 1024  # learned; a small switch has as many
WAITING_MAX = 4096  # frames in all cables: 6 MB of full ones
GROUP_BIT = 0x01  # of a destination's first byte: broadcast and multicast


@dataclass
class Cable:
    """One port's cable, and what passed it.  delay_s: one way, seconds; loss: the share of frames, 0 to 1."""

    delay_s: float = 0.0
    loss: float = 0.0
    received: int = 0  # frames from the machine
    sent: int = 0  # frames to the machine
    sent_bytes: int = 0
    drops: dict[str, int] = field(default_factory=dict)  # by reason: malformed, cut, lost, full, absent

    def drop(self, reason: str) -> None:
        """Count a frame that ends here."""
        self.drops[reason] = self.drops.get(reason, 0) + 1


class Waiting(NamedTuple):
    """A frame in a cable.  The number keeps frames of one moment in their order."""

    due_at: float
    number: int
    port: str
    data: bytes


class Fabric:
    """A switch of named ports that learns addresses, and whose cables can be long, bad or cut."""

    def __init__(self, ports: Iterable[str], *, seed: int = 0) -> None:
        self.cables = {name: Cable() for name in ports}
        self._random = random.Random(seed)
        self._port_of: dict[bytes, str] = {}
        self._group_of: dict[str, int] = {}
        self._waiting: list[Waiting] = []
        self._number = 0

    def condition(self, port: str, *, delay_s: float | None = None, loss: float | None = None) -> None:
        """Change a cable; None leaves as it is.  Raises ValueError for what no cable can be, KeyError for no port."""
        cable = self.cables[port]
        if delay_s is not None:
            if not 0 <= delay_s <= 60:
                raise ValueError(f"a delay of {delay_s} s")
            cable.delay_s = delay_s
        if loss is not None:
            if not 0 <= loss <= 1:
                raise ValueError(f"a loss of {loss}")
            cable.loss = loss

    def partition(self, groups: Sequence[Sequence[str]]) -> None:
        """Let no frame pass between ports of different groups; a port in none reaches all.  No groups: heal.

        Raises KeyError for a port that there is not.
        """
        group_of = {port: number for number, group in enumerate(groups) for port in group}
        for port in group_of:
            if port not in self.cables:
                raise KeyError(port)
        self._group_of = group_of

    def receive(self, port: str, data: bytes, *, now: float) -> None:
        """Take a frame that a machine sent."""
        cable = self.cables[port]
        cable.received += 1
        if not FRAME_BYTES_MIN <= len(data) <= FRAME_BYTES_MAX:
            cable.drop("malformed")
            return
        target, sender = data[:6], data[6:12]
        if not sender[0] & GROUP_BIT:
            self._learn(sender, port)
        known = None if target[0] & GROUP_BIT else self._port_of.get(target)
        for name in self.cables if known is None else (known,):
            if name != port:
                self._pass_on(port, name, data, now)

    def _learn(self, address: bytes, port: str) -> None:
        self._port_of.pop(address, None)  # the newest is the last
        if len(self._port_of) >= ADDRESSES_MAX:
            del self._port_of[next(iter(self._port_of))]
        self._port_of[address] = port

    def _pass_on(self, port: str, to: str, data: bytes, now: float) -> None:
        source, target = self.cables[port], self.cables[to]
        apart = self._group_of.get(port), self._group_of.get(to)
        if None not in apart and apart[0] != apart[1]:
            target.drop("cut")
        elif any(self._random.random() < cable.loss for cable in (source, target)):
            target.drop("lost")
        elif len(self._waiting) >= WAITING_MAX:
            target.drop("full")
        else:
            self._number += 1
            heapq.heappush(self._waiting, Waiting(now + source.delay_s + target.delay_s, self._number, to, data))

    def due(self, *, now: float) -> Iterator[tuple[str, bytes]]:
        """Yield the frames that have reached the end of a cable, as (port, frame), in order."""
        while self._waiting and self._waiting[0].due_at <= now:
            waiting = heapq.heappop(self._waiting)
            cable = self.cables[waiting.port]
            cable.sent += 1
            cable.sent_bytes += len(waiting.data)
            yield waiting.port, waiting.data

    def next_timeout(self) -> float | None:
        """Return when due() has a frame; None while no cable has one."""
        return self._waiting[0].due_at if self._waiting else None
