"""What a node publishes about itself: a reader of the card knows that it is a member, and can seal to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from conflux.crypto.kdf import sha256
from conflux.crypto.seal import PUBLIC_BYTES as HOP_PUBLIC_BYTES
from conflux.crypto.seal import check_public_untrusted
from conflux.errors import RemoteProtocolError
from conflux.ids import BOOT_ID_BYTES, BootId, IPAddress, NodeId
from conflux.realm.anchor import RealmAnchor
from conflux.realm.credential import Chain, Grant
from conflux.realm.identity import NodeKeys
from conflux.realm.reason import Reason
from conflux.realm.signed import SIGNATURE, UNSIGNED, Signed
from conflux.record import decode_untrusted, encode, nested, octets, sequence, text, uint

HOP_KEY_ID_BYTES = 8
FEATURE_COUNT_MAX = 16
FEATURE_CHARS_MAX = 32
PATIENT = "patient"  # a feature: a stream to this node may be without frames for two minutes
ONE_SLOT = "one-slot"  # a feature: this build takes an onion of one slot where a stream ends
CLEAR_SLOT = "clear-slot"  # a feature: this build takes a slot that is not sealed where a stream ends
SMALL_QUESTIONS = "small-questions"  # what a neighbour says: it takes questions without a card, and bare cards
POLICIES = "policies"  # what a neighbour says: it takes the policy of the realm
ASKS_BACK = "asks-back"  # a feature: this build takes questions without a card, and asks for the asker's
FEATURES_OF_BUILD = (ASKS_BACK, ONE_SLOT, CLEAR_SLOT)  # on every card that this build makes
CHAIN_ITEM_COUNT = 3  # version, credential, grant


def hop_key_id_of(hop_public: bytes) -> bytes:
    """Return the 8 bytes that name a hop key in an envelope."""
    return sha256(hop_public)[:HOP_KEY_ID_BYTES]


def whole_card_untrusted(
    data: bytes, find: Callable[[bytes], Grant], find_chain: Callable[[bytes], Chain] | None = None
) -> bytes:
    """Return the card that data is, or is short for.  Raises RemoteProtocolError.

    find: returns the grant of a SHA-256, or raises RemoteProtocolError.  find_chain: likewise the chain of one; None: a
    card of such bytes is none.
    """
    item = decode_untrusted(data, bytes_max=Card.BYTES_MAX)
    chain = item[1] if type(item) is list and len(item) > 1 else None
    if type(chain) is bytes and find_chain is not None:
        item[1] = find_chain(chain)._to_item()
        return encode(item)
    if type(chain) is not list or len(chain) != CHAIN_ITEM_COUNT or type(chain[2]) is not bytes:
        return data
    chain[2] = find(chain[2])._to_item()
    return encode(item)


@dataclass(frozen=True, slots=True)
class Card(Signed):
    """A node's credential, boot id and hop key, signed by the node itself."""

    BYTES_MAX = 24576
    PURPOSE = "card"
    SHAPES = (
        nested(Chain),
        octets(BOOT_ID_BYTES),
        octets(HOP_KEY_ID_BYTES),
        octets(HOP_PUBLIC_BYTES),
        uint(),
        sequence(text(FEATURE_CHARS_MAX), FEATURE_COUNT_MAX),
        SIGNATURE,
    )

    chain: Chain
    boot: BootId
    hop_key_id: bytes
    hop_public: bytes
    serial: int  # grows with every card of one boot
    features: tuple[str, ...]  # what this build can do; unknown ones are ignored
    signature: bytes

    @classmethod
    def build(
        cls,
        keys: NodeKeys,
        chain: Chain,
        *,
        boot: BootId,
        hop_public: bytes,
        serial: int,
        features: tuple[str, ...] = (),
    ) -> Self:
        """Return a node's own card, signed."""
        card = cls(chain, boot, hop_key_id_of(hop_public), hop_public, serial, features, UNSIGNED)
        return card.sign(keys.signing, chain.credential.realm_id)

    def verify(self, anchor: RealmAnchor, *, now_unix: int) -> None:
        """Raise RemoteProtocolError unless a member of the realm published this card.

        Reasons: those of Chain.verify(), bad-signature, malformed.  The chain comes first: bytes of strangers cost two
        verifications, not three.
        """
        if self.hop_key_id != hop_key_id_of(self.hop_public):
            raise RemoteProtocolError(Reason.MALFORMED, "hop key id")
        self.chain.verify(anchor, now_unix=now_unix)
        self.verify_signature(self.chain.credential.verify_key(), anchor.realm_id)
        # A member may sign any bytes.  Here a bad hop key costs that card; later it would be an error of sealing.
        check_public_untrusted(self.hop_public)

    def encode_short(self) -> bytes:
        """Return the card with the SHA-256 of its grant in the grant's place: a third less, for who knows the grant."""
        grant = self.chain.grant
        if grant is None:
            return self.encode()
        item = self._to_item()
        item[1] = [*item[1][:2], sha256(grant.encode())]
        return encode(item)

    def encode_bare(self) -> bytes:
        """Return the card with the SHA-256 of its chain in the chain's place: a third of it, for who has the chain."""
        item = self._to_item()
        item[1] = sha256(self.chain.encode())
        return encode(item)

    def newer_than(self, other: Card) -> bool:
        """Say whether this card of the same node replaces the other: a later boot, or a later card of that boot."""
        return (self.boot, self.serial) > (other.boot, other.serial)

    @property
    def node_id(self) -> NodeId:
        """The node that the card is of."""
        return self.chain.credential.node_id

    @property
    def name(self) -> str:
        """Its name in the realm."""
        return self.chain.credential.name

    @property
    def addresses(self) -> tuple[IPAddress, ...]:
        """Every overlay address of the node, IPv6 first."""
        return self.chain.credential.addresses
