"""Wrong usage is exit code 2 for every value of every command: what a word alone shows to be wrong is no failure."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.grammar import parsers

from conflux.cli import parser
from conflux.cli.grammar import EXIT_USAGE, Parser, path

WRONG = "a b!"  # no name, no number, no host, no time, and no choice
SAMPLES = {"ID": "3f9a", "NAME": "kitchen", "NODE": "kitchen"}  # of positional arguments, by what stands in the help
# Not told by its look alone: a token has a checksum, and comes from files too, where a wrong one is a failure.
# The name of a Wi-Fi network is any text, and that of a file nearly so.
DATA = {("join", "token"), ("write", "wifi_ssid"), ("prepare", "wifi_ssid"), ("update", "bundle")}

Case = tuple[tuple[str, ...], Parser, argparse.Action]


def values() -> Iterator[Case]:
    """Yield every argument of every command that takes a value."""
    for words, below in parsers(parser.parser()):
        for action in below._actions:
            if action.nargs == 0 or isinstance(action, argparse._SubParsersAction):
                continue
            yield words, below, action


def line(words: tuple[str, ...], below: Parser, tried: argparse.Action, word: str) -> list[str]:
    """Return a command line with a word in one place, and sound ones in all that it needs besides."""
    given = [word] * (tried.nargs if isinstance(tried.nargs, int) else 1)
    found = [*words]
    for action in below._actions:
        if action is tried:
            found += [tried.option_strings[-1], *given] if tried.option_strings else given
        elif not action.option_strings and action.nargs is None:
            found.append(SAMPLES.get(str(action.metavar), "here"))
    return found


def name(case: Case) -> str:
    """Return what a test of an argument is called."""
    words, _, action = case
    return " ".join([*words, action.option_strings[-1] if action.option_strings else action.dest])


FREE = [case for case in values() if case[2].type not in (path, Path) and (case[0][-1], case[2].dest) not in DATA]
PATHS = [case for case in values() if case[2].type is path]


@pytest.mark.parametrize("case", FREE, ids=map(name, FREE))
def test_a_word_that_cannot_stand_there_is_wrong_usage_and_blamed(capsys, case):
    words, below, action = case
    assert parser.main(line(words, below, action, WRONG)) == EXIT_USAGE
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert WRONG in err
    assert err.startswith(f"conflux {' '.join(words)}: ") or words[0] == "help"


@pytest.mark.parametrize("case", PATHS, ids=map(name, PATHS))
def test_an_empty_word_is_no_path(capsys, case):
    words, below, action = case
    assert parser.main(line(words, below, action, "")) == EXIT_USAGE
    assert capsys.readouterr().err.count("\n") == 1


def test_no_value_of_a_command_is_left_out():
    assert len(FREE) > 45
    assert len(PATHS) > 100  # --config and --state-dir of each command are among them
