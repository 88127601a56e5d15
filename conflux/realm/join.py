"""The joiner's part of joining, and the records that both ends exchange.

    joiner                                                   issuer
      │  binding: 32 bytes that both ends of the TLS connection know
      │ ── JoinRequest: keys, name, proof, signature ───────► │  counts the invitation, records name and address, signs
      │ ◄─ JoinAnswer: anchor, chain, signature ───────────── │
      │    or JoinRefused: a word                             │

The proof is an HMAC over the request and the binding, under a key from the token's secret: on another connection it is
worth nothing.  The answer is believed because the token names the root, not because of the connection.  Offline, an
OfflineRequest and the JoinAnswer are files; the person who carries them takes the place of the binding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from conflux import record
from conflux.crypto.kdf import equal, hkdf, hmac_sha256, sha256
from conflux.crypto.sign import PUBLIC_BYTES, VerifyKey
from conflux.errors import RemoteProtocolError
from conflux.ids import NODE_ID_BYTES, NodeId, RealmId
from conflux.realm.anchor import RealmAnchor
from conflux.realm.clock import RealmClock
from conflux.realm.credential import Chain, granted_later
from conflux.realm.identity import NodeKeys, node_id_of
from conflux.realm.invite import INVITE_ID_BYTES, Token
from conflux.realm.member import Member
from conflux.realm.name import label, parse_name
from conflux.realm.reason import Reason
from conflux.realm.signed import SIGNATURE, UNSIGNED, Signed
from conflux.record import Record, nested, octets, text

BINDING_BYTES = 32
NONCE_BYTES = 32
NO_REALM = RealmId(bytes(16))  # an offline request is made before its realm is known

# The reasons of a JoinRefused, and what a person reads for each.
REFUSALS: dict[str, str] = {
    Reason.WRONG_ISSUER: "only the board that made the token can accept it, and it does not answer.  Start it, or give "
    "its address with --peer, or join by file (--request)",
    Reason.UNKNOWN_INVITE: "the issuer does not know this invitation; it may have been withdrawn",
    Reason.BAD_PROOF: "the invitation's secret is wrong",
    Reason.INVITE_EXPIRED: "the invitation has expired; ask for a new one",
    Reason.USED_UP: "the invitation has been used already; ask for a new one",
    Reason.NAME_TAKEN: "another node of the realm has this name; choose another with --name.  To take its place, "
    "ask for a token of `conflux realm invite --replace NAME`; `conflux realm revoke NAME` ends it",
    Reason.WRONG_NAME: "the invitation is for a board in the place of another: ask for that one's name with --name",
    Reason.TOO_MANY_NAMES: "this node has had too many names lately; ask for one of those",
    Reason.UNKNOWN_NODE: "the issuer has no record of this node; ask for a new invitation",
    Reason.EXPIRED_LONG_AGO: "this node's credential ended too long ago to be renewed; ask for a new invitation (keys, "
    "name and addresses stay)",
    Reason.ENDED: "this node's membership was ended; ask for a new invitation",
    Reason.NO_ADDRESS: "the realm's IPv4 addresses are used up",
    Reason.REVOKED: "the membership of this node was ended, or another board has its place; to let the board in again, "
    "give it new keys: empty its state directory and join with a new invitation",
    Reason.GRANT_EXPIRED: "the issuer's own grant from the realm's root has ended",
    Reason.BAD_SIGNATURE: "the issuer could not verify our request",
    Reason.MALFORMED: "the issuer could not read our request; are both of the same version?",
    Reason.VERSION: "the issuer speaks another version of the protocol",
    Reason.WAITING: "a person has to approve: at the issuer, `conflux realm pending` and `conflux realm approve NODE`",
    Reason.REFUSED: "a person at the issuer has refused this node",
    Reason.TOO_SOON: "this node was renewed a moment ago",
    Reason.BUSY: "the issuer is busy; try again",
}


def explain_refusal(said: str) -> str:
    """Return what a person can do about a refusal.  said: the issuer's word, which need not be one of REFUSALS."""
    return REFUSALS.get(said, f"the issuer refused: {said}")


