"""Figures with their rounds, the plan of how long to measure, and where figures go."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import thread_time
from typing import Final, Protocol

from conflux.errors import ConfluxError

MORE: Final = "more"  # is better
LESS: Final = "less"

PARTS: Final = {
    "ciphers": "Ciphers: what sealing costs by itself",
    "codec": "Frame codec: bundles of packets, sealed and opened",
    "handshake": "Stream handshake: its cryptography",
    "start": "Start",
    "memory": "Memory",
    "link": "Link: two engines over loopback, DTLS and SCTP",
    "tunnel": "Tunnel: from TUN device to TUN device, through two engines",
}


class PartSkipped(ConfluxError):
    """A part cannot be measured on this machine; the text says why."""


class PartFailed(ConfluxError):
    """Measuring a part failed; the text says how."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured quantity: a value of each round."""

    part: str  # a key of PARTS
    name: str  # unique in a report; two reports are joined by it
    title: str
    unit: str
    better: str  # MORE or LESS
    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.rounds)

    @property
    def least(self) -> float:
        """The least of the rounds."""
        return min(self.rounds)

    @property
    def most(self) -> float:
        """The most of the rounds."""
        return max(self.rounds)


class Recorder(Protocol):
    """Gets everything that is measured."""

    def step(self, part: str, what: str) -> None:
        """Note that a measurement begins."""

    def figure(self, figure: Figure) -> None:
        """Keep a figure."""

    def setting(self, name: str, value: object) -> None:
        """Keep a choice that figures depend on; a plain value."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How often and how long to measure: in all less than two minutes, and some 20 s if quick."""

    quick: bool
    round_count: int
    call_round_s: float  # a round of one call: dozens of ML-DSA signatures, which vary in time by chance
    flow_round_s: float  # a round of a flow: long enough for congestion control to find its rate
    ping_count: int  # per round
    starts_s_max: float  # spent on starting processes: a small board takes seconds for one

    @classmethod
    def of(cls, *, quick: bool) -> Plan:
        """Return the full plan, or the quick one."""
        if quick:
            return cls(True, 3, 0.02, 0.5, 50, 3.0)
        return cls(False, 5, 0.05, 2.0, 200, 8.0)


def seconds_each(batch: Callable[[], int], plan: Plan) -> tuple[float, ...]:
    """Return, for every round, the processor seconds of one call; batch() makes some and returns how many."""
    batch()  # warms up: page faults, caches, the clock of a sleeping processor
    return tuple(_round(batch, plan.call_round_s) for _ in range(plan.round_count))


def _round(batch: Callable[[], int], round_s: float) -> float:
    spent, count = 0.0, 0
    while spent < round_s:
        began = thread_time()  # processor time of this thread: the time of other processes does not count
        count += batch()
        spent += thread_time() - began
    return spent / count


def per_second(amount: float, seconds: Sequence[float]) -> tuple[float, ...]:
    """Return the rates of doing amount in each of seconds."""
    return tuple(amount / each for each in seconds)
