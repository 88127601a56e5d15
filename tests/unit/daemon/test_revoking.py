"""Nodes on an issuer's record, as a running daemon finds them: what a looker asks costs no reading of all records."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from kit.desk import Desk

from conflux.daemon.revoking import Revocation
from conflux.errors import UserError
from conflux.state.clock import realm_clock
from conflux.state.directory import StateDir


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    desk = Desk(tmp_path, capsys)
    desk.do("gate", "realm", "create", "home", "--node", "gate")
    for name in ("kitchen", "cellar"):
        desk.join_by_file(name, name)
    long_ago = time.time() - 3600  # else a file may have been written twice in one tick of its clock
    for file in (desk.path / "gate" / "issued").iterdir():
        os.utime(file, (long_ago, long_ago))
    return desk


def revocation(desk: Desk, board: str) -> Revocation:
    state = desk.state(board)
    member = state.member()
    assert member is not None
    return Revocation(state, member, realm_clock(state))


def test_an_unknown_name_is_looked_up_without_reading_what_was_read(desk, monkeypatch):
    found = revocation(desk, "gate")
    read: list[str] = []
    load = StateDir.load_record

    def noted(self, name, kind):
        read.append(name)
        return load(self, name, kind)

    monkeypatch.setattr(StateDir, "load_record", noted)
    assert found.find("nosuch") is None
    assert sum(name.startswith("issued/") for name in read) == 3
    read.clear()
    for number in range(20):
        assert found.find(f"nosuch{number}") is None
    assert [name for name in read if name.startswith("issued/")] == []


def test_what_changes_meanwhile_is_seen(desk):
    found = revocation(desk, "gate")
    assert found.find("kitchen") == desk.node_id("kitchen")
    desk.do("gate", "realm", "rename", "kitchen", "barn")
    desk.join_by_file("loft", "loft")
    assert (found.find("kitchen"), found.find("barn")) == (None, desk.node_id("kitchen"))
    assert found.find("loft") == desk.node_id("loft")
    desk.do("gate", "realm", "revoke", "loft")
    assert found.find("loft") is None


def test_who_issues_nothing_finds_nobody(desk):
    with pytest.raises(UserError, match="does not issue"):
        revocation(desk, "kitchen").find("gate")
