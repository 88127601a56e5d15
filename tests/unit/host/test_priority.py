"""Asking for a nice value: for this thread, and for the session's group only if the session is ours."""

import os

import pytest

from conflux.host import priority


@pytest.fixture
def kernel(monkeypatch, tmp_path):
    """Return what was set, by a kernel that allows everything in a session of our own."""
    group, asked = tmp_path / "autogroup", []
    group.write_text("/autogroup-7 nice 0\n")
    monkeypatch.setattr(priority, "AUTOGROUP", group)
    monkeypatch.setattr(os, "setpriority", lambda *what: asked.append(what))
    monkeypatch.setattr(os, "getsid", lambda pid: os.getpid())
    return asked


def test_the_thread_and_the_group_of_our_own_session_get_the_nice_value(kernel):
    assert priority.ask(-10)
    assert kernel == [(os.PRIO_PROCESS, 0, -10)]
    assert priority.AUTOGROUP.read_text() == "-10"


def test_the_group_of_another_session_is_left_alone(kernel, monkeypatch):
    monkeypatch.setattr(os, "getsid", lambda pid: os.getpid() + 1)
    assert priority.ask(-10)
    assert priority.AUTOGROUP.read_text() == "/autogroup-7 nice 0\n"


def test_a_kernel_without_autogroups_is_good_enough(kernel):
    priority.AUTOGROUP.unlink()
    assert priority.ask(-10)
    assert not priority.AUTOGROUP.exists()


def test_a_refusal_changes_nothing_and_is_no_error(kernel, monkeypatch):
    def refuse(*what: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "setpriority", refuse)
    assert not priority.ask(-10)
    assert priority.AUTOGROUP.read_text() == "/autogroup-7 nice 0\n"
