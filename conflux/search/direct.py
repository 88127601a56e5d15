"""Direct only: the one candidate is the destination itself.  Remembers what it cost, for `conflux routes`."""

from __future__ import annotations

from dataclasses import dataclass

from conflux.ids import NodeId, format_node_id
from conflux.search.interface import Measured, Path

RTT_GAIN = 1 / 8  # weight of the newest sample, as TCP smooths its own (RFC 6298)
EDGE_COUNT_MAX = 4096  # nodes remembered, least recently used first out


@dataclass(slots=True)
class _Edge:
    rtt_s: float | None = None
    open_s: float | None = None
    opened_count: int = 0
    failed_count: int = 0
    received_count: int = 0
    lost_count: int = 0
    failure: str = ""


class DirectSearch:
    """Search without relays."""

    def __init__(self) -> None:
        self._edges: dict[NodeId, _Edge] = {}

    def paths(self, destination: NodeId, *, now: float) -> tuple[Path, ...]:
        """Return the direct path."""
        return (Path((destination,)),)

    def opened(self, path: Path, took_s: float, *, now: float) -> None:
        """Remember how long the set-up took, smoothed."""
        edge = self._edge(path)
        edge.opened_count += 1
        edge.open_s = _smooth(edge.open_s, took_s)
        edge.failure = ""

    def failed(self, path: Path, reason: str, *, now: float) -> None:
        """Remember the failure and why."""
        edge = self._edge(path)
        edge.failed_count += 1
        edge.failure = reason

    def measured(self, path: Path, report: Measured, *, now: float) -> None:
        """Remember delay and loss."""
        edge = self._edge(path)
        if report.rtt_s is not None:
            edge.rtt_s = _smooth(edge.rtt_s, report.rtt_s)
        edge.received_count += report.received_count
        edge.lost_count += report.lost_count

    def explain(self, destination: NodeId) -> list[dict[str, object]]:
        """Return the direct path as the only candidate."""
        edge = self._edges.get(destination, _Edge())
        return [
            {
                "hops": [format_node_id(destination)],
                "chosen": True,
                "why": "direct is the only path this version searches",
                "rtt_ms": None if edge.rtt_s is None else round(edge.rtt_s * 1e3, 3),
                "open_ms": None if edge.open_s is None else round(edge.open_s * 1e3, 1),
                "opened": edge.opened_count,
                "failed": edge.failed_count,
                "received": edge.received_count,
                "lost": edge.lost_count,
                "last_failure": edge.failure,
            }
        ]

    def _edge(self, path: Path) -> _Edge:
        edge = self._edges.pop(path.first, None) or _Edge()
        self._edges[path.first] = edge
        if len(self._edges) > EDGE_COUNT_MAX:
            del self._edges[next(iter(self._edges))]
        return edge


def _smooth(old: float | None, sample: float) -> float:
    return sample if old is None else old + RTT_GAIN * (sample - old)
