"""Commands that ask the running daemon and print what it says: status, streams, routes, links, watch."""

from __future__ import annotations

import argparse
import json
import sys
import time

from conflux.api import scheme
from conflux.cli import context, show
from conflux.cli.drops import describe_drops
from conflux.cli.nodes import describe_nodes
from conflux.errors import UserError

TYPE_CHECKING = False  # it takes longer to import than all that this module does
if TYPE_CHECKING:
    from typing import Any, TypeAlias

Answer: TypeAlias = "dict[str, Any]"

BUDGET_STATES = {
    "under": "that is enough so far",
    "near": "nearly used up",
    "over": "USED UP: nothing stops, much waits longer",
}


def _ask(options: argparse.Namespace, do: str) -> Answer:
    return answered(context.daemon(options).look(do))


def answered(answer: object) -> Answer:
    """Return an answer of the daemon, which is an object.  Raises UserError if it is not."""
    if not isinstance(answer, dict):
        raise UserError("the daemon's answer makes no sense: is it of another version?")
    return answer


def print_json(value: object) -> int:
    """Print an answer for programs: a record, or an answer of the daemon."""
    sys.stdout.write(json.dumps(scheme.answer(value), indent=2) + "\n")
    return 0


def print_json_line(value: object) -> None:
    """Print one answer of many for programs, at once."""
    sys.stdout.write(json.dumps(scheme.answer(value)) + "\n")
    sys.stdout.flush()


def print_blocks(*blocks: str) -> int:
    """Print blocks of text, separated by an empty line."""
    sys.stdout.write("\n\n".join(block for block in blocks if block) + "\n")
    return 0


def status(options: argparse.Namespace) -> int:
    """Print the status of the node."""
    got = _ask(options, "status")
    if options.json:
        return print_json(got)
    return print_blocks(*describe_status(got, columns=show.columns(), paint=show.painter(options.color)))


def describe_status(got: Answer, *, columns: int = 80, paint: show.Paint = str) -> list[str]:
    """Return the blocks of `conflux status`: who is there, this node, what is wrong, and the rest.

    columns: of the terminal.  paint: makes text stand out.
    """
    node, realm, device, budget = got["node"], got["realm"], got["device"], got["budget"]
    state = "up" if device["up"] else "DOWN: packets do not pass"
    channels = [f"{each['name']} {'up' if each['up'] else 'DOWN'}: {each['detail']}" for each in got["control"]]
    rows: list[tuple[str, object]] = [
        ("this node", f"{node['name']} in realm {realm['name']}, running for {show.duration(got['uptime_s'])}"),
        ("id", node["id"]),
        ("addresses", "\n".join(node["addresses"])),
        ("credential", _credential(got["credential"])),
        ("device", f"{device['name']}, MTU {device['mtu_bytes']}, {state}"),
        ("control", "\n".join(channels) or "none: no control channel is enabled"),
        ("datapath", got["datapath"]["name"]),
        ("relaying", _relaying(got)),
        *([] if got.get("policy_number") is None else [("policy", f"number {got['policy_number']} is in force")]),
        ("memory", _memory(got["memory"])),
        ("bytes", f"{show.size(budget['today_bytes'])} today, {show.size(budget['month_bytes'])} this month"),
        ("budget", describe_budget(budget)),
    ]
    return [
        describe_nodes(got["nodes"], columns=columns),
        show.fields(rows, columns=columns),
        paint("\n".join(show.fields([("WRONG", each)], columns=columns) for each in wrong(got))),
        describe_streams(got["streams"], columns=columns),
        describe_links(got["links"], columns=columns),
        describe_relays(got["relays"], columns=columns),
        describe_drops(got["drops"], columns=columns),
    ]


def wrong(got: Answer) -> list[str]:
    """Return what is wrong with a node, in sentences."""
    down = [f"control channel {each['name']} is down: {each['detail']}" for each in got["control"] if not each["up"]]
    return [*down, *got["warnings"]]


def _memory(memory: Answer) -> str | None:
    if memory["rss_bytes"] is None:
        return None
    text = f"{memory['rss_bytes'] / 1e6:.1f} MB"
    own = memory["pss_bytes"]
    return text if own is None else f"{text} ({own / 1e6:.1f} MB not shared with other programs)"


def describe_budget(budget: Answer) -> str:
    """Return the budget of bytes in words."""
    limits = (("a day", "day_limit_bytes", "today_bytes"), ("a month", "month_limit_bytes", "month_bytes"))
    parts = [
        f"{show.size(budget[limit])} {word}, {show.size(budget[used])} used"
        for word, limit, used in limits
        if budget[limit] is not None
    ]
    if not parts:
        return "none"
    return "; ".join([*parts, BUDGET_STATES.get(budget["state"], str(budget["state"]))])


def _relaying(got: Answer) -> str:
    if got["relays"]:
        return f"on, {show.plural(len(got['relays']), 'route')} of others"
    return {"on": "on, no routes of others now", "off": "off, by configuration"}.get(
        got["relaying"], "off, the credential does not allow it"
    )


def _credential(credential: Answer) -> str:
    left_s = credential["expires_at"] - time.time()
    until = time.strftime("%Y-%m-%d", time.localtime(credential["expires_at"]))
    if left_s <= 0:
        return f"EXPIRED on {until}: the warning below says what to do"
    return f"until {until} ({show.duration(left_s)}), renews automatically"


