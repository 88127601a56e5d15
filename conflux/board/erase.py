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
ENCODINGS: Final = ("utf-8", "utf-16-le", "utf-16-be")  # of editors
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


def patches(data: bytes, secret: str) -> list[Patch]:
    """Return what overwrites every occurrence of a secret, also one in a comment, in each encoding of an editor."""
    return [
        Patch(found.start(), filler(len(secret.encode(encoding)), encoding))
        for encoding in ENCODINGS
        for found in re.finditer(re.escape(secret.encode(encoding)), data)
    ]


def leftovers(data: bytes) -> list[Patch]:
    """Return what finishes an erasure that was cut short: of values of `token` that are a mixture of both."""
    for mark, low, encoding in ((b"\xff\xfe", 0, "utf-16-le"), (b"\xfe\xff", 1, "utf-16-be")):
        if data.startswith(mark):
            narrow = bytes(
                pair[low] if not pair[1 - low] else 0xFF
                for pair in zip(data[0 : len(data) & ~1 : 2], data[1::2], strict=True)
            )
            return [Patch(2 * start, filler(2 * size, encoding)) for start, size in _mixtures(narrow)]
    return [Patch(start, filler(size)) for start, size in _mixtures(data)]


def _mixtures(data: bytes) -> list[tuple[int, int]]:
    """Return where values are that are a mixture, and how long each is."""
    return [
        (found.start("value"), len(found["value"])) for found in _VALUE.finditer(data) if is_mixture(found["value"])
    ]


def is_mixture(value: bytes) -> bool:
    """Say whether a value was a token, and is one no more: a token has no space in it, and begins with "cfx1"."""
    head = value[: len(TOKEN)]
    return value != filler(len(value)) and head in _HEADS and (head != TOKEN or b" " in value)


def filler(size: int, encoding: str = "utf-8") -> bytes:
    """Return what stands in the place of a secret of so many bytes."""
    text = USED.decode().encode(encoding)
    return (text + " ".encode(encoding) * size)[:size]


def applied(data: bytes, changes: list[Patch]) -> bytes:
    """Return the file as it is then."""
    whole = bytearray(data)
    for offset, new in changes:
        whole[offset : offset + len(new)] = new
    return bytes(whole)
