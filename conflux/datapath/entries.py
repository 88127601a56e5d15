"""Entries other than packets that wait for a stream's next frame."""

from __future__ import annotations

from collections.abc import Callable

from conflux.anchor.frame import ENTRY_HEADER_BYTES
from conflux.datapath.drop import Drop
from conflux.errors import LocalProtocolError


class Entries:
    """Bounded in count and size by one frame; beyond that the oldest entries are dropped as "entry-full".

    A peer decides how often we answer it, so too many entries are a drop and not an error of ours.  An entry that waits
    is not queued a second time: a repeated request gets one answer.
    """

    __slots__ = ("_bytes", "_bytes_max", "_count_max", "_drop", "_waiting")

    def __init__(self, *, count_max: int, bytes_max: int, drop: Callable[[str], None]) -> None:
        self._count_max = count_max
        self._bytes_max = bytes_max
        self._drop = drop
        self._waiting: list[tuple[int, bytes]] = []
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def push(self, kind: int, body: bytes) -> None:
        """Keep one entry.  Raises LocalProtocolError for an entry that no frame could hold."""
        entry = (kind, body)
        size = ENTRY_HEADER_BYTES + len(body)
        if size > self._bytes_max:
            raise LocalProtocolError("an entry larger than a frame's bundle")
        if entry in self._waiting:
            return
        while self._waiting and (len(self._waiting) >= self._count_max or self._bytes + size > self._bytes_max):
            self._bytes -= ENTRY_HEADER_BYTES + len(self._waiting.pop(0)[1])
            self._drop(Drop.ENTRY_FULL)
        self._waiting.append(entry)
        self._bytes += size

    def take(self) -> tuple[list[tuple[int, bytes]], int]:
        """Return and forget what waits, and its size in bytes of bundle."""
        taken, size = self._waiting, self._bytes
        self._waiting, self._bytes = [], 0
        return taken, size
