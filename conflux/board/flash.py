"""An image on its way to a card: written, read back, and only then given its first sectors.

The order is what makes a half-written card harmless: the old partition table goes first and the new one comes last, so
a card on which this stopped is an empty one, for the board and for every computer.  What is read back comes from the
card and not from this computer's memory: O_DIRECT passes by the page cache, on the way there and on the way back.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import mmap
import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Self

from conflux.board import table
from conflux.board.disk import Disk, Kernel
from conflux.board.fat import Fat, Stamp
from conflux.board.image import Image
from conflux.board.table import HEAD_BYTES, Table
from conflux.errors import UserError

CARD_FILE: Final = "conflux.toml"
PART_BYTES: Final = 4 << 20  # chosen: what a card erases at once, or more
_READ_TABLE_AGAIN: Final = 0x125F  # BLKRRPART of linux/fs.h

Progress = Callable[[str, int, int], None]
"""Told what is being done, and how many bytes of how many are."""


class Target:
    """A whole disk, opened so that nothing else can mount it meanwhile.  what: as a person named it."""

    def __init__(self, path: Path, kernel: Kernel | None = None) -> None:
        self.what = str(path)
        self._kernel = kernel or Kernel()
        try:
            path = path.resolve(strict=True)  # /dev/disk/by-id/... is a good name for a disk
            number = path.stat()
            if not stat.S_ISBLK(number.st_mode):
                raise UserError(f"{path} is no disk{_candidates(self._kernel)}")
            self.disk: Disk = self._kernel.disk(number.st_rdev, self.what)
        except FileNotFoundError:
            raise UserError(f"{path}: there is no such disk{_candidates(self._kernel)}") from None
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}") from None
        self._path = path
        self._number = number.st_rdev
        self._fd = -1
        self._buffer = mmap.mmap(-1, PART_BYTES)  # O_DIRECT wants memory that begins at a page

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ended: object) -> None:
        self._buffer.close()
        if self._fd >= 0:
            os.close(self._fd)

    def unmount(self) -> None:
        """Unmount what a desktop mounted of it.  Raises UserError if a program uses it."""
        for place in self.disk.mounts:
            done = subprocess.run(  # noqa: S603  # a program of the system
                ["/usr/bin/env", "umount", "--", place], capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise UserError(f"cannot unmount {place}: {done.stderr.strip() or 'umount failed'}")

    def open(self) -> None:
        """Take the disk for this process alone, for write() and read().  Raises UserError."""
        self._fd = self.take(os.O_DIRECT)

    def take(self, flags: int = 0) -> int:
        """Return a descriptor of the disk, which nothing else can mount meanwhile.  Raises UserError."""
        try:
            taken = os.open(self._path, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW | flags)
        except OSError as error:
            why = {
                errno.EACCES: "no permission: run this as root (sudo)",
                errno.EPERM: "no permission: run this as root (sudo)",
                errno.EBUSY: "it is in use: unmount it, and close what reads it",
                errno.EROFS: "it is write-protected: move the small slider of the card",
            }.get(error.errno or 0, error.strerror)
            raise UserError(f"cannot open {self.what}: {why}") from None
        try:  # opening made the kernel look for another medium; a person may have thought for long
            if os.fstat(taken).st_rdev != self._number or not self.disk.is_still(self._disk_now()):
                raise UserError(f"{self.what} is another disk now, or another card is in it: look again")
        except BaseException:
            os.close(taken)
            raise
        return taken

    def _disk_now(self) -> Disk:
        return self._kernel.disk(self._number, self.what)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write whole sectors.  At most PART_BYTES.  Raises UserError."""
        self._buffer[: len(data)] = bytes(data)
        done = 0
        while done < len(data):
            with (
                self._blaming("writing", offset + done),
                memoryview(self._buffer) as view,
                view[done : len(data)] as part,
            ):
                done += os.pwrite(self._fd, part, offset + done)

    def read(self, offset: int, count: int) -> bytes:
        """Read whole sectors from the card.  At most PART_BYTES.  Raises UserError."""
        done = 0
        while done < count:
            with self._blaming("reading", offset + done), memoryview(self._buffer) as view, view[done:count] as part:
                got = os.preadv(self._fd, [part], offset + done)
            if not got:
                raise UserError(f"{self.what}: it ends at {offset + done} bytes, and said that it has {self.disk.size}")
            done += got
        return self._buffer[:count]

    def flush(self) -> None:
        """Have the card keep what was written.  Raises UserError."""
        with self._blaming("writing", 0):
            os.fsync(self._fd)

    def look_again(self) -> None:
        """Have the kernel read the new partition table; a desktop may mount the card then."""
        with contextlib.suppress(OSError):  # loop devices without partitions have no such thing
            fcntl.ioctl(self._fd, _READ_TABLE_AGAIN)

    @contextlib.contextmanager
    def _blaming(self, what: str, offset: int) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            at = f"{what} failed at {offset // 1_000_000} MB: {error.strerror}"
            raise UserError(f"{self.what}: {at}: is the card worn out, or was it pulled out?") from None


