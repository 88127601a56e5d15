"""`conflux realm backup` and `conflux realm restore`, as a person uses them."""

from __future__ import annotations

import io
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest
from kit.desk import Desk

pytestmark = pytest.mark.usefixtures("quick_scrypt")

WORD = "correct horse battery"


def _furnish(desk: Desk) -> None:
    desk.found()
    (desk.path / "word").write_text(f"{WORD}\n")


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk.after(_furnish, tmp_path, capsys)


def backup(desk: Desk) -> Path:
    file = desk.path / "home.backup"
    desk.do("gate", "realm", "backup", file, "--passphrase-file", desk.path / "word")
    return file


def test_another_board_becomes_the_founder(desk):
    desk.join_by_file("k", "kitchen")
    file = backup(desk)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    out = desk.do("porch", "realm", "restore", file, "--node", "porch", "--passphrase-file", desk.path / "word")
    assert "this board is the founder of realm home" in out
    assert "conflux realm revoke gate" in out
    names = [row["name"] for row in desk.ask("porch", "realm", "members")["members"]]
    assert names == ["gate", "kitchen", "porch"]
    desk.join_by_file("b", "barn", by="porch")
    assert desk.state("b").member().anchor == desk.state("gate").member().anchor


def test_the_new_founder_of_the_same_name_leaves_nobody_to_revoke(desk):
    out = desk.do("new", "realm", "restore", backup(desk), "--node", "gate", "--passphrase-file", desk.path / "word")
    assert "revoke" not in out
    assert desk.state("new").member().addresses[1] == desk.state("gate").member().addresses[1]


def test_a_backup_without_a_passphrase_is_possible_and_warned_about(desk):
    file = desk.path / "plain.backup"
    code, _, err = desk.run("gate", "realm", "backup", file, "--plain")
    assert (code, "not encrypted" in err) == (0, True)
    desk.do("porch", "realm", "restore", file, "--node", "porch")


def test_a_file_that_is_there_is_not_replaced_unasked(desk):
    file = backup(desk)
    before = file.read_bytes()
    options = ("--passphrase-file", desk.path / "word")
    assert "is there already" in desk.refused("gate", "realm", "backup", file, *options)
    assert file.read_bytes() == before
    desk.do("gate", "realm", "backup", file, "--force", *options)
    assert file.read_bytes() != before


def test_a_passphrase_is_read_from_standard_input(desk, monkeypatch):
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(f"{WORD}\nmore".encode())))
    desk.do("porch", "realm", "restore", backup(desk), "--passphrase-file", "-", "--node", "porch")


@pytest.mark.parametrize(
    ("word", "said"), [("short", "at least 10"), ("", "at least 10"), ("x" * 2000, "larger than 1024 bytes")]
)
def test_a_passphrase_that_is_none_is_refused(desk, word, said):
    (desk.path / "bad").write_text(word)
    assert "conflux: " in desk.refused(
        "gate", "realm", "backup", desk.path / "f", "--passphrase-file", desk.path / "bad"
    )
    assert not (desk.path / "f").exists()


def test_a_wrong_passphrase_or_another_file_restores_nothing(desk):
    file = backup(desk)
    (desk.path / "other").write_text("another phrase")
    options = ("--node", "porch", "--passphrase-file", desk.path / "other")
    assert "passphrase is wrong" in desk.refused("porch", "realm", "restore", file, *options)
    assert "this is no backup" in desk.refused("porch", "realm", "restore", desk.path / "word", *options)
    assert not (desk.path / "porch").exists()


def test_without_a_terminal_nobody_is_asked_for_a_passphrase(desk, monkeypatch):
    file = backup(desk)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert "no terminal" in desk.refused("porch", "realm", "restore", file, "--node", "porch")


def test_who_has_no_root_key_has_nothing_to_back_up(desk):
    desk.join_by_file("k", "kitchen")
    assert "root.key: missing" in desk.refused("k", "realm", "backup", desk.path / "f", "--plain")
