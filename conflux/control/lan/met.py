"""Which questions the nodes of large LANs answer, as a bridge to a broker met them.  Sans-IO."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from conflux.control.lan.config import RING_TARGET_COUNT_MAX
from conflux.control.lan.handshake import Peer
from conflux.ids import NodeId

MET_COUNT_MAX: Final = RING_TARGET_COUNT_MAX  # the node that was met longest ago is forgotten


class Met:
    """One instance of each node: a node that comes again under another one takes no second place."""

    def __init__(self) -> None:
        self._met: OrderedDict[NodeId, tuple[bytes, frozenset[int]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._met)

    def met(self, peer: Peer) -> None:
        """Take note of a node that proved itself."""
        self._met.pop(peer.node, None)
        self._met[peer.node] = peer.instance, peer.buckets
        if len(self._met) > MET_COUNT_MAX:
            self._met.popitem(last=False)

    def gone(self, instance: bytes) -> None:
        """Forget a node that mDNS shows no longer."""
        for node in [node for node, (each, _) in self._met.items() if each == instance]:
            del self._met[node]

    def forget(self, nodes: frozenset[NodeId]) -> None:
        """Forget nodes that are members no more."""
        for node in nodes:
            self._met.pop(node, None)

    def buckets(self) -> frozenset[int]:
        """Return the buckets of all of them."""
        return frozenset().union(*(buckets for _, buckets in self._met.values()))
