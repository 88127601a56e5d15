"""What the neighbours' builds can do, and what each of them has of ours: so that what it has is not sent again."""

from __future__ import annotations

from typing import NamedTuple

from conflux.control.author import Author
from conflux.control.chains import digest_of
from conflux.ids import NodeId
from conflux.realm.card import POLICIES, SMALL_QUESTIONS, Card


class _Neighbour(NamedTuple):
    features: frozenset[str]
    knows: bytes


class Near:
    """The neighbours of the LANs, as they said in their handshakes."""

    def __init__(self, author: Author) -> None:
        self._author = author
        self._neighbours: dict[NodeId, _Neighbour] = {}

    def says(self, node: NodeId, features: frozenset[str], knows: bytes) -> None:
        """Take note of a neighbour.  knows: the digest of the chain of ours that it keeps; empty: none."""
        self._neighbours[node] = _Neighbour(features, knows)

    def left(self, node: NodeId) -> None:
        """Take note that a node is no neighbour any more."""
        self._neighbours.pop(node, None)

    def takes_bare_cards(self, node: NodeId | None) -> bool:
        """Say whether a node has our chain as it is now, and takes its digest in its place; None: many nodes."""
        held = None if node is None else self._neighbours.get(node)
        if held is None or SMALL_QUESTIONS not in held.features:
            return False
        return held.knows == digest_of(self._author.card.chain)

    def takes_policies(self, node: NodeId) -> bool:
        """Say whether a neighbour's build knows policies."""
        held = self._neighbours.get(node)
        return held is not None and POLICIES in held.features

    def card_for(self, card: Card) -> bytes:
        """Return our card in the shortest form that the node of a card can read."""
        if self.takes_bare_cards(card.node_id):
            return self._author.bare_card_bytes
        has_grant = card.chain.grant == self._author.card.chain.grant
        return self._author.short_card_bytes if has_grant else self._author.card_bytes

    def earlier(self) -> tuple[NodeId, ...]:
        """Return the neighbours whose builds want a card in every question, and drop one without."""
        return tuple(node for node, said in self._neighbours.items() if SMALL_QUESTIONS not in said.features)
