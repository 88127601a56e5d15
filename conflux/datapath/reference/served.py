"""How much a queue may hold: a bound in bytes that grows with the rate at which the queue is served.

      bound  ▲             ┌──────────── FACTOR_MAX x bytes_max
             │            /
   bytes_max ├───────────┘               what left within WINDOW_S, lately
             └──────────────────────────────► rate

On a busy processor, the thread that serves a queue may be kept waiting for milliseconds.  What arrives in that time is
not a standing queue, yet at 2 Gbit/s 1 MiB arrives in 4 ms: the same bytes are much for a slow link and little for a
fast one.  What left the queue lately tells the two apart without asking the link.  A sender cannot enlarge the bound
unless the link really takes as much.
"""

from __future__ import annotations

from typing import Final

WINDOW_S: Final = 0.05  # several time slices of the scheduler; no longer than a fast flow may be delayed
WINDOW_COUNT_MAX: Final = 20  # after 1 s without traffic the rate is unknown
FACTOR_MAX: Final = 4  # the bound grows from 168 Mbit/s (1 MiB a window) to 671 Mbit/s; more would cost memory
FORGOTTEN_SHARE: Final = 8  # the best window loses 1/8 in every window: half of it in a quarter of a second


class Served:
    """How many bytes left a queue in the best recent window."""

    __slots__ = ("_began", "_best", "_bytes")

    def __init__(self) -> None:
        self._began = 0.0
        self._bytes = 0  # that left in the window which began then
        self._best = 0

    def add(self, size: int, now: float) -> None:
        """Take note that so many bytes left."""
        self._advance(now)
        self._bytes += size

    def bound(self, bytes_max: int, now: float) -> int:
        """Return how many bytes may wait; bytes_max is the least that may."""
        self._advance(now)
        return min(max(bytes_max, self._best, self._bytes), FACTOR_MAX * bytes_max)

    def _advance(self, now: float) -> None:
        """Begin a new window if this one is over; the best loses a share for each window that passed."""
        count = int((now - self._began) / WINDOW_S)
        if count < 1:
            return
        if count > WINDOW_COUNT_MAX:
            self._best = self._bytes = 0
        for _ in range(min(count, WINDOW_COUNT_MAX)):
            self._best = max(self._best - self._best // FORGOTTEN_SHARE, self._bytes)
            self._bytes = 0
        self._began = now
