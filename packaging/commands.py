"""The commands as the grammar has them: what the manual and the completions are made from."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import NamedTuple


class Command(NamedTuple):
    """A command that does something, as "conflux realm invite", with its parser and its line in --help."""

    words: str
    text: str
    parser: argparse.ArgumentParser


def commands(parser: argparse.ArgumentParser, words: str = "conflux", text: str = "") -> Iterator[Command]:
    """Yield a parser's commands in the order of the grammar, those of a group in its place."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not groups:
        yield Command(words, text, parser)
    for name, apart in getattr(parser, "apart", {}).items():
        yield from commands(apart, f"{words} {name}", apart.description or "")
    for group in groups:
        texts = {each.dest: each.help or "" for each in group._choices_actions}
        seen: set[int] = set()
        for name, each in group.choices.items():
            if id(each) not in seen and name in texts:  # not an alias, nor a command that --help does not show
                seen.add(id(each))
                yield from commands(each, f"{words} {name}", texts[name])


def options(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return a parser's options that --help shows."""
    return [each for each in parser._actions if each.option_strings and each.help != argparse.SUPPRESS]


def positionals(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return a parser's arguments that --help shows, sub-commands apart."""
    return [
        each
        for each in parser._actions
        if not each.option_strings
        and each.help != argparse.SUPPRESS
        and not isinstance(each, argparse._SubParsersAction)
    ]