def streams(options: argparse.Namespace) -> int:
    """Print the streams."""
    got = _ask(options, "streams")
    return print_json(got) if options.json else print_blocks(describe_streams(got["streams"], columns=show.columns()))


def describe_streams(rows: list[Answer], *, columns: int = 80) -> str:
    """Return the table of streams."""
    if not rows:
        return show.paragraph("streams: none, nothing is being sent or received", columns)
    return show.table(
        ("stream", "name", "state", "by", "bytes", "packets", "queued", "rtt"),
        [
            (
                "to" if row["direction"] == "out" else "from",
                row["name"],
                row["state"],
                way(row["path"]),
                show.size(row["bytes"]),
                row["packets"],
                show.size(row["queued_bytes"]) if row["queued_packets"] else None,
                show.milliseconds(row["rtt_ms"]),
            )
            for row in rows
        ],
        columns=columns,
        title=2,
    )


def way(hops: list[str] | None) -> str | None:
    """Return the relays of a path in order, or "direct"; None for None."""
    return None if hops is None else ", ".join(hops[:-1]) or "direct"


def links(options: argparse.Namespace) -> int:
    """Print the links."""
    got = _ask(options, "links")
    return print_json(got) if options.json else print_blocks(describe_links(got["links"], columns=show.columns()))


def describe_links(rows: list[Answer], *, columns: int = 80) -> str:
    """Return the table of links."""
    if not rows:
        return show.paragraph("links: none, no data-plane socket is open", columns)
    return show.table(
        ("link", "name", "state", "by", "age", "sent", "received", "rtt", "rate"),
        [
            (
                row["link"],
                row["name"],
                f"{row['state']}, {row['failures']} failed" if row["failures"] else row["state"],
                {True: "us", False: "them"}.get(row["dialled"]),
                show.duration(row["age_s"]),
                show.size(row["sent_bytes"]),
                show.size(row["received_bytes"]),
                show.milliseconds(row["rtt_ms"]),
                show.rate(row["rate_mbit"]),
            )
            for row in rows
        ],
        columns=columns,
    )


def paths(options: argparse.Namespace) -> int:
    """Print the routes, and the paths that the search knows."""
    got = _ask(options, "paths")
    if options.json:
        return print_json(got)
    return print_blocks(*describe_paths(got, columns=show.columns()))


def describe_paths(got: Answer, *, columns: int = 80) -> list[str]:
    """Return the blocks of `conflux paths`."""
    blocks = []
    if got["routes"]:
        rows = [
            (row["direction"], row["next"], row["link"], row["label"], "ready" if row["ready"] else "set-up")
            for row in got["routes"]
        ]
        blocks.append(show.table(("route", "neighbour", "link", "label", "state"), rows, columns=columns, title=2))
    if got["relays"]:
        blocks.append(describe_relays(got["relays"], columns=columns))
    if got["paths"]:
        paths = [(row["name"], *path_cells(row)) for row in got["paths"]]
        header = ("path to", "by", "rtt", "set-up", "opened", "failed", "lost", "why")
        blocks.append(show.table(header, paths, columns=columns))
    return blocks or ["routes: none"]


def path_cells(row: Answer) -> tuple[object, ...]:
    """Return the cells of a path: its relays, its costs, and why it is or is not tried."""
    return (
        way(row["hops"]),
        show.milliseconds(row.get("rtt_ms")),
        show.milliseconds(row.get("open_ms")),
        row.get("openings"),
        row.get("failures"),
        row.get("lost_frames"),
        row["why"],
    )


def describe_relays(rows: list[Answer], *, columns: int = 80) -> str:
    """Return the table of the routes that pass through this node; empty if there are none."""
    if not rows:
        return ""
    header = ("relayed from", "link", "label", "to", "link", "label", "frames", "bytes", "back")
    return show.table(
        header,
        [
            (
                row["before"]["name"],
                row["before"]["link"],
                row["before"]["label_in"],
                row["ahead"]["name"],
                row["ahead"]["link"],
                row["ahead"]["label_out"],
                row["ahead_frames"],
                show.size(row["ahead_bytes"]),
                show.size(row["back_bytes"]),
            )
            for row in rows
        ],
        columns=columns,
    )


def watch(options: argparse.Namespace) -> int:
    """Print events until the user interrupts."""
    for item in context.daemon(options).stream("watch"):
        assert isinstance(item, dict)
        if options.json:
            print_json_line(item)
        else:
            sys.stdout.write(describe_event(item) + "\n")
            sys.stdout.flush()
    return 0


def describe_event(event: Answer) -> str:
    """Return one event as a line."""
    from conflux.shell.words import line  # a table of which the other commands here need nothing

    if "at" not in event:
        return f"              {event['lost_events']} events were lost: this reader is too slow"
    at = event["at"]
    clock = time.strftime("%H:%M:%S", time.localtime(at)) + f".{int(at * 1000) % 1000:03d}"
    took = "" if event.get("took_ms") is None else f"({show.milliseconds(event['took_ms'])})"
    said = line(event["event"], event.get("name") or "", event.get("text") or "")
    words = " ".join(filter(None, (said, took)))
    return f"{clock}  {event['event']:<11}  {words}".rstrip()
