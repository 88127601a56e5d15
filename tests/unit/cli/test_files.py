"""A command overwrites no file that is there, and does nothing else either, unless it is told to."""

from __future__ import annotations

from pathlib import Path

import pytest
from kit.desk import Desk

KEPT = "what was there"


def _furnish(desk: Desk) -> None:
    desk.found()
    desk.join_by_file("k", "kitchen")
    desk.do("new", "join", "--request", desk.path / "new.request", "--name", "barn")


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk.after(_furnish, tmp_path, capsys)


@pytest.mark.parametrize(
    ("board", "words"),
    [
        ("new", ["join", "--request", "FILE"]),
        ("gate", ["realm", "sign", "new.request", "--answer", "FILE"]),
        ("gate", ["realm", "grant", "kitchen", "--issuer", "--file", "FILE"]),
        ("gate", ["realm", "backup", "FILE", "--plain"]),
        ("gate", ["config", "mask", "FILE"]),
    ],
)
def test_a_file_that_is_there_stays_as_it_is_without_force(desk, board, words):
    file = desk.path / "kept"
    file.write_text(KEPT)
    line = [file if word == "FILE" else desk.path / word if word == "new.request" else word for word in words]
    before = desk.ask("gate", "realm", "members")
    assert f"{file} is there already: --force replaces it" in desk.refused(board, *line)
    assert file.read_text() == KEPT
    assert desk.ask("gate", "realm", "members") == before
    code, _, _ = desk.run(board, *line, "--force")
    assert code == 0
    assert file.read_bytes() != KEPT.encode()


@pytest.mark.parametrize("word", ["move", "cancel"])
def test_a_node_cannot_shadow_a_command(desk, word):
    for line in (["rename", "kitchen", word], ["create", "other", "--node", word]):
        assert "is a word of the command line" in desk.refused("gate", "realm", *line)
