"""What the grammar of the command line is made of: a parser with errors of one line, common options, and values."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

from conflux.errors import ConfigError

TYPE_CHECKING = False  # these take longer to import than all that this module does
if TYPE_CHECKING:
    from ipaddress import IPv4Network
    from pathlib import Path
    from typing import Any, NoReturn, TypeAlias, TypeVar

    T = TypeVar("T")
    R = TypeVar("R")

# Its words are looked up in catalogues of translations, of which there are none: that takes longer than parsing.
argparse._ = lambda text: text  # type: ignore[attr-defined]

EXIT_USAGE = 2
JSON_OPTION = "--json"
QUOTED_CHARS_MAX = 80  # chosen: a line of an error has room for it

_NEVER = re.compile(r"(?!)")

Add = Callable[[str, str, str, str], "Parser"]
"""Adds a command: its name, "module:function" that carries it out, what it does, and an example."""


class WrongUsage(SystemExit):
    """A command line that is none.  text: what is wrong; by: the command that says so, as "conflux ping"."""

    def __init__(self, text: str, by: str) -> None:
        super().__init__(EXIT_USAGE)
        self.text = text
        self.by = by


class NoCommand(SystemExit):
    """A command line that ends where a command is expected.  listed: the help, which lists the commands."""

    def __init__(self, listed: str) -> None:
        super().__init__(EXIT_USAGE)
        self.listed = listed


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line that blames the wrong word, and names the right one if it can.

    apart: words that are commands in the place of the first argument, where any other word is a name.
    former: words that have another name now, by their former one.
    """

    apart: Mapping[str, Parser] = MappingProxyType({})
    former: Mapping[str, str] = MappingProxyType({})

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self._negative_number_matcher = _NEVER  # else -4 would be taken for an argument

    def parse_known_args(  # type: ignore[override]  # overloaded there for namespaces of other types
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse as the base class does, a word of apart in the first place by its own parser.  Raises WrongUsage."""
        if args and args[0] in self.apart:
            return self.apart[args[0]].parse_known_args(args[1:], namespace)
        if not args and self._subparsers is not None:
            raise NoCommand(self.format_help())
        options, left = super().parse_known_args(args, namespace)
        if left:
            meant = self._no("command", args[0], self.apart) if self.apart and args else ""
            self.error(meant if "?" in meant else f"{left[0]!r} is one argument too many")
        return options, []

    def _parse_optional(self, arg_string: str) -> Any:
        """Return the option that a word is, or None.  Raises WrongUsage if it looks like one and is none."""
        found = super()._parse_optional(arg_string)
        # Python 3.12 returns a list, of which each entry begins with the option; None is one that is not known.
        first = found[0] if isinstance(found, list) else found
        if first is not None and first[0] is None and self._subparsers is None:
            name = arg_string.partition("=")[0]
            self.error(self._no("option", name, self._option_string_actions))
        return found

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            what = "command" if isinstance(action, argparse._SubParsersAction) else "choice"
            raise argparse.ArgumentError(None if what == "command" else action, self._no(what, value, action.choices))

    def _no(self, what: str, word: str, known: Iterable[str]) -> str:
        """Return the text of an error: there is no such word, and which was meant."""
        if word in self.former:
            return f"{what} {word!r} is called {self.former[word]!r} now"
        from difflib import get_close_matches  # 2 ms that a right command does without

        known = list(known)
        if close := get_close_matches(word, known, n=1):
            return f"no {what} {word!r}: did you mean {close[0]!r}?"
        return f"no {what} {word!r}: there is {', '.join(known)}" if what == "choice" else f"no {what} {word!r}"

    def error(self, message: str) -> NoReturn:
        """Raise WrongUsage with one line."""
        message = message.replace("the following arguments are required", "missing")
        raise WrongUsage(f"{message} (see {self.prog} --help)", self.prog)


class Help(argparse.RawDescriptionHelpFormatter):
    """Keeps the layout of the examples, and fits two columns into 80 characters."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26, width=80)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        import textwrap  # help alone needs it

        lines = super()._fill_text(text, width, indent).splitlines()
        return "\n".join(line for long in lines for line in textwrap.wrap(long, 80, subsequent_indent="  ") or [""])


Commands: TypeAlias = "argparse._SubParsersAction[Parser]"
"""The commands of the command line, or of one that has commands."""


def adder(commands: Commands) -> Add:
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
        "--config", type=path, metavar="FILE", help="configuration (default /etc/conflux/conflux.toml)"
    )
    command.add_argument("--state-dir", type=path, metavar="DIR", help="state directory (default: the configured one)")
    command.set_defaults(run=run)


def json_option(command: argparse.ArgumentParser | argparse._MutuallyExclusiveGroup) -> None:
    """Give a command the option --json."""
    command.add_argument(JSON_OPTION, action="store_true", help="print JSON, for programs")


