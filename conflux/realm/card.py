"""What a node publishes about itself; whoever has the card can seal to the node and knows it is a member."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from conflux.crypto.kdf import sha256
from conflux.crypto.seal import PUBLIC_BYTES as HOP_PUBLIC_BYTES
from conflux.crypto.seal import check_public_untrusted
from conflux.errors import RemoteProtocolError
from conflux.ids import BOOT_ID_BYTES, BootId, IPAddress, NodeId
from conflux.realm.anchor import RealmAnchor
from conflux.realm.credential import Chain
from conflux.realm.identity import NodeKeys
from conflux.realm.signed import SIGNATURE, UNSIGNED, Signed
from conflux.wire import nested, octets, sequence, text, uint

HOP_KEY_ID_BYTES = 8
FEATURE_COUNT_MAX = 16


def hop_key_id_of(hop_public: bytes) -> bytes:
    """Return the 8 bytes that name a hop key in an envelope."""
    return sha256(hop_public)[:HOP_KEY_ID_BYTES]


@dataclass(frozen=True, slots=True)
class Card(Signed):
    """Credential, boot id, hop key; signed by the node itself."""

    BYTES_MAX = 24576
    PURPOSE = "card"
    SHAPES = (
        nested(Chain),
        octets(BOOT_ID_BYTES),
        octets(HOP_KEY_ID_BYTES),
        octets(HOP_PUBLIC_BYTES),
        uint(),
        sequence(text(32), FEATURE_COUNT_MAX),
        SIGNATURE,
    )

    chain: Chain
    boot: BootId
    hop_key_id: bytes
    hop_public: bytes
    serial: int  # grows with every card of one boot
    features: tuple[str, ...]  # what this build can do; unknown ones mean nothing to us
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
        """Raise RemoteProtocolError unless a member of the realm published this: Chain.verify()'s reasons and ours.

        The chain comes first: bytes of strangers cost two verifications, not three.
        """
        if self.hop_key_id != hop_key_id_of(self.hop_public):
            raise RemoteProtocolError("malformed", "hop key id")
        self.chain.verify(anchor, now_unix=now_unix)
        self.verify_signature(self.chain.credential.verify_key(), anchor.realm_id)
        # A member may sign any bytes; here it costs that card, later it would be an error in whoever seals to it.
        check_public_untrusted(self.hop_public)

    def newer_than(self, other: Card) -> bool:
        """Say whether this card of the same node replaces the other: a later boot, or a later card of that boot."""
        return (self.boot, self.serial) > (other.boot, other.serial)

    @property
    def node_id(self) -> NodeId:
        return self.chain.credential.node_id

    @property
    def name(self) -> str:
        return self.chain.credential.name

    @property
    def addresses(self) -> tuple[IPAddress, ...]:
        return self.chain.credential.addresses
