"""The grammar of `conflux page` and `conflux top`."""

from __future__ import annotations

from conflux.cli.grammar import Commands, adder, seconds


def add_page(commands: Commands) -> None:
    """Add `conflux top` and `conflux page`."""
    add = adder(commands)
    top = add("top", "top:top", "show this node in the terminal, again and again", "conflux top")
    top.add_argument(
        "-i", dest="interval", type=seconds, metavar="S", default=2.0, help="seconds between two looks (default 2)"
    )
    add("page", "page:page", "serve a page that shows this node, and metrics", "conflux page")
