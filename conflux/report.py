"""What a person asks of a running node, as plain values: `conflux status`, `streams`, `routes` and `links`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from conflux.control.plane import ControlPlane
from conflux.ids import parse_node_id

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


def links(status: Mapping[str, Any], plane: ControlPlane, *, now: float) -> list[Row]:
    """Return every link, open or being opened, and who is not dialled for now."""
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
            }
        )
    return rows


def routes(status: Mapping[str, Any], plane: ControlPlane) -> Row:
    """Return the routes that are set up, and what the search knows of the paths to current destinations."""
    names = _Names(plane)
    peers = {link["link"]: link["peer"] for link in status["links"] if link["link"] is not None}
    rows = [
        {**route, "next": names.of(peers[route["link"]]) if route["link"] in peers else None}
        for route in status["routes"]
    ]
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
    return {"routes": rows, "paths": paths}


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
