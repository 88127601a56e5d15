"""What bash, zsh and fish complete: commands, options and words by shtab; files and nodes where one is asked for."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import shtab
from commands import commands, positionals

from conflux.cli.grammar import path

SHELLS = ("bash", "zsh", "fish")

# As the daemon knows them at this moment; nothing, and no word of it, where none answers soon.
NODES = "timeout 2 conflux hosts 2>/dev/null | sed '/^#/d; s/.*[[:space:]]//' | sort -u"


def furnish(top: argparse.ArgumentParser) -> None:
    """Say of each argument what it is completed by."""
    for command in commands(top):
        for action in command.parser._actions:
            if action.type in (Path, path):
                complete(action, shtab.DIRECTORY if action.metavar == "DIR" else shtab.FILE)
            elif not action.option_strings and takes_node(action):
                complete(action, shtab.cmd(NODES))
    for command in commands(top):
        if words := getattr(command.parser, "apart", {}):
            merge(command.parser, words)


def merge(parser: argparse.ArgumentParser, apart: dict[str, argparse.ArgumentParser]) -> None:
    """Have words that are commands complete, as in `route move NAME` beside `route NAME`, and what follows them."""
    if taken := positionals(parser):
        complete(taken[0], shtab.cmd(f"echo {' '.join(apart)}; {NODES}"))
    else:
        parser.add_argument("word", nargs="?", choices=list(apart), help="what to do")
    known = set(parser._option_string_actions)
    for other in apart.values():
        for action in other._actions:
            if not known & set(action.option_strings):
                parser._add_action(action)


def takes_node(action: argparse.Action) -> bool:
    """Say whether an argument is a node of the realm; a node's help says so."""
    return (action.metavar or "") in ("NAME", "NODE") and "node" in (action.help or "")


def complete(action: argparse.Action, by: Any) -> None:
    """Have shtab complete an argument by this."""
    action.complete = by  # type: ignore[attr-defined]  # where shtab looks


def scripts(top: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    """Yield each shell's script: its file's name, and its text."""
    furnish(top)
    for shell in SHELLS:
        yield f"conflux.{shell}", shtab.complete(top, shell=shell)
