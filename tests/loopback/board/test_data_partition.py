"""How long the programs of the data partition may take, and when a board's identity counts as saved."""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
from collections.abc import Sequence
from pathlib import Path

from kit.flashed import Flashed, Programs

from conflux.board import rescue
from conflux.board.data import Rescue
from conflux.board.files import Fat
from conflux.board.partition import CHECK_S, REPAIR_S, DataPartition
from conflux.board.places import shared_of

KEY = b"key" + hashlib.sha256(b"key").digest()[:8]


class Disk(Programs):
    """Finds the file system damaged; debugfs reads what is in kept."""

    def __init__(self, kept: dict[str, bytes]) -> None:
        super().__init__()
        self._kept = kept
        self.within: dict[tuple[str, ...], float] = {}

    def run(
        self, words: Sequence[str | Path], *, within_s: float = 60, given: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Note how long a program may take."""
        said = [str(word) for word in words]
        if said[0] == "e2fsck":
            self.within[tuple(said[1:-1])] = within_s
            return subprocess.CompletedProcess(said, 4, "", "")
        if said[0] == "mount" and "ext4" in said:
            return subprocess.CompletedProcess(said, 32, "", "it makes no sense\n")
        if said[0] == "debugfs":
            _, name, target = said[said.index("-R") + 1].split()
            for path, content in self._kept.items():
                if f"/{path}".startswith(f"{name}/"):
                    file = Path(target) / Path(name).name / Path(path).relative_to(name.lstrip("/"))
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_bytes(content)
        return super().run(words, within_s=within_s, given=given)


def partition(board: Flashed, disk: Disk) -> DataPartition:
    shared = shared_of(board.places.state_list.read_text("utf-8"))
    return DataPartition(board.places, Fat(board.places.fat, disk), shared, disk)


def test_a_repair_may_take_longer_than_a_check(tmp_path):
    disk = Disk({})
    partition(Flashed(tmp_path), disk).prepare(had_identity=True, invited=False)
    assert disk.within["-p",] == CHECK_S
    assert disk.within["-f", "-y"] == REPAIR_S
    assert min(each for options, each in disk.within.items() if "-y" in options) > CHECK_S


def test_an_identity_is_saved_if_the_rescue_itself_holds_it(tmp_path, monkeypatch):
    board, kept = Flashed(tmp_path), {"conflux/node.key": KEY, "board/settings.json": b"{}"}
    assert partition(board, Disk(kept))._rescue() is Rescue.IDENTITY
    monkeypatch.setattr(rescue, "BYTES_MAX", 0)  # there is room for nothing
    assert partition(board, Disk(kept))._rescue() is not Rescue.IDENTITY


def test_no_copy_of_the_key_stays_behind_in_memory(tmp_path):
    board, kept = Flashed(tmp_path), {"conflux/node.key": KEY, "board/settings.json": b"{}"}
    seen: list[int] = []

    class Watched(Disk):
        def run(self, words, *, within_s=60, given=""):
            done = super().run(words, within_s=within_s, given=given)
            if "debugfs" in words:
                seen.append((board.places.run / "rescue").stat().st_mode & 0o777)
            return done

    assert partition(board, Watched(kept))._rescue() is Rescue.IDENTITY
    assert set(seen) == {0o700}
    assert [path.name for path in board.places.run.rglob("*") if path.is_file() and path.read_bytes() == KEY] == []
    assert not (board.places.run / "rescue").exists()


def test_no_copy_stays_behind_if_it_ends_early(tmp_path, monkeypatch):
    board = Flashed(tmp_path)
    monkeypatch.setattr(rescue, "packed", lambda *_: 1 / 0)
    with contextlib.suppress(ZeroDivisionError):
        partition(board, Disk({"conflux/node.key": KEY}))._rescue()
    assert not (board.places.run / "rescue").exists()
