"""The grammar of `conflux join` and `conflux leave`."""

from __future__ import annotations

import argparse

from conflux.cli.grammar import (
    Commands,
    adder,
    json_option,
    node_name,
    path,
    place,
    quoted,
)

ROOT_DIGITS = 32  # as `conflux realm sign` prints them, in groups of four


def add_join(commands: Commands) -> None:
    """Add the commands that begin and end a membership."""
    add = adder(commands)
    join = add(
        "join",
        "join:join",
        "become a member of a realm",
        "conflux join cfx1...\n  conflux join cfx1... --peer 192.0.2.7\n\n"
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
    how.add_argument("--token-file", type=path, metavar="FILE", help="read the token there")
    how.add_argument("--request", type=path, metavar="FILE", help="write a request, to be signed elsewhere")
    how.add_argument("--answer", type=path, metavar="FILE", help="read the signed answer")
    join.add_argument(
        "--name", metavar="NAME", type=node_name, help="the name to ask for (default: [node] name, or this host's)"
    )
    join.add_argument(
        "--root", type=_root, metavar="DIGITS", help="with --answer: the root, as `conflux realm sign` printed it"
    )
    join.add_argument("--peer", type=place, metavar="HOST[:PORT]", help="where the issuer is, if mDNS does not find it")
    join.add_argument("--force", action="store_true", help="with --request: replace the file")

    json_option(join)

    leave = add(
        "leave", "leave:leave", "end this node's membership; its keys stay", "conflux leave\n  conflux leave --yes"
    )
    leave.add_argument("--yes", action="store_true", help="do not ask")
    leave.add_argument("--force", action="store_true", help="also if this node issues for its realm")
    json_option(leave)


def _root(text: str) -> str:
    digits = "".join(text.split()).lower()
    if len(digits) != ROOT_DIGITS or not set(digits) <= set("0123456789abcdef"):
        raise argparse.ArgumentTypeError(
            f"must be {ROOT_DIGITS} digits, as `conflux realm sign` prints them, not {quoted(text)}"
        )
    return digits
