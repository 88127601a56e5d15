"""A control channel that records what it is told, and says what it is told to say."""

from __future__ import annotations

from collections import Counter

from conflux.control.channel import ChannelInputs, ChannelState, Departed, Handoff, NeighbourStatus
from conflux.control.envelope import Envelope
from conflux.ids import NodeId
from conflux.realm.member import Member


class Recorder:
    """A channel without a network."""

    def __init__(self, name: str, *, far: bool, buckets: frozenset[int] = frozenset()) -> None:
        self.name = name
        self.far = far
        self.buckets = buckets
        self.up = True
        self.says = Handoff.ACCEPTED
        self.drops: Counter[str] = Counter()
        self.inputs: ChannelInputs | None = None
        self.sent: list[Envelope] = []
        self.told: list[frozenset[int] | None] = []
        self.passed: list[tuple[Envelope, bytes | None]] = []
        self.learnt: list[tuple[NodeId, bytes]] = []
        self.adopted: list[Member] = []
        self.excluded: list[frozenset[NodeId]] = []

    async def start(self, inputs: ChannelInputs) -> None:
        """Keep the inputs."""
        self.inputs = inputs

    async def stop(self) -> None:
        """Be down."""
        self.up = False

    def send(self, envelope: Envelope, *, again: bool = False) -> Handoff:
        """Keep an envelope of the node."""
        self.sent.append(envelope)
        return self.says

    def adopt(self, member: Member) -> None:
        """Keep a renewed member."""
        self.adopted.append(member)

    def exclude(self, nodes: frozenset[NodeId]) -> None:
        """Keep what is excluded."""
        self.excluded.append(nodes)

    def learn(self, node: NodeId, path: bytes) -> None:
        """Keep a path."""
        self.learnt.append((node, path))

    def cross(self, buckets: frozenset[int] | None) -> None:
        """Keep what crosses from now on."""
        self.told.append(buckets)

    def pass_on(self, envelope: Envelope, hint: bytes | None = None) -> Handoff:
        """Keep an envelope of another node."""
        self.passed.append((envelope, hint))
        return self.says

    @property
    def state(self) -> ChannelState:
        """Whatever up says."""
        return ChannelState(self.up, "")

    def departed(self) -> tuple[Departed, ...]:
        """None left."""
        return ()

    def status(self) -> tuple[NeighbourStatus, ...]:
        """Return nothing."""
        return ()
