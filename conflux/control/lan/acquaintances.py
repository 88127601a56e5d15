"""Nodes that this one met in this boot, and what they know each other again by: a key that both drew from a full hello.

Both ends keep it in memory alone.  It ends with either process, with either chain, a day after the signatures, and when
a signed list names the node.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from conflux.control.lan.handshake import Peer
from conflux.crypto.kdf import SHA256_BYTES, hkdf, sha256
from conflux.crypto.sign import context
from conflux.ids import NodeId, RealmId
from conflux.realm.credential import Chain

AGE_S_MAX = 86400  # since signatures were checked: so long a key that was stolen from memory may serve
ID_BYTES = 8
COUNT_MAX = 256  # about 1 kB each beside the chain, which others share; the one not used for longest goes first


class Acquaintance(NamedTuple):
    """A node that was met.

    key: authenticates the next hello, in either direction.  peer: as it was met.  chain, ours: its chain, and the
    digest of ours that it holds.  until: Unix seconds; from then on this counts no more.
    """

    id: bytes
    key: bytes
    peer: Peer
    chain: Chain
    ours: bytes
    until: int


def derive(secret: bytes, transcript: bytes, realm_id: RealmId) -> tuple[bytes, bytes]:
    """Return id and key that both ends draw from the secret of a full hello."""
    both = hkdf(secret, salt=transcript, info=context("lan-again", realm_id), size=ID_BYTES + SHA256_BYTES)
    return both[:ID_BYTES], both[ID_BYTES:]


def transcript_of(certificate_digest: bytes, acceptor_nonce: bytes, hello: bytes, welcome: bytes) -> bytes:
    """Return the 32 bytes that stand for a whole full hello: each part has 32 bytes."""
    return sha256(certificate_digest, acceptor_nonce, sha256(hello), sha256(welcome))


class Acquaintances:
    """At most one of each node, the latest.  clock: Unix seconds."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._by_node: OrderedDict[NodeId, Acquaintance] = OrderedDict()
        self._by_id: dict[bytes, NodeId] = {}

    def __len__(self) -> int:
        return len(self._by_node)

    def remember(
        self, peer: Peer, chain: Chain, *, id_: bytes, key: bytes, ours: bytes, ours_not_after: int
    ) -> Acquaintance:
        """Keep what a full hello with a node left."""
        until = min(self._clock() + AGE_S_MAX, peer.not_after, ours_not_after)
        self._remove(peer.node)
        fresh = Acquaintance(id_, key, peer, chain, ours, until)
        self._by_node[peer.node] = fresh
        self._by_id[id_] = peer.node
        if len(self._by_node) > COUNT_MAX:
            self._remove(next(iter(self._by_node)))
        return fresh

    def find(self, id_: bytes) -> Acquaintance | None:
        """Return the one of that id, if it still counts."""
        node = self._by_id.get(id_)
        return None if node is None else self.of(node)

    def of(self, node: NodeId) -> Acquaintance | None:
        """Return the one of that node, if it still counts."""
        held = self._by_node.get(node)
        if held is None:
            return None
        if self._clock() >= held.until:
            self._remove(node)
            return None
        self._by_node.move_to_end(node)
        return held

    def announced_as(self, instance: bytes) -> Acquaintance | None:
        """Return the one of the node that mDNS shows under that instance, if it still counts."""
        node = next((each.peer.node for each in self._by_node.values() if each.peer.instance == instance), None)
        return None if node is None else self.of(node)

    def forget(self, nodes: frozenset[NodeId]) -> None:
        """Forget those nodes, and nodes whose issuer is one of them."""
        for held in list(self._by_node.values()):
            if held.peer.node in nodes or held.peer.issuer in nodes:
                self._remove(held.peer.node)

    def clear(self) -> None:
        """Forget all."""
        self._by_node.clear()
        self._by_id.clear()

    def _remove(self, node: NodeId) -> None:
        held = self._by_node.pop(node, None)
        if held is not None:
            self._by_id.pop(held.id, None)
