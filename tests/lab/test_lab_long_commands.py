"""Commands that run for long, as processes with hostile words: one line that says what to do, and the right exit code.

alpha       a user without any right types `up`, `bench`, `page`, `doctor` and `report`: with words that no file has,
            at directories that are not theirs, without descriptors, into closed pipes, and with Ctrl-C in the middle
"""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from rig.person import NOBODY, TROUBLE, Done, Person, interrupted, wrong
from rig.topology import CONFLUX, Lab, wait_for

AT_ONCE = 8
LONG_S = 300.0  # a machine that does much else
# As bash reads them between $' and '.
WORDS = {
    "nothing": "",
    "absent": "absent/none",
    "a directory": ".",
    "a line and a colour": "a\\nb\\e[31mred",
    "no text": "a\\xff\\xfeb",
    "too long for a name": "x" * 300,
    "too long for a path": "x/" * 3000,
    "a device without end": "/dev/zero",
    "no one's to read": "/proc/1/mem",
    "below a file": "file/below",
}
KINDS = list(WORDS)
MADE = ("nothing", "absent", "a directory", "a line and a colour", "no text")  # nothing is wrong with such a place
USAGE = ("up", "bench", "page", "doctor", "report")


def quoted(word: str) -> str:
    """Return a word for bash."""
    return f"$'{word}'"


def run(person: Person, lines: Sequence[str], within_s: float = LONG_S) -> list[Done]:
    """Run lines of bash that begin with a command of conflux, some at a time."""

    def one(line: str) -> Done:
        done = person.bash(f"{CONFLUX} {line}", within_s)
        done.args = [line if len(line) < 200 else f"{line[:200]}..."]
        return done

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(one, lines))


@pytest.fixture(scope="module")
def person(shared_lab: Lab) -> Person:
    """Somebody without rights, on a host that reaches no other."""
    alpha = shared_lab.host("alpha", shared_lab.lan())
    if alpha.run(*NOBODY, str(CONFLUX), "--version", check=False).returncode:
        pytest.skip("another user than root cannot run the program here")
    found = Person(alpha)
    found.bash("echo >file; mkdir taken shut; echo {} >taken/conflux-bench.json; chmod 500 shut; cp file old.tar.gz")
    return found


@pytest.fixture(scope="module")
def hung(person: Person) -> Path:
    """A member's directory whose daemon takes connections and says nothing."""
    return person.hang("hung")


def faults(ends: Sequence[Done], *codes: int) -> list[str]:
    """Return what is wrong with ends that had to fail."""
    return [fault for done in ends for fault in wrong(done, codes)]


def test_words_that_the_grammar_does_not_have_are_blamed_and_end_with_2(person: Person) -> None:
    lines = [f"{command} {word}" for command in USAGE for word in ("--none", "--config", quoted("--a\\nb"), "x y")]
    lines += [f"{command} {quoted(WORDS['a line and a colour'])} {quoted(WORDS['no text'])}" for command in USAGE]
    lines += ["bench --compare a", "bench --compare a b c", "bench --compare a b --quick", "up --foreground --json"]
    lines += ["bench --quick=5", "doctor --quick=no", "up --foreground=1"]
    assert faults(run(person, [f"{line} </dev/null" for line in lines]), 2) == []


@pytest.mark.parametrize("kind", WORDS)
def test_a_configuration_that_is_none(person: Person, kind: str) -> None:
    lines = [f"{command} --config {quoted(WORDS[kind])} </dev/null" for command in USAGE if command != "bench"]
    ends = run(person, lines)
    looks = [done for done in ends if done.args[0].startswith(("doctor", "report"))]
    assert faults([done for done in ends if done not in looks], 1, 2) == []
    assert faults(looks, 0, 1, 2) == []  # they are for such days: a finding, or a line in the archive


@pytest.mark.parametrize("kind", WORDS)
def test_a_state_directory_that_is_none(person: Person, kind: str) -> None:
    commands = ["doctor --quick", f"report {KINDS.index(kind)}.tar.gz"]
    if kind not in MADE:  # else `up` makes it, and waits there for a realm
        commands += ["up", "up --foreground"]
    ends = run(person, [f"{command} --state-dir {quoted(WORDS[kind])} </dev/null" for command in commands])
    assert faults(ends, 0, 1, 2) == []
    assert [done.args for done in ends if done.args[0].startswith("up") and done.returncode == 0] == []


@pytest.mark.parametrize("kind", WORDS)
def test_a_place_that_takes_no_file(person: Person, kind: str) -> None:
    word = quoted(WORDS[kind])
    lines = [f"bench --compare {word} {word}", f"bench --compare file {word}"]
    if kind not in MADE:
        lines += [f"bench --out {word}", f"report {word} --state-dir state"]
    assert faults(run(person, [f"{line} </dev/null" for line in lines]), 1, 2) == []


