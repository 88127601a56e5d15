"""The command line: its grammar, and how an error is shown.  The modules beside this one carry the commands out."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from conflux import __version__
from conflux.cli import entry
from conflux.cli.config_grammar import add_config
from conflux.cli.control_grammar import add_control
from conflux.cli.grammar import Help, Parser, adder, count, furnish, json_option, relays, seconds
from conflux.cli.realm_grammar import add_realm
from conflux.errors import ConfluxError, UserError

TRACEBACK_VARIABLE = "CONFLUX_TRACEBACK"

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


def parser() -> argparse.ArgumentParser:
    """Return the grammar of every command."""
    top = Parser(prog="conflux", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=Help)
    top.add_argument("--version", action="version", version=f"conflux {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)

    add = adder(commands)
    add("up", "daemon:up", "run the daemon in the foreground", "conflux up --config /etc/conflux/conflux.toml")
    add("down", "daemon:down", "stop the running daemon", "conflux down")

    status = add("status", "observe:status", "show this node as it is now", "conflux status --json | jq .drops")
    json_option(status)
    ping = add("ping", "observe:ping", "send echo requests to a node through the overlay", "conflux ping sensor -c 3")
    ping.add_argument("name", metavar="NAME", help="a node's name, its id, or an overlay address")
    ping.add_argument("-c", dest="count", type=count(1, 1_000_000), metavar="N", default=4, help="how many (default 4)")
    ping.add_argument(
        "-i", dest="interval", type=seconds, metavar="S", default=1.0, help="seconds between two (default 1)"
    )
    ping.add_argument(
        "-s", dest="size", type=count(0, 60000), metavar="BYTES", default=56, help="bytes of payload (default 56)"
    )
    for name, text in (
        ("streams", "list the streams that are open now"),
        ("routes", "list the routes under the streams, and what paths have cost"),
        ("links", "list the links that are open or being opened"),
    ):
        json_option(add(name, f"observe:{name}", text, f"conflux {name}"))
    route = add(
        "route",
        "route:explain",
        "explain which way packets go to a node, or move them",
        "conflux route sensor\n  conflux route move sensor --via gate",
    )
    route.usage = "conflux route NAME [--json]\n       conflux route move NAME [--via RELAY[,RELAY...] | --direct]"
    route.add_argument("name", metavar="NAME", help="a node's name, its id, or an overlay address")
    json_option(route)
    route.apart = {"move": _route_move()}
    watch = add("watch", "observe:watch", "print events as they happen, until Ctrl-C", "conflux watch")
    json_option(watch)

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
    json_option(bench)

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
    how = join.add_mutually_exclusive_group()
    how.add_argument(
        "token",
        nargs="?",
        metavar="TOKEN",
        help="what `conflux realm invite` printed: cfx1...; - reads it from standard input; "
        "without it the environment variable CONFLUX_TOKEN counts",
    )
    how.add_argument("--token-file", type=Path, metavar="FILE", help="read the token there")
    how.add_argument("--request", type=Path, metavar="FILE", help="write a request, to be signed elsewhere")
    how.add_argument("--answer", type=Path, metavar="FILE", help="read the signed answer")
    join.add_argument("--name", metavar="NAME", help="the name to ask for (default: [node] name, or this host's)")
    join.add_argument("--root", metavar="DIGITS", help="with --answer: the root, as `conflux realm sign` printed it")
    join.add_argument("--peer", metavar="HOST:PORT", help="where the issuer is, if mDNS does not find it")

    leave = add("leave", "leave:leave", "end this node's membership; its keys stay", "conflux leave")
    leave.add_argument("--force", action="store_true", help="also if this node issues for its realm")
    add_realm(commands)
    add_control(commands)
    add_config(commands)
    return top


def _route_move() -> Parser:
    move = Parser(prog="conflux route move", formatter_class=Help)
    furnish(
        move,
        "route:move",
        "move a running stream onto another path; no packet is lost",
        "conflux route move sensor\n  conflux route move sensor --via gate,barn\n  conflux route move sensor --direct",
    )
    move.add_argument("name", metavar="NAME", help="where it goes: a node's name, its id, or an overlay address")
    path = move.add_mutually_exclusive_group()
    path.add_argument(
        "--via",
        type=relays,
        metavar="RELAY[,RELAY...]",
        help="the relays in order, by name, id or overlay address (default: the best path it is not on)",
    )
    path.add_argument("--direct", action="store_true", help="without a relay")
    json_option(move)
    return move


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code: 0 for done, 1 for failed, 2 for wrong usage.  None: the process's."""
    return entry.main() if arguments is None else entry.end_output(run(arguments))


def run(arguments: Sequence[str] | None) -> int:
    """Run one command and return the exit code.  None: the process's.  Raises SystemExit after help or wrong usage."""
    options = parser().parse_args(arguments)
    module, _, function = options.run.partition(":")
    try:
        if sys.maxsize < 2**63 - 1:  # setup.py refuses it too, but a copied virtual environment never ran that
            raise UserError("this Python is a 32-bit one, and Conflux needs a 64-bit system")
        # The import comes this late so that `conflux status` does not load WebRTC.
        command = getattr(import_module(f"conflux.cli.{module}"), function)
        return int(command(options))
    except BrokenPipeError:  # of standard output, as a rule: see end_output()
        return entry.EXIT_FAILED
    except KeyboardInterrupt:
        return entry.EXIT_INTERRUPTED
    except ConfluxError as error:
        entry.complain(str(error))
    except OSError as error:
        entry.complain(f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error))
    except Exception as error:
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        said = " ".join(f"{type(error).__name__}: {error}".split())
        entry.complain(f"a bug: {said} ({TRACEBACK_VARIABLE}=1 shows where)")
    return entry.EXIT_FAILED
