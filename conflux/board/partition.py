"""Does what data.py decides: checks, repairs, makes anew, mounts and grows the data partition."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from conflux.board import rescue
from conflux.board.data import Rescue, Seen, Step, is_sound, next_step, tried
from conflux.board.files import RESCUE, Fat, System, read, write
from conflux.board.places import DATA_LABEL, Places, Shared
from conflux.errors import words_of

log = logging.getLogger(__name__)

CHECK_S: Final = 600.0  # of a large card
REPAIR_S: Final = 3600.0  # of one that is damaged, on a slow board
FORMAT_S: Final = 300.0
SPARE_SUPERBLOCKS: Final = ((32768, 4096), (8193, 1024))  # where mke2fs puts the first, by the size of a block
MEMORY_SIZE: Final = "32m"
OPTIONS: Final = "noatime,nosuid,nodev,noexec"
SLACK_SECTORS: Final = 8192  # 4 MiB: less is not worth a change of the partition table
RESTORED: Final = "restored"  # in the directory of this room on the data partition: of which rescue it is
GROWN: Final = "grown"  # there too: to how many sectors


class DataPartition:
    """The data partition of a board.  fat: the other one, if it could be mounted."""

    def __init__(self, places: Places, fat: Fat | None, shared: Sequence[Shared], system: System | None = None) -> None:
        self._places = places
        self._system = system or System()
        self._fat = fat
        self._names = [*(each.place for each in shared), places.own.name]
        self._device = places.devices / DATA_LABEL
        self._rescued: bytes | None = None
        kept = None if fat is None else fat.read(RESCUE, rescue.BYTES_MAX)
        if rescue.is_whole(kept):
            self._rescued = kept
        self.steps: list[Step] = []

    def prepare(self, *, had_identity: bool, invited: bool) -> Seen:
        """Have the data partition mounted, or memory in its place; return what happened.  Raises nothing."""
        seen = Seen(self._device.exists(), self._rescued is not None, had_identity, invited)
        while (step := next_step(seen)) is not Step.DONE:
            self.steps.append(step)
            seen = tried(seen, step, self._do(step))
            if step is Step.MOUNT and seen.mounted and self._rescued is not None:
                marker = read(self._places.own / RESTORED, rescue.DIGEST_BYTES)
                seen = seen._replace(is_restored=marker == rescue.digest(self._rescued))
        return seen

    def _do(self, step: Step) -> bool | int | Rescue:
        codes: dict[Step, Callable[[], int]] = {
            Step.CHECK: lambda: self._fsck("-p"),
            Step.REPAIR: lambda: self._fsck("-f", "-y"),
            Step.REPAIR_BY_SPARE: self._repair_by_spare,
        }
        deeds: dict[Step, Callable[[], object]] = {
            Step.MOUNT: lambda: self._mount(self._places.data, OPTIONS),
            Step.KEEP_RESCUE: self._keep,
            Step.FORMAT: self._format,
            Step.RESTORE: self._restore,
            Step.DROP_RESCUE: self._drop,
            Step.GROW: self._grow,
            Step.MOUNT_MEMORY: self._mount_memory,
            Step.RESTORE_TO_MEMORY: self._restore,
        }
        if step in codes:
            return codes[step]()
        if step is Step.RESCUE:
            return self._rescue()
        try:
            deeds[step]()
        except OSError as error:
            log.warning("data partition: %s: %s", step.value, words_of(error))
            return False
        return True

    # ── the file system ──

    def _fsck(self, *options: str) -> int:
        try:
            return self._system.run(
                ["e2fsck", *options, self._device], within_s=REPAIR_S if "-y" in options else CHECK_S
            ).returncode
        except OSError as error:
            log.warning("e2fsck: %s", words_of(error))
            return 8

    def _repair_by_spare(self) -> int:
        code = 8
        for block, size in SPARE_SUPERBLOCKS:
            code = self._fsck("-f", "-y", "-b", str(block), "-B", str(size))
            if is_sound(code):
                break
        return code

    def _mount(self, at: Path, options: str) -> None:
        at.mkdir(parents=True, exist_ok=True)
        if self._device.is_file():  # of a test
            options += ",loop"
        self._system.require(["mount", "-t", "ext4", "-o", options, self._device, at])

    def _mount_memory(self) -> None:
        if self._system.is_mount(self._places.data):  # what could not be restored to
            self._system.require(["umount", self._places.data])
        options = f"size={MEMORY_SIZE},mode=0755,nosuid,nodev,noexec"
        self._system.require(["mount", "-t", "tmpfs", "-o", options, "data", self._places.data])

    def _format(self) -> None:
        if self._system.is_mount(self._places.data):
            self._system.require(["umount", self._places.data])
        self._system.require(
            ["mkfs.ext4", "-q", "-F", "-m", "0", "-b", "4096", "-L", DATA_LABEL, self._device], within_s=FORMAT_S
        )

    # ── what is in it ──

    def _rescue(self) -> Rescue:
        """Read what lasts: by the kernel if it mounts at all, else by debugfs, which takes what it finds."""
        place = self._places.run / "rescue"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(mode=0o700, parents=True)
        try:
            return self._rescue_into(place)
        finally:  # the node's key is in it
            shutil.rmtree(place, ignore_errors=True)

    def _rescue_into(self, place: Path) -> Rescue:
        was_read = False
        with contextlib.suppress(OSError):
            self._mount(place, "ro,noload")
            try:
                self._rescued = rescue.packed(place, self._names)
                found = rescue.keeps_identity(self._rescued, self._places.state.name)
                was_read = (place / self._places.own.name).is_dir() or not any(place.iterdir())
            finally:
                self._system.require(["umount", place])
            if found:
                return Rescue.IDENTITY
        for superblock in ((), *(("-b", str(size), "-s", str(block)) for block, size in SPARE_SUPERBLOCKS)):
            for name in self._names:
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(OSError):
                    self._system.run(
                        ["debugfs", "-c", *superblock, "-R", f"rdump /{name} {(place / name).parent}", self._device]
                    )
            self._rescued = rescue.packed(place, self._names)
            if rescue.keeps_identity(self._rescued, self._places.state.name):
                return Rescue.IDENTITY
        self._rescued = None
        return Rescue.NO_IDENTITY if was_read else Rescue.UNREADABLE

    def _keep(self) -> None:
        if self._fat is None or self._rescued is None:
            raise OSError("there is no place for what was rescued")
        self._fat.write(RESCUE, self._rescued)
        if self._fat.read(RESCUE, len(self._rescued)) != self._rescued:
            raise OSError("what was rescued is not kept as it was written")

    def _restore(self) -> None:
        assert self._rescued is not None
        rescue.unpack(self._rescued, self._places.data)
        write(self._places.own / RESTORED, rescue.digest(self._rescued))

    def _drop(self) -> None:
        if self._fat is not None:
            self._fat.remove(RESCUE, secret=True)

    # ── its size ──

    def _grow(self) -> None:
        """Give it the rest of the card, and its file system the rest of it."""
        name = self._device.resolve().name
        block = self._places.blocks / name
        if not (block / "partition").exists():  # not a partition of a disk
            return
        disk = block.resolve().parent
        number, size = _number(block / "partition"), _number(block / "size")
        end = _number(block / "start") + size
        if _number(disk / "size") - end > SLACK_SECTORS:
            grow_partition(self._system, Path("/dev") / disk.name, number)
            self._system.require(["partx", "--update", "--nr", str(number), Path("/dev") / disk.name])
            size = _number(block / "size")
        marker = self._places.own / GROWN
        if read(marker) != str(size).encode():
            self._system.require(["resize2fs", self._device.resolve()], within_s=CHECK_S)
            write(marker, str(size).encode())


def grow_partition(system: System, disk: Path, number: int) -> None:
    """Give the last partition of a disk all that is free behind it.  Raises OSError.

    The table's second copy has to move to the end of the disk first; each copy has a checksum, so that one is whole at
    any moment.
    """
    quiet = ("--no-reread", "--no-tell-kernel", "--force")
    system.require(["sfdisk", *quiet, "--relocate", "gpt-bak-std", disk])
    system.require(["sfdisk", *quiet, "-N", str(number), disk], given=", +\n")


def _number(file: Path) -> int:
    try:
        return int(file.read_text("ascii"))
    except ValueError:
        raise OSError(f"{file} holds no number") from None
