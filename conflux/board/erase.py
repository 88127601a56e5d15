"""Taking a secret out of a file on a FAT file system, so that a power cut at any moment leaves a file that is whole.

FAT has no journal, and to replace a file is several writes.  So the bytes are overwritten where they are, by as many
others: no cluster and no directory entry changes.  A sector is written or not; a text of which one sector is written
still is one TOML string, which says that it was used, or is no valid token, and the next boot finishes the work.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

USED: Final = b"used"
TOKEN: Final = b"cfx1"
# The boundary of two sectors may lie within the first bytes.
_HEADS: Final = frozenset(
    first[:cut] + second[cut:] for first, second in ((USED, TOKEN), (TOKEN, USED)) for cut in range(len(USED) + 1)
)
_VALUE: Final = re.compile(
    rb"""^[ \t]*(?:board[ \t]*\.[ \t]*)?token[ \t]*=[ \t]*(?P<quote>["'])(?P<value>[^"'\r\n]*)(?P=quote)""",
    re.MULTILINE,
)


class Patch(NamedTuple):
    """Bytes that are to be written at a place of the file."""

    offset: int
    data: bytes


def patches(data: bytes, secret: bytes) -> list[Patch]:
    """Return what overwrites every occurrence of a secret, also one in a comment."""
    return [Patch(found.start(), filler(len(secret))) for found in re.finditer(re.escape(secret), data)]


def leftovers(data: bytes) -> list[Patch]:
    """Return what finishes an erasure that was cut short: of values of `token` that are a mixture of both."""
    return [
        Patch(found.start("value"), filler(len(found["value"])))
        for found in _VALUE.finditer(data)
        if is_mixture(found["value"])
    ]


def is_mixture(value: bytes) -> bool:
    """Say whether a value was a token, and is one no more: a token has no space in it, and begins with "cfx1"."""
    head = value[: len(TOKEN)]
    return value != filler(len(value)) and head in _HEADS and (head != TOKEN or b" " in value)


def filler(size: int) -> bytes:
    """Return what stands in the place of a secret of so many bytes."""
    return USED.ljust(size)[:size]


def applied(data: bytes, changes: list[Patch]) -> bytes:
    """Return the file as it is then."""
    whole = bytearray(data)
    for offset, new in changes:
        whole[offset : offset + len(new)] = new
    return bytes(whole)
