"""SD cards and their images, made here: a FAT file system, a partition table, and a small image that has both."""

from __future__ import annotations

import struct
import uuid
import zlib

from conflux.board.fat import Fat, Stamp
from conflux.board.table import HEAD_BYTES, SECTOR_BYTES

STAMP = Stamp(2026, 12, 1, 10, 30, 7)
MIB = 1 << 20
LAYOUT = (("bootconfig", 4 * MIB), ("bootstate", MIB), ("system_a", 3 * MIB + 5 * SECTOR_BYTES), ("data", MIB))
_LINUX = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4").bytes_le


class Disk:
    """Bytes that are read and written at a place.  writes: how many more are taken; None: all."""

    def __init__(self, data: bytes | bytearray) -> None:
        self.data = bytearray(data)
        self.writes: int | None = None

    def read(self, offset: int, count: int) -> bytes:
        return bytes(self.data[offset : offset + count])

    def write(self, offset: int, data: bytes) -> None:
        if self.writes is not None:
            if not self.writes:
                raise PulledOut
            self.writes -= 1
        assert offset + len(data) <= len(self.data)
        self.data[offset : offset + len(data)] = data

    def fat(self) -> Fat:
        return Fat(self.read, self.write, "card")


class PulledOut(Exception):
    """The card is not there any more."""


def formatted(bits: int, *, clusters: int | None = None, root_entries: int = 64) -> bytearray:
    """Return an empty FAT file system of 512-byte clusters.  clusters: how many; by the kind if not given."""
    count = clusters or {12: 2000, 16: 8000, 32: 66000}[bits]
    fat_sectors = -(-((count + 2) * bits // 8 + 1) // SECTOR_BYTES)
    reserved, root_entries = (32, 0) if bits == 32 else (1, root_entries)
    total = reserved + 2 * fat_sectors + root_entries * 32 // SECTOR_BYTES + count
    data = bytearray(total * SECTOR_BYTES)
    small, large = (0, total) if bits == 32 or total > 0xFFFF else (total, 0)
    short_fat = 0 if bits == 32 else fat_sectors
    struct.pack_into("<HBHBHHBH", data, 11, SECTOR_BYTES, 1, reserved, 2, root_entries, small, 0xF8, short_fat)
    struct.pack_into("<I", data, 32, large)
    data[510:512] = b"\x55\xaa"
    if bits == 32:
        struct.pack_into("<IHHIHH", data, 36, fat_sectors, 0, 0, 2, 1, 6)
        data[SECTOR_BYTES : SECTOR_BYTES + 4] = b"RRaA"
        struct.pack_into("<II", data, SECTOR_BYTES + 488, count - 1, 3)
    start = {12: b"\xf8\xff\xff", 16: b"\xf8\xff\xff\xff", 32: b"\xf8\xff\xff\x0f\xff\xff\xff\x0f\xf8\xff\xff\x0f"}[
        bits
    ]
    for copy in range(2):
        at = (reserved + copy * fat_sectors) * SECTOR_BYTES
        data[at : at + len(start)] = start
    return data


def with_table(partitions: tuple[tuple[str, bytes], ...], *, spare_sectors: int = 34) -> bytearray:
    """Return a disk with a GPT and these partitions, the first one at HEAD_BYTES."""
    entries = bytearray(128 * 128)
    offset = HEAD_BYTES
    places = []
    for index, (name, content) in enumerate(partitions):
        assert len(content) % SECTOR_BYTES == 0
        first, last = offset // SECTOR_BYTES, (offset + len(content)) // SECTOR_BYTES - 1
        struct.pack_into(
            "<16s16sQQQ72s",
            entries,
            index * 128,
            _LINUX,
            uuid.uuid5(uuid.NAMESPACE_URL, name).bytes_le,
            first,
            last,
            0,
            name.encode("utf-16-le"),
        )
        places.append(offset)
        offset = -(-(offset + len(content)) // MIB) * MIB
    sectors = offset // SECTOR_BYTES + spare_sectors
    disk = bytearray(sectors * SECTOR_BYTES)
    for place, (_, content) in zip(places, partitions, strict=True):
        disk[place : place + len(content)] = content
    head = header(entries, sectors - 1)
    disk[SECTOR_BYTES : SECTOR_BYTES + len(head)] = head
    disk[2 * SECTOR_BYTES : 2 * SECTOR_BYTES + len(entries)] = entries
    disk[510:512] = b"\x55\xaa"
    return disk


def header(
    entries: bytes | bytearray, last: int, *, entries_at: int = 2, count: int = 128, entry_bytes: int = 128
) -> bytes:
    """Return a header of a GPT whose checksum holds.  last: the disk's last sector."""
    check = zlib.crc32(entries[: count * entry_bytes])
    fields = [b"EFI PART", 0x10000, 92, 0, 0, 1, last, 34, last - 33, bytes(16), entries_at, count, entry_bytes, check]
    layout = struct.Struct("<8sIIIIQQQQ16sQIII")
    fields[3] = zlib.crc32(layout.pack(*fields))
    return layout.pack(*fields)


def image(*, clusters: int | None = None, more: int = 0) -> bytearray:
    """Return a small image in the layout of the boards, with a file on bootconfig.  more: bytes of data."""
    content = []
    for number, (name, size) in enumerate(LAYOUT):
        if name == "bootconfig":
            config = Disk(formatted(16, clusters=clusters))
            config.fat().save("config.txt", b"arm_64bit=1\n", STAMP)
            content.append((name, bytes(config.data)))
        else:
            content.append((name, bytes((number * 37 + each) & 0xFF for each in range(256)) * (size // 256)))
    return with_table((*content, ("more", bytes(more))) if more else tuple(content))


def free_clusters(fat: Fat) -> int:
    """Return how many clusters no file has."""
    return sum(fat._next(cluster) == 0 for cluster in range(2, fat._clusters_end))
