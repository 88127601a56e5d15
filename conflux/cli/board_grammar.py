"""The grammar of `conflux board`."""

from __future__ import annotations

from conflux.cli.grammar import Commands, Help, Parser, adder, json_option


def add_board(commands: Commands) -> None:
    """Add `conflux board` and its commands."""
    text = "this board itself: make a copied one new, measure it"
    group = commands.add_parser("board", help=text, description=f"{text.capitalize()}.", formatter_class=Help)
    below = group.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)
    renew = adder(below)(
        "renew",
        "board:renew",
        "forget this node's keys and realm, so that a copy becomes a node of its own",
        "sudo conflux board renew\n  sudo conflux board renew --yes",
    )
    renew.add_argument("--yes", action="store_true", help="do not ask")
    renew.add_argument("--force", action="store_true", help="also if this node issues for its realm")
    json_option(renew)
    bench = adder(below)(
        "bench",
        "board:bench",
        "measure a flashed board, and put the report on its card and its page",
        "sudo conflux board bench\n  sudo systemctl start conflux-bench",
    )
    bench.add_argument("--quick", action="store_true", help="in 20 seconds instead of two minutes, with more spread")
