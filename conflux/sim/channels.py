"""A host's control channels in the simulated world: what the engines do, over the hub and the broker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from conflux.control.channel import ChannelState, Handoff
from conflux.control.envelope import Envelope
from conflux.crypto.sign import ED25519_PUBLIC_BYTES
from conflux.ids import NodeId
from conflux.realm.broker.subjects import buckets_of
from conflux.realm.card import Card
from conflux.realm.member import Member
from conflux.sim.broker import Broker
from conflux.sim.hub import Hub


class Ground(Protocol):
    """What the channels need of their world."""

    now: float

    def watch(self) -> None:
        """Look at the networks: something went into one of them."""

    def member(self, node: NodeId) -> Member:
        """Return the member whose node that is."""


class LanPort:
    """One host's channel on the hub."""

    far = False

    def __init__(self, ground: Ground, hub: Hub, node: NodeId) -> None:
        self.name = hub.name
        self._ground = ground
        self._hub = hub
        self._node = node

    def send(self, envelope: Envelope, *, again: bool = False) -> Handoff:
        """Send an envelope of this host."""
        return self._sent(self._hub.send(self._node, envelope, now=self._ground.now))

    def pass_on(self, envelope: Envelope, hint: bytes | None = None) -> Handoff:
        """Send on an envelope that came by the broker."""

        def answers(node: NodeId) -> bool:
            return envelope.bucket in own_buckets(self._ground.member(node))

        return self._sent(self._hub.pass_on(self._node, envelope, answers, now=self._ground.now))

    def cross(self, buckets: frozenset[int] | None) -> None:
        """Be a bridge to the broker, or no longer."""
        self._hub.cross(self._node, buckets is not None)
        self._ground.watch()

    @property
    def buckets(self) -> frozenset[int]:
        """The buckets of the questions that neighbours answer."""
        nodes = self._hub.neighbours(self._node)
        return frozenset().union(*(own_buckets(self._ground.member(node)) for node in nodes))

    @property
    def state(self) -> ChannelState:
        """Whether the host is on its LANs."""
        return ChannelState(self._node in self._hub, "")

    def _sent(self, handoff: Handoff) -> Handoff:
        self._ground.watch()
        return handoff


class BrokerPort:
    """One host's channel at the broker.  card_of: returns the card of a node, if the host knows it."""

    far = True

    def __init__(self, ground: Ground, broker: Broker, node: NodeId, card_of: Callable[[NodeId], Card | None]) -> None:
        self.name = broker.name
        self._ground = ground
        self._broker = broker
        self._node = node
        self._card_of = card_of
        self._paths: dict[NodeId, bytes] = {}
        self._tried: dict[NodeId, set[bytes]] = {}  # by the last envelope for each node; not those that were missed

    def send(self, envelope: Envelope, *, again: bool = False) -> Handoff:
        """Send an envelope by the path that its receiver was heard by, else by the receiver's own key; or by both."""
        ways = self._ways(envelope.to)
        keys: list[bytes | None] = [*(ways if again else ways[:1])]
        if envelope.to is not None:
            self._tried[envelope.to] = {key for key in keys if key is not None}
        handoffs = [self._broker.send(self._node, envelope, key, now=self._ground.now) for key in keys or [None]]
        self._ground.watch()
        return handoffs[0]

    def pass_on(self, envelope: Envelope, hint: bytes | None = None) -> Handoff:
        """Send on an envelope that came by the LAN."""
        ways = self._ways(envelope.to)
        key = ways[0] if ways else hint
        if envelope.to is not None and key is None:
            return Handoff.ABSENT
        handoff = self._broker.send(self._node, envelope, key, now=self._ground.now)
        self._ground.watch()
        return Handoff.FORWARDED if envelope.to is not None and not ways and key is not None else handoff

    def learn(self, node: NodeId, path: bytes) -> None:
        """Remember the path by which a node was heard."""
        self._paths[node] = path

    def missed(self, node: NodeId, key: bytes) -> bool:
        """Forget a path at whose end nobody listens; say whether that was the last one which was tried."""
        if self._paths.get(node) == key:
            del self._paths[node]
        tried = self._tried.get(node, set())
        tried.discard(key)
        return not tried

    def cross(self, buckets: frozenset[int] | None) -> None:
        """Listen to buckets for the host's neighbours, or no longer."""
        if self._node in self._broker:
            self._broker.cross(self._node, buckets)

    @property
    def buckets(self) -> frozenset[int]:
        """There are no neighbours."""
        return frozenset()

    @property
    def state(self) -> ChannelState:
        """Whether the host believes that it is connected."""
        return ChannelState(self._broker.is_up(self._node), "")

    def _ways(self, to: NodeId | None) -> list[bytes]:
        if to is None:
            return []
        card = self._card_of(to)
        ways = [self._paths.get(to), None if card is None else user_key(card.chain.credential.node_public)]
        return list(dict.fromkeys(way for way in ways if way is not None))


def user_key(node_public: bytes) -> bytes:
    """Return the key under which a broker knows a node."""
    return node_public[:ED25519_PUBLIC_BYTES]


def own_buckets(member: Member) -> frozenset[int]:
    """Return the buckets in which a member is asked for."""
    capabilities = member.chain.credential.capabilities
    return frozenset(buckets_of(member.node_id, member.name, member.addresses, capabilities))
