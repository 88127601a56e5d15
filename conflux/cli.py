"""The command line: what may be typed, and how an error is told.  What a command does stands in commands/."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from ipaddress import IPv4Network
from pathlib import Path
from types import MappingProxyType

from conflux import __version__
from conflux.errors import ConfluxError, UserError

EXIT_FAILED = 1
EXIT_USAGE = 2
TRACEBACK_VARIABLE = "CONFLUX_TRACEBACK"
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells have it

DESCRIPTION = """\
An overlay network that keeps no tunnel up: a packet brings a link into being,
silence ends it."""

EXAMPLES = """\
a network of two boards on one LAN:
  first board    conflux realm create home
                 conflux up
                 conflux realm invite
  second board   conflux join cfx1...
                 conflux up
                 conflux ping first-board
"""


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line.  apart: first words that are commands, where others are names."""

    apart: Mapping[str, _Parser] = MappingProxyType({})

    def parse_known_args(  # type: ignore[override]  # overloaded there for namespaces of other types
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        if args and args[0] in self.apart:
            return self.apart[args[0]].parse_known_args(args[1:], namespace)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> None:  # type: ignore[override]  # it ends the process, as the base class does
        self.exit(EXIT_USAGE, f"{self.prog}: {message} (see {self.prog} --help)\n")


class _Help(argparse.RawDescriptionHelpFormatter):
    """Keeps the examples as they are written; two narrow columns."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26, width=80)


def parser() -> argparse.ArgumentParser:
    """Return the whole grammar."""
    top = _Parser(prog="conflux", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=_Help)
    top.add_argument("--version", action="version", version=f"conflux {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Parser)

    add = _adder(commands)
    add("up", "daemon:up", "run the daemon in the foreground", "conflux up --config /etc/conflux/conflux.toml")
    add("down", "daemon:down", "stop the running daemon", "conflux down")

    status = add("status", "observe:status", "show this node as it is now", "conflux status --json | jq .drops")
    _json(status)
    ping = add("ping", "observe:ping", "send echo requests to a node through the overlay", "conflux ping sensor -c 3")
    ping.add_argument("name", metavar="NAME", help="a node's name, its id, or an overlay address")
    ping.add_argument(
        "-c", dest="count", type=_count(1, 1_000_000), metavar="N", default=4, help="how many (default 4)"
    )
    ping.add_argument(
        "-i", dest="interval", type=_seconds, metavar="S", default=1.0, help="seconds between two (default 1)"
    )
    ping.add_argument(
        "-s", dest="size", type=_count(0, 60000), metavar="BYTES", default=56, help="bytes of payload (default 56)"
    )
    for name, text in (
        ("streams", "list the streams that are open now"),
        ("routes", "list the routes under the streams, and what paths have cost"),
        ("links", "list the links that are open or being opened"),
    ):
        _json(add(name, f"observe:{name}", text, f"conflux {name}"))
    route = add(
        "route",
        "route:explain",
        "explain which way packets go to a node, or move them",
        "conflux route sensor\n  conflux route move sensor --via gate",
    )
    route.usage = "conflux route NAME [--json]\n       conflux route move NAME [--via RELAY[,RELAY...] | --direct]"
    route.add_argument("name", metavar="NAME", help="a node's name, its id, or an overlay address")
    _json(route)
    route.apart = {"move": _route_move()}
    watch = add("watch", "observe:watch", "print events as they happen, until Ctrl-C", "conflux watch")
    _json(watch)

    bench = add(
        "bench",
        "bench:bench",
        "measure this board, without a second one",
        "conflux bench --out report\n  conflux bench --compare pi4.json pi5.json",
    )
    bench.add_argument("--quick", action="store_true", help="in 20 seconds instead of two minutes, with more spread")
    bench.add_argument("--out", type=Path, metavar="DIR", help="where the report goes: JSON and a page (default: here)")
    bench.add_argument(
        "--compare", nargs=2, type=Path, metavar=("A", "B"), help="two reports, side by side, instead of measuring"
    )
    _json(bench)

    join = add(
        "join",
        "join:join",
        "become a member of a realm",
        "conflux join cfx1...\n  conflux join cfx1... --peer 192.0.2.7:7464\n\n"
        "without a network in between:\n"
        "  here         conflux join --request kitchen.request\n"
        "  elsewhere    conflux realm sign kitchen.request\n"
        "  here         conflux join --answer kitchen.request.answer",
    )
    how = join.add_mutually_exclusive_group(required=True)
    how.add_argument("token", nargs="?", metavar="TOKEN", help="what `conflux realm invite` printed: cfx1...")
    how.add_argument("--request", type=Path, metavar="FILE", help="write a request, to be signed elsewhere")
    how.add_argument("--answer", type=Path, metavar="FILE", help="read the signed answer")
    join.add_argument("--name", metavar="NAME", help="the name to ask for (default: [node] name, or this host's)")
    join.add_argument("--peer", metavar="HOST:PORT", help="where the issuer is, if mDNS does not find it")

    words = "create a realm and let nodes in"
    realm = commands.add_parser("realm", help=words, description=f"{words.capitalize()}.", formatter_class=_Help)
    add = _adder(realm.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Parser))
    create = add("create", "realm:create", "make a realm with this node in it", "conflux realm create home")
    create.add_argument("name", metavar="NAME", help="what the realm is called")
    create.add_argument("--node", metavar="NAME", help="this node's name in it (default: the host's)")
    create.add_argument(
        "--ipv4", type=_prefix, metavar="PREFIX", help="its IPv4 addresses (default: a /16 inside 100.64.0.0/10)"
    )
    invite = add(
        "invite",
        "realm:invite",
        "print an invitation, as text and QR code",
        "conflux realm invite\n  conflux realm invite --count 20 --ttl 7d --no-qr\n  conflux realm invite --no-relay",
    )
    invite.add_argument(
        "--count", type=_count(1, 1000), metavar="N", default=1, help="how many may join with it (default 1)"
    )
    invite.add_argument(
        "--ttl", type=_duration, metavar="TIME", default=86400, help="how long it holds: 30m, 12h, 7d (default 24h)"
    )
    _grants(invite)
    invite.add_argument(
        "--hint",
        action="append",
        default=[],
        metavar="HOST:PORT",
        help="where this node is, for joiners mDNS does not reach; repeatable",
    )
    invite.add_argument("--no-qr", action="store_true", help="print the token alone, for scripts")
    sign = add("sign", "realm:sign", "sign a request that was carried here", "conflux realm sign kitchen.request")
    sign.add_argument("request", type=Path, metavar="FILE", help="what `conflux join --request` wrote")
    sign.add_argument("--answer", type=Path, metavar="FILE", help="where the answer goes (default: FILE.answer)")
    _grants(sign)
    return top


def _route_move() -> _Parser:
    move = _Parser(prog="conflux route move", formatter_class=_Help)
    _furnish(
        move,
        "route:move",
        "move a running stream onto another path; no packet is lost",
        "conflux route move sensor\n  conflux route move sensor --via gate,barn\n  conflux route move sensor --direct",
    )
    move.add_argument("name", metavar="NAME", help="where it goes: a node's name, its id, or an overlay address")
    path = move.add_mutually_exclusive_group()
    path.add_argument(
        "--via",
        type=_relays,
        metavar="RELAY[,RELAY...]",
        help="the relays in order, by name, id or overlay address (default: the best path it is not on)",
    )
    path.add_argument("--direct", action="store_true", help="without a relay")
    _json(move)
    return move


def _grants(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--tag", action="append", default=[], metavar="TAG", help="a tag the new node gets; repeatable"
    )
    command.add_argument("--no-relay", action="store_true", help="the new node may not pass the routes of others on")


def _adder(commands: argparse._SubParsersAction[_Parser]) -> Callable[[str, str, str, str], _Parser]:
    def add(name: str, run: str, text: str, example: str) -> _Parser:
        command = commands.add_parser(name, help=text, formatter_class=_Help)
        _furnish(command, run, text, example)
        return command

    return add


def _furnish(command: _Parser, run: str, text: str, example: str) -> None:
    """Give a command what every one has."""
    command.description = text[0].upper() + text[1:] + "."
    command.epilog = f"example:\n  {example}"
    command.add_argument(
        "--config", type=Path, metavar="FILE", help="configuration (default /etc/conflux/conflux.toml)"
    )
    command.add_argument("--state-dir", type=Path, metavar="DIR", help="state directory (default: the configured one)")
    command.set_defaults(run=run)


def _json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print JSON, for programs")


def _count(least: int, most: int) -> Callable[[str], int]:
    def check(text: str) -> int:
        if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
            raise argparse.ArgumentTypeError(f"must be a whole number from {least} to {most}, not {text!r}")
        return int(text)

    return check


def _relays(text: str) -> str:
    if not all(word.strip() for word in text.split(",")):
        raise argparse.ArgumentTypeError(f"must be relays with commas between them, not {text!r}")
    return text


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.01 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"must be seconds from 0.01 to 3600, not {text!r}")
    return value


def _duration(text: str) -> int:
    """Return seconds of "90s", "30m", "12h" or "7d"."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    number, unit = text[:-1], text[-1:]
    if not (number.isascii() and number.isdigit() and len(number) <= 6 and unit in units and int(number) > 0):
        raise argparse.ArgumentTypeError(f"must be a time such as 30m, 12h or 7d, not {text!r}")
    return int(number) * units[unit]


def _prefix(text: str) -> IPv4Network:
    try:
        return IPv4Network(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be an IPv4 network such as 10.77.0.0/16, not {text!r}") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code: 0 done, 1 failed, 2 wrong usage."""
    options = parser().parse_args(arguments)
    module, _, function = options.run.partition(":")
    try:
        if sys.maxsize < 2**63 - 1:  # setup.py refuses it too, but a copied virtual environment never asked that
            raise UserError("this Python is a 32-bit one, and Conflux needs a 64-bit system")
        # Imported only now: `conflux status` must not pay for WebRTC.
        run = getattr(import_module(f"conflux.commands.{module}"), function)
        code = run(options)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output left (`conflux watch | head`): nobody is there to be told.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except ConfluxError as error:
        print(f"conflux: {error}", file=sys.stderr)
        return EXIT_FAILED
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"conflux: {where}{error.strerror or error}", file=sys.stderr)
        return EXIT_FAILED
    except Exception as error:
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        said = " ".join(f"{type(error).__name__}: {error}".split())
        print(f"conflux: a bug: {said} ({TRACEBACK_VARIABLE}=1 shows where)", file=sys.stderr)
        return EXIT_FAILED
    return int(code)
