"""What bash, zsh and fish complete: commands, options and words by shtab; files and nodes where one is asked for."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import shtab
from commands import commands

SHELLS = ("bash", "zsh", "fish")

# As the daemon knows them at this moment; nothing, and no word of it, where none answers soon.
NODES = "timeout 2 conflux hosts 2>/dev/null | sed '/^#/d; s/.*[[:space:]]//'"


def furnish(top: argparse.ArgumentParser) -> None:
    """Say of each argument what it is completed by."""
    for command in commands(top):
        for action in command.parser._actions:
            if action.type is Path:
                complete(action, shtab.DIRECTORY if action.metavar == "DIR" else shtab.FILE)
            elif not action.option_strings and takes_node(action):
                complete(action, shtab.cmd(NODES))
        # A word in the place of a node, as in `route move`: both are offered, and the options of both.
        for action in command.parser._actions if words_apart(command.parser) else ():
            if not action.option_strings:
                complete(action, shtab.cmd(f"echo {' '.join(words_apart(command.parser))}; {NODES}"))
                break
        for apart in words_apart(command.parser).values():
            for action in apart._actions:
                if action.option_strings and not set(action.option_strings) & set(
                    command.parser._option_string_actions
                ):
                    command.parser._add_action(action)


def takes_node(action: argparse.Action) -> bool:
    """Say whether an argument is a node of the realm; a node's help says so."""
    return (action.metavar or "") in ("NAME", "NODE") and "node" in (action.help or "")


def words_apart(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the words that are commands where the parser has an argument."""
    return dict(getattr(parser, "apart", {}))


def complete(action: argparse.Action, by: Any) -> None:
    """Have shtab complete an argument by this."""
    action.complete = by  # type: ignore[attr-defined]  # where shtab looks


def scripts(top: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    """Yield each shell's script: its file's name, and its text."""
    furnish(top)
    for shell in SHELLS:
        yield f"conflux.{shell}", shtab.complete(top, shell=shell)
