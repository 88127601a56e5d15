"""Joining over the broker: what is published on cx.join.<invite>, and on cx.joined.<invite> in answer.

    joiner                                                       issuer
      │ ── Asked: issuer, nonce ──────────────────────────────────► │  keeps nothing
      │ ◄─ Told: nonce, challenge ───────────────────────────────── │
      │ ── Asked: issuer, nonce, challenge, box(JoinRequest) ─────► │  is the challenge mine, and of this minute?
      │ ◄─ Told: nonce, salt, box(LIST) ... box(JOINED or REFUSED)  │

There is no connection between the two to bind a request to, so it is bound to what both ends have just drawn:

    binding = SHA-256("conflux/1/broker-join" 0x00 ‖ issuer ‖ invitation ‖ nonce ‖ challenge)

A request of yesterday has a challenge of yesterday, and an answer to another request another binding.  The boxes are
sealed under the secret of the invitation: who has none reads neither names nor credentials, and makes no refusal.

A member whose issuer does not answer it as a member, for its credential has ended perhaps, asks in the same way for a
renewal: renewal_id() stands for the invitation, ANY_ISSUER for the issuer, and every issuer answers.  There is no
secret; every node knows the keys of the boxes.  What counts are the member's signature and the issuer's.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from conflux.crypto.box import seal_once, unseal_once
from conflux.crypto.kdf import equal, hkdf, hmac_sha256, sha256
from conflux.errors import AuthError, RemoteProtocolError
from conflux.ids import NODE_ID_BYTES, NodeId
from conflux.realm.join import JoinAnswer, RenewRequest
from conflux.realm.reason import Reason
from conflux.record import Record, octets

NONCE_BYTES = 32
CHALLENGE_BYTES = 32
SALT_BYTES = 32
TAG_BYTES = 16
CHALLENGE_S = 30  # a challenge is good for one to two of these: a joiner answers at once, but its uplink may be slow
SECRET_KEY_BYTES = 32
ANY_ISSUER = NodeId(bytes(NODE_ID_BYTES))  # who asks for a renewal does not know who is in its issuer's place
RENEWAL_SECRET = b"conflux/1/broker"  # of 16 bytes, as an invitation's; it hides nothing


class TellKind(enum.IntEnum):
    """What a box of the issuer holds; the first byte in it."""

    JOINED = 1  # a JoinAnswer
    REFUSED = 2  # a JoinRefused
    LIST = 3  # a signed list; all of them come before JOINED


@dataclass(frozen=True, slots=True)
class Asked(Record):
    """What a joiner publishes.  Without challenge and box it asks for a challenge."""

    BYTES_MAX = RenewRequest.BYTES_MAX + 256
    SHAPES = (
        octets(NODE_ID_BYTES),
        octets(NONCE_BYTES),
        octets(0, CHALLENGE_BYTES),
        octets(0, RenewRequest.BYTES_MAX + TAG_BYTES),
    )

    issuer: NodeId  # as the token names it: several issuers hear the same subject
    nonce: bytes
    challenge: bytes = b""
    box: bytes = b""

    @classmethod
    def _from_item(cls, item: Any) -> Self:
        found = super(Asked, cls)._from_item(item)
        if (len(found.challenge), bool(found.box)) not in ((0, False), (CHALLENGE_BYTES, True)):
            raise RemoteProtocolError(Reason.MALFORMED, "a challenge without a box, or a box without one")
        return found


@dataclass(frozen=True, slots=True)
class Told(Record):
    """What an issuer publishes.  Without a box, salt is the challenge."""

    BYTES_MAX = JoinAnswer.BYTES_MAX + 256
    SHAPES = (
        octets(NONCE_BYTES),
        octets(SALT_BYTES),
        octets(0, JoinAnswer.BYTES_MAX + 1 + TAG_BYTES),
    )

    nonce: bytes  # of the Asked that it answers
    salt: bytes
    box: bytes = b""


def join_binding(issuer: NodeId, invite_id: bytes, nonce: bytes, challenge: bytes) -> bytes:
    """Return the 32 bytes that bind a request, and its answer, to one exchange."""
    return sha256(b"conflux/1/broker-join\0", issuer + invite_id, nonce + challenge)


def seal_request(secret: bytes, binding: bytes, request: bytes) -> bytes:
    """Return the box of a request.  One binding seals one request: the joiner draws a nonce for each."""
    return seal_once(_request_key(secret, binding), request)


def unseal_request_untrusted(secret: bytes, binding: bytes, box: bytes) -> bytes:
    """Return the request in a box.  Raises RemoteProtocolError("bad-proof") for another secret or exchange."""
    try:
        return unseal_once(_request_key(secret, binding), box)
    except AuthError:
        raise RemoteProtocolError(Reason.BAD_PROOF) from None


def seal_told(secret: bytes, binding: bytes, nonce: bytes, kind: TellKind, body: bytes, *, salt: bytes) -> Told:
    """Return what the issuer publishes.  salt: fresh for every box."""
    return Told(nonce, salt, seal_once(_answer_key(secret, binding, salt), bytes((kind,)) + body))


def unseal_told_untrusted(secret: bytes, binding: bytes, told: Told) -> tuple[TellKind, bytes]:
    """Return what an answer holds.  Raises RemoteProtocolError: bad-proof, malformed."""
    try:
        plain = unseal_once(_answer_key(secret, binding, told.salt), told.box)
    except AuthError:
        raise RemoteProtocolError(Reason.BAD_PROOF) from None
    try:
        return TellKind(plain[0]), plain[1:]
    except (IndexError, ValueError):
        raise RemoteProtocolError(Reason.MALFORMED, "an answer of no known kind") from None


def _request_key(secret: bytes, binding: bytes) -> bytes:
    return hkdf(secret, salt=binding, info=b"conflux/1/broker-join-request", size=32)


def _answer_key(secret: bytes, binding: bytes, salt: bytes) -> bytes:
    return hkdf(secret, salt=binding + salt, info=b"conflux/1/broker-join-answer", size=32)


class Challenger:
    """Makes challenges, and knows its own again without keeping them."""

    def __init__(self, entropy: Callable[[int], bytes]) -> None:
        self._key = entropy(SECRET_KEY_BYTES)

    def challenge(self, invite_id: bytes, nonce: bytes, *, now: float) -> bytes:
        """Return the challenge to a joiner's nonce.  now: seconds of a clock that runs evenly."""
        return self._of(invite_id, nonce, int(now // CHALLENGE_S))

    def verify(self, invite_id: bytes, nonce: bytes, challenge: bytes, *, now: float) -> None:
        """Raise RemoteProtocolError("too-late") unless it is one of this process, at most two CHALLENGE_S old."""
        slot = int(now // CHALLENGE_S)
        if not any(equal(challenge, self._of(invite_id, nonce, each)) for each in (slot, slot - 1)):
            raise RemoteProtocolError(Reason.TOO_LATE)

    def _of(self, invite_id: bytes, nonce: bytes, slot: int) -> bytes:
        return hmac_sha256(self._key, slot.to_bytes(8, "big", signed=True) + invite_id + nonce)
