"""The data partition of a flashed board on real file systems: what a card does to them, and what is kept."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from kit.tree import TREE

from conflux.board.data import Rescue, Step, notices
from conflux.board.files import Fat, System
from conflux.board.partition import DataPartition
from conflux.board.places import Places, shared_of

PLACE = Path("/run/lab/board")
SIZE = 256 << 20  # two groups of blocks, so that there is a spare superblock
SEED = b"the seed of a node" * 3
KEY = SEED + hashlib.sha256(SEED).digest()[:8]  # as a file of the state directory ends


class Folder(Fat):
    """The other partition, as a folder: the kernel of this machine may have no FAT."""

    def _remount(self, how: str) -> None:
        pass


class Hopeless(System):
    """A file system that e2fsck does not mend and that does not mount, until it is made anew.  by: who can read it."""

    def __init__(self, by: str) -> None:
        self._by = by
        self._is_new = False

    def run(
        self, words: Sequence[str | Path], *, within_s: float = 60, given: str = ""
    ) -> subprocess.CompletedProcess[str]:
        said = [str(word) for word in words]
        self._is_new = self._is_new or said[0] == "mkfs.ext4"
        fails = said[0] == "e2fsck" or (said[0] == "mount" and ("noload" not in said[4] or self._by != "the kernel"))
        if fails and not self._is_new:
            return subprocess.CompletedProcess(said, 8, "", "it is hopeless\n")
        return super().run(words, within_s=within_s, given=given)


class Board:
    """A board's data partition in a file."""

    def __init__(self, top: Path) -> None:
        self.places = Places(
            root=top,
            data=top / "data",
            fat=top / "fat",
            run=top / "run",
            devices=top / "dev",
            state_list=TREE / "firmware/tree/usr/lib/conflux-board/state.list",
            blocks=top / "blocks",
        )
        for folder in ("data", "fat", "run", "dev", "blocks"):
            (top / folder).mkdir(parents=True)
        self.device = top / "dev" / "data"
        self.device.write_bytes(b"")
        os.truncate(self.device, SIZE)
        self.shared = shared_of(self.places.state_list.read_text())

    def make(self) -> None:
        """Make the file system of the image."""
        System().require(["mkfs.ext4", "-q", "-F", "-b", "4096", self.device])

    def boot(
        self, *, had_identity: bool = True, invited: bool = False, system: System | None = None
    ) -> tuple[list[str], list[str]]:
        """Prepare it, and return the steps and what a person is told."""
        partition = DataPartition(self.places, Folder(self.places.fat), self.shared, system)
        seen = partition.prepare(had_identity=had_identity, invited=invited)
        return [step.value for step in partition.steps], notices(seen)

    def off(self) -> None:
        """Unmount it."""
        subprocess.run(["umount", self.places.data], check=False, capture_output=True)

    def member(self) -> None:
        """Have it hold an identity, and more files than fit into one block."""
        state = self.places.data / "conflux"
        state.mkdir(exist_ok=True)
        (self.places.data / "board").mkdir(exist_ok=True)
        (state / "node.key").write_bytes(KEY)
        (state / "node.key").chmod(0o600)
        for number in range(50):
            (state / f"learned-{number}").write_bytes(os.urandom(3000))

    def hit(self, offset: int, size: int) -> None:
        """Have the card lose some bytes."""
        with self.device.open("r+b") as file:
            file.seek(offset)
            file.write(b"\xff" * size)

    @property
    def key(self) -> bytes | None:
        file = self.places.data / "conflux" / "node.key"
        return file.read_bytes() if file.exists() else None


@pytest.fixture
def board() -> Iterator[Board]:
    shutil.rmtree(PLACE, ignore_errors=True)
    board = Board(PLACE)
    board.make()
    yield board
    board.off()
    shutil.rmtree(PLACE, ignore_errors=True)


def with_member(board: Board) -> None:
    board.boot(had_identity=False)
    board.member()
    board.off()


def test_a_new_card_is_checked_and_mounted_and_nothing_is_said(board: Board) -> None:
    assert board.boot(had_identity=False) == (["check", "mount", "grow"], [])
    assert board.places.data.is_mount()


def test_an_unclean_end_is_repaired_without_a_word(board: Board) -> None:
    with_member(board)
    subprocess.run(["debugfs", "-w", "-R", "set_super_value state 2", board.device], check=True, capture_output=True)
    assert board.boot()[1] == []
    assert board.key == KEY


def test_a_lost_superblock_is_found_again_and_the_identity_with_it(board: Board) -> None:
    with_member(board)
    board.hit(0, 4096)
    steps, said = board.boot()
    assert board.key == KEY, (steps, said)
    assert said


@pytest.mark.parametrize("size", [64 << 10, 512 << 10, 2 << 20])
def test_damage_at_the_beginning_never_makes_a_board_new_silently(board: Board, size: int) -> None:
    with_member(board)
    board.hit(0, size)
    steps, said = board.boot()
    assert board.places.data.is_mount()
    assert said
    assert board.key == KEY or "format" not in steps, steps


def test_what_is_beyond_repair_waits_for_an_invitation(board: Board) -> None:
    with_member(board)
    board.hit(0, SIZE)
    steps, said = board.boot()
    assert steps[-1] == "mount-memory"
    assert "new invitation" in said[0]
    board.off()
    steps, said = board.boot(invited=True)
    assert "format" in steps
    assert "joins as a new node" in said[0]
    assert board.places.data.is_mount()


def test_a_card_that_never_held_an_identity_is_made_anew(board: Board) -> None:
    board.hit(0, SIZE)
    steps, said = board.boot(had_identity=False)
    assert "format" in steps
    assert "there was no identity" in said[0]


class _Stopped(BaseException):
    """The power is gone."""


@pytest.mark.parametrize("by", ["the kernel", "debugfs"])
@pytest.mark.parametrize("stop", ["keep-rescue", "format", "mount", "restore", "drop-rescue"])
def test_the_identity_outlasts_a_power_cut_while_it_is_rescued(
    board: Board, monkeypatch: pytest.MonkeyPatch, stop: str, by: str
) -> None:
    with_member(board)
    done = DataPartition._do

    def cut(self: DataPartition, step: Step) -> bool | int | Rescue:
        if step.value == stop and (stop != "mount" or Step.FORMAT in self.steps):
            raise _Stopped
        return done(self, step)

    monkeypatch.setattr(DataPartition, "_do", cut)
    with pytest.raises(_Stopped):
        board.boot(system=Hopeless(by))
    board.off()
    monkeypatch.setattr(DataPartition, "_do", done)
    steps, said = board.boot(system=Hopeless(by) if stop in ("keep-rescue", "format") else None)
    assert board.key == KEY, (steps, said)
    assert not (board.places.fat / "rescue.bin").exists()
    assert (board.places.data / "conflux" / "learned-49").exists()
    assert (board.places.data / "conflux" / "node.key").stat().st_mode & 0o777 == 0o600
    board.off()
    assert board.boot() == (["check", "mount", "grow"], [])
