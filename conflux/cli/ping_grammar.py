"""The grammar of `conflux ping` and `conflux why`."""

from __future__ import annotations

import argparse

from conflux.cli.grammar import (
    Add,
    Commands,
    adder,
    count,
    json_option,
    node,
    seconds,
)

COUNT_MAX = 1_000_000
WAIT_S_MAX = 60.0


def add_ping(commands: Commands) -> None:
    """Add `conflux ping` and `conflux why`."""
    add = adder(commands)
    _add_ping(add)
    _add_why(add)


def _add_ping(add: Add) -> None:
    text = "send echo requests to a node through the overlay, and say which way they go"
    ping = add("ping", "ping:ping", text, "conflux ping sensor -c 3\n  conflux ping sensor -c 0 -i 0.2 --json")
    ping.add_argument("name", type=node, metavar="NAME", help="a node's name, its id, or an overlay address")
    ping.add_argument(
        "-c",
        dest="count",
        type=count(0, COUNT_MAX),
        metavar="N",
        default=4,
        help="how many (default 4); 0: until Ctrl-C",
    )
    ping.add_argument(
        "-i", dest="interval", type=seconds, metavar="S", default=1.0, help="seconds between two (default 1)"
    )
    ping.add_argument(
        "-s", dest="size", type=count(0, 60000), metavar="BYTES", default=56, help="bytes of payload (default 56)"
    )
    ping.add_argument(
        "-W",
        dest="timeout",
        type=_wait,
        metavar="S",
        default=12.0,
        help="how long to wait for each answer, at most 60 (default 12: a first one may wait 10 for its way)",
    )
    family = ping.add_mutually_exclusive_group()
    family.add_argument("-4", dest="family", action="store_const", const=4, default=0, help="to its IPv4 address")
    family.add_argument("-6", dest="family", action="store_const", const=6, help="to its IPv6 address")
    json_option(ping)


def _wait(text: str) -> float:
    value = seconds(text)
    if value > WAIT_S_MAX:
        raise argparse.ArgumentTypeError(f"must be seconds from 0.01 to {WAIT_S_MAX:g}, not {text!r}")
    return value


def _flow(text: str) -> str:
    """Return a flow as rule files have it."""
    from conflux.errors import ConfigError
    from conflux.policy.terms import parse_flow

    try:
        parse_flow(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _add_why(add: Add) -> None:
    text = "say how a node is reached, or why it is not, and which rule lets a flow pass"
    why = add("why", "why:why", text, "conflux why sensor\n  conflux why sensor tcp/22")
    why.add_argument("name", type=node, metavar="NAME", help="a node's name, its id, or an overlay address")
    why.add_argument(
        "flow", type=_flow, metavar="FLOW", nargs="?", help='what the policy is asked for: "tcp/22", "udp", "icmp/echo"'
    )
    json_option(why)
