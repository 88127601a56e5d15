"""What the grammar of the command line is made of: a parser with errors of one line, common options, and values."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Network
from pathlib import Path
from types import MappingProxyType

EXIT_USAGE = 2

Add = Callable[[str, str, str, str], "Parser"]
"""Adds a command: its name, "module:function" that carries it out, what it does, and an example."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line.

    apart: words that are commands in the place of the first argument, where any other word is a name.
    """

    apart: Mapping[str, Parser] = MappingProxyType({})

    def parse_known_args(  # type: ignore[override]  # overloaded there for namespaces of other types
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse as the base class does, a word of apart in the first place by its own parser."""
        if args and args[0] in self.apart:
            return self.apart[args[0]].parse_known_args(args[1:], namespace)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> None:  # type: ignore[override]  # it ends the process, as the base class does
        """End the program with one line."""
        self.exit(EXIT_USAGE, f"{self.prog}: {message} (see {self.prog} --help)\n")


class Help(argparse.RawDescriptionHelpFormatter):
    """Keeps the layout of the examples, and fits two columns into 80 characters."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26, width=80)


def adder(commands: argparse._SubParsersAction[Parser]) -> Add:
    """Return what adds commands beside one another."""

    def add(name: str, run: str, text: str, example: str) -> Parser:
        command = commands.add_parser(name, help=text, formatter_class=Help)
        furnish(command, run, text, example)
        return command

    return add


def furnish(command: Parser, run: str, text: str, example: str) -> None:
    """Give a command what every command has: a description, an example, and the common options."""
    command.description = text[0].upper() + text[1:] + "."
    command.epilog = f"example:\n  {example}"
    command.add_argument(
        "--config", type=Path, metavar="FILE", help="configuration (default /etc/conflux/conflux.toml)"
    )
    command.add_argument("--state-dir", type=Path, metavar="DIR", help="state directory (default: the configured one)")
    command.set_defaults(run=run)


def json_option(command: argparse.ArgumentParser) -> None:
    """Give a command the option --json."""
    command.add_argument("--json", action="store_true", help="print JSON, for programs")


def count(least: int, most: int) -> Callable[[str], int]:
    """Return a type of whole numbers from least to most."""

    def check(text: str) -> int:
        if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
            raise argparse.ArgumentTypeError(f"must be a whole number from {least} to {most}, not {text!r}")
        return int(text)

    return check


def relays(text: str) -> str:
    """Return a list of relays with commas between them."""
    if not all(word.strip() for word in text.split(",")):
        raise argparse.ArgumentTypeError(f"must be relays with commas between them, not {text!r}")
    return text


def seconds(text: str) -> float:
    """Return a time in seconds."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.01 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"must be seconds from 0.01 to 3600, not {text!r}")
    return value


def duration(text: str) -> int:
    """Return the seconds of "90s", "30m", "12h" or "7d"."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    number, unit = text[:-1], text[-1:]
    if not (number.isascii() and number.isdigit() and len(number) <= 6 and unit in units and int(number) > 0):
        raise argparse.ArgumentTypeError(f"must be a time such as 30m, 12h or 7d, not {text!r}")
    return int(number) * units[unit]


def prefix(text: str) -> IPv4Network:
    """Return an IPv4 network."""
    try:
        return IPv4Network(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be an IPv4 network such as 10.77.0.0/16, not {text!r}") from None
