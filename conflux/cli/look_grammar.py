"""The grammar of the commands that look at the running daemon: status, ip, hosts, streams, links, paths, watch."""

from __future__ import annotations

from conflux.cli.grammar import Commands, adder, json_option, seconds


def add_look(commands: Commands) -> None:
    """Add the commands that look."""
    add = adder(commands)
    status = add(
        "status",
        "ready:status",
        "show who is there, this node, and what is wrong",
        "conflux status\n  conflux status --wait-ready\n  conflux status --json | jq '.nodes[].name'",
    )
    json_option(status)
    status.add_argument(
        "--color",
        choices=("auto", "always", "never"),
        default="auto",
        help="whether what is wrong is red (default auto: on a terminal, unless NO_COLOR is set)",
    )
    status.add_argument(
        "--wait-ready",
        nargs="?",
        type=seconds,
        const=60.0,
        metavar="S",
        help="first wait until packets can pass, so many seconds at most (default 60)",
    )
    ip = add(
        "ip",
        "addresses:ip",
        "print the overlay addresses of a node, or of this one",
        "conflux ip kitchen\n  ssh $(conflux ip -4 kitchen)",
    )
    ip.add_argument("name", metavar="NAME", nargs="?", help="a node's name, its id, or an overlay address")
    family = ip.add_mutually_exclusive_group()
    for digit in "46":
        family.add_argument(
            f"-{digit}", dest="family", action="store_const", const=f"ipv{digit}", help=f"its IPv{digit} address alone"
        )
    json_option(ip)
    json_option(add("hosts", "addresses:hosts", "print lines for /etc/hosts", "conflux hosts | sudo tee -a /etc/hosts"))
    for name, text in (
        ("streams", "list the streams that are open now"),
        ("links", "list the links that are open or being opened"),
        ("paths", "list the routes under the streams, and what paths have cost"),
        ("watch", "print events as they happen, until Ctrl-C"),
    ):
        json_option(add(name, f"observe:{name}", text, f"conflux {name}"))
