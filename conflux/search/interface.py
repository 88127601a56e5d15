"""Path search as the node sees it: what it asks before it builds a route, and what it reports afterwards."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from conflux.ids import NodeId


class Path(NamedTuple):
    """The hops to a destination, the destination last: (destination,) is the direct path."""

    hops: tuple[NodeId, ...]

    @property
    def first(self) -> NodeId:
        """The neighbour the link goes to."""
        return self.hops[0]

    @property
    def relays(self) -> tuple[NodeId, ...]:
        """The nodes in between; none on the direct path."""
        return self.hops[:-1]


class Measured(NamedTuple):
    """The costs of a path while it was used.  rtt_s None: not measured; counts are since the last report."""

    rtt_s: float | None
    received_count: int
    lost_count: int
    marked_count: int


class Candidate(NamedTuple):
    """A path with what is known of it.  why: whether and why it is tried, for a person; None: not measured.

    paused_until: it is not tried before, in monotonic seconds; None: it may be tried.
    """

    hops: tuple[NodeId, ...]
    why: str
    rtt_ms: float | None
    open_ms: float | None
    opened: int
    failed: int
    received: int
    lost: int
    paused_until: float | None = None


class Search(Protocol):
    """Chooses paths, and learns from their outcome.  Sans-IO."""

    def paths(self, destination: NodeId, *, now: float) -> tuple[Path, ...]:
        """Return candidates to try, best first; empty when none is worth trying now."""

    def patience_s(self, path: Path) -> float:
        """Return how long to try the path alone before the next candidate is tried beside it."""

    def direct_at(self, destination: NodeId, *, now: float) -> float | None:
        """Return when the direct path is worth a try beside a relayed one that carries; None: it is not."""

    def prefers(self, new: Path, new_rtt_s: float, old: Path) -> bool:
        """Say whether a stream should leave old for new, which was just measured."""

    # ── reports ──

    def neighbour_changed(self, node: NodeId, up: bool) -> None:
        """A control channel gained or lost a connection of its own to node."""

    def revoked(self, node: NodeId) -> None:
        """The node is a member no more: no path leads through it."""

    def returned(self, node: NodeId) -> None:
        """The node came back: past failures by way of it, or to it, count no more."""

    def bridge_changed(self, node: NodeId, up: bool) -> None:
        """A neighbour began or stopped to pass control messages on to other LANs."""

    def heard(self, peer: NodeId, via: NodeId | None) -> None:
        """A control message of peer came from the neighbour via, which may be peer itself.

        via is no neighbour if peer is reached over a broker, and is behind via there.  None: it came over a broker, and
        peer is not known to be behind another node.
        """

    def relay_found(self, node: NodeId) -> None:
        """A node relays, and every node can dial it."""

    def vantage_of(self, destination: NodeId, nodes: tuple[NodeId, ...]) -> None:
        """The destination named the relays that it reaches."""

    def opened(self, path: Path, took_s: float, *, now: float) -> None:
        """A route over the path was confirmed, took_s after it was begun."""

    def failed(self, path: Path, reason: str, *, now: float) -> None:
        """A route over the path failed or was lost.  reason: shown to a person."""

    def unanswered(self, path: Path, waited_s: float, *, now: float) -> None:
        """A try of the path ended with its stream, waited_s after its dial began: it neither failed nor came up."""

    def measured(self, path: Path, report: Measured, *, now: float) -> None:
        """Feedback came over the path, or a confirmation over links that were open."""

    # ── other questions ──

    def wants_relay(self, destination: NodeId) -> bool:
        """Say whether a relay that every node can dial may be what is missing to reach the destination."""

    def vantage(self, peer: NodeId) -> tuple[NodeId, ...]:
        """Return relays that peer may build a path through, the best first; never peer itself."""

    def explain(self, destination: NodeId, *, now: float) -> tuple[Candidate, ...]:
        """Return every candidate, offered now or not, with costs and reasons."""
