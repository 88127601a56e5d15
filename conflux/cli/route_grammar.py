"""The grammar of `conflux route NAME` and `conflux route move NAME`."""

from __future__ import annotations

from conflux.cli.grammar import (
    Commands,
    Help,
    Parser,
    adder,
    furnish,
    json_option,
    node,
    relays,
)


def add_route(commands: Commands) -> None:
    """Add `conflux route`."""
    route = adder(commands)(
        "route",
        "route:explain",
        "explain which way packets go to a node, or move them",
        "conflux route sensor\n  conflux route move sensor --via gate",
    )
    route.usage = "conflux route NAME [--json]\n       conflux route move NAME [--via RELAY[,RELAY...] | --direct]"
    route.add_argument("name", type=node, metavar="NAME", help="a node's name, its id, or an overlay address")
    json_option(route)
    route.apart = {"move": _move()}


def _move() -> Parser:
    move = Parser(prog="conflux route move", formatter_class=Help)
    furnish(
        move,
        "route:move",
        "move a running stream onto another path; no packet is lost",
        "conflux route move sensor\n  conflux route move sensor --via gate,barn\n  conflux route move sensor --direct",
    )
    move.add_argument(
        "name", type=node, metavar="NAME", help="where it goes: a node's name, its id, or an overlay address"
    )
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
