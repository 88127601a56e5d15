"""A flashed board that becomes a new one: what goes, what stays, and a power cut in between."""

from __future__ import annotations

from pathlib import Path

import pytest
from kit.flashed import Programs

from conflux.board import files, renew
from conflux.board.places import Places
from conflux.errors import StateError

STAYS = ("board/settings.json", "board/wifi.conf", "board/ssh/authorized_keys", "etc/conflux/conflux.toml")
GOES = (
    "conflux/node.key",
    "conflux/spare/node.key",
    "conflux/lists/a.list",
    "board/machine-id",
    "board/ssh/ssh_host_ed25519_key",
    "board/ssh/ssh_host_ed25519_key.pub",
    "systemd/random-seed",
)
ON_FAT = ("board.txt", "rescue.bin", "first-boot.log")


class Board:
    """A board in a directory.  steps: how many more removals there are before the power fails; None: all."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.places = Places(data=path / "data", fat=path / "fat", run=path / "run", mounts=path / "mounts")
        self.fat = files.Fat(self.places.fat, Programs())
        self.steps: int | None = None
        for top, names in ((self.places.data, STAYS + GOES), (self.places.fat, (*ON_FAT, "conflux.toml"))):
            for name in names:
                (top / name).parent.mkdir(parents=True, exist_ok=True)
                (top / name).write_text(name)
        remove = files.remove

        def step(place: Path) -> None:
            if self.steps is not None:
                if not self.steps:
                    raise PowerCut
                self.steps -= 1
            remove(place)

        monkeypatch.setattr(files, "remove", step)

    def left(self) -> set[str]:
        places = [(self.places.data, self.places.data.rglob("*")), (self.places.fat, self.places.fat.rglob("*"))]
        return {str(path.relative_to(top)) for top, found in places for path in found if path.is_file()}


class PowerCut(Exception):
    """The board is off."""


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Board:
    return Board(tmp_path, monkeypatch)


def test_a_board_that_was_not_told_to_keeps_everything(board):
    assert renew.finish(board.places, board.fat) is False
    assert board.left() == {*STAYS, *GOES, *ON_FAT, "conflux.toml"}


def test_what_makes_it_this_board_goes_and_what_the_card_says_stays(board):
    renew.begin(board.places)
    assert renew.finish(board.places, board.fat) is True
    assert board.left() == {*STAYS, "conflux.toml"}
    assert renew.finish(board.places, board.fat) is False


def test_the_key_of_a_rescue_is_overwritten_before_it_goes(board):
    other = board.places.run / "the-same-blocks"
    other.parent.mkdir(parents=True, exist_ok=True)
    other.hardlink_to(board.places.fat / "rescue.bin")
    renew.begin(board.places)
    renew.finish(board.places, board.fat)
    assert other.read_bytes() == bytes(len("rescue.bin"))


def test_a_power_cut_at_any_step_is_made_good_by_the_next_start(tmp_path, monkeypatch):
    for count in range(30):
        with monkeypatch.context() as patched:
            board = Board(tmp_path / str(count), patched)
            renew.begin(board.places)
            board.steps = count
            try:
                renew.finish(board.places, board.fat)
                done = True
            except PowerCut:
                done = False
            board.steps = None
            renew.finish(board.places, board.fat)
            assert board.left() == {*STAYS, "conflux.toml"}
        if done:
            assert count > 5
            return
    pytest.fail("it never came to its end")


def test_a_board_without_a_state_is_renewed_too(tmp_path, monkeypatch):
    places = Places(data=tmp_path / "data", fat=tmp_path / "fat")
    places.own.mkdir(parents=True)
    places.fat.mkdir()
    renew.begin(places)
    assert renew.finish(places, None) is True
    assert renew.finish(places, None) is False


def test_a_card_that_cannot_be_read_forgets_when_it_can(board):
    renew.begin(board.places)
    assert renew.finish(board.places, None) is True
    assert set(ON_FAT) <= board.left()
    (board.places.state / "node.key").parent.mkdir(exist_ok=True)
    (board.places.state / "node.key").write_text("of the new board")
    assert renew.finish(board.places, board.fat) is False
    assert board.left() == {*STAYS, "conflux.toml", "conflux/node.key"}


def test_a_board_whose_state_is_in_memory_is_not_renewed(board):
    """Its restart would forget that it was asked for, and the copied card would stay the node that it is."""
    data = board.places.data
    disk, memory = f"36 35 8:4 / {data} rw - ext4 /dev/sda4 rw\n", f"41 36 0:30 / {data} rw - tmpfs data rw,size=32m\n"
    board.places.mounts.write_text(disk + memory)
    before = board.left()
    with pytest.raises(StateError, match=r"is in memory.*put another card in; nothing was changed"):
        renew.begin(board.places)
    assert (board.left(), renew.is_begun(board.places)) == (before, False)
    board.places.mounts.write_text(memory + disk)
    renew.begin(board.places)
    assert renew.is_begun(board.places)


def test_a_board_that_cannot_keep_the_mark_says_so(board, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(files, "write", full)
    with pytest.raises(StateError, match="Read-only file system; nothing was changed"):
        renew.begin(board.places)
