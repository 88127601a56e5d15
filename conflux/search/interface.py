"""The question the node asks before it builds a route, and what it tells back afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from conflux.ids import NodeId


@dataclass(frozen=True, slots=True)
class Path:
    """The hops to a destination, the destination last: (destination,) is the direct path."""

    hops: tuple[NodeId, ...]

    @property
    def first(self) -> NodeId:
        """The neighbour the link goes to."""
        return self.hops[0]


@dataclass(frozen=True, slots=True)
class Measured:
    """What a path cost while it was used.  rtt_s None: not measured; counts are since the last report."""

    rtt_s: float | None
    received_count: int
    lost_count: int
    marked_count: int


class Search(Protocol):
    """Chooses paths and learns from what became of them.  Decides, never does I/O."""

    def paths(self, destination: NodeId, *, now: float) -> tuple[Path, ...]:
        """Return candidates to try, best first; empty when none is worth trying now."""

    def opened(self, path: Path, took_s: float, *, now: float) -> None:
        """A route over the path was confirmed, took_s after it was begun."""

    def failed(self, path: Path, reason: str, *, now: float) -> None:
        """A route over the path could not be had, or was lost."""

    def measured(self, path: Path, report: Measured, *, now: float) -> None:
        """Feedback came over the path."""

    def explain(self, destination: NodeId) -> list[dict[str, object]]:
        """Return the candidates with costs and reasons, for a person."""
