"""`conflux realm audit`, as a person and a program read it."""

from __future__ import annotations

from pathlib import Path

import pytest
from kit.desk import Desk


def _furnish(desk: Desk) -> None:
    desk.found()
    desk.join_by_file("k", "kitchen")
    desk.do("gate", "realm", "rename", "kitchen", "cellar")


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk.after(_furnish, tmp_path, capsys)


def segment(desk: Desk) -> Path:
    (directory,) = (desk.path / "gate").glob("audit-*")
    (file,) = directory.iterdir()
    return file


def test_it_says_who_was_let_in_and_what_became_of_it(desk):
    out = desk.do("gate", "realm", "audit")
    assert [line.split()[3:5] for line in out.splitlines()[1:]] == [
        ["admitted", "gate"],
        ["admitted", "kitchen"],
        ["renamed", "cellar"],
    ]
    rows = desk.ask("gate", "realm", "audit", "--last", "1")["entries"]
    assert [(row["number"], row["what"], row["detail"]) for row in rows] == [(3, "renamed", "was kitchen")]


def test_a_record_that_holds_is_said_to_hold_with_its_last_hash(desk):
    out = desk.do("gate", "realm", "audit", "--verify")
    got = desk.ask("gate", "realm", "audit", "--verify")
    assert out == f"the record holds: 3 entries\nlast  3  {got['last_hash']}\n"


def test_a_record_that_was_changed_is_not_shown(desk):
    lines = segment(desk).read_bytes().splitlines(keepends=True)
    segment(desk).write_bytes(lines[0] + lines[2])
    for options in ((), ("--verify",), ("--json",)):
        said = desk.refused("gate", "realm", "audit", *options)
        assert "the record does not hold: entry 2: missing" in said
