"""The first search: direct, else by relays that both ends hear each other through.

What is known of a path: by whom the destination's control messages come in, which nodes it says it reaches (its
vantage), who our own neighbours are, and what earlier routes cost.  Two relays at most.  Direct is preferred unless a
relay wins clearly: in practice one relay is usually enough (Andersen et al., Resilient Overlay Networks, SOSP 2001).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from conflux.ids import NodeId, format_node_id
from conflux.search.interface import Measured, Path

K = TypeVar("K")
V = TypeVar("V")

PATIENCE_S = 0.05  # about one WAN round trip
PATIENCE_ADJACENT_S = 0.3  # chosen: a cold link of a slow board
RTT_GAIN = 1 / 8  # weight of the newest sample, as TCP smooths its own (RFC 6298)
FAILURE_PAUSE_S_MIN = 2.0  # a path that failed is not offered again for this long; doubles
FAILURE_PAUSE_S_MAX = 120.0
CANDIDATE_COUNT_MAX = 6
RELAY_MUST_WIN_BY = 0.75  # a relay takes a stream from the direct path below this share of its RTT …
RELAY_MUST_WIN_S = 0.005  # … and by at least this; the direct path takes it back above
CHANGE_MUST_WIN_BY = 0.9  # between relays: enough that two equal ones do not alternate
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


class FirstSearch:
    """Search by what was heard and measured; no learning yet."""

    def __init__(self, me: NodeId) -> None:
        self._me = me
        self._costs: dict[Path, _Cost] = {}
        self._neighbours: dict[NodeId, None] = {}
        self._bridges: dict[NodeId, None] = {}
        self._via: dict[NodeId, NodeId] = {}
        self._vantages: dict[NodeId, tuple[NodeId, ...]] = {}

    # ── choosing ──

    def paths(self, destination: NodeId, *, now: float) -> tuple[Path, ...]:
        """Return candidates, best first: direct, then what was measured before what was not, fewer hops before more."""
        known = self._candidates(destination)
        return tuple(path for path in known if self._costs.get(path, _Cost()).paused_until <= now)[:CANDIDATE_COUNT_MAX]

    def _candidates(self, destination: NodeId) -> list[Path]:
        vantage = self._vantages.get(destination, ())
        heard = self._via.get(destination)
        theirs = list(vantage)
        ours = [node for node in (heard, *self._bridges) if node is not None]
        ours += [node for node in theirs if node in self._neighbours]
        one = [node for node in dict.fromkeys([*theirs, *ours]) if node in ours and (node in theirs or not theirs)]
        relayed: list[tuple[NodeId, ...]] = [(node,) for node in one]
        # Two relays join what no single one does: ours that its messages come by, and one it says it reaches.
        relayed += [(a, b) for a in dict.fromkeys(ours) for b in theirs if a not in theirs and b not in ours]
        ends = (self._me, destination)
        paths = [Path((*relays, destination)) for relays in relayed if not set(relays) & set(ends)]
        paths.sort(key=lambda path: (self._rtt_s(path, 1.0), len(path.hops)))  # stable: who is heard first stays first
        paths = list(dict.fromkeys(paths))
        place = self._place_of_direct(destination)
        return [*paths[:place], Path((destination,)), *paths[place:]]

    def _place_of_direct(self, destination: NodeId) -> int:
        """Return how many relayed paths come before the direct one.

        First, as a rule.  But whose messages others bring is probably out of reach, and dialling him costs both sides
        as much as the links of the path that will carry: there it comes second, and last once it has failed.
        """
        cost = self._costs.get(Path((destination,)), _Cost())
        if destination in self._neighbours or self._via.get(destination, destination) == destination:
            return 0
        if cost.opened_count and not cost.failure:
            return 0
        return CANDIDATE_COUNT_MAX - 1 if cost.failure else 1

    def patience_s(self, path: Path) -> float:
        """Return 50 ms, or longer for the direct path to a neighbour: it is there, and a race would only cost bytes."""
        adjacent = path.first in self._neighbours or self._via.get(path.first) == path.first
        return PATIENCE_ADJACENT_S if adjacent and not path.relays else PATIENCE_S

    def prefers(self, new: Path, new_rtt_s: float, old: Path) -> bool:
        """Compare round trips; the direct path has the odds on its side."""
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
        """Return who peer's messages come in by, then our other neighbours that join LANs."""
        nodes = dict.fromkeys([node for node in (self._via.get(peer), *self._bridges) if node is not None])
        return tuple(node for node in nodes if node != peer)

    # ── learning ──

    def neighbour_changed(self, node: NodeId, up: bool) -> None:
        """Remember who is next to us."""
        if up:
            _remember(self._neighbours, node, None)
        else:
            self._neighbours.pop(node, None)
            self._bridges.pop(node, None)

    def bridge_changed(self, node: NodeId, up: bool) -> None:
        """Remember which neighbours join LANs: with them lies what we do not reach ourselves."""
        if up:
            _remember(self._bridges, node, None)
        else:
            self._bridges.pop(node, None)

    def heard(self, peer: NodeId, via: NodeId) -> None:
        """Remember by whom a peer's messages come."""
        _remember(self._via, peer, via)

    def vantage_of(self, destination: NodeId, nodes: tuple[NodeId, ...]) -> None:
        """Remember what the destination says it reaches."""
        _remember(self._vantages, destination, nodes)

    def opened(self, path: Path, took_s: float, *, now: float) -> None:
        """The path works: past failures are forgiven."""
        cost = self._cost(path)
        cost.opened_count += 1
        cost.open_s = _smooth(cost.open_s, took_s)
        cost.failure, cost.pause_s, cost.paused_until = "", 0.0, 0.0

    def failed(self, path: Path, reason: str, *, now: float) -> None:
        """Offer the path no more for a while, longer each time in a row."""
        cost = self._cost(path)
        cost.failed_count += 1
        cost.failure = reason
        cost.pause_s = min(max(FAILURE_PAUSE_S_MIN, 2 * cost.pause_s), FAILURE_PAUSE_S_MAX)
        cost.paused_until = now + cost.pause_s

    def measured(self, path: Path, report: Measured, *, now: float) -> None:
        """Remember delay and loss."""
        cost = self._cost(path)
        if report.rtt_s is not None:
            cost.rtt_s = _smooth(cost.rtt_s, report.rtt_s)
        cost.received_count += report.received_count
        cost.lost_count += report.lost_count

    def returned(self, node: NodeId) -> None:
        """The node is there again: what failed by way of it, or to it, may be tried at once."""
        for path, cost in self._costs.items():
            if node in path.hops:
                cost.pause_s = cost.paused_until = 0.0

    # ── explaining ──

    def explain(self, destination: NodeId, *, now: float) -> list[dict[str, object]]:
        """Return every candidate with what is known of it."""
        return [self._explained(path, now) for path in self._candidates(destination)]

    def _explained(self, path: Path, now: float) -> dict[str, object]:
        cost = self._costs.get(path, _Cost())
        if cost.paused_until > now:
            why = f"failed ({cost.failure}); not tried for {cost.paused_until - now:.0f} s more"
        elif cost.failure:
            why = f"failed ({cost.failure}); may be tried again"
        elif cost.rtt_s is None:
            why = "never measured"
        else:
            why = "measured"
        return {
            "hops": [format_node_id(node) for node in path.hops],
            "why": why,
            "rtt_ms": None if cost.rtt_s is None else round(cost.rtt_s * 1e3, 3),
            "open_ms": None if cost.open_s is None else round(cost.open_s * 1e3, 1),
            "opened": cost.opened_count,
            "failed": cost.failed_count,
            "received": cost.received_count,
            "lost": cost.lost_count,
        }

    def _cost(self, path: Path) -> _Cost:
        cost = self._costs.get(path) or _Cost()
        _remember(self._costs, path, cost)
        return cost


def _remember(table: dict[K, V], key: K, value: V) -> None:
    """Put an entry last; above the bound the first one goes."""
    table.pop(key, None)
    table[key] = value
    if len(table) > TABLE_COUNT_MAX:
        del table[next(iter(table))]


def _smooth(old: float | None, sample: float) -> float:
    return sample if old is None else old + RTT_GAIN * (sample - old)
