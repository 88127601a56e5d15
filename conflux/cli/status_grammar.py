"""The grammar of `conflux status`, the command that is called most: it loads that of no other."""

from __future__ import annotations

from conflux.cli.grammar import Commands, adder, json_option, seconds


def add_status(commands: Commands) -> None:
    """Add `conflux status`."""
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
