"""The crossing between the LANs and a broker, at a member that may join them.  Sans-IO.

        LAN                           broker
    alpha ─────── rod ──────────────────────── bravo      rod has the capability "bridge", so alpha and bravo
                                                          reach each other by it

An envelope crosses once, with a hop less.  Over the broker it goes in rod's own name; what bravo sends to alpha then
comes to rod's inbox.  Rod listens to the questions for its neighbours.  As a bridge between LANs it learns the
receivers of envelopes and who brought them, and keeps only digests; of the nodes that ask, their last paths.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from conflux.budget import BudgetTable
from conflux.control.channel import Arrival, ChannelState, Handoff
from conflux.control.drop import Drop
from conflux.control.envelope import Envelope, Inner
from conflux.control.passed import Passed
from conflux.errors import RemoteProtocolError
from conflux.ids import NodeId
from conflux.realm.credential import BRIDGE
from conflux.realm.member import Member

# What one neighbour, or one user of the broker, may have cross, per second and at once.  Chosen: 60 questions at once
# with a card of 16 kB each, as many as a node may ask; and no more than a small uplink carries.
MESSAGE_RATE, MESSAGE_BURST = 50.0, 200.0
BYTE_RATE, BYTE_BURST = 256e3, 4e6
BUDGET_KEY_COUNT_MAX = 1024
ENVELOPE_OVERHEAD_BYTES = 64

ASKER_COUNT_MAX = 1024  # nodes at the broker whose last path is remembered; the oldest goes first
ASKER_PER_PATH_MAX = 128  # of these by one path: askers can be made up, and a bridge has few nodes behind it


def may_cross(member: Member) -> bool:
    """Say whether a member has the capability to join its LANs and the broker."""
    return BRIDGE in member.chain.credential.capabilities


class Side(Protocol):
    """What the crossing needs of a channel: see ControlChannel."""

    name: str

    def cross(self, buckets: frozenset[int] | None) -> None:
        """Have envelopes cross from now on."""

    def pass_on(self, envelope: Envelope, hint: bytes | None = None) -> Handoff:
        """Send on an envelope of another node."""

    @property
    def buckets(self) -> frozenset[int]:
        """The buckets of the questions that neighbours answer."""

    @property
    def state(self) -> ChannelState:
        """The state at this moment."""


class Crossing:
    """What passes between the LANs and the broker.

    allowed: this node has the capability.  seek(node, arrival): asks for the card of a node, to which no way
    is known for sure, because of that arrival.
    drop: counts what ends here, by reason.
    """

    def __init__(
        self,
        near: Side,
        far: Side,
        *,
        allowed: bool,
        seek: Callable[[NodeId, Arrival], None],
        drop: Callable[[str], None],
    ) -> None:
        self._near = near
        self._far = far
        self._allowed = allowed
        self._seek = seek
        self._drop = drop
        self._buckets: frozenset[int] | None = None  # as the far channel was told; None: nothing crosses
        self._passed = Passed()
        self._askers: OrderedDict[NodeId, bytes] = OrderedDict()
        self._message_budget = BudgetTable(MESSAGE_RATE, MESSAGE_BURST, BUDGET_KEY_COUNT_MAX)
        self._byte_budget = BudgetTable(BYTE_RATE, BYTE_BURST, BUDGET_KEY_COUNT_MAX)

    @property
    def crosses(self) -> bool:
        """Whether envelopes cross now: this node may join the two, both are up, and there is a neighbour."""
        return self._buckets is not None

    def allow(self, allowed: bool) -> None:
        """Take note whether a renewed credential has the capability."""
        self._allowed = allowed
        self.look()

    def look(self) -> None:
        """Look at both channels again: a neighbour came or went, or a channel came up or went down."""
        up = self._allowed and self._near.state.up and self._far.state.up
        buckets = (self._near.buckets or None) if up else None
        before, self._buckets = self._buckets, buckets
        if buckets == before:
            return
        self._far.cross(buckets)
        if (buckets is None) != (before is None):
            self._near.cross(None if buckets is None else frozenset())

    def sent(self, envelope: Envelope, *, now: float) -> None:
        """Take note of an envelope of this node itself: no copy of it crosses."""
        if self.crosses:
            self._passed.note_own(envelope, now)

    def transit_untrusted(self, arrival: Arrival, *, now: float) -> None:
        """Take an envelope that one channel hands over because the other may have to carry it on."""
        if not self.crosses:
            return
        try:
            self._transit_untrusted(arrival, now)
        except RemoteProtocolError as error:
            self._drop(error.reason)

    def _transit_untrusted(self, arrival: Arrival, now: float) -> None:
        envelope, from_far = arrival.envelope, arrival.channel == self._far.name
        if not self._message_budget.take(arrival.source, now):
            raise RemoteProtocolError(Drop.FLOOD)
        known_hop_limit = self._passed.seen_before(envelope, now)
        if envelope.hop_limit <= known_hop_limit:
            raise RemoteProtocolError(Drop.DUPLICATE)
        if envelope.hop_limit == 0:
            raise RemoteProtocolError(Drop.HOP_LIMIT)
        if not self._byte_budget.take(arrival.source, now, len(envelope.payload) + ENVELOPE_OVERHEAD_BYTES):
            self._passed.take_back(envelope, known_hop_limit)
            raise RemoteProtocolError(Drop.FORWARD_FLOOD)
        onward = replace(envelope, hop_limit=envelope.hop_limit - 1)
        if from_far:
            self._note_asker_untrusted(arrival)
            if self._near.pass_on(onward) is Handoff.ABSENT and envelope.to is not None:
                raise RemoteProtocolError(Drop.NOT_FOR_US)
            return
        hint = None if envelope.to is None else self._askers.get(envelope.to)
        handoff = self._far.pass_on(onward, hint)
        if envelope.to is not None and handoff in (Handoff.ABSENT, Handoff.FORWARDED):
            self._seek(envelope.to, arrival)

    def _note_asker_untrusted(self, arrival: Arrival) -> None:
        """Remember by which path a node asks: the answer comes before this node has the asker's card.

        Nothing is verified, so whoever asks in another's name may get its answers.  They are cards, which anyone gets,
        or sealed.  It ends as soon as this node has the card of the true one, which it asks for.
        """
        if arrival.path is None or arrival.envelope.key_id is not None:
            return
        src = Inner.decode_untrusted(arrival.envelope.payload).src
        self._askers.pop(src, None)
        self._askers[src] = arrival.path
        of_path = [asker for asker, path in self._askers.items() if path == arrival.path]
        if len(of_path) > ASKER_PER_PATH_MAX:
            del self._askers[of_path[0]]
        elif len(self._askers) > ASKER_COUNT_MAX:
            self._askers.popitem(last=False)
