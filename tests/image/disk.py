"""What a user has flashed: a disk over the image, which itself is only read; and the FAT partition of the card.

build/image/conflux-BOARD.img.zst ──unpacked once──► build/image/flashed/BOARD.img ◄──below── NAME.qcow2 (a board's)
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from kit.tree import TREE

BUILT = TREE / "build" / "image"
MIB = 1 << 20
SECTOR_BYTES = 512
COMMAND_S = 300


class Extent(NamedTuple):
    """Where a partition is."""

    start: int  # bytes
    size: int  # bytes


class Image(NamedTuple):
    """An image as it is flashed, unpacked."""

    board: str
    path: Path
    partitions: dict[str, Extent]  # by the labels of its table


def command(*words: str | Path, given: bytes | None = None, code: int | None = 0) -> bytes:
    """Run a program to its end and return what it printed.

    code: the exit code that it has to have; None: any.  Raises AssertionError with what it said.
    """
    environment = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin", "MTOOLS_SKIP_CHECK": "1"}
    done = subprocess.run(
        [str(word) for word in words],
        input=b"" if given is None else given,
        capture_output=True,
        env=environment,
        timeout=COMMAND_S,
        check=False,
    )
    if code is not None and done.returncode != code:
        said = (done.stdout + done.stderr).decode(errors="replace")[-2000:]
        raise AssertionError(f"{' '.join(map(str, words))}: exit {done.returncode}\n{said}")
    return done.stdout


def flashed(board: str, built: Path = BUILT) -> Image:
    """Return the image that `make image` made for a board.  Raises AssertionError if there is none."""
    packed = built / f"conflux-{board}.img.zst"
    if not packed.exists():
        raise AssertionError(f"there is no {packed}: make image BOARD={board}")
    unpacked = built / "flashed" / f"{board}.img"
    if not unpacked.exists() or unpacked.stat().st_mtime_ns < packed.stat().st_mtime_ns:
        unpacked.parent.mkdir(exist_ok=True)
        part = unpacked.with_suffix(f".{os.getpid()}.part")
        command("zstd", "--decompress", "--sparse", "--quiet", "--force", packed, "-o", part)
        os.utime(part)  # zstd gives it the packed file's time
        part.replace(unpacked)
    return Image(board, unpacked, partitions(unpacked))


def partitions(path: Path) -> dict[str, Extent]:
    """Return the partitions of a disk by their labels."""
    table = json.loads(command("sfdisk", "--json", path))["partitiontable"]
    sector = int(table.get("sectorsize", SECTOR_BYTES))
    return {
        each["name"]: Extent(each["start"] * sector, each["size"] * sector)
        for each in table["partitions"]
        if "name" in each
    }


def cut_out(image: Image, name: str, target: Path) -> Path:
    """Write one partition of an image to a file, and return that."""
    extent = image.partitions[name]
    with image.path.open("rb") as source, target.open("wb") as out:
        source.seek(extent.start)
        left = extent.size
        while left and (data := source.read(min(left, 4 * MIB))):
            left -= len(data)
            if data.count(0) == len(data):
                out.seek(len(data), os.SEEK_CUR)
            else:
                out.write(data)
        out.truncate(extent.size)
    return target


class Disk:
    """A board's disk.  The image below it never changes."""

    def __init__(self, image: Image, path: Path, *, size: str | None = None) -> None:
        """size: of the disk, as qemu-img writes it: "2G"; None: the image's."""
        self.image = image
        self.path = path
        command(
            "qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", image.path, path, *([size] if size else [])
        )

    def copy(self, path: Path) -> Disk:
        """Return a disk with the same content, of a board whose power is off: a card that somebody cloned."""
        cloned = Disk.__new__(Disk)
        cloned.image, cloned.path = self.image, path
        command("cp", "--sparse=always", self.path, path)
        return cloned

    def partition(self, name: str) -> bytes:
        """Return a whole partition, as it is on the disk now."""
        extent = self.image.partitions[name]
        part = self.path.with_suffix(f".{name}")
        window = f"driver=raw,offset={extent.start},size={extent.size}"
        layer = f"file.driver=qcow2,file.file.driver=file,file.file.filename={self.path}"
        command("qemu-img", "convert", "-U", "--image-opts", f"{window},{layer}", "-O", "raw", part)
        data = part.read_bytes()
        part.unlink()
        return data

    def overwrite(self, name: str, data: bytes, *, at: int = 0) -> None:
        """Write into a partition, while the board's power is off.  at: bytes from its begin."""
        extent = self.image.partitions[name]
        if at + len(data) > extent.size:
            raise ValueError(f"{len(data)} bytes at {at} do not fit into {name}, which has {extent.size}")
        part = self.path.with_suffix(f".{name}")
        part.write_bytes(data)
        write = f"write -q -s {part} {extent.start + at} {len(data)}"
        command("qemu-io", "-f", "qcow2", "-c", write, self.path)
        part.unlink()

    # --- the card: the FAT partition that a person sees ---

    def put(self, name: str, text: str) -> None:
        """Write a file onto the card, while the board's power is off."""
        fat = self.path.with_suffix(".fat")
        fat.write_bytes(self.partition("bootconfig"))
        command("mcopy", "-o", "-i", fat, "-", f"::{name}", given=text.encode())
        self.overwrite("bootconfig", fat.read_bytes())
        fat.unlink()

    def read(self, name: str) -> str | None:
        """Return a file of the card, or None if there is none."""
        if name.lower() not in (each.lower() for each in self.names()):
            return None
        return self._mtools("mtype", name).decode()

    def names(self) -> Sequence[str]:
        """Return the files of the card."""
        return [line.removeprefix("::/") for line in self._mtools("mdir", "-b", "").decode().split("\n") if line]

    def _mtools(self, program: str, *words: str) -> bytes:
        fat = self.path.with_suffix(".fat")
        fat.write_bytes(self.partition("bootconfig"))
        try:
            return command(program, *words[:-1], "-i", fat, f"::{words[-1]}")
        finally:
            fat.unlink()
