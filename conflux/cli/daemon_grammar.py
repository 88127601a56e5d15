"""The grammar of `conflux up`, `conflux down` and `conflux reload`."""

from __future__ import annotations

from conflux.cli.grammar import Commands, adder, json_option


def add_daemon(commands: Commands) -> None:
    """Add the commands that start and end the daemon."""
    add = adder(commands)
    add("up", "daemon:up", "run the daemon in the foreground", "conflux up --config /etc/conflux/conflux.toml")
    add("down", "daemon:down", "stop the running daemon", "conflux down")
    json_option(add("reload", "daemon:reload", "have the running daemon take the configuration", "conflux reload"))
