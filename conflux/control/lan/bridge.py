"""The bridge between LANs: which of the envelopes that neighbours send go on, and to which neighbours.  Sans-IO.

            one LAN              another
    alpha ───────────── rod ───────────────── bravo     rod is a bridge; alpha and bravo pass nothing on

An envelope goes on to other LANs than the one it came from, with a hop less.  An envelope for one node goes to that
node if it is a neighbour, and otherwise only to neighbours that are bridges.  A bridge learns the receivers of the
envelopes and which neighbour brought them.  It neither keeps nor logs that, only digests of the envelopes that it saw,
so that loops of LANs come to an end.  To another channel than this one, crossing.py takes them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from conflux.budget import BudgetTable, TokenBucket
from conflux.control.channel import Handoff
from conflux.control.drop import Drop
from conflux.control.envelope import ENVELOPE_BYTES_MAX, Envelope, Reach
from conflux.control.lan.config import CONNECTION_COUNT_MAX
from conflux.control.passed import Passed
from conflux.errors import RemoteProtocolError
from conflux.ids import NodeId

# What one neighbour may make this node do, per second and at once.  An envelope is charged before it is decoded; bytes
# are those that are sent on, every copy counted.  A bridge sends the envelopes of many nodes, so a neighbour that is
# none pays double: alone, it can use up only half of what the next bridge grants to this one.  Chosen: 60 questions at
# once, as many as a node may ask, reach 16 neighbours.
MESSAGE_RATE, MESSAGE_BURST = 100.0, 400.0
BYTE_RATE, BYTE_BURST = 4e6, 32e6
PLAIN_COST, BRIDGE_COST = 2, 1
BUDGET_KEY_COUNT_MAX = 256

# What goes from islands on to the LAN where they are connected, of all together, if it is not for one neighbour.  Every
# node there may take one member for an island, and pass its questions on to all others.  Chosen: 60 questions at once;
# the largest envelope fits, to as many neighbours as there can be; and N nodes bring each of them 0.1 MB/s in all.
ISLAND_MESSAGE_RATE, ISLAND_MESSAGE_BURST = 5.0, 60.0
ISLAND_BYTE_RATE, ISLAND_BYTE_BURST = 1e5, float(CONNECTION_COUNT_MAX * ENVELOPE_BYTES_MAX)


class Passage(NamedTuple):
    """What to do with one envelope.  delivered: the envelope, if this node is to read it; else None.

    onward: the encoded envelope to send to each neighbour in to.  across: the envelope, if another channel may carry it
    on; else None. errand: onward is to go to its receiver, who is no neighbour.
    """

    delivered: Envelope | None = None
    to: tuple[NodeId, ...] = ()
    onward: bytes = b""
    across: Envelope | None = None
    errand: bool = False


NOWHERE = Passage()
KNOWN = Passage()  # it came before, with no fewer hops


@dataclass(slots=True)
class _Neighbour:
    """lan: None if unknown; then nothing passes to or from it.  joins: it says that it is a bridge.

    beside: the LAN where it is connected, if it is an island there.
    """

    lan: str | None
    beside: str | None = None
    joins: bool = False


class Bridge:
    """One node's neighbours by LAN, and what passes between them.

    drop: counts what ends here, by reason.  crosses: set it while envelopes cross between the LANs and another channel.

    wide: set it while a LAN is so large that not everybody there is a neighbour.  way(node): returns the neighbour that
    leads to a node there.  near(node): says whether a node is at a known place there.
    """

    def __init__(
        self,
        me: NodeId,
        drop: Callable[[str], None],
        *,
        wide: Callable[[], bool] = lambda: False,
        way: Callable[[NodeId], NodeId | None] = lambda node: None,
        near: Callable[[NodeId], bool] = lambda node: False,
    ) -> None:
        self.crosses = False
        self._wide = wide
        self._way = way
        self._near = near
        self._me = me
        self._drop = drop
        self._neighbours: dict[NodeId, _Neighbour] = {}
        self._lans: tuple[str, ...] = ()
        self._passed = Passed()
        self._message_budget = BudgetTable(MESSAGE_RATE, MESSAGE_BURST, BUDGET_KEY_COUNT_MAX)
        self._byte_budget = BudgetTable(BYTE_RATE, BYTE_BURST, BUDGET_KEY_COUNT_MAX)
        self._island_messages = TokenBucket(ISLAND_MESSAGE_RATE, ISLAND_MESSAGE_BURST)
        self._island_bytes = TokenBucket(ISLAND_BYTE_RATE, ISLAND_BYTE_BURST)

    # ── neighbours ────────────────────────────────────────────────────────────────────────────────────────────────────

    def place(self, node: NodeId, lan: str | None, beside: str | None = None) -> None:
        """Take note that a neighbour is on that LAN from now on.

        beside: the LAN where it is connected; another one than lan if it is an island there.
        """
        neighbour = self._neighbours.setdefault(node, _Neighbour(lan))
        neighbour.lan = lan
        neighbour.beside = None if beside == lan else beside
        self._count_lans()

    def remove(self, node: NodeId) -> None:
        """Take note that a neighbour is gone."""
        self._neighbours.pop(node, None)
        self._count_lans()

    def hear(self, node: NodeId, *, joins: bool) -> None:
        """Take note that a neighbour says whether it is a bridge."""
        if node in self._neighbours:
            self._neighbours[node].joins = joins

    @property
    def lans(self) -> tuple[str, ...]:
        """Every LAN on which there is a neighbour."""
        return self._lans

    @property
    def joins(self) -> bool:
        """Whether this node is a bridge: it has neighbours on more than one LAN, or crosses to another channel."""
        return self.crosses or len(self._lans) > 1

    def lan(self, node: NodeId) -> str | None:
        """Return the LAN of a neighbour, if it is known."""
        neighbour = self._neighbours.get(node)
        return None if neighbour is None else neighbour.lan

    def says_it_joins(self, node: NodeId) -> bool:
        """Say whether a node is a neighbour that claims to be a bridge."""
        return node in self._neighbours and self._neighbours[node].joins

    # ── envelopes ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def send(self, envelope: Envelope, *, now: float) -> tuple[NodeId, ...]:
        """Return the neighbours that an envelope of this node goes to: its receiver, else every bridge; or all."""
        self._passed.note_own(envelope, now)
        return self._reached(envelope.to)

    def _reached(self, to: NodeId | None) -> tuple[NodeId, ...]:
        """Return the neighbours through which a node is reached, if at all; None: every neighbour."""
        if to is None:
            return tuple(self._neighbours)
        if to in self._neighbours:
            return (to,)
        if self._wide() and (way := self._way(to)) in self._neighbours:
            return (way,)
        return tuple(node for node, neighbour in self._neighbours.items() if neighbour.joins)

    def receive_untrusted(self, data: bytes, via: NodeId, *, now: float) -> Passage:
        """Take an encoded envelope from a neighbour."""
        # The budget comes before decoding.  A node that is no bridge decodes as many as its plane would take.
        cost = PLAIN_COST if self.joins and not self.says_it_joins(via) else BRIDGE_COST
        if not self._message_budget.take(via, now, cost):
            self._drop(Drop.FLOOD)
            return NOWHERE
        try:
            envelope = Envelope.decode_untrusted(data)
        except RemoteProtocolError as error:
            self._drop(error.reason)
            return NOWHERE
        known_hop_limit = self._passed.seen_before(envelope, now)
        if envelope.hop_limit <= known_hop_limit:
            self._drop(Drop.DUPLICATE)
            return KNOWN
        delivered = envelope if known_hop_limit < 0 and envelope.to in (None, self._me) else None
        if envelope.to == self._me:
            return Passage(delivered)
        errand = envelope.to is not None and self._runs_errand(envelope.to, via)
        to = () if errand else self._onward(envelope.to, via)
        across = envelope if self._goes_across(envelope, via) else None
        if not to and across is None and not errand:
            if delivered is None:
                self._drop(Drop.NOT_FOR_US)
            if self.lan(via) is None:  # it may have to go on, from a neighbour whose LAN is known
                self._passed.take_back(envelope, known_hop_limit)
            return Passage(delivered)
        if envelope.hop_limit == 0:
            self._drop(Drop.HOP_LIMIT)
            return Passage(delivered)
        beside = self._beside(via) & set(to) if envelope.to not in self._neighbours else set()
        if beside and not self._islands_may(len(data) * len(beside), now):
            self._drop(Drop.FORWARD_FLOOD)
            to = tuple(node for node in to if node not in beside)
            if not to and across is None:
                self._passed.take_back(envelope, known_hop_limit)
                return Passage(delivered)
        if not self._byte_budget.take(via, now, cost * len(data) * (len(to) + (across is not None) + errand)):
            self._drop(Drop.FORWARD_FLOOD)
            self._passed.take_back(envelope, known_hop_limit)
            return Passage(delivered)
        onward = replace(envelope, hop_limit=envelope.hop_limit - 1)
        return Passage(delivered, to, onward.encode() if to or errand else b"", across, errand)

    def enter(self, envelope: Envelope, *, now: float) -> tuple[NodeId, ...]:
        """Return the neighbours that an envelope which comes from another channel goes to."""
        if envelope.hop_limit <= self._passed.seen_before(envelope, now):
            self._drop(Drop.DUPLICATE)
            return ()
        return self._reached(envelope.to)

    def _runs_errand(self, to: NodeId, via: NodeId) -> bool:
        """Say whether this node brings an envelope from via to a node that is no neighbour, and at a known place."""
        return self.joins and to != via and to not in self._neighbours and self._near(to)

    def _onward(self, to: NodeId | None, via: NodeId) -> tuple[NodeId, ...]:
        """Return the neighbours to which an envelope from via goes on."""
        came_from = self.lan(via)
        if came_from is None or to == via:
            return ()
        if to is not None and self._wide():
            way = to if to in self._neighbours else self._way(to)
            if way in self._neighbours and way != via:
                return (way,)
        if not self.joins:
            return ()
        if to in self._neighbours:
            return (to,)
        return tuple(
            node
            for node, neighbour in self._neighbours.items()
            if neighbour.lan not in (None, came_from) and (to is None or neighbour.joins)
        )

    def _beside(self, via: NodeId) -> set[NodeId]:
        """Return the neighbours on the LAN where via is connected, if it is an island there."""
        lan = self._neighbours[via].beside if via in self._neighbours else None
        return set() if lan is None else {node for node, each in self._neighbours.items() if each.lan == lan}

    def _islands_may(self, byte_count: int, now: float) -> bool:
        return self._island_messages.take(now) and self._island_bytes.take(now, byte_count)

    def _goes_across(self, envelope: Envelope, via: NodeId) -> bool:
        """Say whether another channel may have to carry an envelope from via on."""
        if not self.crosses or envelope.to == via:
            return False
        return envelope.reach is not Reach.NEAR if envelope.to is None else envelope.to not in self._neighbours

    def _count_lans(self) -> None:
        self._lans = tuple(sorted({each.lan for each in self._neighbours.values() if each.lan is not None}))


def handoff(envelope: Envelope, nodes: tuple[NodeId, ...], sent: bool) -> Handoff:
    """Return what became of an envelope that was, or was not, sent to any of those neighbours."""
    if not sent:
        return Handoff.ABSENT
    return Handoff.ACCEPTED if envelope.to is None or envelope.to in nodes else Handoff.FORWARDED
