"""The author of this node's messages: signs and seals them, and keeps the node's card and hop keys."""

from __future__ import annotations

from collections.abc import Callable

from conflux.control.cards import KnownCard
from conflux.control.drop import Drop
from conflux.control.envelope import (
    BODY_BYTES_MAX,
    ENVELOPE_ID_BYTES,
    HOP_LIMIT_MAX,
    Envelope,
    Inner,
    Kind,
    Reach,
    signed_message,
)
from conflux.control.hop_keys import HopKeys
from conflux.control.who import Who
from conflux.crypto.seal import SealKey, seal
from conflux.crypto.sign import VerifyKey, context
from conflux.errors import AuthError, LocalProtocolError, RemoteProtocolError
from conflux.ids import BootId, NodeId
from conflux.realm.card import FEATURES_OF_BUILD, Card
from conflux.realm.member import Member


class Author:
    """Signs as one node in one boot, and numbers the messages that it signs."""

    def __init__(
        self,
        member: Member,
        *,
        boot: BootId,
        entropy: Callable[[int], bytes],
        now: float,
        features: tuple[str, ...],
        new_hop_key: Callable[[], SealKey],
    ) -> None:
        self.me = member.node_id
        self.boot = boot
        self.member = member
        self.hop_keys = HopKeys(new_hop_key, now=now)
        self._entropy = entropy
        self._features = features
        self._sign_context = context("control", member.realm_id)
        self._seal_context = context("control-seal", member.realm_id)
        # Numbers start at random: a recorded answer to a request of an earlier boot fits none of this boot.
        self._last_seq = int.from_bytes(entropy(4), "big")
        self._serial = 0
        self._build_card()

    # ── our card ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def next_timeout(self) -> float:
        """Return when handle_timeout() has something to do."""
        return self.hop_keys.next_timeout()

    def handle_timeout(self, *, now: float) -> None:
        """Replace the hop key if it is time; a new one is published on a new card."""
        if self.hop_keys.handle_timeout(now=now):
            self._build_card()

    def adopt(self, member: Member) -> None:
        """Use a renewed credential of the same node.  Raises LocalProtocolError for another node or realm."""
        if member.node_id != self.me or member.realm_id != self.member.realm_id:
            raise LocalProtocolError("renewal changed the node or the realm")
        self.member = member
        self._build_card()

    def describe(self, features: tuple[str, ...]) -> None:
        """Say other features of this node on its card from now on."""
        self._features = features
        self._build_card()

    def _build_card(self) -> None:
        self._serial += 1
        self.card = Card.build(
            self.member.keys,
            self.member.chain,
            boot=self.boot,
            hop_public=self.hop_keys.current.public,
            serial=self._serial,
            features=(*self._features, *FEATURES_OF_BUILD),
        )
        self.card_bytes = self.card.encode()
        self.short_card_bytes = self.card.encode_short()
        self.bare_card_bytes = self.card.encode_bare()

    def owns(self, who: Who) -> bool:
        """Say whether a question asks for this node."""
        if who.node is not None:
            return who.node == self.me
        if who.name is not None:
            return who.name == self.member.name
        if who.feature is not None:
            return who.feature in self.card.features
        return who.address in self.member.addresses

    # ── out ───────────────────────────────────────────────────────────────────────────────────────────────────────────

    def next_seq(self) -> int:
        """Return a number that no message of this boot has."""
        self._last_seq += 1
        return self._last_seq

    def sign(self, to: NodeId | None, seq: int, kind: Kind, body: bytes, *, re: int = 0) -> bytes:
        """Return a signed message, an encoded Inner.  Raises LocalProtocolError if the body is too large."""
        if len(body) > BODY_BYTES_MAX:
            raise LocalProtocolError(f"body of {len(body)} bytes, at most {BODY_BYTES_MAX}")
        signature = self.member.keys.signing.sign_ed25519(
            self._sign_context, signed_message(to, self.me, self.boot, seq, kind, re, body)
        )
        return Inner(self.me, self.boot, seq, kind, re, body, signature).encode()

    def give_card(self, to: NodeId, question: int, card: bytes) -> bytes:
        """Return the signed answer to the question of that number.  card: ours, in one of its forms."""
        return self.sign(to, self.next_seq(), Kind.CARD, card, re=question)

    def seal(self, to: KnownCard, message: bytes) -> bytes:
        """Return message sealed to the hop key on a card."""
        return seal(to.card.hop_public, message, self._seal_info(to.card.hop_key_id, to.node_id))

    def envelope(
        self,
        to: NodeId | None,
        key_id: bytes | None,
        payload: bytes,
        *,
        bucket: int | None = None,
        reach: Reach = Reach.ALL,
    ) -> Envelope:
        """Return a new envelope around a payload."""
        return Envelope(to, self._entropy(ENVELOPE_ID_BYTES), HOP_LIMIT_MAX, key_id, payload, bucket, reach)

    # ── in ────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def unseal_untrusted(self, key_id: bytes, payload: bytes) -> Inner:
        """Return the message sealed to our hop key of that id.

        Raises RemoteProtocolError: unknown-key, bad-seal or malformed.
        """
        key = self.hop_keys.find(key_id)
        if key is None:
            raise RemoteProtocolError(Drop.UNKNOWN_KEY)
        try:
            return Inner.decode_untrusted(key.unseal(payload, self._seal_info(key_id, self.me)))
        except AuthError:
            raise RemoteProtocolError(Drop.BAD_SEAL) from None

    def verify_untrusted(self, inner: Inner, to: NodeId | None, key: VerifyKey) -> None:
        """Raise RemoteProtocolError("bad-signature") unless inner was signed for that receiver with that key."""
        try:
            key.verify_ed25519(self._sign_context, inner.signed_message(to), inner.signature)
        except AuthError:
            raise RemoteProtocolError(Drop.BAD_SIGNATURE, "control") from None

    def _seal_info(self, key_id: bytes, to: NodeId) -> bytes:
        return self._seal_context + key_id + to
