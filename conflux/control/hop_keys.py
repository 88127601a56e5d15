"""This node's hop keys: other nodes seal messages and onion layers to them.

key 1 |───────── 1 h ─────────|── 15 min ──|  erased
key 2                         |───────── 1 h ─────────|── 15 min ──| …

A new key replaces the current one every hour.  The keys live in memory only.
"""

from __future__ import annotations

from collections.abc import Callable

from conflux.crypto.seal import SealKey
from conflux.realm.card import hop_key_id_of

LIFETIME_S = 3600.0
OVERLAP_S = 900.0  # a hop key stays valid for this long after its last card was made; less than LIFETIME_S


class HopKeys:
    """The current key and, for a while, the one before."""

    def __init__(self, generate: Callable[[], SealKey], *, now: float) -> None:
        self._generate = generate
        self.current = generate()
        self.key_id = hop_key_id_of(self.current.public)
        self._previous: tuple[bytes, SealKey] | None = None
        self._replace_at = now + LIFETIME_S
        self._erase_at = 0.0

    def find(self, key_id: bytes) -> SealKey | None:
        """Return the private key of that id, if it is still valid."""
        if key_id == self.key_id:
            return self.current
        if self._previous is not None and self._previous[0] == key_id:
            return self._previous[1]
        return None

    def next_timeout(self) -> float:
        """Return when handle_timeout() has something to do."""
        return self._replace_at if self._previous is None else min(self._replace_at, self._erase_at)

    def handle_timeout(self, *, now: float) -> bool:
        """Do what is due; return True if the current key is a new one."""
        if self._previous is not None and now >= self._erase_at:
            self._erase_previous()
        if now < self._replace_at:
            return False
        self._previous = (self.key_id, self.current)
        self._erase_at = now + OVERLAP_S
        self._replace_at = now + LIFETIME_S
        self.current = self._generate()
        self.key_id = hop_key_id_of(self.current.public)
        return True

    def erase(self) -> None:
        """Erase both keys.  Afterwards the current one is of no use."""
        self.current.erase()
        self._erase_previous()

    def _erase_previous(self) -> None:
        if self._previous is not None:
            self._previous[1].erase()
            self._previous = None
