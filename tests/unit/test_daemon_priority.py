"""The daemon's place in front of other work.  Every claim in a process of its own: a nice value does not come back."""

import subprocess
import sys
from pathlib import Path

import pytest

from conflux import priority
from conflux.config import parse

PACKAGE = Path(__file__).resolve().parents[2]


def said(script: str, *, leads_session: bool = False) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"import os; from conflux import priority, privileges; {script}"],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(PACKAGE)},
        start_new_session=leads_session,
        timeout=30,
        check=True,
    )
    return done.stdout.split()


def test_threads_made_later_have_it_too():
    script = (
        "import threading; print(priority.ask(7));"
        "ask = lambda: print(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()));"
        "thread = threading.Thread(target=ask); thread.start(); thread.join()"
    )
    assert said(script) == ["True", "7"]


def test_who_may_not_go_first_goes_on_as_before():
    script = "privileges.drop(); before = os.nice(0); print(priority.ask(before - 1), os.nice(0) - before)"
    assert said(script) == ["False", "0"]


@pytest.mark.skipif(not priority.AUTOGROUP.exists(), reason="a kernel without autogroups")
@pytest.mark.parametrize("leads_session", [True, False])
def test_the_sessions_group_is_asked_for_where_the_session_is_ours(leads_session):
    group = "print(priority.AUTOGROUP.read_text().split()[2:])"  # empty: in the session the machine began with
    before, asked, after = said(f"{group}; print(priority.ask(7)); {group}", leads_session=leads_session)
    assert asked == "True"
    assert before == "['0']" or not leads_session
    assert after == ("['7']" if leads_session else before)


def test_it_goes_before_others_unless_told_otherwise():
    assert parse("").node.nice < 0
    assert parse("[node]\nnice = 0\n").node.nice == 0
