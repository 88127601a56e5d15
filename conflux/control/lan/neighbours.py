"""The connected nodes, and which of two connections to the same node stays.  Sans-IO."""

from __future__ import annotations

from collections.abc import Container
from typing import Generic, NamedTuple, TypeVar

from conflux.control.lan.config import HANDSHAKE_S
from conflux.control.lan.handshake import Peer
from conflux.ids import NodeId

C = TypeVar("C")

GONE_COUNT_MAX = 128  # that left, for who looks; a LAN has no more neighbours than that


class Neighbour(NamedTuple, Generic[C]):
    """One peer that proved its identity, and the connection to it.  dialled: by us.  since: when it was admitted."""

    peer: Peer
    connection: C
    dialled: bool
    since: float


class Gone(NamedTuple):
    """A peer whose connection ended, when, and the word for why."""

    peer: Peer
    at: float
    why: str


class Neighbours(Generic[C]):
    """At most one connection per node."""

    def __init__(self, me: NodeId) -> None:
        self._me = me
        self._by_node: dict[NodeId, Neighbour[C]] = {}
        self._gone: dict[NodeId, Gone] = {}

    def __len__(self) -> int:
        return len(self._by_node)

    def __contains__(self, node: NodeId) -> bool:
        return node in self._by_node

    def find(self, node: NodeId) -> Neighbour[C] | None:
        """Return the neighbour of that id."""
        return self._by_node.get(node)

    def all(self) -> list[Neighbour[C]]:
        """Return every neighbour."""
        return list(self._by_node.values())

    def has_instance(self, instance: bytes) -> bool:
        """Say whether the node that is announced under that name is connected."""
        return self.by_instance(instance) is not None

    def by_instance(self, instance: bytes) -> Neighbour[C] | None:
        """Return the neighbour that is announced under that name."""
        return next((each for each in self._by_node.values() if each.peer.instance == instance), None)

    def admit(self, fresh: Neighbour[C]) -> Neighbour[C] | None:
        """Admit a new connection; return the one that has to be closed: none, the old one, or the new one itself."""
        held = self._by_node.get(fresh.peer.node)
        if held is not None and not self._replaces(fresh, held):
            return fresh
        self._by_node[fresh.peer.node] = fresh
        self._gone.pop(fresh.peer.node, None)
        return held

    def remove(self, connection: C, now: float, why: str, stood: Container[bytes] | None = None) -> Neighbour[C] | None:
        """Remove and return the neighbour of a connection that ended; None if another connection replaced it.

        stood: the instances that were neighbours for good, and of which departed() tells; None: all.
        """
        for node, neighbour in self._by_node.items():
            if neighbour.connection is connection:
                del self._by_node[node]
                if stood is None or neighbour.peer.instance in stood:
                    self._gone[node] = Gone(neighbour.peer, now, why)
                if len(self._gone) > GONE_COUNT_MAX:
                    del self._gone[next(iter(self._gone))]
                return neighbour
        return None

    def departed(self) -> tuple[Gone, ...]:
        """Return who was a neighbour and is not now, the latest last."""
        return tuple(self._gone.values())

    def _replaces(self, fresh: Neighbour[C], held: Neighbour[C]) -> bool:
        """Decide as the peer decides, by what both know."""
        if fresh.peer.boot != held.peer.boot:
            return fresh.peer.boot > held.peer.boot  # it restarted, and TCP has not told us yet
        if fresh.since - held.since > HANDSHAKE_S:
            return True  # no race: a node does not dial a neighbour that it has, so the peer lost the held one
        return self._rank(fresh) < self._rank(held)

    def _rank(self, neighbour: Neighbour[C]) -> tuple[bytes, bytes]:
        """The connection that the smaller node id dialled stays; of two such, the one with the smaller session."""
        return (self._me if neighbour.dialled else neighbour.peer.node, neighbour.peer.session)
