"""Labels: the hop-local numbers frames are switched on."""

from __future__ import annotations

from collections.abc import Callable

from conflux.ids import LinkId


class Labels:
    """The labels we gave out: random, not zero, each unique on its link, so that none can be guessed from another."""

    def __init__(self, entropy: Callable[[int], bytes]) -> None:
        self._entropy = entropy
        self._used: dict[LinkId, set[int]] = {}

    def take(self, link: LinkId) -> int:
        """Return a fresh label for a link."""
        used = self._used.setdefault(link, set())
        while True:
            label = int.from_bytes(self._entropy(4))
            if label and label not in used:
                used.add(label)
                return label

    def free(self, link: LinkId, label: int) -> None:
        """Let a label go.  No-op if it is not in use."""
        used = self._used.get(link)
        if used is not None:
            used.discard(label)
            if not used:
                del self._used[link]
