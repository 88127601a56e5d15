"""The grammar of the commands that look at the running daemon: ip, hosts, streams, links, paths, watch, usage."""

from __future__ import annotations

from conflux.cli.grammar import (
    Commands,
    adder,
    json_option,
    node,
)


def add_look(commands: Commands) -> None:
    """Add the commands that look, but for `conflux status`."""
    add = adder(commands)
    ip = add(
        "ip",
        "addresses:ip",
        "print the overlay addresses of a node, or of this one",
        "conflux ip kitchen\n  ssh $(conflux ip -4 kitchen)",
    )
    ip.add_argument("name", type=node, metavar="NAME", nargs="?", help="a node's name, its id, or an overlay address")
    family = ip.add_mutually_exclusive_group()
    for digit in "46":
        family.add_argument(
            f"-{digit}", dest="family", action="store_const", const=f"ipv{digit}", help=f"its IPv{digit} address alone"
        )
    json_option(ip)
    json_option(add("hosts", "addresses:hosts", "print lines for /etc/hosts", "conflux hosts | sudo tee -a /etc/hosts"))
    for run, text in (
        ("observe:streams", "list the streams that are open now"),
        ("observe:links", "list the links that are open or being opened"),
        ("observe:paths", "list the routes under the streams, and what paths have cost"),
        ("observe:watch", "print events as they happen, until Ctrl-C"),
        ("usage:usage", "print how many bytes passed today and this month: of which kind, and with whom"),
    ):
        name = run.partition(":")[2]
        json_option(add(name, run, text, f"conflux {name}"))
