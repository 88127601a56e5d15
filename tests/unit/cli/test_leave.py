"""`conflux leave`, where no daemon runs: what goes, what stays, and who may not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from kit.desk import Desk

from conflux.ids import format_node_id


def _furnish(desk: Desk) -> None:
    desk.found()
    desk.join_by_file("k", "kitchen")


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk.after(_furnish, tmp_path, capsys)


def test_who_leaves_keeps_its_keys_and_can_join_again_or_elsewhere(desk):
    node = desk.node_id("k")
    out = desk.do("k", "leave", "--yes")
    assert f"conflux realm revoke {format_node_id(node)}" in out
    assert desk.state("k").member() is None
    desk.do("away", "realm", "create", "away", "--node", "hub")
    desk.join_by_file("k", "kitchen", by="away")
    assert (desk.node_id("k"), desk.state("k").member().anchor.name) == (node, "away")


def test_a_board_in_the_wrong_realm_gets_out(desk):
    desk.do("away", "realm", "create", "away", "--node", "hub")
    assert "issues for realm away" in desk.refused("away", "leave", "--yes")
    assert desk.state("away").member() is not None
    desk.do("away", "leave", "--yes", "--force")
    desk.join_by_file("away", "hub")
    assert desk.state("away").member().anchor.name == "home"


def test_who_is_in_no_realm_has_nothing_to_leave(desk):
    desk.do("k", "leave", "--yes")
    assert "nothing to leave" in desk.refused("k", "leave", "--yes")


def test_a_directory_that_a_daemon_holds_is_left_alone(desk):
    held = desk.state("k")
    held.lock()
    assert "in use by process" in desk.refused("k", "leave", "--yes")
    held.close()
    assert desk.state("k").member() is not None


def test_leaving_is_asked_for_and_not_done_without_a_terminal(desk, monkeypatch):
    assert "--yes leaves realm home without asking" in desk.refused("k", "leave")
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True, readline=lambda size: "\n"))
    code, out, err = desk.run("k", "leave")
    assert (code, err) == (1, "conflux: not left; nothing was changed\n")
    assert out == "kitchen leaves realm home; only a new token lets it in again.  Leave? [y/N] "
    assert desk.state("k").member() is not None
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True, readline=lambda size: "y\n"))
    desk.do("k", "leave")
    assert desk.state("k").member() is None


def test_an_error_names_the_way_out(desk):
    assert "conflux leave ends that" in desk.refused("k", "realm", "create", "other")
    held = desk.state("k")
    held.lock()
    assert "conflux down ends the daemon" in desk.refused("k", "realm", "create", "other")
    held.close()