def put_config(head: bytearray, found: Table, data: bytes, stamp: Stamp, what: str) -> None:
    """Put conflux.toml into the first bytes of an image, which hold bootconfig.  Raises UserError."""
    place = table.bootconfig(found, what)

    def read(offset: int, count: int) -> bytes:
        return bytes(head[place.offset + offset : place.offset + min(offset + count, place.size)])

    def write(offset: int, part: bytes) -> None:
        head[place.offset + offset : place.offset + offset + len(part)] = part

    Fat(read, write, f"{what}: {table.BOOTCONFIG}").save(CARD_FILE, data, stamp)
    if Fat(read, None, what).read(CARD_FILE) != data:
        raise UserError(f"{what}: {CARD_FILE} does not read as it was written: a bug, please report it")


def write(image: Image, found: Table, head: bytearray, target: Target, progress: Progress) -> None:
    """Write an image and read it back.  head: its first bytes, as they shall be.  Raises UserError.

    Whatever ends this early, also KeyboardInterrupt, leaves a card without a partition table.
    """
    size = found.disk_bytes
    nothing = bytes(HEAD_BYTES)
    target.write(0, nothing)
    end = min(HEAD_BYTES, target.disk.size - size)
    if end:  # the second copy of an earlier table would contradict the new one
        target.write(target.disk.size - end, nothing[:end])
    target.flush()
    digests = []
    offset = HEAD_BYTES
    rest = memoryview(head)[HEAD_BYTES:]
    while offset < size:
        count = min(PART_BYTES, size - offset)
        part = bytes(rest[:count])
        rest = rest[len(part) :]
        part += image.read(count - len(part))
        if len(part) < count:
            raise UserError(
                f"{image.name}: cut off after {(offset + len(part)) // 1_000_000} MB of {size // 1_000_000}"
            )
        target.write(offset, part)
        digests.append(hashlib.sha256(part).digest())
        offset += count
        progress("writing", offset, size)
    if image.read(1):
        raise UserError(f"{image.name}: longer than its partition table says")
    target.flush()
    offset = HEAD_BYTES
    for digest in digests:
        count = min(PART_BYTES, size - offset)
        _compare(target, offset, hashlib.sha256(target.read(offset, count)).digest(), digest)
        offset += count
        progress("verifying", offset, size)
    target.write(0, memoryview(head)[:HEAD_BYTES])
    target.flush()
    _compare(target, 0, target.read(0, HEAD_BYTES), bytes(head[:HEAD_BYTES]))


def _compare(target: Target, offset: int, got: bytes, wanted: bytes) -> None:
    if got != wanted:
        raise UserError(
            f"{target.what}: at {offset // 1_000_000} MB it does not read as it was written: the card is worn out, or "
            "smaller than it says; use another one"
        )


def _candidates(kernel: Kernel) -> str:
    found = kernel.plugged_in()
    if not found:
        return "; no card is plugged in, as far as the kernel says"
    return f"; plugged in: {', '.join(disk.words() for disk in found)}"
