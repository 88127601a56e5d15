"""`conflux policy publish`, `show`, `diff` and `rollback`, on a board where no daemon runs."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

import pytest
from kit.builders import NOW_UNIX, seed_of
from kit.published import CLOSED_TEXT, OPEN_TEXT, published, publisher
from kit.records import misfits

from conflux.cli import publish
from conflux.cli.grammar import EXIT_USAGE
from conflux.errors import StateError, UserError
from conflux.policy.reading import FILE_BYTES_MAX
from conflux.realm.member import Member
from conflux.state.directory import NODE_KEY, KeyFile, StateDir
from conflux.state.policy_files import PolicyFiles

FAILING = CLOSED_TEXT + b'[[test]]\nfrom = "laptop"\nreaches = ["nas tcp/445"]\n'


class Board:
    """A state directory, and files beside it."""

    def __init__(self, place: Path, member: Member | None) -> None:
        self.place = place
        self.state = StateDir.open(place / "state", create=True)
        self.state.save_floor(NOW_UNIX)  # the realm's clock is never earlier
        if member is not None:
            self.state.save_record(NODE_KEY, KeyFile(seed_of(member.name)))
            self.state.save_member(member)
        self.config = place / "conflux.toml"
        self.config.write_text(f'[node]\nstate_dir = "{self.state.path}"\n')

    def rules(self, text: bytes) -> Path:
        file = self.place / "rules.toml"
        file.write_bytes(text)
        return file

    def run(self, command, *, as_json: bool = False, **given: object) -> int:
        options = {"members": [], "number": None, "to": None, **given}
        return command(Namespace(config=self.config, state_dir=None, json=as_json, **options))

    def publish(self, text: bytes, **given: object) -> int:
        return self.run(publish.publish, file=self.rules(text), **given)

    @property
    def kept(self) -> list[bytes]:
        return [each.text for each in PolicyFiles(self.state).all()]


@pytest.fixture
def board(tmp_path):
    return Board(tmp_path, publisher())


def test_good_file_is_signed_and_kept(board, capsys):
    assert board.publish(CLOSED_TEXT) == 0
    said = capsys.readouterr().out
    assert "published as policy " in said
    assert "no daemon runs here" in said
    assert board.kept == [CLOSED_TEXT]


def test_file_whose_test_fails_is_not_published(board, capsys):
    assert board.publish(FAILING) == 1
    said = capsys.readouterr().out
    assert "test fails: test 1: laptop does not reach nas tcp/445" in said
    assert said.endswith("not published\n")
    assert board.kept == []


def test_file_with_a_fault_is_not_published(board, capsys):
    assert board.publish(b"version = 2\n") == 1
    assert "not published" in capsys.readouterr().out
    assert board.kept == []


@pytest.mark.parametrize("text", [b"", b"x" * (FILE_BYTES_MAX + 1)])
def test_empty_and_overlong_files_are_not_published(board, text):
    assert board.publish(text) in (1, EXIT_USAGE)
    assert board.kept == []


def test_file_that_is_not_there_is_wrong_usage(board, capsys):
    assert board.run(publish.publish, file=board.place / "none.toml") == EXIT_USAGE
    assert "none.toml" in capsys.readouterr().err


def test_the_same_text_is_not_published_again(board, capsys):
    board.publish(CLOSED_TEXT)
    assert board.publish(CLOSED_TEXT) == 0
    assert "counts already" in capsys.readouterr().out
    assert len(board.kept) == 1


def test_member_without_the_capability_cannot_publish(tmp_path):
    board = Board(tmp_path, publisher("desk", granted=False))
    with pytest.raises(UserError, match="conflux realm grant desk --capability policy"):
        board.publish(CLOSED_TEXT)
    assert board.kept == []


def test_board_in_no_realm_cannot_publish(tmp_path):
    with pytest.raises(StateError, match="in no realm"):
        Board(tmp_path, None).publish(CLOSED_TEXT)


def test_next_policy_counts_in_place_of_the_last_one_and_rollback_brings_that_back(board, capsys):
    board.publish(OPEN_TEXT)
    board.publish(CLOSED_TEXT)
    assert board.run(publish.rollback) == 0
    assert "published as policy" in capsys.readouterr().out
    board.run(publish.shown)
    assert capsys.readouterr().out == OPEN_TEXT.decode()
    assert board.run(publish.rollback, to=NOW_UNIX + 1) == 0
    capsys.readouterr()
    board.run(publish.shown)
    assert capsys.readouterr().out == CLOSED_TEXT.decode()


def test_rollback_needs_an_earlier_policy(board):
    board.publish(OPEN_TEXT)
    with pytest.raises(UserError, match="no earlier policy here"):
        board.run(publish.rollback)
    with pytest.raises(UserError, match="no earlier policy 7 is kept here"):
        board.run(publish.rollback, to=7)


def test_rollback_to_a_text_whose_test_fails_is_refused(board, capsys):
    PolicyFiles(board.state).save(published(FAILING, NOW_UNIX - 5))
    board.publish(CLOSED_TEXT)
    assert board.run(publish.rollback) == 1
    assert "not published" in capsys.readouterr().out


def test_realm_without_a_policy_says_what_holds(board, capsys):
    assert board.run(publish.shown) == 0
    assert capsys.readouterr().out == "the realm has no policy: members reach one another\n"
    with pytest.raises(UserError, match="no policy 7"):
        board.run(publish.shown, number=7)


def test_difference_ends_with_1_and_none_with_0(board, capsys):
    board.publish(OPEN_TEXT)
    capsys.readouterr()
    assert board.run(publish.diff, file=board.rules(CLOSED_TEXT)) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[-2:] == ['-default = "allow"', '+default = "deny"']
    assert board.run(publish.diff, file=board.rules(OPEN_TEXT)) == 0
    assert board.run(publish.diff, file=board.place / "none.toml") == EXIT_USAGE


def test_difference_shows_no_terminal_codes(board, capsys):
    board.run(publish.diff, file=board.rules(b"\x1b]0;owned\x07\n"))
    assert "\x1b" not in capsys.readouterr().out


def test_answers_for_programs_are_as_documented(board, capsys):
    board.publish(OPEN_TEXT, as_json=True)
    printed = json.loads(capsys.readouterr().out)
    assert misfits(printed, "policy publish") == []
    board.publish(CLOSED_TEXT)
    capsys.readouterr()
    board.run(publish.shown, as_json=True)
    printed = json.loads(capsys.readouterr().out)
    assert misfits(printed, "policy show") == []
    assert [row["current"] for row in printed["policies"]] == [True, False]
    board.run(publish.diff, file=board.rules(OPEN_TEXT), as_json=True)
    assert misfits(json.loads(capsys.readouterr().out), "policy diff") == []
    board.run(publish.rollback, as_json=True)
    assert misfits(json.loads(capsys.readouterr().out), "policy rollback") == []
    board.publish(FAILING, as_json=True)
    assert json.loads(capsys.readouterr().out)["valid"] is False