@dataclass(frozen=True, slots=True)
class JoinRequest(Signed):
    """The joiner wants to be a member: its keys, its name, and a proof that it holds the token."""

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

    issuer: NodeId  # as the token names it
    invite_id: bytes
    node_public: bytes
    name: str
    nonce: bytes
    proof: bytes
    signature: bytes

    @classmethod
    def build(cls, token: Token, keys: NodeKeys, name: str, *, binding: bytes, nonce: bytes) -> Self:
        """Return the request with its proof and signature, valid only on the connection of that binding."""
        public = keys.public.encode()
        unproven = cls(token.issuer, token.invite_id, public, name, nonce, b"", UNSIGNED)
        proof = unproven._proof(token.secret, binding)
        proven = cls(token.issuer, token.invite_id, public, name, nonce, proof, UNSIGNED)
        return proven.sign(keys.signing, token.realm_id, binding=binding)

    def verify_proof(self, secret: bytes, *, binding: bytes) -> None:
        """Raise RemoteProtocolError("bad-proof") unless it was made with this secret, for this connection."""
        if not equal(self.proof, self._proof(secret, binding)):
            raise RemoteProtocolError(Reason.BAD_PROOF)

    def _proof(self, secret: bytes, binding: bytes) -> bytes:
        key = hkdf(secret, salt=self.invite_id, info=b"conflux/1/join-proof", size=32)
        return hmac_sha256(key, binding + record.encode(self._to_item()[:-2]))

    @property
    def node_id(self) -> NodeId:
        """The joiner's node id."""
        return node_id_of(self.node_public)

    @property
    def digest(self) -> bytes:
        """32 bytes that the answer repeats, so that no answer fits another request."""
        return sha256(self.encode())


@dataclass(frozen=True, slots=True)
class OfflineRequest(Signed):
    """A request in a file; the owner of the issuer vouches for it."""

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
        """The joiner's node id."""
        return node_id_of(self.node_public)

    @property
    def digest(self) -> bytes:
        """32 bytes that the answer repeats, so that no answer fits another request."""
        return sha256(self.encode())


@dataclass(frozen=True, slots=True)
class RenewRequest(Signed):
    """A member wants its credential renewed, although it may have ended: its chain, signed by its own keys.

    Only the node itself can sign it, for one connection: a chain alone, which every member has seen, renews nothing.
    """

    BYTES_MAX = 24576
    PURPOSE = "renew"
    SHAPES = (nested(Chain), octets(NONCE_BYTES), SIGNATURE)

    chain: Chain
    nonce: bytes
    signature: bytes

    @property
    def node_public(self) -> bytes:
        """The member's keys."""
        return self.chain.credential.node_public

    @property
    def node_id(self) -> NodeId:
        """The member's node id."""
        return self.chain.credential.node_id

    @property
    def digest(self) -> bytes:
        """32 bytes that the answer repeats, so that no answer fits another request."""
        return sha256(self.encode())


@dataclass(frozen=True, slots=True)
class JoinAnswer(Signed):
    """The joiner is a member: the realm, and the joiner's credential."""

    BYTES_MAX = 32768
    PURPOSE = "joined"
    SHAPES = (nested(RealmAnchor), nested(Chain), octets(32), SIGNATURE)

    anchor: RealmAnchor
    chain: Chain
    request_digest: bytes
    signature: bytes

    def verify(
        self, request: JoinRequest | OfflineRequest | RenewRequest, *, fingerprint: bytes | None, binding: bytes
    ) -> None:
        """Raise RemoteProtocolError unless an issuer of the realm gave this answer to this request.

        Dates are not verified.  fingerprint: of the root, as the token names it; None: trust the root in the answer.
        """
        self.anchor.verify(fingerprint)
        self.chain.verify_signatures(self.anchor)
        grant = self.chain.grant
        key = self.anchor.root_key() if grant is None else VerifyKey.decode_untrusted(grant.issuer_public)
        self.verify_signature(key, self.anchor.realm_id, binding=binding)
        credential = self.chain.credential
        if self.request_digest != request.digest or credential.node_public != request.node_public:
            raise RemoteProtocolError(Reason.WRONG_ANSWER, "the answer is to another request")
        if not isinstance(request, RenewRequest) and credential.name != request.name:
            raise RemoteProtocolError(Reason.WRONG_ANSWER, f"named {credential.name!r}, not {request.name!r}")


