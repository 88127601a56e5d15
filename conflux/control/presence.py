"""When a node says that it is there, and how far.

Neighbours on LANs hear it four times an hour, and when there is a new card.  Over a broker a thousand nodes may hear
it: at the start, when something changed that concerns all, and four times a day.  Liveness is not known by it.
"""

from __future__ import annotations

import random

from conflux.control.envelope import Reach
from conflux.control.pending import JITTER

NEAR_PERIOD_S = 900.0
FAR_PERIOD_S = 6 * 3600.0
SOON_S_MAX = 2.0  # at random, so that boards on one power switch do not all speak at once
ENVELOPE_BYTES_MAX = 160  # of the whole envelope with a presence in it


class Presences:
    """The times at which a node says that it is there."""

    def __init__(self, *, rng: random.Random, now: float) -> None:
        self._rng = rng
        self._near_at = self._far_at = now + rng.uniform(0.0, SOON_S_MAX)
        self.stretch = 1.0  # by how much the periods are longer: bytes are short

    def soon(self, reach: Reach, *, now: float) -> None:
        """Say it soon, as something changed."""
        at = now + self._rng.uniform(0.0, SOON_S_MAX)
        if reach is Reach.ALL:
            self._far_at = at
        else:
            self._near_at = at

    def by(self, at: float) -> None:
        """Say it to all at that time, or before."""
        self._near_at, self._far_at = min(self._near_at, at), min(self._far_at, at)

    def next_timeout(self) -> float:
        """Return when take_due() has something to return."""
        return min(self._near_at, self._far_at)

    def take_due(self, *, now: float) -> Reach | None:
        """Return how far it is to be said now; None: not now."""
        if now < self.next_timeout():
            return None
        self._near_at = now + self._jittered(NEAR_PERIOD_S)
        if now < self._far_at:
            return Reach.NEAR
        self._far_at = now + self._jittered(FAR_PERIOD_S)
        return Reach.ALL

    def _jittered(self, period_s: float) -> float:
        return period_s * self.stretch * self._rng.uniform(1 - JITTER, 1 + JITTER)
