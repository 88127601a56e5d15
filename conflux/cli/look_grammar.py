"""The grammar of the commands that look at the running daemon: status, streams, links, paths, watch."""

from __future__ import annotations

from conflux.cli.grammar import Commands, adder, json_option


def add_look(commands: Commands) -> None:
    """Add the commands that look."""
    add = adder(commands)
    json_option(add("status", "observe:status", "show this node as it is now", "conflux status --json | jq .drops"))
    for name, text in (
        ("streams", "list the streams that are open now"),
        ("links", "list the links that are open or being opened"),
        ("paths", "list the routes under the streams, and what paths have cost"),
        ("watch", "print events as they happen, until Ctrl-C"),
    ):
        json_option(add(name, f"observe:{name}", text, f"conflux {name}"))
