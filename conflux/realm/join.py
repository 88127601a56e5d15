"""Joining, the joiner's side, and the records both sides speak.

    joiner                                                   issuer
      │  binding: 32 bytes both ends of the TLS connection share
      │ ── JoinRequest: keys, name, proof, signature ───────► │  counts the invitation, records name and address, signs
      │ ◄─ JoinAnswer: anchor, chain, signature ───────────── │
      │    or JoinRefused: reason                             │

The proof is an HMAC under a key from the token's secret over the request and the binding, so whoever relays it on
another connection has nothing.  The answer is believed because the token names the root, not because of the
connection.  Offline, an OfflineRequest and the JoinAnswer are files; the person who carries them is the binding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from conflux import wire
from conflux.crypto.kdf import equal, hkdf, hmac_sha256, sha256
from conflux.crypto.sign import PUBLIC_BYTES, VerifyKey
from conflux.errors import RemoteProtocolError
from conflux.ids import NODE_ID_BYTES, NodeId, RealmId
from conflux.realm.anchor import RealmAnchor
from conflux.realm.clock import RealmClock
from conflux.realm.credential import Chain
from conflux.realm.identity import NodeKeys, node_id_of
from conflux.realm.invite import INVITE_ID_BYTES, Token
from conflux.realm.member import Member
from conflux.realm.name import label, parse_name
from conflux.realm.signed import SIGNATURE, UNSIGNED, Signed
from conflux.wire import Record, nested, octets, text

BINDING_BYTES = 32
NONCE_BYTES = 32
NO_REALM = RealmId(bytes(16))  # an offline request is made before its realm is known

# What a person reads for the reason in a JoinRefused.
REFUSALS = {
    "wrong-issuer": "the node that answered did not make this invitation; the one that did must be up and in reach: "
    "--peer says where it is, --request does without",
    "unknown-invite": "the issuer does not know this invitation; it may have been withdrawn",
    "bad-proof": "the invitation's secret is wrong",
    "invite-expired": "the invitation has expired; ask for a new one",
    "used-up": "the invitation has been used already; ask for a new one",
    "name-taken": "another node of the realm has this name; choose another with --name",
    "no-address": "the realm's IPv4 addresses are used up",
    "grant-expired": "the issuer's own grant from the realm's root has ended",
    "bad-signature": "the issuer could not verify our request",
    "malformed": "the issuer could not read our request; are both of the same version?",
    "version": "the issuer speaks another version of the protocol",
    "busy": "the issuer is busy; try again",
}


def explain_refusal(reason: str) -> str:
    """Return what a person can do about a refusal."""
    return REFUSALS.get(reason, f"the issuer refused: {reason}")


@dataclass(frozen=True, slots=True)
class JoinRequest(Signed):
    """Take me in: these are my keys, and I hold the token."""

    BYTES_MAX = 8192
    PURPOSE = "join"
    SHAPES = (
        octets(NODE_ID_BYTES),
        octets(INVITE_ID_BYTES),
        octets(PUBLIC_BYTES),
        label(),
        octets(NONCE_BYTES),
        octets(32),
        SIGNATURE,
    )

    issuer: NodeId  # whom the token names
    invite_id: bytes
    node_public: bytes
    name: str
    nonce: bytes
    proof: bytes
    signature: bytes

    @classmethod
    def build(cls, token: Token, keys: NodeKeys, name: str, *, binding: bytes, nonce: bytes) -> Self:
        """Return the request, proven and signed, good on the one connection that binding names."""
        public = keys.public.encode()
        unproven = cls(token.issuer, token.invite_id, public, name, nonce, b"", UNSIGNED)
        proof = unproven._proof(token.secret, binding)
        proven = cls(token.issuer, token.invite_id, public, name, nonce, proof, UNSIGNED)
        return proven.sign(keys.signing, token.realm_id, binding=binding)

    def verify_proof(self, secret: bytes, *, binding: bytes) -> None:
        """Raise RemoteProtocolError("bad-proof") unless the sender holds the secret and speaks on this connection."""
        if not equal(self.proof, self._proof(secret, binding)):
            raise RemoteProtocolError("bad-proof")

    def _proof(self, secret: bytes, binding: bytes) -> bytes:
        key = hkdf(secret, salt=self.invite_id, info=b"conflux/1/join-proof", size=32)
        return hmac_sha256(key, binding + wire.encode(self._to_item()[:-2]))

    @property
    def node_id(self) -> NodeId:
        return node_id_of(self.node_public)

    @property
    def digest(self) -> bytes:
        """32 bytes the answer repeats, so that no answer fits another request."""
        return sha256(self.encode())


@dataclass(frozen=True, slots=True)
class OfflineRequest(Signed):
    """A request in a file; the issuer's owner vouches for it by signing."""

    BYTES_MAX = 8192
    PURPOSE = "offline-request"
    SHAPES = (octets(PUBLIC_BYTES), label(), octets(NONCE_BYTES), SIGNATURE)

    node_public: bytes
    name: str
    nonce: bytes
    signature: bytes

    @classmethod
    def build(cls, keys: NodeKeys, name: str, *, nonce: bytes) -> Self:
        """Return the request, signed."""
        return cls(keys.public.encode(), name, nonce, UNSIGNED).sign(keys.signing, NO_REALM)

    def verify(self) -> None:
        """Raise RemoteProtocolError unless its own keys signed it."""
        self.verify_signature(VerifyKey.decode_untrusted(self.node_public), NO_REALM)

    @property
    def node_id(self) -> NodeId:
        return node_id_of(self.node_public)

    @property
    def digest(self) -> bytes:
        return sha256(self.encode())


