"""`conflux board renew`: a copy becomes a node of its own, at a word, and nothing else does."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from kit.desk import Desk
from kit.flashed import Programs

from conflux.bench.report import JSON_NAME, PAGE_NAME
from conflux.board.files import Fat
from conflux.cli import board, context
from conflux.ids import format_node_id
from conflux.state.directory import NODE_KEY


def _furnish(desk: Desk) -> None:
    desk.found()
    desk.join_by_file("k", "kitchen")


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk.after(_furnish, tmp_path, capsys)


def test_a_copy_forgets_whose_copy_it_is_and_joins_as_another_node(desk):
    node = desk.node_id("k")
    out = desk.do("k", "board", "renew", "--yes")
    assert f"kitchen, {format_node_id(node)}, is forgotten" in out
    assert {path.name for path in (desk.path / "k").iterdir()} == {"lock"}
    desk.join_by_file("k", "barn")
    assert desk.node_id("k") != node


def test_programs_are_told_what_it_was(desk):
    node = desk.node_id("k")
    assert desk.ask("k", "board", "renew", "--yes") == {
        "name": "kitchen",
        "node": format_node_id(node),
        "realm": "home",
        "restarting": False,
    }
    assert desk.ask("k", "board", "renew", "--yes")["node"] is None


def test_it_is_asked_for_and_not_done_without_a_terminal(desk, monkeypatch):
    assert "--yes forgets this node's keys without asking" in desk.refused("k", "board", "renew")
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True, readline=lambda size: "\n"))
    code, out, err = desk.run("k", "board", "renew")
    assert (code, err) == (1, "conflux: not renewed; nothing was changed\n")
    assert out == (
        "kitchen of realm home forgets its keys for good; a new token lets it in as another node.  Renew? [y/N] "
    )
    assert desk.state("k").member() is not None


def test_a_board_that_its_realm_needs_is_renewed_by_force_alone(desk):
    assert "gate issues for realm home, and has keys that its realm needs" in desk.refused(
        "gate", "board", "renew", "--yes"
    )
    assert desk.state("gate").member() is not None
    desk.do("gate", "board", "renew", "--yes", "--force")
    assert desk.state("gate").member() is None


def test_a_damaged_board_can_begin_anew_and_a_damaged_founder_not_by_itself(desk):
    for name in (NODE_KEY, f"spare/{NODE_KEY}"):
        for who in ("k", "gate"):
            path = desk.path / who / name
            if path.exists():
                path.write_bytes(b"x" * 60)
    assert "this board has keys that its realm needs" in desk.refused("gate", "board", "renew", "--yes")
    assert "This board is forgotten" in desk.do("k", "board", "renew", "--yes")


def test_a_directory_that_a_daemon_holds_is_left_alone(desk):
    held = desk.state("k")
    held.lock()
    assert "in use by process" in desk.refused("k", "board", "renew", "--yes")
    held.close()
    assert desk.state("k").member() is not None


def test_a_flashed_board_is_marked_and_starts_again(desk, tmp_path, monkeypatch):
    """A state directory that is named is not the board's: it is erased as on any other host."""
    said: list[tuple[str, ...]] = []
    (tmp_path / "image").write_text("BOARD=rpi4\n")
    monkeypatch.setattr(board, "FLASHED", tmp_path / "image")
    monkeypatch.setattr(board, "_systemctl", lambda *words: said.append(words) or 0)
    desk.do("k", "board", "renew", "--yes")
    assert said == []
    desk.join_by_file("k", "barn")
    places = SimpleNamespace(own=tmp_path / "data" / "board", is_in_memory=False)
    monkeypatch.setattr(board, "Places", lambda: places)
    config = SimpleNamespace(node=SimpleNamespace(state_dir=desk.path / "k"))
    monkeypatch.setattr(context, "load", lambda options: config)
    options = SimpleNamespace(state_dir=None, config=None, yes=True, force=False, json=False)
    assert board.renew(options) == 0
    assert said == [("reboot",)]
    assert (tmp_path / "data" / "board" / "renewing").exists()
    assert desk.state("k").member() is not None


@pytest.fixture
def flashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A flashed board whose bench takes no time; return its FAT partition."""
    (tmp_path / "image").write_text("BOARD=rpi4\n")
    fat, measured = tmp_path / "fat", tmp_path / "measured"
    fat.mkdir()
    measured.mkdir()
    monkeypatch.setattr(board, "FLASHED", tmp_path / "image")
    monkeypatch.setattr(board, "PLACE", measured)
    monkeypatch.setattr(board, "Fat", lambda path: Fat(fat, Programs()))

    def measure(quick: bool) -> int:
        assert not (fat / "bench").exists()
        assert not (fat / "bench.txt").exists()
        for name in (JSON_NAME, PAGE_NAME):
            (measured / name).write_text(f"{name} {quick}")
        return 1 if quick else 0

    monkeypatch.setattr(board, "measure", measure)
    return fat


@pytest.mark.parametrize("asked", [(), ("bench",), ("bench.txt",)])
def test_the_report_of_a_flashed_board_is_on_its_card(desk, flashed, asked):
    for name in asked:
        (flashed / name).touch()
    code, _, err = desk.run("k", "board", "bench")
    assert (code, err) == (0, "the report is on the card, conflux-bench.html, and on this board's page, at /bench\n")
    assert {path.name: path.read_text() for path in flashed.iterdir()} == {
        name: f"{name} False" for name in (JSON_NAME, PAGE_NAME)
    }


def test_a_part_that_failed_is_on_the_card_too(desk, flashed):
    assert desk.run("k", "board", "bench", "--quick")[0] == 1
    assert (flashed / PAGE_NAME).read_text() == f"{PAGE_NAME} True"


def test_a_board_that_was_not_flashed_is_measured_by_another_command(desk):
    assert "`conflux bench` measures any board" in desk.refused("k", "board", "bench")
