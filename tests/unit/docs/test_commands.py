"""Every command that a page names is one: `make TARGET` and `conflux COMMAND`."""

from __future__ import annotations

import re
import shlex
from argparse import ArgumentParser
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from kit.pages import code_blocks, code_spans, name, pages
from kit.tree import TREE

from conflux.cli.parser import parser

MAKE = re.compile(r"(?:^|[^\w./-])make ([a-z][a-z0-9-]*)")
CONFLUX = re.compile(r"(?:^|[ $(])conflux ((?:--)?[a-z][^#&;)]*)")
# What stands for a value in a usage line, and a value.
VALUES = {
    "BYTES": "56",
    "CAPABILITY": "relay",
    "DIGITS": "52bf" * 8,
    "HOST": "gate.lan",
    "ID": "3f9a",
    "N": "3",
    "NUMBER": "1800000000",
    "FLOW": "tcp/22",
    "NAME": "kitchen",
    "PORT": "4222",
    "PREFIX": "10.77.0.0/16",
    "S": "1",
    "TAG": "light",
    "TIME": "12h",
    "WORD": "stolen",
}


def code(page: Path) -> Iterator[str]:
    """Yield every piece of code of a page."""
    yield from code_blocks(page)
    yield from code_spans(page)


@cache
def command_line() -> ArgumentParser:
    """Return the parser, made once: it takes longer to make than to use."""
    return parser()


def is_made(target: str) -> bool:
    """Say whether the Makefile has a target, or a pattern of it."""
    rules = re.findall(r"^([a-z][\w% -]*):(?!=)", (TREE / "Makefile").read_text(), re.MULTILINE)
    names = (name for rule in rules for name in rule.split())
    return any(re.fullmatch(name.replace("%", ".+"), target) for name in names)


def words(usage: str) -> list[str]:
    """Return the arguments of a command line, or of a usage line with every option and the first of alternatives."""
    usage = re.sub(r"\[,[^\]]*\]", "", usage.split("  ")[0])
    usage = re.sub(r"\[([^\]|]*)(?:\|[^\]]*)?\]", r"\1", usage.split(" | ")[0] if "[" not in usage else usage)
    return [VALUES.get(word, word) for word in shlex.split(usage)]


def is_taken(arguments: list[str]) -> bool:
    """Say whether the command line takes these arguments, or has help for them: text names commands without theirs."""
    for tried in (arguments, [*arguments, "--help"]):
        try:
            command_line().parse_args(tried)
        except SystemExit as end:
            if end.code != 0:
                continue
        return True
    return False


@pytest.mark.parametrize("page", pages(), ids=name)
def test_every_make_target_that_a_page_names_is_there(page):
    named = {target for piece in code(page) for target in MAKE.findall(piece)}
    assert [target for target in sorted(named) if not is_made(target)] == []


@pytest.mark.parametrize("page", pages(), ids=name)
def test_every_conflux_command_that_a_page_names_is_taken(page, capsys):
    commands = [command for piece in code(page) for command in CONFLUX.findall(piece)]
    assert [command for command in commands if not is_taken(words(command))] == []
    capsys.readouterr()  # --version and --help print


def test_a_command_that_is_none_is_found(capsys):
    assert not is_taken(words("stauts --json"))
    assert is_taken(words("route move NAME [--via RELAY[,RELAY...] | --direct] [--json]"))
    capsys.readouterr()
