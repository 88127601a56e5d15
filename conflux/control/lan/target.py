"""Somebody to connect to, found by mDNS or named in the configuration, and when to try."""

from __future__ import annotations

import asyncio
import contextlib
import random

from conflux.control.lan.config import REDIAL_S_MAX, REDIAL_S_MIN
from conflux.ids import NodeId

YIELD_S = 0.5  # what the larger instance waits for the smaller to dial: one handshake instead of two


class Backoff:
    """Waits between tries: doubling, with jitter over the upper half, so that nodes do not dial in step."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._delay_s = REDIAL_S_MIN

    def next_s(self) -> float:
        """Return how long to wait now."""
        delay_s = self._delay_s * self._rng.uniform(0.5, 1.0)
        self._delay_s = min(self._delay_s * 2, REDIAL_S_MAX)
        return delay_s

    def reset(self) -> None:
        """Start from the shortest wait."""
        self._delay_s = REDIAL_S_MIN


class Target:
    """places: (host, port) each.  instance: the name it is announced under; None for a configured one, until met."""

    def __init__(
        self, places: tuple[tuple[str, int], ...], instance: bytes | None, *, yields: bool, rng: random.Random
    ) -> None:
        self.places = places
        self.instance = instance
        self.announced = instance is not None
        self.node: NodeId | None = None  # once met
        self.over = False  # nobody is there any more
        self.failed = False  # the last try did
        self.backoff = Backoff(rng)
        self.task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._extra_s = YIELD_S if yields else 0.0

    def wake(self) -> None:
        """Something changed: look again, now."""
        self._wake.set()

    async def wait(self, delay_s: float | None) -> None:
        """Wait until woken, or for delay_s; None: until woken."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._wake.wait()
        self._wake.clear()

    def delay_s(self) -> float:
        """Return how long to wait before the next try."""
        return self.backoff.next_s() + self._extra_s
