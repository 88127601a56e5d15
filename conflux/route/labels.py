"""Labels: the hop-local numbers frames are switched on."""

from __future__ import annotations

from collections.abc import Callable

from conflux.ids import LinkId


class Labels:
    """The labels this node gave out: random, not zero, unique on their link; none can be guessed from another."""

    def __init__(self, entropy: Callable[[int], bytes]) -> None:
        self._entropy = entropy
        self._used: dict[LinkId, set[int]] = {}

    def take(self, link: LinkId, wish: int = 0) -> int:
        """Return a fresh label for a link: the one that is wished for, if it can be had."""
        used = self._used.setdefault(link, set())
        if wish and wish not in used:
            used.add(wish)
            return wish
        while True:
            label = int.from_bytes(self._entropy(4))
            if label and label not in used:
                used.add(label)
                return label

    def free(self, link: LinkId, label: int) -> None:
        """Let a label be given out again.  No-op if it is not in use."""
        used = self._used.get(link)
        if used is not None:
            used.discard(label)
            if not used:
                del self._used[link]
