"""The grammar of `conflux ping`."""

from __future__ import annotations

from conflux.cli.grammar import Commands, adder, count, seconds


def add_ping(commands: Commands) -> None:
    """Add `conflux ping`."""
    add = adder(commands)
    ping = add("ping", "observe:ping", "send echo requests to a node through the overlay", "conflux ping sensor -c 3")
    ping.add_argument("name", metavar="NAME", help="a node's name, its id, or an overlay address")
    ping.add_argument("-c", dest="count", type=count(1, 1_000_000), metavar="N", default=4, help="how many (default 4)")
    ping.add_argument(
        "-i", dest="interval", type=seconds, metavar="S", default=1.0, help="seconds between two (default 1)"
    )
    ping.add_argument(
        "-s", dest="size", type=count(0, 60000), metavar="BYTES", default=56, help="bytes of payload (default 56)"
    )
