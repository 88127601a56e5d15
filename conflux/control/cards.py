"""The cards of others, verified once and kept: who they are, and the key to seal to them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import NamedTuple

from conflux.control.chains import Chains
from conflux.control.claims import Claims, claim_of
from conflux.control.drop import Drop
from conflux.control.ended import Ended, EndedCards
from conflux.control.who import Who
from conflux.crypto.kdf import sha256
from conflux.crypto.sign import ED25519_PUBLIC_BYTES, VerifyKey
from conflux.errors import RemoteProtocolError
from conflux.ids import IPAddress, NodeId
from conflux.realm.anchor import RealmAnchor
from conflux.realm.card import ASKS_BACK, Card, whole_card_untrusted
from conflux.realm.credential import Chain
from conflux.realm.reason import Reason

CARD_COUNT_MAX = 1024  # about 16 kB each; the one not used for longest goes first, and one question brings it back


class KnownCard(NamedTuple):
    """A card that verified, and what is expensive to compute from it."""

    card: Card
    node_id: NodeId
    addresses: tuple[IPAddress, ...]
    verify_key: VerifyKey
    digest: bytes  # of the encoded card: the same bytes are not verified twice
    not_after: int  # unix seconds

    @classmethod
    def verify_untrusted(
        cls, data: bytes, anchor: RealmAnchor, clock: Callable[[], int], observe: Callable[[int], None]
    ) -> KnownCard:
        """Return the card that data encodes, or raise RemoteProtocolError.  Costs up to three hybrid verifications."""
        return cls.verify(Card.decode_untrusted(data), sha256(data), anchor, clock, observe)

    @classmethod
    def verify(
        cls,
        card: Card,
        digest: bytes,
        anchor: RealmAnchor,
        clock: Callable[[], int],
        observe: Callable[[int], None],
    ) -> KnownCard:
        """Do as verify_untrusted(), for a card that was decoded from bytes of that digest."""
        try:
            card.verify(anchor, now_unix=clock())
        except RemoteProtocolError as error:
            if error.reason != Reason.NOT_YET_VALID:
                raise
            # The chain is authentic, so it is our clock that is behind: believe the realm, then judge again.
            observe(card.chain.newest_date)
            card.verify(anchor, now_unix=clock())
        observe(card.chain.newest_date)
        credential = card.chain.credential
        return cls(
            card,
            credential.node_id,
            credential.addresses,
            credential.verify_key(),
            digest,
            card.chain.not_after,
        )

    @property
    def path(self) -> bytes:
        """The node's Ed25519 key: its path on a broker, unless it is behind another node."""
        return self.card.chain.credential.node_public[:ED25519_PUBLIC_BYTES]

    def answers(self, who: Who) -> bool:
        """Say whether this is the card of the node that who asks for."""
        if who.node is not None:
            return who.node == self.node_id
        if who.name is not None:
            return who.name == self.card.name
        if who.feature is not None:
            return who.feature in self.card.features
        return who.address in self.addresses


