"""Our hop keys: what others seal messages and onion layers to.  They turn hourly and live in memory only.

key 1 |───────── 1 h ─────────|── 15 min ──|  erased
key 2                         |───────── 1 h ─────────|── 15 min ──| …
"""

from __future__ import annotations

from collections.abc import Callable

from conflux.crypto.seal import SealKey
from conflux.realm.card import hop_key_id_of

LIFETIME_S = 3600.0
OVERLAP_S = 900.0  # how long cards of before the turn still serve


class HopKeys:
    """The current key and, for a while, the one before."""

    def __init__(self, generate: Callable[[], SealKey], *, now: float) -> None:
        self._generate = generate
        self.current = generate()
        self.key_id = hop_key_id_of(self.current.public)
        self._previous: tuple[bytes, SealKey] | None = None
        self._turn_at = now + LIFETIME_S
        self._erase_at = 0.0

    def find(self, key_id: bytes) -> SealKey | None:
        """Return the private key of that id, if it still serves."""
        if key_id == self.key_id:
            return self.current
        if self._previous is not None and self._previous[0] == key_id:
            return self._previous[1]
        return None

    def next_timeout(self) -> float:
        """Return when turn() has something to do."""
        return self._turn_at if self._previous is None else min(self._turn_at, self._erase_at)

    def turn(self, now: float) -> bool:
        """Do what is due; return True if the current key is a new one."""
        if self._previous is not None and now >= self._erase_at:
            self._previous[1].erase()
            self._previous = None
        if now < self._turn_at:
            return False
        if self._previous is not None:  # asleep for longer than the overlap
            self._previous[1].erase()
        self._previous = (self.key_id, self.current)
        self._erase_at = now + OVERLAP_S
        self._turn_at = now + LIFETIME_S
        self.current = self._generate()
        self.key_id = hop_key_id_of(self.current.public)
        return True

    def erase(self) -> None:
        """Forget both keys."""
        self.current.erase()
        if self._previous is not None:
            self._previous[1].erase()
