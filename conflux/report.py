"""What a person asks of a running node, as plain values: `conflux status`, `streams`, `route`, `routes` and `links`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from conflux.control.plane import ControlPlane
from conflux.ids import LinkId, format_node_id, parse_node_id
from conflux.realm.card import Card

Row = dict[str, Any]


def streams(status: Mapping[str, Any], plane: ControlPlane) -> list[Row]:
    """Return every stream, wanted, open or received; status is the node's."""
    names = _Names(plane)
    senders = {sender["stream"]: sender for sender in status["datapath"]["senders"]}
    queues = {egress["destination"]: egress for egress in status["datapath"]["egresses"]}
    rows = []
    for destination in status["destinations"]:
        sender = senders.get(destination["stream"], {})
        queue = queues.get(destination["node"], {})
        # Frames that leave and of which nothing is heard are not a connection, whatever the tables say.
        silent = destination["state"] == "flowing" and sender.get("suspect", False)
        rows.append(
            {
                "direction": "out",
                "node": destination["node"],
                "name": destination["name"],
                "state": "no answer" if silent else destination["state"],
                "stream": destination["stream"],
                "path": destination["path"],
                "epoch": sender.get("epoch"),
                "link": sender.get("link"),
                "frames": sender.get("frames", 0),
                "packets": sender.get("packets", 0),
                "bytes": sender.get("bytes", 0),
                "queued_packets": queue.get("packets", 0),
                "queued_bytes": queue.get("bytes", 0),
                "rtt_ms": sender.get("rtt_ms"),
                "failures": destination["failures"],
            }
        )
    rows += [
        {
            "direction": "in",
            "node": receiver["source"],
            "name": names.of(receiver["source"]),
            "state": "receiving" if receiver["frames"] else "half-open",
            "stream": receiver["stream"],
            "epoch": receiver["epoch"],
            "link": receiver["link"],
            "frames": receiver["frames"],
            "packets": receiver["packets"],
            "lost_frames": receiver["lost_frames"],
        }
        for receiver in status["datapath"]["receivers"]
    ]
    return rows


def links(
    status: Mapping[str, Any], plane: ControlPlane, measured: Callable[[LinkId], Row], *, now: float
) -> list[Row]:
    """Return every link, open or being opened, and who is not dialled for now.

    measured: what the carrier knows of a link's hop.
    """
    names = _Names(plane)
    rows = []
    for link in status["links"]:
        opened_at, wake_at = link.get("opened_at"), link.get("wake_at")
        rows.append(
            {
                "link": link["link"],
                "node": link["peer"],
                "name": names.of(link["peer"]),
                "state": link["state"],
                "initiator": link.get("initiator"),
                "age_s": None if opened_at is None else round(now - opened_at, 1),
                "users": link.get("user_count", 0),
                "failures": link.get("failure_count", 0),
                "next_in_s": None if wake_at is None else round(max(0.0, wake_at - now), 1),
                **measured(link["link"]),
            }
        )
    return rows


def routes(status: Mapping[str, Any], plane: ControlPlane, *, now: float) -> Row:
    """Return the routes that are set up, those of others that pass, and what is known of paths to destinations."""
    names = _Names(plane)
    neighbours = _neighbours(status, names)
    rows = [{**route, "next": neighbours.get(route["link"])} for route in status["routes"]]
    paths = [
        {
            "name": destination["name"],
            "node": destination["node"],
            **path,
            "hops": [names.of(hop) for hop in path["hops"]],
        }
        for destination in status["destinations"]
        for path in destination["paths"]
    ]
    return {"routes": rows, "relays": relays(status, plane, now=now), "paths": paths}


def relays(status: Mapping[str, Any], plane: ControlPlane, *, now: float) -> list[Row]:
    """Return the routes that pass through: a neighbour on either side, and what went each way.  No more is known."""
    neighbours = _neighbours(status, _Names(plane))
    counters = {(row["before"]["link"], row["before"]["label_in"]): row for row in status["datapath"]["relays"]}
    rows = []
    for relay in status["relays"]:
        passed = counters.get((relay["before"]["link"], relay["before"]["in"]), {})
        row: Row = {
            side: {
                "name": neighbours.get(relay[side]["link"]),
                "link": relay[side]["link"],
                "label_in": relay[side]["in"],
                "label_out": relay[side]["out"],
            }
            for side in ("before", "ahead")
        }
        for counter in ("frames_ahead", "bytes_ahead", "frames_back", "bytes_back"):
            row[counter] = passed.get(counter, 0)
        row["expires_in_s"] = round(max(0.0, relay["expires_at"] - now), 1)
        rows.append(row)
    return rows


def route(card: Card, status: Mapping[str, Any], candidates: Sequence[Row], plane: ControlPlane) -> Row:
    """Return how packets get to one node: what carries them now, and every candidate with its costs."""
    names, node = _Names(plane), format_node_id(card.node_id)
    destination = next((row for row in status["destinations"] if row["node"] == node), None)
    path = None if destination is None else destination["path"]
    paths = [{**candidate, "hops": [names.of(hop) for hop in candidate["hops"]]} for candidate in candidates]
    if path is not None and all(row["hops"] != path for row in paths):
        assert destination is not None
        senders = status["datapath"]["senders"]
        rtt_ms = next((row["rtt_ms"] for row in senders if row["stream"] == destination["stream"]), None)
        paths.insert(0, {"hops": path, "rtt_ms": rtt_ms, "why": "moved there; the search does not offer it"})
    return {
        "name": card.name,
        "node": node,
        "state": None if destination is None else destination["state"],
        "path": path,
        "paths": [{**row, "carries": row["hops"] == path} for row in paths],
    }


def _neighbours(status: Mapping[str, Any], names: _Names) -> dict[int, str]:
    """Return who is at the other end of each link."""
    return {link["link"]: names.of(link["peer"]) for link in status["links"] if link["link"] is not None}


class _Names:
    """Names of node ids, as far as cards are cached."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane

    def of(self, node: str) -> str:
        card = self._plane.card(parse_node_id(node))
        return node if card is None else card.name


def merge_drops(*counts: Mapping[str, int]) -> dict[str, int]:
    """Return drops by reason over all of counts, most first."""
    total: dict[str, int] = {}
    for count in counts:
        for reason, number in count.items():
            total[reason] = total.get(reason, 0) + number
    return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))


def memory() -> Row:
    """Return this process's resident and proportional memory in MB, None where the kernel does not say."""
    return {
        "rss_mb": _kilobytes(Path("/proc/self/status"), "VmRSS:"),
        "pss_mb": _kilobytes(Path("/proc/self/smaps_rollup"), "Pss:"),
    }


def _kilobytes(path: Path, field: str) -> float | None:
    try:
        lines: Sequence[str] = path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    value = next((line.split()[1] for line in lines if line.startswith(field)), None)
    return None if value is None else round(int(value) / 1024, 1)
