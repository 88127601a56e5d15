"""Every command as a process, where scripts and cron run it: one line, the right exit code, no traceback.

alpha       a user without any right types every command: at a directory that is root's, at its own with a daemon that
            hangs, without the three descriptors, into a pipe that nobody reads, and with Ctrl-C at any moment
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from kit.grammar import parsers
from rig.person import NOBODY, Done, Person, interrupted, wrong
from rig.topology import CONFLUX, Lab

from conflux.cli import parser

EVERY = [
    (words, [str(action.metavar) for action in below._actions if not action.option_strings and action.nargs is None])
    for words, below in parsers(parser.parser())
    if below.get_default("run") is not None
]
# What stands in the place of a name, and is well-formed; for all else a file that is not there.
SAMPLES = {"NAME": "kitchen", "NODE": "kitchen", "ID": "3f9a"}
RUNS_ON: set[tuple[str, ...]] = {
    ("page",),
    ("bench",),
    ("up",),
    ("doctor",),
    ("report",),
}  # by themselves, or for many seconds: test_lab_long_commands.py
AT_ONCE = 24  # a daemon that hangs has most of them wait for most of their time


def every(person: Person, script: Callable[[str, int], str], state: Path, but: set[tuple[str, ...]]) -> Iterator[Done]:
    """Run every command by a script, some at a time; yield what became of each.  script: of the line, a number."""

    def one(number: int) -> Done:
        words, given = EVERY[number]
        absent = f"{person.home}/absent/{number}"
        line = [*words, *(SAMPLES.get(each, absent) for each in given), "--state-dir", str(state)]
        if words[0] in ("sdcard", "help", "version"):  # they have no such option
            line = line[:-2]
        done = person.bash(script(shlex.join([str(CONFLUX), *line]), number))
        done.args = line
        return done

    wanted = [number for number, (words, _) in enumerate(EVERY) if words not in but]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield from pool.map(one, wanted)


@pytest.fixture(scope="module")
def person(shared_lab: Lab) -> Person:
    """Somebody without rights, on a host that reaches no other."""
    alpha = shared_lab.host("alpha", shared_lab.lan())
    if alpha.run(*NOBODY, str(CONFLUX), "--version", check=False).returncode:
        pytest.skip("another user than root cannot run the program here")
    return Person(alpha)


@pytest.fixture(scope="module")
def hung(person: Person) -> Path:
    """A member's directory whose daemon takes connections and says nothing."""
    return person.hang("hung")


def test_without_rights(person: Person) -> None:
    closed = person.alpha.state / "closed"  # root's, as a package makes it
    closed.mkdir(mode=0o700)
    ends = list(every(person, lambda line, number: f"{line} </dev/null", closed, RUNS_ON - {("up",)}))
    assert [fault for done in ends for fault in wrong(done, (0, 1, 2))] == []
    needing = [done for done in ends if done.args[0] in ("status", "up", "realm", "leave", "control", "down")]
    assert [done.args for done in needing if done.returncode == 0] == []


def test_a_daemon_that_hangs_and_no_descriptors(person: Person, hung: Path) -> None:
    def script(line: str, number: int) -> str:
        return f"{line} <&- >&- 2>&-; code=$?; echo $code; exit $code"

    ends = list(every(person, script, hung, RUNS_ON))
    assert [done.args for done in ends if done.returncode not in (0, 1, 2)] == []
    asking = [done for done in ends if done.args[0] in ("status", "streams", "ip", "why", "route", "ping", "down")]
    assert {done.returncode for done in asking} == {1}


def test_into_a_pipe_that_nobody_reads(person: Person) -> None:
    def script(line: str, number: int) -> str:
        return f"{line} </dev/null | true; exit ${{PIPESTATUS[0]}}"

    ends = list(every(person, script, person.state, RUNS_ON | {("leave",)}))
    faults = [fault for done in ends for fault in wrong(done, (0, 1, 2))]
    assert [fault for fault in faults if not fault.endswith("not a word")] == []  # a closed pipe is told to no one


def test_ctrl_c_at_any_moment_from_our_first_line_on(person: Person, hung: Path) -> None:
    def script(line: str, number: int) -> str:
        return f"{interrupted(line, 0.005 + 0.02 * (number % 10))} </dev/null"

    ends = list(every(person, script, hung, {("up",)}))
    assert [fault for done in ends for fault in wrong(done, (0, 1, 2, 130))] == []
    assert sum(done.returncode == 130 for done in ends) > len(ends) // 4
