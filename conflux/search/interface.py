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

    @property
    def relays(self) -> tuple[NodeId, ...]:
        """Who is in between; nobody on the direct path."""
        return self.hops[:-1]


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

    def patience_s(self, path: Path) -> float:
        """Return how long to try the path alone before the next candidate is tried beside it."""

    def prefers(self, new: Path, new_rtt_s: float, old: Path) -> bool:
        """Say whether a stream should leave old for new, which was just measured."""

    # ── what it learns from ──

    def neighbour_changed(self, node: NodeId, up: bool) -> None:
        """A control channel has, or has lost, a connection of its own to node."""

    def returned(self, node: NodeId) -> None:
        """The node came back: past failures by way of it mean nothing any more."""

    def bridge_changed(self, node: NodeId, up: bool) -> None:
        """A neighbour passes control messages on to other LANs, or does so no more."""

    def heard(self, peer: NodeId, via: NodeId) -> None:
        """A control message of peer came in by the neighbour via (which may be peer itself)."""

    def vantage_of(self, destination: NodeId, nodes: tuple[NodeId, ...]) -> None:
        """The destination says which relays it reaches."""

    def opened(self, path: Path, took_s: float, *, now: float) -> None:
        """A route over the path was confirmed, took_s after it was begun."""

    def failed(self, path: Path, reason: str, *, now: float) -> None:
        """A route over the path could not be had, or was lost."""

    def measured(self, path: Path, report: Measured, *, now: float) -> None:
        """Feedback came over the path, or a confirmation over links that were open."""

    # ── what it is asked besides ──

    def vantage(self, peer: NodeId) -> tuple[NodeId, ...]:
        """Return nodes peer may look for a path through, the best first; never peer."""

    def explain(self, destination: NodeId, *, now: float) -> list[dict[str, object]]:
        """Return the candidates with costs and reasons, for a person."""
