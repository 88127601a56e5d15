"""A founder and other boards as a person has them: state directories, and commands typed at them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pytest
from kit.founded import copy_of

from conflux.api import scheme
from conflux.api.failure import Failure
from conflux.cli import parser
from conflux.ids import NodeId
from conflux.state.clock import realm_clock
from conflux.state.directory import StateDir

DAY_S = 86400


def root_in(said: str) -> str:
    """Return the root that `conflux realm sign` printed, as a person copies it."""
    return next(line.partition("root")[2].partition(":")[0].strip() for line in said.splitlines() if "root  " in line)


class Desk:
    """Boards, each a folder of one name below path; commands are typed at one of them."""

    def __init__(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.path = path
        self._capsys = capsys

    @classmethod
    def after(cls, furnish: Callable[[Self], None], path: Path, capsys: pytest.CaptureFixture[str]) -> Self:
        """Return boards as furnish() leaves them, which is called once in a process; each test has a copy."""

        def fill(place: Path) -> None:
            furnish(cls(place, capsys))

        copy_of(f"{furnish.__module__}.{furnish.__qualname__}", fill, path)
        return cls(path, capsys)

    def pass_days(self, days: float, *boards: str) -> None:
        """Let the boards see a date that the realm signed so many days from now: their clock is then never earlier."""
        for board in boards:
            self.state(board).save_floor(self.now_unix(board) + round(days * DAY_S))

    def now_unix(self, board: str) -> int:
        """Return the time as a board sees it."""
        return realm_clock(self.state(board)).now_unix()

    def state(self, board: str) -> StateDir:
        """Return a board's state directory."""
        return StateDir.open(self.path / board)

    def node_id(self, board: str) -> NodeId:
        """Return the id of a board."""
        keys = self.state(board).node_keys()
        assert keys is not None
        return keys.node_id

    def run(self, board: str, *words: object) -> tuple[int, str, str]:
        """Run a command at a board; return its exit code, and what it said on standard output and error."""
        code = parser.main([*map(str, words), "--state-dir", str(self.path / board)])
        said = self._capsys.readouterr()
        return code, said.out, said.err

    def found(self) -> None:
        """Have the board gate make the realm home."""
        self.do("gate", "realm", "create", "home", "--node", "gate")

    def do(self, board: str, *words: object) -> str:
        """Run a command that has to succeed; return what it said."""
        code, out, err = self.run(board, *words)
        assert (code, err) == (0, ""), (words, err)
        return out

    def refused(self, board: str, *words: object) -> str:
        """Run a command that has to fail with one line; return the line."""
        code, out, err = self.run(board, *words)
        printed = (
            json.dumps(scheme.answer(Failure(err.removeprefix("conflux: ").strip()))) + "\n"
            if "--json" in words
            else ""
        )
        assert code in (1, 2), (words, out, err)
        assert (out, err.count("\n")) == (printed, 1), (words, out, err)
        return err

    def ask(self, board: str, *words: object) -> Any:
        """Run a command with --json; return what it says, but for the number of the scheme."""
        answer = json.loads(self.do(board, *words, "--json"))
        assert answer.pop(scheme.KEY) == scheme.VERSION
        return answer

    def join_by_file(self, board: str, name: str, *options: object, by: str = "gate") -> None:
        """Let a board in, by files."""
        request = self.path / f"{board}.request"
        self.do(board, "join", "--request", request, "--force", "--name", name)
        signed = self.do(by, "realm", "sign", "--force", request, *options)
        self.do(board, "join", "--answer", f"{request}.answer", "--root", root_in(signed))
