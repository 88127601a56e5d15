"""A board whose configuration holds an invitation waits for an issuer that starts later than it does."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kit.builders import make_member, make_realm

from conflux.config.settings import parse
from conflux.control.admitting import NoAnswerError, RefusedByIssuer
from conflux.daemon import joining
from conflux.errors import UserError
from conflux.host.systemd import Notifier
from conflux.realm.invite import make_invite
from conflux.realm.member import Member
from conflux.state.directory import StateDir

MEMBER = make_member(make_realm(), "bravo")
NOW_UNIX = 1_800_000_000
APPROVAL = UserError("a person has to approve")


class Board:
    """A board that joins; each search for the issuer ends as the next of ends says."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch, *ends: Exception | None) -> None:
        self.ends = list(ends)
        self.pauses: list[float] = []
        self.notify = str(path / "notify")
        self.state = StateDir.open(path / "state", create=True)
        self.config = parse(f'[node]\nname = "bravo"\nstate_dir = "{self.state.path}"\n')
        _, self.token = make_invite(MEMBER.anchor, MEMBER.node_id, now_unix=NOW_UNIX, entropy=os.urandom)
        monkeypatch.setattr(joining, "join_with_token", self._search)

    async def _search(self, *arguments: object, waits: Callable[[], None]) -> object:
        end = self.ends.pop(0)
        if end is APPROVAL:
            waits()
            end = None
        if end is not None:
            raise end
        return MEMBER

    def join(self) -> list[str]:
        """Join, and return what systemd heard meanwhile."""
        notifier = Notifier({"NOTIFY_SOCKET": self.notify})
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
            systemd.bind(self.notify)
            systemd.setblocking(False)
            joined = joining.join_when_answered(self.config, self.state, self.token, notifier, self._pause)
            assert asyncio.run(joined) is MEMBER
            return list(_all_of(systemd))

    async def _pause(self, pause_s: float) -> None:
        self.pauses.append(pause_s)


def _all_of(systemd: socket.socket) -> Iterator[str]:
    with contextlib.suppress(BlockingIOError):
        while True:
            yield systemd.recv(4096).decode()


def test_a_board_joins_when_the_issuer_is_late(tmp_path, monkeypatch, caplog) -> None:
    board = Board(tmp_path, monkeypatch, *[NoAnswerError("no answer")] * 7, None)
    with caplog.at_level(logging.WARNING):
        board.join()
    assert board.pauses == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    assert [record.getMessage() for record in caplog.records] == [
        "no answer  This daemon stays up, and tries again until it answers."
    ]


@pytest.mark.parametrize(
    ("wait", "says"), [(NoAnswerError("no answer"), joining.JOINING), (APPROVAL, "conflux realm approve bravo")]
)
def test_a_start_is_done_before_it_waits_for_whoever_lets_the_board_in(tmp_path, monkeypatch, wait, says) -> None:
    ends = [wait] if wait is APPROVAL else [wait, None]
    first, done = Board(tmp_path, monkeypatch, *ends).join()
    assert first.startswith("EXTEND_TIMEOUT_USEC="), "a search that is answered at once is part of the start"
    assert done.startswith("READY=1\nSTATUS="), "else an installation or a boot waits for it"
    assert done.endswith(says)


@pytest.mark.parametrize("refusal", [RefusedByIssuer("used up"), UserError("the issuer refused: expired")])
def test_a_refusal_ends_the_start(tmp_path, monkeypatch, refusal) -> None:
    board = Board(tmp_path, monkeypatch, NoAnswerError("no answer"), refusal)
    with pytest.raises(UserError) as caught:
        board.join()
    assert (caught.value, board.pauses) == (refusal, [2.0])


async def test_two_ways_without_an_answer_are_no_answer() -> None:
    async def silent() -> Member:
        raise NoAnswerError("nobody")

    async def refused() -> Member:
        raise UserError("used up")

    with pytest.raises(NoAnswerError):
        await joining.first_of([silent, silent])
    with pytest.raises(UserError) as caught:
        await joining.first_of([silent, refused])
    assert not isinstance(caught.value, NoAnswerError)
