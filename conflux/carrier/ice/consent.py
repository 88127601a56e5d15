"""When to ask a peer whether it still wants our datagrams (RFC 7675), seldom, and so that two lost checks end nothing.

    answered ── 16 s ± 20 % ──► check ─ no answer ─► 4 s + 20 % ──► check ─ …      lost 30 s after the answer

A router's binding for UDP lives 30 s or more, so these checks keep it too.  Sans-IO.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

# Section 5.1 has 5 s by default and does not bound it, but for what follows.  Two checks more fit before consent ends.
INTERVAL_S: Final = 16.0
AGAIN_S: Final = 4.0  # after a check without an answer, and up to 20 % more; the section allows no less
EXPIRES_S: Final = 30.0  # section 5.1
SPREAD: Final = 0.2  # either way, as section 5.1 requires, so that checks of many links do not fall together


class Consent:
    """One peer's consent.  random: returns a number from 0 to 1.  now: when it was given first."""

    def __init__(self, random: Callable[[], float], *, now: float) -> None:
        self._random = random
        self._answered_at = now
        self._next_at = now + self._about(INTERVAL_S)

    def wait_s(self, *, now: float) -> float | None:
        """Return how long to wait before the next check; None: consent is lost."""
        if now >= self._answered_at + EXPIRES_S:
            return None
        return max(0.0, min(self._next_at, self._answered_at + EXPIRES_S) - now)

    def is_due(self, *, now: float) -> bool:
        """Say whether to send a check now."""
        return self._next_at <= now < self._answered_at + EXPIRES_S

    def checked(self, *, is_answered: bool, now: float) -> None:
        """Take what became of a check, which was sent once."""
        if is_answered:
            self._answered_at = now
            self._next_at = now + self._about(INTERVAL_S)
        else:
            self._next_at = now + AGAIN_S * (1 + SPREAD * self._random())

    def _about(self, seconds: float) -> float:
        return seconds * (1 + SPREAD * (2 * self._random() - 1))
