"""Entries other than packets that wait for a stream's next frame."""

from __future__ import annotations

from conflux.anchor.frame import ENTRY_HEADER_BYTES
from conflux.errors import LocalProtocolError


class Entries:
    """At most as many, and as large, as fit one frame."""

    __slots__ = ("_bytes", "_bytes_max", "_count_max", "_waiting")

    def __init__(self, *, count_max: int, bytes_max: int) -> None:
        self._count_max = count_max
        self._bytes_max = bytes_max
        self._waiting: list[tuple[int, bytes]] = []
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def push(self, kind: int, body: bytes) -> None:
        """Keep one entry.  Raises LocalProtocolError when one frame could not hold what waits."""
        size = self._bytes + ENTRY_HEADER_BYTES + len(body)
        if len(self._waiting) >= self._count_max or size > self._bytes_max:
            raise LocalProtocolError("too many entries wait for one frame")
        self._waiting.append((kind, body))
        self._bytes = size

    def take(self) -> tuple[list[tuple[int, bytes]], int]:
        """Return what waits and how many bytes of bundle it is; nothing waits afterwards."""
        taken, size = self._waiting, self._bytes
        self._waiting, self._bytes = [], 0
        return taken, size
