"""The commands of the command line, as its grammar has them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from conflux.cli.grammar import Parser

Command = tuple[str, ...]


def parsers(top: Parser, words: Command = ()) -> Iterator[tuple[Command, Parser]]:
    """Yield the words and the grammar of every command below one, commands that have commands too."""
    for action in top._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                yield (*words, name), below
                yield from parsers(below, (*words, name))
    for name, below in top.apart.items():
        yield (*words, name), below


def commands(top: Parser) -> Iterator[Command]:
    """Yield the words of every command below one."""
    yield from (words for words, _ in parsers(top))
