"""What went to each node and came from it, ever: a node's count outlives its streams, which end when nothing flows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from conflux.ids import NodeId

NODE_COUNT_MAX = 1024  # as many as cards are kept; the node whose stream ended longest ago goes first


class Traffic(NamedTuple):
    """Bytes of whole frames to and from one node.  heard_at: of the newest frame or report, in monotonic seconds."""

    node: NodeId
    sent_bytes: int
    received_bytes: int
    heard_at: float | None

    def plus(self, more: Traffic) -> Traffic:
        """Return what both count."""
        heard_ats = [at for at in (self.heard_at, more.heard_at) if at is not None]
        return Traffic(
            self.node,
            self.sent_bytes + more.sent_bytes,
            self.received_bytes + more.received_bytes,
            max(heard_ats, default=None),
        )


class TrafficBook:
    """The traffic of streams that ended, by node."""

    def __init__(self) -> None:
        self._ended: dict[NodeId, Traffic] = {}

    def add(self, ended: Traffic) -> None:
        """Count a stream that ends."""
        before = self._ended.pop(ended.node, None)
        self._ended[ended.node] = ended if before is None else before.plus(ended)
        if len(self._ended) > NODE_COUNT_MAX:
            del self._ended[next(iter(self._ended))]

    def with_live(self, live: Iterable[Traffic]) -> tuple[Traffic, ...]:
        """Return the traffic of every node, that of its live streams too."""
        total = dict(self._ended)
        for each in live:
            before = total.get(each.node)
            total[each.node] = each if before is None else before.plus(each)
        return tuple(total.values())
