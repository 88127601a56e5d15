"""How a fuzzer's bytes become a parser's input.

A signature or a key has kilobytes, and no single byte of them matters.  They are written as a run of zeros, so that the
fuzzer changes the bytes that matter.  No item of canonical CBOR begins with 0xF8, so it is the mark:

    F8 hh ll    that many zero bytes, at most 4095; none: the byte F8 itself

A machine is driven by a script: bytes that choose what happens, and chunks (a length of two bytes, then that many
bytes) that a peer says to it.
"""

from __future__ import annotations

import re

_MARK = re.compile(rb"\xf8(..)?", re.DOTALL)
_RUN = re.compile(rb"\0{8,4095}|\xf8")
_SIZE_MAX = 4095


def expand(data: bytes) -> bytes:
    """Return what the shorthand stands for."""

    def run(match: re.Match[bytes]) -> bytes:
        return bytes(int.from_bytes(match[1] or b"") & _SIZE_MAX) or b"\xf8"

    return _MARK.sub(run, data)


def shorten(data: bytes) -> bytes:
    """Return the shorthand of data."""
    return _RUN.sub(lambda run: b"\xf8" + (0 if run[0] == b"\xf8" else len(run[0])).to_bytes(2), data)


def chunk(data: bytes) -> bytes:
    """Return the script's form of one chunk."""
    short = shorten(data)
    return len(short).to_bytes(2) + short


class Script:
    """Reads a script; past its end everything is zero or empty."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def __bool__(self) -> bool:
        return self._position < len(self._data)

    def byte(self) -> int:
        return self._take(1)[0] if self else 0

    def chunk(self) -> bytes:
        return expand(self._take(int.from_bytes(self._take(2))))

    def _take(self, size: int) -> bytes:
        taken = self._data[self._position : self._position + size]
        self._position += size
        return taken
