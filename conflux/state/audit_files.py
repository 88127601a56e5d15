"""The record of what an issuer did, as files: one line after the other, in segments of bounded size.

    audit-REALM/NUMBER.log      NUMBER: of the first entry in it

The oldest segment goes when there are too many.  A line is flushed to the disk before what it tells of takes effect.
If the power failed while it was written, the last line has no end: it is cut off, and the next entry says so.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from conflux.errors import RemoteProtocolError, StateError
from conflux.ids import RealmId
from conflux.realm.audit import LINE_BYTES_MAX, START, Head, decode_line, digest_of
from conflux.state.directory import StateDir

log = logging.getLogger(__name__)

SEGMENT_BYTES_MAX = 256 << 10  # about a thousand entries
SEGMENT_COUNT_MAX = 16  # chosen: 4 MiB, years of a realm of a hundred nodes
SUFFIX = ".log"


class AuditFiles:
    """See AuditLog."""

    def __init__(self, state: StateDir, realm_id: RealmId) -> None:
        self._state = state
        self._directory = f"audit-{realm_id.hex()[:16]}"
        self._torn_bytes = 0

    @property
    def path(self) -> Path:
        """The directory of the files."""
        return self._state.path / self._directory

    def head(self) -> Head:
        """See AuditLog.  Raises StateError if the last line is damaged."""
        for name in reversed(self._segments()):
            tail = self._whole_lines(name)
            if tail:
                line = tail.rstrip(b"\n").rpartition(b"\n")[2]
                try:
                    return Head(decode_line(line).number, digest_of(line))
                except RemoteProtocolError as error:
                    path = self._state.path / name
                    raise StateError(
                        f"{path}: its last line is damaged ({error}); keep a copy, and move it away"
                    ) from None
        return Head(0, START)

    def torn_bytes(self) -> int:
        """See AuditLog."""
        torn, self._torn_bytes = self._torn_bytes, 0
        return torn

    def append(self, line: bytes) -> None:
        """See AuditLog."""
        segments = self._segments()
        if not segments or self._state.size(segments[-1]) + len(line) > SEGMENT_BYTES_MAX:
            segments.append(f"{self._directory}/{decode_line(line).number:012d}{SUFFIX}")
        self._state.append(segments[-1], line)
        for name in segments[:-SEGMENT_COUNT_MAX]:
            self._state.remove(name)

    def lines(self) -> Iterator[bytes]:
        """Yield every line, the oldest first; a torn last line is left out."""
        for name in self._segments():
            data = self._state.read(name, bytes_max=2 * SEGMENT_BYTES_MAX) or b""
            yield from data[: data.rfind(b"\n") + 1].splitlines()

    def _segments(self) -> list[str]:
        return list(self._state.versions(self._directory, SUFFIX))

    def _whole_lines(self, name: str) -> bytes:
        """Return the end of a segment, at least one line, if it has any; cut a torn line off first."""
        size = self._state.size(name)
        tail = self._state.read_end(name, 2 * LINE_BYTES_MAX)
        torn = len(tail) - (tail.rfind(b"\n") + 1)
        if torn:
            log.warning("%s: %d bytes of a torn line are cut off", self._state.path / name, torn)
            self._state.cut(name, size - torn)
            self._torn_bytes += torn
        return tail[: len(tail) - torn]