@dataclass(frozen=True, slots=True)
class JoinAnswer(Signed):
    """You are a member: the realm, and your credential."""

    BYTES_MAX = 32768
    PURPOSE = "joined"
    SHAPES = (nested(RealmAnchor), nested(Chain), octets(32), SIGNATURE)

    anchor: RealmAnchor
    chain: Chain
    request_digest: bytes
    signature: bytes

    def verify(self, request: JoinRequest | OfflineRequest, *, fingerprint: bytes | None, binding: bytes) -> None:
        """Raise RemoteProtocolError unless an issuer of the realm gave this answer to this request.

        Dates are not judged.  fingerprint: the root's, as the token named it; None trusts the root in the answer.
        """
        self.anchor.verify(fingerprint)
        self.chain.verify_signatures(self.anchor)
        grant = self.chain.grant
        key = self.anchor.root_key() if grant is None else VerifyKey.decode_untrusted(grant.issuer_public)
        self.verify_signature(key, self.anchor.realm_id, binding=binding)
        credential = self.chain.credential
        if self.request_digest != request.digest or credential.node_public != request.node_public:
            raise RemoteProtocolError("wrong-answer", "the answer is to another request")
        if credential.name != request.name:
            raise RemoteProtocolError("wrong-answer", f"named {credential.name!r}, not {request.name!r}")


@dataclass(frozen=True, slots=True)
class JoinRefused(Record):
    """No, and why: one of REFUSALS."""

    BYTES_MAX = 64
    SHAPES = (text(32),)

    reason: str


class Joiner:
    """One node's attempt to join with a token; every connection tried is its own request."""

    def __init__(self, token: Token, keys: NodeKeys, name: str, *, entropy: Callable[[int], bytes]) -> None:
        self.token = token
        self._keys = keys
        self._name = parse_name(name, "node name")
        self._entropy = entropy
        self._request: JoinRequest | None = None
        self._binding = b""

    def request(self, binding: bytes) -> JoinRequest:
        """Return what to send on the connection with this 32-byte binding."""
        nonce = self._entropy(NONCE_BYTES)
        self._binding = binding
        self._request = JoinRequest.build(self.token, self._keys, self._name, binding=binding, nonce=nonce)
        return self._request

    def accept_untrusted(self, answer: bytes, clock: RealmClock) -> Member:
        """Return us as a member, from the JoinAnswer to the latest request.

        Raises RemoteProtocolError; with "expired" it is most likely this device's clock that is wrong.
        """
        if self._request is None:
            raise RemoteProtocolError("wrong-answer", "nothing was asked")
        joined = JoinAnswer.decode_untrusted(answer)
        joined.verify(self._request, fingerprint=self.token.root_fingerprint, binding=self._binding)
        if joined.chain.credential.issuer != self.token.issuer:
            raise RemoteProtocolError("wrong-issuer", "another issuer answered than the invitation names")
        clock.judge(joined.chain, joined.anchor)
        return Member(self._keys, joined.anchor, joined.chain)


def accept_offline_untrusted(
    answer: bytes, request: OfflineRequest, keys: NodeKeys, clock: RealmClock, *, fingerprint: bytes | None = None
) -> Member:
    """Return us as a member, from the answer carried back to a request file.

    fingerprint: the root's, if the person who carried the file could also be told it.  Raises RemoteProtocolError.
    """
    if request.node_public != keys.public.encode():
        raise RemoteProtocolError("wrong-answer", "the request was made with other keys")
    joined = JoinAnswer.decode_untrusted(answer)
    joined.verify(request, fingerprint=fingerprint, binding=b"")
    clock.judge(joined.chain, joined.anchor)
    return Member(keys, joined.anchor, joined.chain)
