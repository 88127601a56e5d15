"""How long to wait before the broker is tried again.  Sans-IO."""

from __future__ import annotations

import random

from conflux.control.nats.config import BACK_OFF_S_MAX, BACK_OFF_S_MIN, LOST_S_MAX, REFUSED_S, START_S_MAX


class BackOff:
    """Waits with full jitter below a bound that doubles with every failure in a row."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._bound_s = BACK_OFF_S_MIN

    def start_s(self) -> float:
        """Return how long to wait before the first round."""
        return self._rng.uniform(0.0, START_S_MAX)

    def lost_s(self, *, steady: bool) -> float:
        """Return how long to wait after a connection ended.  steady: it had lived long enough to be no flap."""
        if steady:
            self._bound_s = BACK_OFF_S_MIN
            return self._rng.uniform(0.0, LOST_S_MAX)
        return self._rng.uniform(0.0, LOST_S_MAX) + self.failed_s(round_s=LOST_S_MAX)

    def failed_s(self, *, round_s: float) -> float:
        """Return how long to wait after a round that failed and took round_s.

        Rounds begin at most BACK_OFF_S_MAX apart, so a broker that returns is found within that time.
        """
        wait_s = self._rng.uniform(0.0, self._bound_s)
        self._bound_s = min(2 * self._bound_s, BACK_OFF_S_MAX)
        return max(0.0, min(wait_s, BACK_OFF_S_MAX - round_s))

    def refused_s(self) -> float:
        """Return how long to wait after every server that answered refused."""
        return self._rng.uniform(*REFUSED_S)