def path(text: str) -> Path:
    """Return a path."""
    from pathlib import Path

    if not text:
        raise argparse.ArgumentTypeError("must be a path, not an empty word")
    return Path(text)


def count(least: int, most: int) -> Callable[[str], int]:
    """Return a type of whole numbers from least to most."""

    def check(text: str) -> int:
        if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
            raise argparse.ArgumentTypeError(f"must be a whole number from {least} to {most}, not {quoted(text)}")
        return int(text)

    return check


def node(text: str) -> str:
    """Return a word for a node: its name, its id or an overlay address."""
    if not _is_node(text):
        raise argparse.ArgumentTypeError(f"must be a node's name, its id or an overlay address, not {quoted(text)}")
    return text


def _is_node(text: str) -> bool:
    from ipaddress import ip_address

    from conflux.ids import NAME, fold_name

    word = fold_name(text)
    if NAME.fullmatch(word):  # an id looks like a name
        return True
    try:
        return bool(ip_address(word)) and "%" not in word
    except ValueError:
        return False


def member(text: str) -> str:
    """Return a word for a member that an issuer has on record: its name or id."""
    from conflux.realm.name import parse_node_name

    return _named(text, parse_node_name)


def relays(text: str) -> str:
    """Return a list of relays with commas between them."""
    if not all(_is_node(word) for word in text.split(",")):
        raise argparse.ArgumentTypeError(f"must be relays with commas between them, not {quoted(text)}")
    return text


def seconds(text: str) -> float:
    """Return a time in seconds."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.01 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"must be seconds from 0.01 to 3600, not {quoted(text)}")
    return value


def place(text: str) -> str:
    """Return HOST:PORT of a place where a node may be; a host alone is at the port of the LAN channel."""
    from conflux.ids import LAN_PORT, with_port

    host_and_port(text, LAN_PORT)
    return with_port(text, LAN_PORT)


def host_and_port(text: str, port: int) -> tuple[str, int]:
    """Return host and port of a place; port: that of a host alone."""
    from conflux.ids import with_port
    from conflux.realm.invite import parse_hint  # the realm's records, which few commands need

    try:
        return parse_hint(with_port(text, port))
    except ConfigError:
        raise argparse.ArgumentTypeError(f"must be HOST, HOST:PORT or [IPV6]:PORT, not {quoted(text)}") from None


def node_name(text: str) -> str:
    """Return a name that a node may be given."""
    from conflux.realm.name import new_node_name  # loads CBOR, which a command that looks does without

    return _named(text, new_node_name)


def realm_name(text: str) -> str:
    """Return a name that a realm may be given."""
    return _named(text, _parse_name, "realm name")


def tag(text: str) -> str:
    """Return a tag."""
    return _named(text, _parse_name, "tag")


def capability(text: str) -> str:
    """Return a capability."""
    from conflux.realm.invite import check_rights

    _named((), check_rights, (text,))
    return text


def reason(text: str) -> str:
    """Return why a membership is ended: a word that can stand in a signed list."""
    from conflux.realm.lists import parse_reason

    return _named(text, parse_reason)


def host(text: str) -> str:
    """Return a host, by name or address."""
    from conflux.broker.layout import is_host

    if not is_host(text):
        raise argparse.ArgumentTypeError(f"must be a host name in lower case or an address, not {quoted(text)}")
    return text


def _parse_name(text: str, what: str) -> str:
    from conflux.realm.name import parse_name

    return parse_name(text, what)


def _named(text: T, parse: Callable[..., R], *more: object) -> R:
    """Return what a check makes of a word; what it refuses is wrong usage."""
    try:
        return parse(text, *more)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def quoted(text: str) -> str:
    """Return a wrong word for an error: so much of it that its writer knows which is meant."""
    return repr(text if len(text) <= QUOTED_CHARS_MAX else f"{text[:QUOTED_CHARS_MAX]}...")


def duration(text: str) -> int:
    """Return the seconds of "90s", "30m", "12h" or "7d"."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    number, unit = text[:-1], text[-1:]
    if not (number.isascii() and number.isdigit() and len(number) <= 6 and unit in units and int(number) > 0):
        raise argparse.ArgumentTypeError(f"must be a time such as 30m, 12h or 7d, not {quoted(text)}")
    return int(number) * units[unit]


def realm_prefix(text: str) -> IPv4Network:
    """Return an IPv4 network that may be a realm's."""
    from conflux.realm.address import realm_prefix_allowed

    found = prefix(text)
    if not realm_prefix_allowed(found):
        raise argparse.ArgumentTypeError(f"must be private (RFC 1918 or 100.64.0.0/10), /28 or wider, not {found}")
    return found


def prefix(text: str) -> IPv4Network:
    """Return an IPv4 network."""
    from ipaddress import IPv4Network

    try:
        return IPv4Network(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be an IPv4 network such as 10.77.0.0/16, not {quoted(text)}") from None
