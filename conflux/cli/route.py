"""`conflux route NAME` and `conflux route move NAME`: the path of packets to a node, and moving them to another one."""

from __future__ import annotations

import argparse

from conflux.cli import context, show
from conflux.cli.observe import Answer, answered, path_cells, print_blocks, print_json, way

PATH_HEADER = ("by", "now", "rtt", "set-up", "opened", "failed", "lost", "why")


def explain(options: argparse.Namespace) -> int:
    """Print every candidate path to a node, with its costs and the reason why it is or is not used."""
    got = answered(context.daemon(options).call("route", name=options.name))
    return print_json(got) if options.json else print_blocks(*describe_route(got, columns=show.columns()))


def describe_route(got: Answer, *, columns: int = 80) -> list[str]:
    """Return the blocks of `conflux route NAME`."""
    if got["state"] is None:
        state = "no stream goes there now"
    else:
        state = got["state"] if got["path"] is None else f"{got['state']}, {_words(got['path'])}"
    rows = []
    for path in got["paths"]:
        by, *costs = path_cells(path)
        rows.append((by, "carries" if path["carrying"] else None, *costs))
    return [
        f"{got['name']}: {state}",
        show.table(PATH_HEADER, rows, columns=columns) if rows else "no path to it is known",
    ]


def move(options: argparse.Namespace) -> int:
    """Move a stream and print the old path, the new path and the time it took."""
    arguments = {"name": options.name, "via": options.via, "direct": options.direct}
    got = answered(context.daemon(options).call("move", **arguments))
    return print_json(got) if options.json else print_blocks(describe_move(got))


def describe_move(got: Answer) -> str:
    """Return the text of `conflux route move`."""
    rows = [("  before", way(got["before"])), ("  now", way(got["after"]))]
    return f"{got['name']} moved in {show.milliseconds(got['took_ms'])}\n{show.fields(rows, columns=show.columns())}"


def _words(path: list[str]) -> str:
    return f"by {way(path)}" if len(path) > 1 else "direct"
