"""The partition table of an image or a card: where each partition lies.  Every byte of it is hostile until parsed.

A GPT (UEFI specification, section 5.3) stands in the sectors after the first; an image for boards whose boot ROM reads
an MBR has both, and the GPT counts.  Its second copy at the end of the disk is not read: an image on a larger card has
it in the middle until the first boot moves it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Final, NamedTuple

from conflux.errors import UserError

SECTOR_BYTES: Final = 512
HEAD_BYTES: Final = 1 << 20  # the table and what belongs to it end before the first partition, which is aligned
ENTRY_COUNT_MAX: Final = 128  # what every program that makes a table makes
ENTRY_SIZE_MAX: Final = 512
BOOTCONFIG: Final = "bootconfig"  # the FAT partition that a person may edit

_SIGNATURE: Final = b"EFI PART"
_HEADER: Final = struct.Struct("<8sIIIIQQQQ16sQIII")
_ENTRY: Final = struct.Struct("<16s16sQQQ72s")

Read = Callable[[int, int], bytes]
"""Reads from a place: offset and count, in bytes; the answer is shorter at the end."""


class Partition(NamedTuple):
    """One partition.  offset, size: bytes."""

    name: str
    offset: int
    size: int


class Table(NamedTuple):
    """A partition table.  disk_bytes: of the disk that it was made for, which is the size of a whole image."""

    disk_bytes: int
    partitions: tuple[Partition, ...]

    def find(self, name: str) -> Partition | None:
        """Return the partition of that name, or None."""
        return next((each for each in self.partitions if each.name == name), None)


def parse_untrusted(read: Read, what: str) -> Table:
    """Return the table of what can be read.  what: its name, for errors.  Raises UserError if none holds."""
    sector = read(SECTOR_BYTES, SECTOR_BYTES)
    if len(sector) < SECTOR_BYTES or not sector.startswith(_SIGNATURE):
        raise UserError(f"{what}: no image of Conflux: it has no partition table (GPT)")
    (_, _, header_bytes, check, _, _, last, _, _, _, entries_at, count, entry_bytes, entries_check) = (
        _HEADER.unpack_from(sector)
    )
    if not _HEADER.size <= header_bytes <= SECTOR_BYTES:
        raise _damaged(what, f"a header of {header_bytes} bytes")
    blanked = sector[:16] + bytes(4) + sector[20:header_bytes]
    if zlib.crc32(blanked) != check:
        raise _damaged(what, "the checksum of its header")
    if not (0 < count <= ENTRY_COUNT_MAX and _ENTRY.size <= entry_bytes <= ENTRY_SIZE_MAX):
        raise _damaged(what, f"{count} entries of {entry_bytes} bytes")
    if not 2 <= entries_at <= HEAD_BYTES // SECTOR_BYTES:
        raise _damaged(what, f"its entries are at sector {entries_at}")
    entries = read(entries_at * SECTOR_BYTES, count * entry_bytes)
    if len(entries) < count * entry_bytes or zlib.crc32(entries) != entries_check:
        raise _damaged(what, "the checksum of its entries")
    found = []
    for index in range(count):
        kind, _, first, end, _, name = _ENTRY.unpack_from(entries, index * entry_bytes)
        if kind == bytes(16):
            continue
        if not 2 <= first <= end <= last:
            raise _damaged(what, f"partition {index + 1} lies outside the disk")
        words = name.decode("utf-16-le", "replace").partition("\0")[0]
        found.append(Partition(words, first * SECTOR_BYTES, (end - first + 1) * SECTOR_BYTES))
    return Table((last + 1) * SECTOR_BYTES, tuple(found))


def bootconfig(table: Table, what: str) -> Partition:
    """Return the partition that holds conflux.toml.  Raises UserError if there is none."""
    found = table.find(BOOTCONFIG)
    if found is None:
        raise UserError(f"{what}: no image of Conflux: it has no partition {BOOTCONFIG}")
    return found


def _damaged(what: str, why: str) -> UserError:
    return UserError(f"{what}: its partition table is damaged ({why})")