class CardBook:
    """Cards by node, address and name."""

    def __init__(
        self,
        anchor: RealmAnchor,
        clock: Callable[[], int],
        observe: Callable[[int], None],
        judge: Callable[[Chain], None] = lambda chain: None,
        chains: Chains | None = None,
    ) -> None:
        """clock: unix seconds.  observe: is given dates that the realm has signed; the present is not earlier.

        judge: raises RemoteProtocolError for a chain that verified, and whose node is revoked.  chains: those that a
        card may name by their digest, and their grants.
        """
        self._anchor = anchor
        self._judge = judge
        self._chains = Chains() if chains is None else chains
        self._clock = clock
        self._observe = observe
        self._known: OrderedDict[NodeId, KnownCard] = OrderedDict()
        self._by_address: Claims[IPAddress] = Claims()
        self._by_name: Claims[str] = Claims()
        self._by_path: dict[bytes, NodeId] = {}
        self.ended = EndedCards()

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[Card]:
        """Yield every card, and use none: the one not used for longest stays that."""
        return (known.card for known in self._known.values())

    def find(self, node: NodeId) -> KnownCard | None:
        """Return the node's card, unless its credential has ended."""
        known = self._known.get(node)
        if known is None:
            return None
        if self._clock() >= known.not_after:
            self.remove(node)
            self.ended.add(Ended(node, known.card.name, known.addresses, known.not_after))
            return None
        self._known.move_to_end(node)
        return known

    def find_answer(self, who: Who) -> KnownCard | None:
        """Return the card that answers who.  Of a feature it is the present that counts, so none answers that."""
        while (node := self._owner(who)) is not None:
            known = self.find(node)
            if known is not None or who.node is not None:
                return known
        return None

    def _owner(self, who: Who) -> NodeId | None:
        if who.address is not None:
            return self._by_address.owner(who.address)
        return who.node if who.name is None else self._by_name.owner(who.name)

    @property
    def knows_earlier(self) -> bool:
        """Whether a node is known of an earlier build, which drops questions without a card."""
        return any(ASKS_BACK not in known.card.features for known in self._known.values())

    def contested(self) -> dict[str, tuple[NodeId, ...]]:
        """Return the names that several nodes have, and these nodes; the first one is who answers to it."""
        return dict(self._by_name.contested())

    def owner(self, path: bytes) -> NodeId | None:
        """Return the node whose Ed25519 key a path is."""
        return self._by_path.get(path)

    def judge_untrusted(self, src: NodeId, data: bytes, vouch: Callable[[Card], None] = lambda card: None) -> KnownCard:
        """Return a card that claims to be src's, verified and at least as new as ours; raise RemoteProtocolError.

        vouch: raises for a card that is not worth to be verified; it is given one that nothing cheap speaks against.
        The book does not change yet: first the message that carried the card is verified with it.  Otherwise a replayed
        card would be kept.
        """
        data = whole_card_untrusted(data, self._chains.grants.find_untrusted, self._chains.find_untrusted)
        ours, digest = self._known.get(src), sha256(data)
        if ours is not None and ours.digest == digest:
            if self._clock() >= ours.not_after:
                raise RemoteProtocolError(Drop.EXPIRED)
            vouch(ours.card)
            return ours
        card = Card.decode_untrusted(data)
        self._compare_untrusted(src, card, ours)
        vouch(card)
        fresh = KnownCard.verify(card, digest, self._anchor, self._clock, self._observe)
        self._judge(fresh.card.chain)
        self._chains.grants.learn(fresh.card.chain)
        return fresh

    def _compare_untrusted(self, src: NodeId, card: Card, ours: KnownCard | None) -> None:
        """Refuse a card for what is seen without a verification: anybody can send such in any name."""
        if card.chain.credential.realm_id != self._anchor.realm_id:
            raise RemoteProtocolError(Reason.FOREIGN_REALM)
        if card.node_id != src:
            raise RemoteProtocolError(Drop.WRONG_SENDER, "the card of another node")
        if self._clock() >= card.chain.not_after:
            raise RemoteProtocolError(Drop.EXPIRED)
        if ours is not None and not card.newer_than(ours.card):
            raise RemoteProtocolError(Drop.STALE_CARD)

    def store(self, fresh: KnownCard) -> Card | None:
        """Keep a judged card; return the one it replaces."""
        ours = self._known.get(fresh.node_id)
        if ours is not None:
            self.remove(fresh.node_id)
        elif len(self._known) >= CARD_COUNT_MAX:
            self.remove(next(iter(self._known)))
        self._known[fresh.node_id] = fresh
        self.ended.forget(fresh.node_id)
        claim = claim_of(fresh.card.chain)
        for address in fresh.addresses:
            self._by_address.add(address, claim)
        self._by_name.add(fresh.card.name, claim)
        self._by_path[fresh.path] = fresh.node_id
        return None if ours is None else ours.card

    def remove_denied(self) -> dict[NodeId, str]:
        """Forget the cards of the nodes that are revoked now; return those nodes with their names."""
        denied = {}
        for known in list(self._known.values()):
            try:
                self._judge(known.card.chain)
            except RemoteProtocolError:
                denied[known.node_id] = known.card.name
                self.remove(known.node_id)
        return denied

    def remove(self, node: NodeId) -> None:
        """Forget a node's card."""
        known = self._known.pop(node, None)
        if known is None:
            return
        for address in known.addresses:
            self._by_address.remove(address, node)
        self._by_name.remove(known.card.name, node)
        self._by_path.pop(known.path, None)