def test_files_that_are_there_and_places_that_are_closed(person: Person) -> None:
    lines = ["bench --out taken", "bench --out shut", "bench --out file", "report old.tar.gz --state-dir state"]
    lines += ["report shut/a.tar.gz --state-dir state", "report . --state-dir state"]
    assert faults(run(person, [f"{line} </dev/null" for line in lines]), 1) == []


def test_reports_that_are_none_are_not_compared(person: Person) -> None:
    hostile = [
        "[" * 100_000,
        "{}",
        "[]",
        "null",
        "1e999",
        '{"results": 5}',
        '{"scheme": 1, "version": "x", "results": [{"name": "\u001b[31m", "value": "NaN"}]}',
        json.dumps({"results": [{"name": "x", "value": 10**400}]}),
        "\udcff".encode("utf-8", "surrogateescape").decode("latin-1"),
    ]
    lines = []
    for number, text in enumerate(hostile):
        (person.home / f"hostile{number}.json").write_text(text)
        lines += [f"bench --compare hostile{number}.json hostile{number}.json </dev/null"]
    assert faults(run(person, lines), 1) == []


def test_without_a_daemon_with_one_that_hangs_and_at_a_directory_of_root(person: Person, hung: Path) -> None:
    closed = person.alpha.state / "closed"
    closed.mkdir(mode=0o700)
    states = (person.state, hung, closed)
    lines = [f"{line} --state-dir {state}" for state in states for line in ("up", "up --foreground", "doctor --quick")]
    lines += [f"report {state.name}.tar.gz --state-dir {state}" for state in states]
    ends = run(person, [f"{line} </dev/null" for line in lines])
    assert faults(ends, 0, 1) == []
    assert [done.args for done in ends if done.args[0].startswith(("up", "doctor")) and done.returncode == 0] == []


def test_without_descriptors_and_into_a_pipe_that_nobody_reads(person: Person, hung: Path) -> None:
    lines = ["up", "up --foreground", "doctor", "bench --quick --out closed --force"]
    lines = [f"{line} --state-dir {hung}" if "bench" not in line else line for line in lines]
    lines += [f"report descriptors.tar.gz --state-dir {hung}"]
    ends = run(person, [f"{line} <&- >&- 2>&-" for line in lines])
    assert [done.args for done in ends if done.returncode not in (0, 1)] == []
    ends = run(person, [f"{line} </dev/null | true; exit ${{PIPESTATUS[0]}}" for line in lines if "report" not in line])
    assert [(done.args, word) for done in ends for word in TROUBLE if word in done.stderr] == []
    assert [done.args for done in ends if done.returncode not in (0, 1)] == []


@pytest.mark.parametrize("after_s", [0.3, 1.0, 3.0, 8.0])
def test_ctrl_c_in_the_middle(person: Person, hung: Path, after_s: float) -> None:
    lines = [f"up --foreground --state-dir {person.state}", f"up --state-dir {hung}", f"doctor --state-dir {hung}"]
    lines += [f"report c{after_s}.tar.gz --state-dir {hung}", f"bench --out c{after_s}"]
    lines = [interrupted(f"{CONFLUX} {line}", after_s) for line in lines]
    ends = [person.bash(f"{line} </dev/null", LONG_S) for line in lines]
    for done, line in zip(ends, lines, strict=True):
        done.args = [line[-60:]]
    said = [line for done in ends for line in done.stderr.splitlines() if any(word in line for word in TROUBLE)]
    assert said == []
    assert [done.args for done in ends if done.returncode not in (0, 1, 130)] == []
    assert ends[-1].returncode == 130, "a bench takes longer than that"
    assert not list((person.home / f"c{after_s}").glob("*")), "a bench that was stopped leaves no report"


def test_a_page_runs_until_it_is_ended_whatever_the_daemon_does(person: Person, hung: Path) -> None:
    closed = person.alpha.state / "shut"
    closed.mkdir(mode=0o700)
    for state in (person.state, hung, closed):
        page = person.alpha.spawn("page", *NOBODY, str(CONFLUX), "page", "--state-dir", state)
        wait_for(lambda page=page: "the page is at" in page.output(), "the page", within_s=60, logs=(page,))  # type: ignore[misc]
        second = person.bash(f"{CONFLUX} page --state-dir {state} </dev/null", LONG_S)
        assert wrong(second, (1,)) == []
        page.signal(signal.SIGINT)
        assert page.wait(60) == 0
        assert [word for word in TROUBLE if word in page.output()] == []
    for line in ("</dev/null 2>&1 | true; exit ${PIPESTATUS[0]}", "<&- >&- 2>&-"):
        done = person.bash(f"timeout -s INT 10 {CONFLUX} page --state-dir {hung} {line}", LONG_S)
        assert (done.returncode, [word for word in TROUBLE if word in done.stderr]) in ((124, []), (1, []))
