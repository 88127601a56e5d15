"""What the kernel says of a disk: whether a card may be written there, and if not, why.

The rule for the disk of the running system: a disk is the system's if something of it is mounted anywhere but where
people mount what they plug in (/media, /run/media, /mnt), or is swap, or if a volume or a loop device is made of it.
No option takes such a disk.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from conflux.board.mounts import Mount, mounts, unescaped
from conflux.board.table import SECTOR_BYTES
from conflux.errors import UserError

PLUGGED_IN: Final = ("/media", "/run/media", "/mnt")  # where desktops and people mount a card
DEPTH_MAX: Final = 8  # volumes on volumes


class Disk(NamedTuple):
    """A whole disk.

    device: "8:16".  name: "sdb".  sequence: a number that another medium in the same place does not have, or "" where
    the kernel gives none (before Linux 5.15).  size: bytes.  removable: what the kernel says, or a card in a slot of
    its own.
    mounts: of it, where people mount what they plug in.  used_by: what makes it the running system's, or None.
    """

    device: str
    name: str
    model: str
    size: int
    sector_bytes: int
    removable: bool
    read_only: bool
    mounts: tuple[str, ...]
    used_by: str | None
    sequence: str = ""

    def is_still(self, now: Disk) -> bool:
        """Say whether a later look found the same disk, and nothing of the running system on it since."""
        return now._replace(mounts=()) == self._replace(mounts=())

    def words(self) -> str:
        """Return "/dev/sdb (SanDisk Ultra, 31.9 GB)"."""
        return f"/dev/{self.name} ({self.model}, {gigabytes(self.size)})"


def gigabytes(size: int) -> str:
    """Return a size as it is printed on cards: "31.9 GB", "512 MB"."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


class Kernel:
    """Reads /sys and /proc below a root."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def disk(self, number: int, what: str) -> Disk:
        """Return the disk of a device number.  what: as a person named it.  Raises UserError if it is no whole disk."""
        device = f"{os.major(number)}:{os.minor(number)}"
        folder = self._folder(device)
        if folder is None:
            raise UserError(f"{what}: the kernel knows no such disk")
        if (folder / "partition").exists():
            raise UserError(f"{what} is a partition: name the whole disk, /dev/{folder.parent.name}")
        return self._disk(device, folder)

    def plugged_in(self) -> list[Disk]:
        """Return the disks that a card may be: removable, with a medium, and not the system's."""
        found = []
        for folder in sorted((self._root / "sys/block").glob("*")):
            device = _text(folder / "dev")
            if device and (disk := self._disk(device, folder.resolve())).removable and disk.size and not disk.used_by:
                found.append(disk)
        return found

    def _disk(self, device: str, folder: Path) -> Disk:
        name = folder.name
        words = (_text(folder / "device" / each) for each in ("vendor", "model", "name"))
        is_card = name.startswith("mmcblk")
        kind = (_text(folder / "device/type") or "").upper()
        parts = {device, *(_text(each.parent / "dev") for each in folder.glob("*/partition"))}
        mounted = [each for each in mounts(self._root / "proc/self/mountinfo") if self._is_of(each, parts)]
        return Disk(
            device,
            name,
            " ".join(word for word in words if word) or ("a loop device" if name.startswith("loop") else "no name"),
            int(_text(folder / "size") or 0) * SECTOR_BYTES,
            int(_text(folder / "queue/logical_block_size") or SECTOR_BYTES),
            _text(folder / "removable") == "1" or (is_card and kind == "SD"),
            _text(folder / "ro") == "1",
            tuple(mount.place for mount in mounted if _is_plugged_in(mount.place)),
            self._used_by(folder, parts, mounted),
            _text(folder / "diskseq") or "",
        )

    def _used_by(self, folder: Path, parts: set[str | None], mounted: list[Mount]) -> str | None:
        """Return what of the running system is on a disk, or None."""
        for mount in mounted:
            if not _is_plugged_in(mount.place):
                return f"{mount.place} is on it"
        for source in self._swaps():
            if self._number(source) in parts:
                return "swap is on it"
        for holder in sorted([*folder.glob("holders/*"), *folder.glob("*/holders/*")]):
            return f"{holder.name} is made of it"
        for loop in sorted((self._root / "sys/block").glob("loop*")):
            backing = _text(loop / "loop/backing_file")
            if backing and f"/{loop.name}" != f"/{folder.name}" and self._lies_on(backing, parts):
                return f"{loop.name} reads a file of it"
        return None

    def _lies_on(self, backing: str, parts: set[str | None]) -> bool:
        """Say whether a file is on one of these partitions, and not where people mount what they plug in."""
        if _is_plugged_in(backing):
            return False
        with contextlib.suppress(OSError):
            number = (self._root / backing.lstrip("/")).stat().st_dev
            return f"{os.major(number)}:{os.minor(number)}" in parts
        return False

    def _is_of(self, mount: Mount, parts: set[str | None]) -> bool:
        # File systems that span disks have a number of their own, so their source counts too.
        return mount.device in parts or self._number(mount.source) in parts

    def _folder(self, device: str) -> Path | None:
        path = self._root / "sys/dev/block" / device
        return path.resolve() if path.exists() else None

    def _number(self, source: str) -> str | None:
        """Return the number of a device by its path; None if it is none."""
        if not source.startswith("/"):
            return None
        with contextlib.suppress(OSError):
            status = (self._root / source.lstrip("/")).stat()
            if stat.S_ISBLK(status.st_mode):
                return f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
        return None

    def _swaps(self) -> Iterator[str]:
        for line in _lines(self._root / "proc/swaps")[1:]:
            if line:
                yield unescaped(line.split()[0])


def refusal(disk: Disk, image_bytes: int, *, force: bool) -> str | None:
    """Return why an image may not be written to a disk, or None.  force: for what a person may insist on."""
    if disk.used_by is not None:
        return f"{disk.words()} is in use by the running system: {disk.used_by}; nothing writes over that"
    if disk.size == 0:
        return f"{disk.words()}: no card is in it"
    if disk.read_only:
        return f"{disk.words()} is write-protected: move the small slider of the card"
    if disk.sector_bytes != SECTOR_BYTES:
        return f"{disk.words()} has sectors of {disk.sector_bytes} bytes, and the image is made for {SECTOR_BYTES}"
    if disk.size < image_bytes:
        return f"{disk.words()} is too small: the image needs {gigabytes(image_bytes)}"
    if not force and disk.mounts:
        return f"{disk.words()} is mounted at {' and '.join(disk.mounts)}: unmount it, or --force does it"
    if not force and not disk.removable:
        return (
            f"{disk.words()} is not a removable disk, says the kernel; it says so of some card readers too, and of a "
            "Compute Module's memory on USB: if you are sure, --force"
        )
    return None


def _is_plugged_in(place: str) -> bool:
    return any(place == each or place.startswith(f"{each}/") for each in PLUGGED_IN)


def _text(path: Path) -> str | None:
    """Return a kernel file's text, stripped; None if it cannot be read or is empty."""
    try:
        return path.read_text("utf-8", "replace").strip("\0 \n") or None
    except OSError:
        return None


def _lines(path: Path) -> list[str]:
    return (_text(path) or "").splitlines()
