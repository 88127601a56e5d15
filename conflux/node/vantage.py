"""The vantage a node gives its peers: relays it reaches well, each with a hop key that still serves.

A peer builds a path through them without asking them for their cards, which would tell them who is about to use them.
So this node keeps their cards fresh: it is their neighbour, and they know it anyway.
"""

from __future__ import annotations

from conflux.control.plane import ControlPlane
from conflux.control.who import Who
from conflux.ids import NodeId
from conflux.node.relaying import may_relay
from conflux.search.interface import Search
from conflux.stream.handshake import VANTAGE_COUNT_MAX, Vantage

ASK_S = 900.0  # between questions to one relay: a hop key stays valid at least 15 min after its card was made
ASKED_COUNT_MAX = 4096  # relays whose last question is remembered; the oldest goes first


class Vantages:
    """The relays this node may name to its peers."""

    def __init__(self, plane: ControlPlane, search: Search) -> None:
        self._plane = plane
        self._search = search
        self._asked: dict[NodeId, float] = {}  # when a relay was last asked for its card

    def know(self, bridge: NodeId, now: float) -> None:
        """Have the card of a neighbour that joins LANs: routes begin with it, and peers are told of it."""
        if self._plane.card(bridge) is None:
            self._asked[bridge] = now
            self._plane.who(Who(node=bridge), now=now)

    def freshen(self, peer: NodeId, now: float) -> None:
        """Ask the relays a peer is told of for their present cards, or the peer hears "stale-key" next time."""
        for relay in self._search.vantage(peer)[:VANTAGE_COUNT_MAX]:
            if now - self._asked.get(relay, float("-inf")) >= ASK_S:
                self._asked[relay] = now
                self._plane.refresh(relay, now=now)
        while len(self._asked) > ASKED_COUNT_MAX:
            del self._asked[next(iter(self._asked))]

    def of(self, peer: NodeId) -> tuple[Vantage, ...]:
        """Return what a peer is told: relays whose cards are here and that may relay, the best first."""
        cards = (self._plane.card(node) for node in self._search.vantage(peer))
        relays = [card for card in cards if card is not None and may_relay(card)]
        return tuple(Vantage(card.node_id, 0, card.hop_key_id, card.hop_public) for card in relays[:VANTAGE_COUNT_MAX])
