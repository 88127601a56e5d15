"""The cards of others, verified once and kept: who they are, and the key to seal to them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from conflux.control.question import Who
from conflux.crypto.kdf import sha256
from conflux.crypto.sign import VerifyKey
from conflux.errors import RemoteProtocolError
from conflux.ids import IPAddress, NodeId
from conflux.realm.anchor import RealmAnchor
from conflux.realm.card import Card

CARD_COUNT_MAX = 1024  # about 16 kB each; the card unused longest goes first, and one question brings it back


@dataclass(frozen=True, slots=True)
class KnownCard:
    """A card that verified, and what is dear to compute from it."""

    card: Card
    node_id: NodeId
    addresses: tuple[IPAddress, ...]
    verify_key: VerifyKey
    digest: bytes  # of the encoded card: the same bytes need no second verification
    not_after: int  # unix seconds

    @classmethod
    def verify_untrusted(
        cls, data: bytes, anchor: RealmAnchor, clock: Callable[[], int], observe: Callable[[int], None]
    ) -> KnownCard:
        """Return the card that data encodes, or raise RemoteProtocolError.  Costs up to three hybrid verifications."""
        card = Card.decode_untrusted(data)
        try:
            card.verify(anchor, now_unix=clock())
        except RemoteProtocolError as error:
            if error.reason != "not-yet-valid":
                raise
            # The chain is authentic, and it is our clock that is behind: believe the realm, then judge again.
            observe(card.chain.newest_date)
            card.verify(anchor, now_unix=clock())
        observe(card.chain.newest_date)
        credential = card.chain.credential
        return cls(
            card,
            credential.node_id,
            credential.addresses,
            credential.verify_key(),
            sha256(data),
            card.chain.not_after,
        )

    def answers(self, who: Who) -> bool:
        """Say whether this is the node that who asks for."""
        if who.node is not None:
            return who.node == self.node_id
        if who.name is not None:
            return who.name == self.card.name
        return who.address in self.addresses


class CardBook:
    """Cards by node, address and name."""

    def __init__(self, anchor: RealmAnchor, clock: Callable[[], int], observe: Callable[[int], None]) -> None:
        """clock: unix seconds.  observe: is told dates the realm has signed; the present is not earlier."""
        self._anchor = anchor
        self._clock = clock
        self._observe = observe
        self._known: OrderedDict[NodeId, KnownCard] = OrderedDict()
        self._by_address: dict[IPAddress, NodeId] = {}
        self._by_name: dict[str, NodeId] = {}

    def __len__(self) -> int:
        return len(self._known)

    def find(self, node: NodeId) -> KnownCard | None:
        """Return the node's card, unless its credential has run out."""
        known = self._known.get(node)
        if known is None:
            return None
        if self._clock() >= known.not_after:
            self.remove(node)
            return None
        self._known.move_to_end(node)
        return known

    def find_answer(self, who: Who) -> KnownCard | None:
        """Return the card that answers who."""
        node = who.node
        if who.address is not None:
            node = self._by_address.get(who.address)
        elif who.name is not None:
            node = self._by_name.get(who.name)
        return None if node is None else self.find(node)

    def judge_untrusted(self, src: NodeId, data: bytes) -> KnownCard:
        """Return what src calls its card, verified and at least as new as ours; raise RemoteProtocolError.

        The book is unchanged: the message it came in has yet to be verified with it, or a replayed card would stick.
        """
        ours = self._known.get(src)
        if ours is not None and ours.digest == sha256(data):
            if self._clock() >= ours.not_after:
                raise RemoteProtocolError("expired")
            return ours
        fresh = KnownCard.verify_untrusted(data, self._anchor, self._clock, self._observe)
        if fresh.node_id != src:
            raise RemoteProtocolError("wrong-sender", "the card of another node")
        if ours is not None and not fresh.card.newer_than(ours.card):
            raise RemoteProtocolError("stale-card")
        return fresh

    def store(self, fresh: KnownCard) -> Card | None:
        """Keep a judged card; return the one it replaces."""
        ours = self._known.get(fresh.node_id)
        if ours is not None:
            self.remove(fresh.node_id)
        elif len(self._known) >= CARD_COUNT_MAX:
            self.remove(next(iter(self._known)))
        self._known[fresh.node_id] = fresh
        for address in fresh.addresses:
            self._by_address[address] = fresh.node_id
        self._by_name[fresh.card.name] = fresh.node_id
        return None if ours is None else ours.card

    def remove(self, node: NodeId) -> None:
        """Forget a node's card."""
        known = self._known.pop(node, None)
        if known is None:
            return
        for address in known.addresses:
            if self._by_address.get(address) == node:
                del self._by_address[address]
        if self._by_name.get(known.card.name) == node:
            del self._by_name[known.card.name]
