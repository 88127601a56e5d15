"""What docs/how-to/trouble.md says of the clock, done as it says."""

from __future__ import annotations

import os
import re
import shlex
import time
from pathlib import Path

import pytest
from kit.tree import TREE

from conflux.cli import parser
from conflux.cli.realm import root_words
from conflux.realm.clock import RealmClock
from conflux.realm.member import Member
from conflux.state.clock import realm_clock
from conflux.state.directory import StateDir
from conflux.state.founding import issuer_of
from conflux.state.succession import renew_self

PAGE = TREE / "docs" / "how-to" / "trouble.md"
LINE = re.compile(r"(?P<board>[a-z]+)\$\s+(?P<command>.+)")
AHEAD_S = 400 * 86400


def block_of(heading: str) -> list[str]:
    """The lines of the first code block under a heading."""
    text = PAGE.read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return text.partition("```\n")[2].partition("```")[0].splitlines()


class Boards:
    """gate founded the realm, and kitchen joined it by files; each has a state directory."""

    def __init__(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.path, self.capsys = path, capsys
        self.word = path / "word"
        self.word.write_text("correct horse battery")
        self.conflux("gate", "realm create home --node gate")
        self.join("--name kitchen")

    def conflux(self, board: str, words: str) -> str:
        code = parser.main([*shlex.split(words), "--state-dir", str(self.path / board)])
        out, err = self.capsys.readouterr()
        assert code == 0, err
        return out

    def join(self, more: str) -> None:
        request = self.path / "k.request"
        self.conflux("kitchen", f"join --request {request} --force {more}")
        self.conflux("gate", f"realm sign --force {request}")
        self.conflux("kitchen", f"join --answer {request}.answer --root '{root_words(self.member('gate').anchor)}'")

    def state(self, board: str) -> StateDir:
        return StateDir.open(self.path / board)

    def member(self, board: str) -> Member:
        member = self.state(board).member()
        assert member is not None
        return member

    def live_ahead(self) -> None:
        """Let the issuer's clock be wrong for a while: it renews itself and the other one, which believes it."""
        later = int(time.time()) + AHEAD_S
        gate, kitchen = self.state("gate"), self.state("kitchen")
        renewed = renew_self(gate, self.member("gate"), now_unix=later, entropy=os.urandom)
        issuer = issuer_of(gate, renewed)
        assert issuer is not None
        member = self.member("kitchen")
        chain = issuer.renew(member.chain, now_unix=later, late_s=None)
        kitchen.save_member(Member(member.keys, member.anchor, chain))
        for state in (gate, kitchen):
            realm_clock(state).observe(chain.newest_date)

    def run(self, line: str) -> None:
        """Do what one line of the page says; a daemon is not run here."""
        match = LINE.fullmatch(line)
        assert match is not None, line
        board, words = match["board"], match["command"].removeprefix("sudo ")
        if words.startswith("rm "):
            for file in words.split()[1:]:
                (self.path / board / Path(file).name).unlink()
        elif words.startswith("conflux realm restore"):
            self.conflux(
                board,
                f"{words.removeprefix('conflux ')} --passphrase-file {self.word}".replace(
                    "home.backup", str(self.path / "home.backup")
                ),
            )
        elif words.startswith("conflux realm invite"):
            pass  # the request is carried by hand below
        elif words.startswith("conflux join TOKEN"):
            self.join(words.partition("TOKEN")[2])
        else:
            assert words in ("conflux down", "conflux up"), line


@pytest.fixture
def boards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Boards:
    return Boards(tmp_path, capsys)


def test_a_realm_that_lived_ahead_goes_on_by_itself(boards: Boards) -> None:
    """The page: nothing has to be done."""
    boards.live_ahead()
    for board in ("gate", "kitchen"):
        clock = realm_clock(boards.state(board))
        for other in ("gate", "kitchen"):
            clock.judge(boards.member(other).chain, boards.member(board).anchor)
        warning = clock.warning()
        assert warning is not None
        assert "if this clock is right, nothing has to be done" in warning


@pytest.mark.usefixtures("quick_scrypt")
def test_the_remedy_of_the_page_brings_the_present_back(boards: Boards) -> None:
    boards.conflux("gate", f"realm backup {boards.path / 'home.backup'} --passphrase-file {boards.word}")
    before = {board: boards.member(board) for board in ("gate", "kitchen")}
    boards.live_ahead()
    lines = block_of("The clock")
    assert any("rm " in line for line in lines)
    for line in lines:
        boards.run(line)
    now = int(time.time())
    for board in ("gate", "kitchen"):
        member = boards.member(board)
        assert (member.name, member.addresses) == (before[board].name, before[board].addresses)
        assert member.chain.newest_date <= now
        clock = RealmClock(boards.state(board).floor_unix(), system=lambda: now, save=lambda date: None)
        for other in ("gate", "kitchen"):
            clock.judge(boards.member(other).chain, member.anchor)
        assert (clock.warning(), clock.now_unix()) == (None, now)
