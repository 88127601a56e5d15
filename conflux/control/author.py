"""Our own hand on the control channel: what we sign and seal, our card, and the keys others seal to."""

from __future__ import annotations

from collections.abc import Callable

from conflux.control.cards import KnownCard
from conflux.control.channel import Kind
from conflux.control.envelope import (
    BODY_BYTES_MAX,
    ENVELOPE_ID_BYTES,
    HOP_LIMIT_MAX,
    Envelope,
    Inner,
    signed_message,
)
from conflux.control.hop_keys import HopKeys
from conflux.crypto.seal import SealKey, seal
from conflux.crypto.sign import context
from conflux.errors import AuthError, LocalProtocolError, RemoteProtocolError
from conflux.ids import BootId, NodeId
from conflux.realm.card import Card
from conflux.realm.member import Member


class Author:
    """Signs as one node in one boot; numbers what it signs."""

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
        # Starts at random, so that an answer recorded in an earlier boot answers nothing in this one.
        self._last_seq = int.from_bytes(entropy(4), "big")
        self._serial = 0
        self._build_card()

    # ── our card ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def turn(self, now: float) -> None:
        """Turn the hop key if it is time, and publish the new one on the card."""
        if self.hop_keys.turn(now):
            self._build_card()

    def adopt(self, member: Member) -> None:
        """Go on with a renewed credential of the same node."""
        if member.node_id != self.me or member.realm_id != self.member.realm_id:
            raise LocalProtocolError("renewal changed the node or the realm")
        self.member = member
        self._build_card()

    def _build_card(self) -> None:
        self._serial += 1
        self.card = Card.build(
            self.member.keys,
            self.member.chain,
            boot=self.boot,
            hop_public=self.hop_keys.current.public,
            serial=self._serial,
            features=self._features,
        )
        self.card_bytes = self.card.encode()

    # ── out ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    def next_seq(self) -> int:
        """Return a number never used in this boot."""
        self._last_seq += 1
        return self._last_seq

    def sign(self, to: NodeId | None, seq: int, kind: Kind, body: bytes, *, re: int = 0) -> bytes:
        """Return a signed message, an encoded Inner."""
        if len(body) > BODY_BYTES_MAX:
            raise LocalProtocolError(f"body of {len(body)} bytes, at most {BODY_BYTES_MAX}")
        signature = self.member.keys.signing.sign_ed25519(
            self._sign_context, signed_message(to, self.me, self.boot, seq, kind, re, body)
        )
        return Inner(self.me, self.boot, seq, kind, re, body, signature).encode()

    def seal(self, to: KnownCard, message: bytes) -> bytes:
        """Return message sealed to the hop key on a card."""
        return seal(to.card.hop_public, message, self._seal_info(to.card.hop_key_id, to.node_id))

    def envelope(self, to: NodeId | None, key_id: bytes | None, payload: bytes) -> bytes:
        """Return a new envelope around a payload, encoded."""
        return Envelope(to, self._entropy(ENVELOPE_ID_BYTES), HOP_LIMIT_MAX, key_id, payload).encode()

    # ── in ───────────────────────────────────────────────────────────────────────────────────────────────────────────

    def unseal_untrusted(self, key_id: bytes, payload: bytes) -> Inner:
        """Return the message sealed to our hop key of that id.  Raises RemoteProtocolError, "unknown-key" for one."""
        key = self.hop_keys.find(key_id)
        if key is None:
            raise RemoteProtocolError("unknown-key")
        try:
            return Inner.decode_untrusted(key.unseal(payload, self._seal_info(key_id, self.me)))
        except AuthError:
            raise RemoteProtocolError("bad-seal") from None

    def verify_untrusted(self, inner: Inner, to: NodeId | None, sender: KnownCard) -> None:
        """Raise RemoteProtocolError("bad-signature") unless the card's owner signed inner, for that receiver."""
        try:
            sender.verify_key.verify_ed25519(self._sign_context, inner.signed_message(to), inner.signature)
        except AuthError:
            raise RemoteProtocolError("bad-signature", "control") from None

    def _seal_info(self, key_id: bytes, to: NodeId) -> bytes:
        return self._seal_context + key_id + to
