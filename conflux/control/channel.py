"""The interface of every control-channel engine.

An engine may lose, repeat and reorder envelopes; it never hands an envelope for one node to another, and raises nothing
of its own.  Signing, sealing, replay, retry and budgets are above it, once: plane.py.

    near     the LANs: this node has connections of its own to its neighbours
    far      a broker: every node of the realm may be there, and there are no neighbours
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from conflux.control.envelope import Envelope
from conflux.ids import NodeId
from conflux.realm.member import Member


class Handoff(enum.Enum):
    """What became of an envelope as far as the engine can tell, the best first; none of them is a receipt."""

    ACCEPTED = "accepted"  # given to the node's own connection or inbox; one for many nodes: to some of them
    FORWARDED = "forwarded"  # given to others, who may know a way to the node
    DOWN = "down"  # no connection at present: whether the node is there cannot be known
    ABSENT = "absent"  # the engine knows that the node is not there, or of no way to it
    REFUSED = "refused"  # too large for this engine, over its budget, or not permitted


class Arrival(NamedTuple):
    """One envelope as it came in, decoded.  An engine bounds how many envelopes of one source it decodes.

    via: the authenticated neighbour that handed it over; None: unknown.  path: the 32-byte Ed25519 key that a broker
    says handed it over; None: it came by no broker.
    """

    envelope: Envelope
    via: NodeId | None
    channel: str
    path: bytes | None = None

    @property
    def source(self) -> tuple[str, bytes | None]:
        """What budgets are charged to: the engine, and who handed the envelope over."""
        return self.channel, self.via or self.path


class ChannelState(NamedTuple):
    """up: messages can pass.  detail: what a person should know ("listening on port 7464, 2 neighbours")."""

    up: bool
    detail: str


class NeighbourStatus(NamedTuple):
    """What a person may want to see of one neighbour."""

    node: str
    name: str
    address: str
    lan: str | None  # None: unknown
    bridging: bool  # it says that it is a bridge
    dialled: bool  # by this node
    age_s: float  # of the connection
    heard_s: float  # since it said something
    addresses: tuple[str, ...]  # in the overlay
    expires_at: int  # of its credential: Unix seconds


class Departed(NamedTuple):
    """A node that was a neighbour until left_s ago.  why: the word for the end of its connection."""

    node: str
    name: str
    left_s: float
    why: str
    addresses: tuple[str, ...]
    expires_at: int


def _nothing(*arguments: object) -> None:
    """Take no note."""


@dataclass(frozen=True, slots=True)
class ChannelInputs:
    """What an engine tells, in the thread of the event loop.  These calls do not block.

    deliver: an envelope for this node, for a bucket or for all.
    says(node, features, knows): before a neighbour comes: what its build can do, and the digest of the chain of ours
        that it has.
    changed(node, up): a neighbour came or went, where the engine knows neighbours.
    parted(node): it is a neighbour no more, and is there still.
    bridges(node, joins): a neighbour passes envelopes on to nodes that this node does not reach itself, perhaps more
        than once, or no longer does; a lost neighbour is no bridge any more.
    absent(node): after send() had accepted an envelope for that node, the engine learnt that nobody took it; if it went
        several ways, that nobody did on any of them.
    turned(up): the channel came up or went down by itself, as state says.
    transit: an envelope that another channel may have to carry on: for another node, for a bucket or for all.  It is
        called only after cross().
    """

    deliver: Callable[[Arrival], None]
    changed: Callable[[NodeId, bool], None] = _nothing
    bridges: Callable[[NodeId, bool], None] = _nothing
    absent: Callable[[NodeId], None] = _nothing
    turned: Callable[[bool], None] = _nothing
    transit: Callable[[Arrival], None] = _nothing
    says: Callable[[NodeId, frozenset[str], bytes], None] = _nothing
    parted: Callable[[NodeId], None] = _nothing


class ControlChannel(Protocol):
    """One engine.  drops: counts what ended in it, by reason."""

    name: str
    far: bool
    drops: Counter[str]

    async def start(self, inputs: ChannelInputs) -> None:
        """Come up.  Raises UserError.  A far engine comes up without its broker, and connects when it can."""

    async def stop(self) -> None:
        """Go down; afterwards no socket of the engine is open.  Twice does no harm."""

    def send(self, envelope: Envelope, *, again: bool = False) -> Handoff:
        """Send an envelope of this node to the node, the bucket or the area it is for.  Calls no callback meanwhile.

        again: an earlier copy had no answer, so an engine that knows several ways to the node takes all of them.
        """

    def adopt(self, member: Member) -> None:
        """Use a renewed credential from now on; nothing is interrupted."""

    def exclude(self, nodes: frozenset[NodeId]) -> None:
        """End what connects this node to those nodes, or to nodes whose issuer is one of them: members no more."""

    def learn(self, node: NodeId, path: bytes) -> None:
        """Take note that a verified, fresh message of a node came by that path (Arrival.path) of this engine."""

    def cross(self, buckets: frozenset[int] | None) -> None:
        """Have envelopes cross between this channel and another from now on: call transit, tell neighbours.

        buckets: listen to their questions for the nodes behind the other channel.  None: nothing crosses any more.
        """

    def pass_on(self, envelope: Envelope, hint: bytes | None = None) -> Handoff:
        """Send on an envelope of another node, which came by another channel.  ABSENT: no way is known.

        hint: an unverified path of the node it is for, to take if no verified one is known; the result is then
        FORWARDED.
        """

    @property
    def buckets(self) -> frozenset[int]:
        """The buckets of the questions that neighbours answer."""

    @property
    def state(self) -> ChannelState:
        """The state at this moment."""

    def status(self) -> tuple[NeighbourStatus, ...]:
        """Return what a person may want to see of every neighbour."""

    def departed(self) -> tuple[Departed, ...]:
        """Return the nodes that were neighbours and are not now, as far as the engine still knows."""
