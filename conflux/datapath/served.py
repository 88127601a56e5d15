"""How much may wait: a bound in bytes that grows with the rate at which a queue is served.

      bound  ▲             ┌──────────── FACTOR_MAX x bytes_max
             │            /
   bytes_max ├───────────┘               what left within WINDOW_S lately
             └──────────────────────────────► rate

A processor that others want too keeps whoever serves a queue away for milliseconds.  What comes meanwhile is no
standing queue, but at 2 Gbit/s a MiB of it comes in 4 ms: the same bytes are much on a slow link and nothing on a fast
one.  What left lately says which it is, without asking the link, and nobody who sends can make that large without a way
out that takes as much.
"""

from __future__ import annotations

from typing import Final

WINDOW_S: Final = 0.05  # several slices of a processor among others; no longer than a fast flow may be held up
WINDOW_COUNT_MAX: Final = 20  # after a second without anything the rate is not known
FACTOR_MAX: Final = 4  # from 168 Mbit/s, where a window is 1 MiB, to 671; above it the time gets shorter: memory
FORGOTTEN_SHARE: Final = 8  # the best window loses an eighth with each: half is forgotten after a quarter of a second


class Served:
    """What left a queue in the best window lately."""

    __slots__ = ("_began", "_best", "_bytes")

    def __init__(self) -> None:
        self._began = 0.0
        self._bytes = 0  # in the window that began then
        self._best = 0

    def add(self, size: int, now: float) -> None:
        """Take note that so much left."""
        self._turn(now)
        self._bytes += size

    def bound(self, bytes_max: int, now: float) -> int:
        """Return how much may wait where bytes_max may anyway."""
        self._turn(now)
        return min(max(bytes_max, self._best, self._bytes), FACTOR_MAX * bytes_max)

    def _turn(self, now: float) -> None:
        """Begin a new window if this one is over.  A stall costs an eighth for each window that it takes."""
        count = int((now - self._began) / WINDOW_S)
        if count < 1:
            return
        if count > WINDOW_COUNT_MAX:
            self._best = self._bytes = 0
        for _ in range(min(count, WINDOW_COUNT_MAX)):
            self._best = max(self._best - self._best // FORGOTTEN_SHARE, self._bytes)
            self._bytes = 0
        self._began = now
