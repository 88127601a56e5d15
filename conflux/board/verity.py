"""The hash tree of dm-verity, version 1: says whether the content of a bundle is what its signature covers.

RAUC has the kernel check each block while it writes; this checks all of them before anything is written.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

BLOCK_BYTES = 4096
_HASHES = BLOCK_BYTES // 32  # in a block


class Tree:
    """Takes blocks in order, and keeps one unfinished block of hashes for each level."""

    def __init__(self, salt: bytes) -> None:
        self._salted = sha256(salt)
        self._levels: list[list[bytes]] = [[]]

    def add(self, block: bytes) -> None:
        """Take the next block.  Raises ValueError if it is not a whole one."""
        if len(block) != BLOCK_BYTES:
            raise ValueError("a block is cut short")
        self._put(0, self._hash(block))

    def root(self) -> bytes:
        """Return the hash at the root.  No block is taken afterwards.  Raises ValueError if there was none."""
        if not self._levels[0] and len(self._levels) == 1:
            raise ValueError("there is no block")
        level = 0
        while level < len(self._levels) - 1 or len(self._levels[level]) > 1 or level == 0:
            if self._levels[level]:
                self._close(level)
            level += 1
        return self._levels[level][0]

    def _put(self, level: int, digest: bytes) -> None:
        if level == len(self._levels):
            self._levels.append([])
        self._levels[level].append(digest)
        if len(self._levels[level]) == _HASHES:
            self._close(level)

    def _close(self, level: int) -> None:
        block = b"".join(self._levels[level]).ljust(BLOCK_BYTES, b"\0")
        self._levels[level] = []
        self._put(level + 1, self._hash(block))

    def _hash(self, block: bytes) -> bytes:
        hashed = self._salted.copy()
        hashed.update(block)
        return hashed.digest()


def root_of(blocks: Iterable[bytes], salt: bytes) -> bytes:
    """Return the root hash of blocks.  Raises ValueError."""
    tree = Tree(salt)
    for block in blocks:
        tree.add(block)
    return tree.root()
