"""Forgetting a state directory: at whatever step it stops, the node is the old one or there is none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from kit.builders import make_member, make_realm

from conflux.errors import StateError
from conflux.state import directory, erasing
from conflux.state.directory import KeyFile, StateDir

ALPHA = make_member(make_realm(), "alpha")


class PowerCut(Exception):
    """The board is off."""


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    state = StateDir.open(tmp_path / "state", create=True)
    state.save_record(directory.NODE_KEY, KeyFile(ALPHA.keys.signing.seed))
    state.save_member(ALPHA)
    state.guard()
    state.atomic_write("lists/one.list", b"x")
    state.atomic_write("audit-x/1", b"x")
    (state.path / "link").symlink_to(tmp_path / "elsewhere")
    return state


def erase(state: StateDir) -> None:
    state.lock()
    try:
        erasing.begin(state.path)
        erasing.finish(state.path)
    finally:
        state.close()


def names(state: StateDir) -> set[str]:
    return {path.name for path in state.path.iterdir()}


def test_nothing_is_left_but_the_lock(state, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_text("not ours")
    erase(state)
    assert names(state) == {"lock"}
    assert (tmp_path / "elsewhere" / "file").read_text() == "not ours"
    assert StateDir.open(state.path).node_keys() is None


def test_a_power_cut_at_any_step_leaves_the_old_node_or_none(tmp_path, monkeypatch):
    """Every change of the directory is a step: the mark, each removal, the mark's."""
    for count in range(100):
        steps = [count]
        path = tmp_path / str(count)
        state = StateDir.open(path, create=True)
        state.save_record(directory.NODE_KEY, KeyFile(ALPHA.keys.signing.seed))
        state.save_member(ALPHA)
        state.guard()

        def step(act, steps=steps):
            def acting(*given, **named):
                if not steps[0]:
                    raise PowerCut
                steps[0] -= 1
                return act(*given, **named)

            return acting

        with monkeypatch.context() as patched:
            for name in ("unlink", "rmdir", "fsync"):
                patched.setattr(os, name, step(getattr(os, name)))
            try:
                erase(state)
                done = True
            except PowerCut:
                done = False
        state.close()
        again = StateDir.open(path)
        member = again.member()
        if member is None:
            assert again.node_keys() is None
            assert not names(again) - {"lock"}
        else:
            assert member.node_id == ALPHA.node_id
            assert not done
        if done:
            assert count > 5
            return
    pytest.fail("it never came to its end")


def test_a_looker_does_not_go_on_with_it(state):
    erasing.begin(state.path)
    StateDir.open(state.path, mends=False)
    assert directory.NODE_KEY in names(state)


def test_two_do_not_erase_at_once(state):
    state.lock()
    erasing.begin(state.path)
    with pytest.raises(StateError, match="in use by process"):
        StateDir.open(state.path)
    state.close()


def test_a_disk_that_takes_nothing_keeps_the_node(state, monkeypatch):
    def full(*given, **named):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", full)
        with pytest.raises(StateError, match="No space left on device; nothing was erased"):
            erasing.begin(state.path)
    assert StateDir.open(state.path).member() is not None


def test_what_cannot_be_erased_is_named(state, monkeypatch):
    def refused(*given, **named):
        raise OSError(30, "Read-only file system", "x")

    erasing.begin(state.path)
    monkeypatch.setattr(os, "unlink", refused)
    with pytest.raises(StateError, match="cannot erase: Read-only file system; the next start goes on"):
        erasing.finish(state.path)
