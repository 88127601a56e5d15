"""Every command as a process, where scripts and cron run it: one line, the right exit code, no traceback.

alpha       a user without any right types every command: at a directory that is root's, at its own with a daemon that
            hangs, without the three descriptors, into a pipe that nobody reads, and with Ctrl-C at any moment
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from kit.grammar import parsers
from rig.topology import CONFLUX, Host, Lab, wait_for

from conflux.cli import parser

NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
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
}  # by themselves, or for many seconds
TROUBLE = ("Traceback", "a bug:", "Exception ignored", "Fatal Python", "most recent call")
AT_ONCE = 24  # a daemon that hangs has most of them wait for most of their time
# Runs a command, and interrupts it so many seconds later: before our first line Python's own start would be.
INTERRUPTED = """
import os, signal, sys, time
from conflux.cli import entry
after_s, command = float(sys.argv.pop(1)), os.getpid()
reader, writer = os.pipe()
if os.fork() == 0:
    os.close(writer)
    os.read(reader, 1)
    time.sleep(after_s)
    if os.getppid() == command:
        os.kill(command, signal.SIGINT)
    os._exit(0)
first = entry.open_missing
def begun():
    os.write(writer, b"x")
    first()
entry.open_missing = begun
sys.exit(entry.main())
"""
LISTENS = (
    "import socket, sys, time; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(200); time.sleep(600)"
)

Done = CompletedProcess[str]


class Person:
    """Somebody on alpha who is not root, with a directory and a realm of their own."""

    def __init__(self, alpha: Host) -> None:
        self.alpha = alpha
        self.home = alpha.state / "home"
        self.home.mkdir()
        os.chown(self.home, 65534, 65534)
        self.state = self.home / "state"
        done = self.bash(shlex.join([str(CONFLUX), "realm", "create", "home", "--state-dir", str(self.state)]))
        assert done.returncode == 0, done.stderr

    def bash(self, script: str) -> Done:
        """Run a script as this user, in the home directory."""
        line = ("env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C", "HOME=/nowhere", "bash", "-c")
        return self.alpha.run(*NOBODY, *line, f"cd {self.home}; {script}", check=False, within_s=120)

    def every(self, script: Callable[[str, int], str], state: Path, but: set[tuple[str, ...]]) -> Iterator[Done]:
        """Run every command by a script, some at a time; yield what became of each.  script: of the line, a number."""

        def one(number: int) -> Done:
            words, given = EVERY[number]
            absent = f"{self.home}/absent/{number}"
            line = [*words, *(SAMPLES.get(each, absent) for each in given), "--state-dir", str(state)]
            if words[0] in ("sdcard", "help", "version"):  # they have no such option
                line = line[:-2]
            done = self.bash(script(shlex.join([str(CONFLUX), *line]), number))
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
    state = person.home / "hung"
    person.bash(f"cp -a {person.state} {state}")
    listener = person.alpha.spawn("hung", *NOBODY, "/usr/bin/python3", "-c", LISTENS, state / "conflux.sock")
    wait_for((state / "conflux.sock").exists, "the daemon that hangs", within_s=10, logs=(listener,))
    return state


def wrong(done: Done, codes: tuple[int, ...]) -> list[str]:
    """Return what is wrong with an end: its exit code, a traceback, more than one line of error."""
    lines = [line for line in done.stderr.splitlines() if ": warning: " not in line]
    faults = [f"exit code {done.returncode}"] if done.returncode not in codes else []
    faults += [word for word in TROUBLE if word in done.stdout + done.stderr]
    faults += [line for line in lines if not line.startswith("conflux") or not line.isprintable()]
    faults += ["more than one line"] if done.returncode and len(lines) > 1 else []
    faults += ["not a word"] if done.returncode in (1, 2) and not (lines or done.stdout) else []
    return [f"{' '.join(done.args)}: {fault}" for fault in faults]


def test_without_rights(person: Person) -> None:
    closed = person.alpha.state / "closed"  # root's, as a package makes it
    closed.mkdir(mode=0o700)
    ends = list(person.every(lambda line, number: f"{line} </dev/null", closed, RUNS_ON - {("up",)}))
    assert [fault for done in ends for fault in wrong(done, (0, 1, 2))] == []
    needing = [done for done in ends if done.args[0] in ("status", "up", "realm", "leave", "control", "down")]
    assert [done.args for done in needing if done.returncode == 0] == []


def test_a_daemon_that_hangs_and_no_descriptors(person: Person, hung: Path) -> None:
    def script(line: str, number: int) -> str:
        return f"{line} <&- >&- 2>&-; code=$?; echo $code; exit $code"

    ends = list(person.every(script, hung, RUNS_ON))
    assert [done.args for done in ends if done.returncode not in (0, 1, 2)] == []
    asking = [done for done in ends if done.args[0] in ("status", "streams", "ip", "why", "route", "ping", "down")]
    assert {done.returncode for done in asking} == {1}


def test_into_a_pipe_that_nobody_reads(person: Person) -> None:
    def script(line: str, number: int) -> str:
        return f"{line} </dev/null | true; exit ${{PIPESTATUS[0]}}"

    ends = list(person.every(script, person.state, RUNS_ON | {("leave",)}))
    faults = [fault for done in ends for fault in wrong(done, (0, 1, 2))]
    assert [fault for fault in faults if not fault.endswith("not a word")] == []  # a closed pipe is told to no one


def test_ctrl_c_at_any_moment_from_our_first_line_on(person: Person, hung: Path) -> None:
    def script(line: str, number: int) -> str:
        words = shlex.split(line)[1:]
        after_s = 0.005 + 0.02 * (number % 10)
        program = shlex.join([sys.executable, "-c", INTERRUPTED, f"{after_s:.3f}", *words])
        return f"{program} </dev/null"

    ends = list(person.every(script, hung, {("up",)}))
    assert [fault for done in ends for fault in wrong(done, (0, 1, 2, 130))] == []
    assert sum(done.returncode == 130 for done in ends) > len(ends) // 4
