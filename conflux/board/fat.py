"""A file in the top folder of a FAT file system, read and written without mounting it.

Mounting needs root, a kernel with vfat, and a desktop that does not mount the card at the same moment; mtools would
have to be installed where a person flashes a card, and cannot change an image on its way to the card.  What is needed
of FAT here is little: one folder, small files, whole contents.  Source: Microsoft, "FAT32 File System Specification"
(2000), whose names are used.

A change can be cut off at any byte, as when a card is pulled out: the old content stays until the directory entry is
switched, which is one write of one sector.  At worst some clusters are lost, as fsck has it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final, NamedTuple

from conflux.errors import UserError

FILE_BYTES_MAX: Final = 1 << 20  # of a file that is read or written here
FAT_BYTES_MAX: Final = 8 << 20  # held in memory; the card's has 100 kB
FOLDER_BYTES_MAX: Final = 1 << 20
NAME_CHARS_MAX: Final = 64

ENTRY_BYTES: Final = 32
NAME_PART_CHARS: Final = 13  # of a long name, in one entry
_LONG, _VOLUME, _FOLDER, _ARCHIVE = 0x0F, 0x08, 0x10, 0x20
_DELETED, _END = 0xE5, 0x00
_LOWER_STEM, _LOWER_EXTENSION = 0x08, 0x10  # as Windows NT and Linux mark them
_LAST_PART: Final = 0x40
_SHORT_CHARS: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'()-@^_`{}~")

Read = Callable[[int, int], bytes]
Write = Callable[[int, bytes], None]


class Stamp(NamedTuple):
    """A local time, as FAT keeps it."""

    year: int
    month: int
    day: int
    hour: int
    minute: int
    second: int

    @property
    def date(self) -> int:
        """The date in 16 bits."""
        return (min(max(self.year - 1980, 0), 127) << 9) | (self.month << 5) | self.day

    @property
    def time(self) -> int:
        """The time in 16 bits, in steps of two seconds."""
        return (self.hour << 11) | (self.minute << 5) | (self.second // 2)


class Entry(NamedTuple):
    """A file or folder.  at: index of its last 32 bytes in the folder.  first: index of its first ones."""

    name: str
    short: str
    size: int
    cluster: int
    is_folder: bool
    first: int
    at: int


class Fat:
    """The top folder of one file system.  read, write: of its bytes.  what: its name, for errors."""

    def __init__(self, read: Read, write: Write | None, what: str) -> None:
        self._read, self._write, self._what = read, write, what
        boot = self._bytes(0, 512)
        (sector, self._sectors_a_cluster, reserved, self._fat_count, root_count, total, _, fat_sectors) = (
            struct.unpack_from("<HBHBHHBH", boot, 11)
        )
        total = total or struct.unpack_from("<I", boot, 32)[0]
        fat_sectors = fat_sectors or struct.unpack_from("<I", boot, 36)[0]
        if boot[510:512] != b"\x55\xaa" or sector not in (512, 1024, 2048, 4096):
            raise self._broken("no FAT file system")
        if self._sectors_a_cluster not in (1, 2, 4, 8, 16, 32, 64, 128) or self._fat_count not in (1, 2):
            raise self._broken("its first sector makes no sense")
        root_sectors = (root_count * ENTRY_BYTES + sector - 1) // sector
        data_sector = reserved + self._fat_count * fat_sectors + root_sectors
        if not reserved or not fat_sectors or fat_sectors * sector > FAT_BYTES_MAX or data_sector >= total:
            raise self._broken("its first sector makes no sense")
        self._sector = sector
        self._fat_at = reserved * sector
        self._fat_bytes = fat_sectors * sector
        self._root_at = (data_sector - root_sectors) * sector
        self._root_bytes = root_count * ENTRY_BYTES
        self._data_at: int = data_sector * sector
        self._cluster_bytes: int = sector * self._sectors_a_cluster
        count = (total - data_sector) // self._sectors_a_cluster
        self._bits = 12 if count < 4085 else 16 if count < 65525 else 32
        self._clusters_end = 2 + min(count, self._fat_bytes * 8 // self._bits - 2)
        if (root_count == 0) != (self._bits == 32):
            raise self._broken("its first sector makes no sense")
        self._root_cluster = struct.unpack_from("<I", boot, 44)[0] if self._bits == 32 else 0
        self._info_sector = struct.unpack_from("<H", boot, 48)[0] if self._bits == 32 else 0
        self._table = bytearray(self._bytes(self._fat_at, self._fat_bytes))

    # ── what is there ──

    def entries(self) -> list[Entry]:
        """Return the files and folders of the top folder."""
        return list(_entries(self._folder()))

    def find(self, name: str) -> Entry | None:
        """Return the entry of that name, in any case, or None."""
        wanted = name.lower()
        return next((each for each in self.entries() if wanted in (each.name.lower(), each.short.lower())), None)

    def read(self, name: str) -> bytes | None:
        """Return a file's content, or None if there is none.  Raises UserError if it is damaged or too large."""
        entry = self.find(name)
        if entry is None or entry.is_folder:
            return None
        if entry.size > FILE_BYTES_MAX:
            raise self._broken(f"{name} has more than {FILE_BYTES_MAX} bytes")
        chain = self._chain(entry.cluster)
        if len(chain) * self._cluster_bytes < entry.size:
            raise self._broken(f"{name} is cut off")
        return b"".join(self._bytes(self._place(each), self._cluster_bytes) for each in chain)[: entry.size]

    # ── changing it ──

    def save(self, name: str, data: bytes, stamp: Stamp) -> None:
        """Make data the content of a file, completely or not at all; what it replaces is overwritten.

        Raises UserError if there is no room, or a folder has that name.
        """
        if not 0 < len(name) <= NAME_CHARS_MAX or not name.isascii() or not name.isprintable():
            raise ValueError(name)
        if len(data) > FILE_BYTES_MAX:
            raise UserError(f"{self._what}: {name}: more than {FILE_BYTES_MAX} bytes")
        former = self.find(name)
        if former is not None and former.is_folder:
            raise UserError(f"{self._what}: {name} is a folder there")
        chain = self._allocate(-(-len(data) // self._cluster_bytes), name)
        for number, cluster in enumerate(chain):
            part = data[number * self._cluster_bytes : (number + 1) * self._cluster_bytes]
            self._put(self._place(cluster), part.ljust(self._cluster_bytes, b"\0"))
        self._put_table()
        first = chain[0] if chain else 0
        if former is None:
            self._enter(name, _short_entry(self._short_name(name), first, len(data), stamp))
        else:
            kept = self._folder()[former.at * ENTRY_BYTES :][:ENTRY_BYTES]
            self._put_entries(former.at, _short_entry(kept[:11], first, len(data), stamp, cases=kept[12]))
            self._forget(former)

    def remove(self, name: str) -> None:
        """Remove a file, and overwrite what was in it.  No-op if there is none."""
        former = self.find(name)
        if former is None or former.is_folder:
            return
        folder = self._folder()
        for index in range(former.at, former.first - 1, -1):  # the last one first: the others are nothing without it
            entry = folder[index * ENTRY_BYTES : (index + 1) * ENTRY_BYTES]
            self._put_entries(index, bytes([_DELETED]) + entry[1:])
        self._forget(former)

    def _forget(self, entry: Entry) -> None:
        """Overwrite and free the clusters of an entry that is none any more."""
        chain = self._chain(entry.cluster)
        for cluster in chain:
            self._put(self._place(cluster), bytes(self._cluster_bytes))
            self._set(cluster, 0)
        if chain:
            self._put_table()

    def _enter(self, name: str, short: bytes) -> None:
        """Add an entry to the folder."""
        parts = _long_entries(name, short[:11])
        needed = len(parts) + 1
        folder = self._folder()
        run = 0
        for index in range(len(folder) // ENTRY_BYTES):
            run = run + 1 if folder[index * ENTRY_BYTES] in (_DELETED, _END) else 0
            if run == needed:
                first = index - needed + 1
                break
        else:
            self._grow(folder, needed)
            first = len(folder) // ENTRY_BYTES - run
        for number, part in enumerate([*parts, short]):  # the short one last: until then there is no such file
            self._put_entries(first + number, part)

    def _grow(self, folder: bytes, needed: int) -> None:
        """Add a cluster to the folder."""
        if self._bits != 32 or needed * ENTRY_BYTES > self._cluster_bytes:
            raise UserError(f"{self._what}: its top folder is full: remove a file")
        if not 0 < len(folder) <= FOLDER_BYTES_MAX - self._cluster_bytes:
            raise UserError(f"{self._what}: its top folder is full: remove a file")
        last = self._chain(self._root_cluster)[-1]
        (cluster,) = self._allocate(1, "a name")
        self._put(self._place(cluster), bytes(self._cluster_bytes))
        self._set(last, cluster)
        self._put_table()

    def _short_name(self, name: str) -> bytes:
        """Return the 11 bytes of a short name that no other entry has."""
        taken = {entry.short for entry in self.entries()}
        stem, _, extension = name.upper().rpartition(".") if "." in name else (name.upper(), "", "")
        stem = "".join(char for char in stem if char in _SHORT_CHARS) or "FILE"
        extension = "".join(char for char in extension if char in _SHORT_CHARS)[:3]
        for number in range(1, 1000):
            tail = f"~{number}"
            short = stem[: 8 - len(tail)] + tail
            if (f"{short}.{extension}" if extension else short) not in taken:
                return short.encode().ljust(8) + extension.encode().ljust(3)
        raise UserError(f"{self._what}: too many files with names like {name}")

    # ── clusters ──

    def _allocate(self, count: int, name: str) -> list[int]:
        """Take free clusters and chain them; the table on the disk is as before."""
        free = list(islice((each for each in range(2, self._clusters_end) if self._next(each) == 0), count))
        if len(free) < count:
            raise UserError(f"{self._what}: no room for {name}: remove files from that partition")
        for cluster, following in zip(free, [*free[1:], self._mark], strict=False):
            self._set(cluster, following)
        return free

    @property
    def _mark(self) -> int:
        """The end of a chain."""
        return (1 << min(self._bits, 28)) - 1

    def _chain(self, cluster: int) -> list[int]:
        """Return the clusters of a chain.  Raises UserError if it leads nowhere, or on for ever."""
        found: list[int] = []
        bound = max(FILE_BYTES_MAX, FOLDER_BYTES_MAX) // self._cluster_bytes + 1
        while cluster and cluster < self._mark - 7:
            if not 2 <= cluster < self._clusters_end or len(found) >= bound:
                raise self._broken("a chain of clusters leads nowhere")
            found.append(cluster)
            cluster = self._next(cluster)
        return found

    def _next(self, cluster: int) -> int:
        if self._bits == 12:
            pair: int = struct.unpack_from("<H", self._table, cluster * 3 // 2)[0]
            return pair >> 4 if cluster & 1 else pair & 0xFFF
        if self._bits == 16:
            return int(struct.unpack_from("<H", self._table, cluster * 2)[0])
        return int(struct.unpack_from("<I", self._table, cluster * 4)[0]) & 0x0FFFFFFF

    def _set(self, cluster: int, value: int) -> None:
        if self._bits == 12:
            at = cluster * 3 // 2
            pair = int(struct.unpack_from("<H", self._table, at)[0])
            pair = (pair & 0x000F) | (value << 4) if cluster & 1 else (pair & 0xF000) | value
            struct.pack_into("<H", self._table, at, pair)
        elif self._bits == 16:
            struct.pack_into("<H", self._table, cluster * 2, value)
        else:
            kept = int(struct.unpack_from("<I", self._table, cluster * 4)[0]) & 0xF0000000
            struct.pack_into("<I", self._table, cluster * 4, kept | value)

    def _place(self, cluster: int) -> int:
        return self._data_at + (cluster - 2) * self._cluster_bytes

    # ── bytes ──

    def _folder(self) -> bytes:
        if self._bits != 32:
            return self._bytes(self._root_at, self._root_bytes)
        chain = self._chain(self._root_cluster)
        return b"".join(self._bytes(self._place(each), self._cluster_bytes) for each in chain)

    def _put_entries(self, index: int, entry: bytes) -> None:
        """Write one entry, within its sector."""
        at = index * ENTRY_BYTES
        if self._bits != 32:
            self._put(self._root_at + at, entry)
            return
        chain = self._chain(self._root_cluster)
        self._put(self._place(chain[at // self._cluster_bytes]) + at % self._cluster_bytes, entry)

    def _put_table(self) -> None:
        """Write every copy of the allocation table, and say that the number of free clusters is not known."""
        for copy in range(self._fat_count):
            self._put(self._fat_at + copy * self._fat_bytes, bytes(self._table))
        if self._info_sector not in (0, 0xFFFF):
            info = self._info_sector * self._sector
            if self._bytes(info, 4) == b"RRaA" and info + 512 <= self._fat_at:
                self._put(info + 488, b"\xff" * 8)

    def _bytes(self, offset: int, count: int) -> bytes:
        data = self._read(offset, count)
        if len(data) != count:
            raise self._broken("it is cut off")
        return data

    def _put(self, offset: int, data: bytes) -> None:
        if self._write is None:
            raise ValueError("opened for reading")
        self._write(offset, data)

    def _broken(self, why: str) -> UserError:
        return UserError(f"{self._what}: {why}")


def _entries(folder: bytes) -> Iterator[Entry]:
    """Yield the entries of a folder; a long name whose parts do not fit its short one is left out."""
    parts: dict[int, str] = {}
    first = checksum = 0
    for index in range(len(folder) // ENTRY_BYTES):
        raw = folder[index * ENTRY_BYTES : (index + 1) * ENTRY_BYTES]
        if raw[0] == _END:
            return
        if raw[0] == _DELETED:
            parts = {}
            continue
        if raw[11] & 0x3F == _LONG:
            if raw[0] & _LAST_PART:
                parts, first, checksum = {}, index, raw[13]
            if raw[13] == checksum:
                parts[raw[0] & 0x1F] = (raw[1:11] + raw[14:26] + raw[28:32]).decode("utf-16-le", "replace")
            continue
        is_volume = bool(raw[11] & _VOLUME)
        short = _dotted(raw)
        whole = sorted(parts) == list(range(1, len(parts) + 1)) and checksum == _checksum(raw[:11])
        name = (
            "".join(parts[number] for number in sorted(parts)).partition("\0")[0]
            if parts and whole
            else _dotted(raw, raw[12])
        )
        begins, parts = (first if parts and whole else index), {}
        if not is_volume and short not in (".", ".."):
            cluster = (struct.unpack_from("<H", raw, 20)[0] << 16) | struct.unpack_from("<H", raw, 26)[0]
            size = struct.unpack_from("<I", raw, 28)[0]
            yield Entry(name, short, size, cluster, bool(raw[11] & _FOLDER), begins, index)


def _dotted(raw: bytes, cases: int = 0) -> str:
    """Return the short name of an entry: "CONFLU~1.TOM".  cases: which of its parts are shown in lower case."""
    stem, extension = (raw[start:end].decode("latin-1").rstrip(" ") for start, end in ((0, 8), (8, 11)))
    stem = stem.lower() if cases & _LOWER_STEM else stem
    extension = extension.lower() if cases & _LOWER_EXTENSION else extension
    return f"{stem}.{extension}" if extension else stem


def _short_entry(short: bytes, cluster: int, size: int, stamp: Stamp, cases: int = 0) -> bytes:
    """Return the 32 bytes of a file.  cases: which parts of a short name are shown in lower case."""
    high, low = cluster >> 16, cluster & 0xFFFF
    return struct.pack(
        "<11sBBBHHHHHHHI",
        short,
        _ARCHIVE,
        cases,
        0,
        stamp.time,
        stamp.date,
        stamp.date,
        high,
        stamp.time,
        stamp.date,
        low,
        size,
    )


def _long_entries(name: str, short: bytes) -> list[bytes]:
    """Return the entries of a long name, in the order of the folder: the last part comes first."""
    data = name.encode("utf-16-le")
    count = -(-len(name) // NAME_PART_CHARS)
    if len(name) % NAME_PART_CHARS:
        data += b"\0\0"
    data = data.ljust(count * NAME_PART_CHARS * 2, b"\xff")
    checksum = _checksum(short)
    found = []
    for number in range(count, 0, -1):
        part = data[(number - 1) * NAME_PART_CHARS * 2 : number * NAME_PART_CHARS * 2]
        order = number | (_LAST_PART if number == count else 0)
        head = bytes([order]) + part[:10] + bytes([_LONG, 0, checksum])
        found.append(head + part[10:22] + b"\0\0" + part[22:26])
    return found


def _checksum(short: bytes) -> int:
    value = 0
    for byte in short:
        value = ((value >> 1) | ((value & 1) << 7)) + byte & 0xFF
    return value