@dataclass(frozen=True, slots=True)
class JoinRefused(Record):
    """The issuer does not take the joiner in.  said: its reason, one of REFUSALS if it speaks our version."""

    BYTES_MAX = 64
    SHAPES = (text(32),)

    said: str


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
        """Return the request to send on the connection with this 32-byte binding."""
        nonce = self._entropy(NONCE_BYTES)
        self._binding = binding
        self._request = JoinRequest.build(self.token, self._keys, self._name, binding=binding, nonce=nonce)
        return self._request

    def accept_untrusted(self, answer: bytes, clock: RealmClock) -> Member:
        """Return us as a member, from the JoinAnswer to the latest request.

        Raises RemoteProtocolError; "expired" means most likely that this device's clock is wrong.
        """
        if self._request is None:
            raise RemoteProtocolError(Reason.WRONG_ANSWER, "no request was made")
        joined = JoinAnswer.decode_untrusted(answer)
        joined.verify(self._request, fingerprint=self.token.root_fingerprint, binding=self._binding)
        if joined.chain.credential.issuer != self.token.issuer:
            raise RemoteProtocolError(Reason.WRONG_ISSUER, "another issuer answered than the invitation names")
        clock.judge(joined.chain, joined.anchor)
        return Member(self._keys, joined.anchor, joined.chain)


class Renewer:
    """One node's attempt to have its credential renewed where its issuer is looked for as a joiner looks for it."""

    def __init__(self, member: Member, *, entropy: Callable[[int], bytes]) -> None:
        self.member = member
        self._entropy = entropy
        self._request: RenewRequest | None = None
        self._binding = b""

    def request(self, binding: bytes) -> RenewRequest:
        """Return the request to send on the connection with this 32-byte binding."""
        unsigned = RenewRequest(self.member.chain, self._entropy(NONCE_BYTES), UNSIGNED)
        self._binding = binding
        self._request = unsigned.sign(self.member.keys.signing, self.member.realm_id, binding=binding)
        return self._request

    def accept_untrusted(self, answer: bytes, clock: RealmClock) -> Member:
        """Return us with the chain of the JoinAnswer to the latest request.  Raises RemoteProtocolError."""
        if self._request is None:
            raise RemoteProtocolError(Reason.WRONG_ANSWER, "no request was made")
        joined = JoinAnswer.decode_untrusted(answer)
        joined.verify(self._request, fingerprint=self.member.anchor.fingerprint, binding=self._binding)
        require_follows(self.member.chain, joined.chain)
        clock.judge(joined.chain, self.member.anchor)
        return Member(self.member.keys, self.member.anchor, joined.chain)


def require_follows(old: Chain, new: Chain) -> None:
    """Raise RemoteProtocolError unless a chain, which is authentic, may take the place of another of the same node.

    Keys and addresses stay.  Of one issuer the larger serial is the newer.  Another issuer can sign for these addresses
    only if the root gave it their block, and that is the later word of the root if its grant is the newer.
    """
    before, after = old.credential, new.credential
    if (after.node_public, after.addresses) != (before.node_public, before.addresses):
        raise RemoteProtocolError(Reason.WRONG_ANSWER, "a renewal changes neither keys nor addresses")
    if after.issuer == before.issuer:
        if after.serial <= before.serial:
            raise RemoteProtocolError(Reason.WRONG_ANSWER, "not newer")
    elif not granted_later(new.grant, old.grant):
        raise RemoteProtocolError(Reason.WRONG_ISSUER, "the addresses were not given to another issuer")


def accept_offline_untrusted(
    answer: bytes, request: OfflineRequest, keys: NodeKeys, clock: RealmClock, *, fingerprint: bytes | None = None
) -> Member:
    """Return us as a member, from the answer carried back to a request file.

    fingerprint: of the root, if the person who carried the file was told it; else None.  Raises RemoteProtocolError.
    """
    if request.node_public != keys.public.encode():
        raise RemoteProtocolError(Reason.WRONG_ANSWER, "the request was made with other keys")
    joined = JoinAnswer.decode_untrusted(answer)
    joined.verify(request, fingerprint=fingerprint, binding=b"")
    clock.judge(joined.chain, joined.anchor)
    return Member(keys, joined.anchor, joined.chain)
