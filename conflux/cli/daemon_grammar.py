"""The grammar of `conflux up`, `conflux down` and `conflux reload`."""

from __future__ import annotations

from conflux.cli.grammar import Commands, adder, json_option


def add_daemon(commands: Commands) -> None:
    """Add the commands that start and end the daemon."""
    add = adder(commands)
    up = add(
        "up",
        "daemon:up",
        "start the daemon, and return when the network is ready",
        "conflux up\n  conflux up --foreground",
    )
    how = up.add_mutually_exclusive_group()
    how.add_argument(
        "--foreground",
        action="store_true",
        help="run it here and log to standard error, for supervisors and containers",
    )
    json_option(how)
    json_option(add("down", "daemon:down", "stop the running daemon", "conflux down"))
    json_option(add("reload", "daemon:reload", "have the running daemon take the configuration", "conflux reload"))
