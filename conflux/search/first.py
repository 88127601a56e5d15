"""The first search: the direct path, else relays through which both ends hear each other.

It knows five things: from which neighbour the destination's control messages come, which relays the destination says it
reaches (its vantage), which nodes are neighbours here, which relays every node can dial, and the costs of earlier
routes.  It uses two relays at most.
The direct path is preferred unless a relay wins clearly: in practice one relay is usually enough (Andersen et al.,
Resilient Overlay Networks, SOSP 2001).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from conflux.ids import NodeId
from conflux.search.interface import Candidate, Measured, Path

K = TypeVar("K")
V = TypeVar("V")

PATIENCE_S = 0.05  # about one WAN round trip
PATIENCE_DIRECT_S = 0.3  # chosen: a cold link of a slow board, or one between two home routers
SILENT_S = 1.0  # of dials that ended with their streams: the next one gets no more time than a relay
RTT_GAIN = 1 / 8  # weight of the newest sample, as TCP smooths its own (RFC 6298)
FAILURE_PAUSE_S_MIN = 2.0  # a path that failed is not offered again for this long; doubles
FAILURE_PAUSE_S_MAX = 120.0
LASTED_S = 2.0  # a path that opened and was lost sooner is one more failure in a row
UNANSWERED_S = 10.0  # of dials that ended with their streams: together they say as much as one that was given up
CANDIDATE_COUNT_MAX = 6
PUBLIC_RELAY_COUNT_MAX = 4  # relays that every node reaches: one is enough, and each that is tried costs a link
RELAY_MUST_WIN_BY = 0.75  # a relay takes a stream from the direct path below this share of its RTT …
RELAY_MUST_WIN_S = 0.005  # … and by at least this; the direct path takes it back above
CHANGE_MUST_WIN_BY = 0.9  # between relays: enough that a stream does not alternate between two equal ones
TABLE_COUNT_MAX = 4096  # paths, peers and vantages remembered, each; the least recently used goes first


@dataclass(slots=True)
class _Cost:
    rtt_s: float | None = None
    open_s: float | None = None
    opened_count: int = 0
    failed_count: int = 0
    received_count: int = 0
    lost_count: int = 0
    failure: str = ""
    pause_s: float = 0.0
    paused_until: float = 0.0
    opened_at: float | None = None  # since when it works; None: it never did, or failed since
    unanswered_s: float = 0.0  # since it last opened or failed


class FirstSearch:
    """Search by what was heard and measured; no learning yet."""

    def __init__(self, me: NodeId) -> None:
        self._me = me
        self._costs: dict[Path, _Cost] = {}
        self._neighbours: dict[NodeId, None] = {}
        self._bridges: dict[NodeId, None] = {}
        self._via: dict[NodeId, NodeId] = {}
        self._vantages: dict[NodeId, tuple[NodeId, ...]] = {}
        self._public_relays: dict[NodeId, None] = {}

    # ── choosing ──

    def paths(self, destination: NodeId, *, now: float) -> tuple[Path, ...]:
        """Return candidates, best first: direct, then measured before unmeasured, then fewer hops before more."""
        known = self._candidates(destination)
        return tuple(path for path in known if self._cost_of(path).paused_until <= now)[:CANDIDATE_COUNT_MAX]

    def _candidates(self, destination: NodeId) -> list[Path]:
        vantage = self._vantages.get(destination, ())
        heard = self._via.get(destination)
        theirs = list(vantage)
        ours = [node for node in (heard, *self._bridges) if node is not None]
        ours += [node for node in theirs if node in self._neighbours]
        one = [node for node in dict.fromkeys([*theirs, *ours]) if node in ours and (node in theirs or not theirs)]
        if one and heard is not None:  # one is enough, and those that it named may be gone by now
            one = list(dict.fromkeys([*one, heard]))
        relayed: list[tuple[NodeId, ...]] = [(node,) for node in (*one, *reversed(self._public_relays))]
        # Two relays, where no single one is known: one that this node reaches, and one that the destination names.
        relayed += [(a, b) for a in dict.fromkeys(ours) for b in theirs if a not in theirs and b not in ours]
        ends = (self._me, destination)
        paths = [Path((*relays, destination)) for relays in relayed if not set(relays) & set(ends)]
        paths.sort(
            key=lambda path: (self._rtt_s(path, 1.0), len(path.hops))
        )  # stable: among equals the neighbour its messages come from stays first
        paths = list(dict.fromkeys(paths))
        place = self._place_of_direct(destination)
        return [*paths[:place], Path((destination,)), *paths[place:]]

    def _place_of_direct(self, destination: NodeId) -> int:
        """Return how many relayed paths come before the direct one.

        None, as a rule.  But a destination whose messages come through another node is probably out of reach, and to
        dial it costs both ends as much as the links of the path that will carry.  Then the direct path comes second,
        and last once it has failed.  So it does when a router before a destination of a broker let nothing in.
        """
        cost = self._cost_of(Path((destination,)))
        via = self._via.get(destination)
        if destination in self._neighbours or via == destination:
            return 0
        if cost.failure:
            return CANDIDATE_COUNT_MAX - 1
        return 0 if via is None or cost.opened_count else 1

    def patience_s(self, path: Path) -> float:
        """Return 50 ms, or longer for a direct path to a node that is behind no other: a race costs bytes.

        A neighbour will answer.  A node of a broker will, unless the routers before it and before this node let nothing
        in: then the streams before this one ended while its dial was still unanswered.
        """
        behind = path.first not in self._neighbours and self._via.get(path.first, path.first) != path.first
        silent = self._cost_of(path).unanswered_s >= SILENT_S
        return PATIENCE_S if path.relays or behind or silent else PATIENCE_DIRECT_S

    def direct_at(self, destination: NodeId, *, now: float) -> float | None:
        """Return when the pause of the direct path is over; None if a neighbour leads there, or after many failures.

        So a stream that a public relay carries for hours costs no dial more than those of its first minutes.
        """
        cost = self._cost_of(Path((destination,)))
        behind = destination not in self._neighbours and self._via.get(destination) in self._neighbours
        hopeless = bool(cost.failure) and cost.pause_s >= FAILURE_PAUSE_S_MAX
        return None if behind or hopeless else max(cost.paused_until, now)

    def prefers(self, new: Path, new_rtt_s: float, old: Path) -> bool:
        """Compare round trips; the direct path wins unless the relayed one is clearly better."""
        old_rtt_s = self._rtt_s(old, float("inf"))
        if not new.relays:
            return new_rtt_s * RELAY_MUST_WIN_BY <= old_rtt_s + RELAY_MUST_WIN_S
        if not old.relays:
            return new_rtt_s < min(old_rtt_s * RELAY_MUST_WIN_BY, old_rtt_s - RELAY_MUST_WIN_S)
        return new_rtt_s < old_rtt_s * CHANGE_MUST_WIN_BY

    def _rtt_s(self, path: Path, unknown: float) -> float:
        cost = self._costs.get(path)
        return unknown if cost is None or cost.rtt_s is None else cost.rtt_s

    def vantage(self, peer: NodeId) -> tuple[NodeId, ...]:
        """Return the neighbour that peer's messages come from, others that join LANs, then public relays."""
        known = (self._via.get(peer), *self._bridges, *reversed(self._public_relays))
        return tuple(dict.fromkeys(node for node in known if node not in (None, peer)))

    # ── learning ──

    def neighbour_changed(self, node: NodeId, up: bool) -> None:
        """Remember the neighbours."""
        if up:
            _remember(self._neighbours, node, None)
        else:
            self._neighbours.pop(node, None)
            self._bridges.pop(node, None)

    def revoked(self, node: NodeId) -> None:
        """Forget the node, and that it leads to others."""
        self.neighbour_changed(node, False)
        self._public_relays.pop(node, None)
        self._via = {peer: via for peer, via in self._via.items() if via != node}
        for peer, nodes in self._vantages.items():
            self._vantages[peer] = tuple(each for each in nodes if each != node)

    def bridge_changed(self, node: NodeId, up: bool) -> None:
        """Remember which neighbours join LANs: they reach nodes that this one does not."""
        if up:
            _remember(self._bridges, node, None)
        else:
            self._bridges.pop(node, None)

    def heard(self, peer: NodeId, via: NodeId | None) -> None:
        """Remember the node that a peer's messages come from; a neighbour before one at a broker.

        A peer that is a neighbour is no farther than that, whoever was quicker with a copy of its message.
        """
        if peer in self._neighbours:
            _remember(self._via, peer, peer)
        elif via is not None:
            _remember(self._via, peer, via)
        elif self._via.get(peer) not in self._neighbours:
            self._via.pop(peer, None)

    def relay_found(self, node: NodeId) -> None:
        """Remember a relay that every node reaches, the newest first."""
        _remember(self._public_relays, node, None)
        if len(self._public_relays) > PUBLIC_RELAY_COUNT_MAX:
            del self._public_relays[next(iter(self._public_relays))]

    def wants_relay(self, destination: NodeId) -> bool:
        """Say whether the destination is heard over a broker alone: no neighbour is a way to it.

        Nor is a node at the broker, if it is a public relay itself or has just failed to be one.
        """
        via = self._via.get(destination)
        if destination in self._neighbours or via in self._neighbours:
            return False
        return via is None or via in self._public_relays or bool(self._cost_of(Path((via, destination))).failure)

    def vantage_of(self, destination: NodeId, nodes: tuple[NodeId, ...]) -> None:
        """Remember the relays that the destination says it reaches."""
        _remember(self._vantages, destination, nodes)

    def opened(self, path: Path, took_s: float, *, now: float) -> None:
        """Remember that the path works, and end its pause; its past failures are forgotten when it has lasted."""
        cost = self._cost(path)
        cost.opened_count += 1
        cost.open_s = _smooth(cost.open_s, took_s)
        cost.failure, cost.paused_until, cost.unanswered_s = "", 0.0, 0.0
        cost.opened_at = now if cost.opened_at is None else cost.opened_at

    def failed(self, path: Path, reason: str, *, now: float) -> None:
        """Offer the path no more for a while, longer each time in a row."""
        cost = self._cost(path)
        cost.failed_count += 1
        cost.failure = reason
        lasted = cost.opened_at is not None and now >= cost.opened_at + LASTED_S
        cost.pause_s = min(max(FAILURE_PAUSE_S_MIN, 0.0 if lasted else 2 * cost.pause_s), FAILURE_PAUSE_S_MAX)
        cost.opened_at = None
        cost.paused_until, cost.unanswered_s = now + cost.pause_s, 0.0

    def unanswered(self, path: Path, waited_s: float, *, now: float) -> None:
        """Add the wait to those before: a path that is merely slow is none that failed, but has an end."""
        cost = self._cost(path)
        cost.unanswered_s += waited_s
        if cost.unanswered_s >= UNANSWERED_S:
            self.failed(path, "no link", now=now)

    def measured(self, path: Path, report: Measured, *, now: float) -> None:
        """Remember delay and loss."""
        cost = self._cost(path)
        if report.rtt_s is not None:
            cost.rtt_s = _smooth(cost.rtt_s, report.rtt_s)
        cost.received_count += report.received_count
        cost.lost_count += report.lost_count

    def returned(self, node: NodeId) -> None:
        """End the pauses of all paths by way of a node that came back, or to it."""
        for path, cost in self._costs.items():
            if node in path.hops:
                cost.pause_s = cost.paused_until = 0.0

    # ── explaining ──

    def explain(self, destination: NodeId, *, now: float) -> tuple[Candidate, ...]:
        """Return every candidate, offered now or not, with costs and reasons."""
        return tuple(self._explained(path, now) for path in self._candidates(destination))

    def _explained(self, path: Path, now: float) -> Candidate:
        cost = self._cost_of(path)
        if cost.paused_until > now:
            why = f"failed ({cost.failure}); not tried for {cost.paused_until - now:.0f} s more"
        elif cost.failure:
            why = f"failed ({cost.failure}); may be tried again"
        elif cost.rtt_s is None:
            why = "never measured"
        else:
            why = "measured"
        return Candidate(
            path.hops,
            why,
            rtt_ms=None if cost.rtt_s is None else round(cost.rtt_s * 1e3, 3),
            open_ms=None if cost.open_s is None else round(cost.open_s * 1e3, 1),
            opened=cost.opened_count,
            failed=cost.failed_count,
            received=cost.received_count,
            lost=cost.lost_count,
            paused_until=cost.paused_until if cost.paused_until > now else None,
        )

    def _cost_of(self, path: Path) -> _Cost:
        """Return what is known of a path, to read."""
        return self._costs.get(path) or _Cost()

    def _cost(self, path: Path) -> _Cost:
        cost = self._costs.get(path) or _Cost()
        _remember(self._costs, path, cost)
        return cost


def _remember(table: dict[K, V], key: K, value: V) -> None:
    """Put an entry last; above the bound, the first one is dropped."""
    table.pop(key, None)
    table[key] = value
    if len(table) > TABLE_COUNT_MAX:
        del table[next(iter(table))]


def _smooth(old: float | None, sample: float) -> float:
    return sample if old is None else old + RTT_GAIN * (sample - old)
