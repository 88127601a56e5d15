"""The daemon's nice value.  Every test runs a process of its own, because a nice value cannot be taken back."""

import subprocess
import sys

import pytest
from kit.tree import TREE

from conflux.config.settings import parse
from conflux.host import priority


def said(script: str, *, leads_session: bool = False) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"import os; from conflux.host import priority, privileges; {script}"],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(TREE)},
        start_new_session=leads_session,
        timeout=30,
        check=True,
    )
    return done.stdout.split()


def test_threads_made_later_have_the_nice_value_too():
    script = (
        "import threading; print(priority.ask(7));"
        "ask = lambda: print(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()));"
        "thread = threading.Thread(target=ask); thread.start(); thread.join()"
    )
    assert said(script) == ["True", "7"]


def test_a_process_that_may_not_raise_its_priority_runs_on_unchanged():
    script = "privileges.drop(); before = os.nice(0); print(priority.ask(before - 1), os.nice(0) - before)"
    assert said(script) == ["False", "0"]


@pytest.mark.skipif(not priority.AUTOGROUP.exists(), reason="a kernel without autogroups")
@pytest.mark.parametrize("leads_session", [True, False])
def test_the_autogroup_gets_the_nice_value_only_in_a_session_of_our_own(leads_session):
    group = "print(priority.AUTOGROUP.read_text().split()[2:])"  # empty in the session that the machine began with
    before, asked, after = said(f"{group}; print(priority.ask(7)); {group}", leads_session=leads_session)
    assert asked == "True"
    assert before == "['0']" or not leads_session
    assert after == ("['7']" if leads_session else before)


def test_the_daemon_asks_for_a_negative_nice_value_unless_configured_otherwise():
    assert parse("").node.nice < 0
    assert parse("[node]\nnice = 0\n").node.nice == 0
