"""Who may use which subjects: members, issuers, bridges, and those who only want to join.

    role      publishes                                       listens to
    member    cx.p.*.<me>  cx.w.*.<me>  cx.u.*.<me>.>         cx.u.<me>.>  cx.p.*.*  cx.auth.>
                                                              its own cx.w.<bucket>.*  cx.w.r<bucket>.*
    issuer    and cx.joined.*  cx.auth.>                      and cx.join.*
    bridge                                                    and cx.w.*.*
    joiner    cx.join.<invite>                                cx.joined.<invite>
    late      the same, of an id that follows from its key

A member's user key is the Ed25519 half of its node's key, so its JWT is of use to nobody else.  Once its credential has
ended, it is admitted as a joiner is, to ask for a renewal and for nothing else: see LatePass.  The key of a joiner
follows from the secret of its invitation, so a token needs no JWT: from a signature and a few words the joiner puts
together, byte for byte, the JWT that the issuer signed.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from conflux.crypto import nkey
from conflux.crypto.kdf import hkdf, sha256
from conflux.crypto.nkey import SEED_BYTES, KeyPair, Kind
from conflux.crypto.sign import ED25519_PUBLIC_BYTES, ED25519_SIGNATURE_BYTES
from conflux.errors import LocalProtocolError, RemoteProtocolError
from conflux.ids import IPAddress
from conflux.realm.broker import subjects
from conflux.realm.broker.jwt import (
    LEAF_NODE,
    UNIX_S_MAX,
    UNLIMITED,
    Permissions,
    UserJwt,
    open_untrusted,
    signature_of,
)
from conflux.realm.credential import BRIDGE, ISSUER, Credential
from conflux.realm.identity import node_id_of
from conflux.realm.reason import Reason
from conflux.record import Record, octets, uint

SUBSCRIPTIONS_MAX = 64  # a node has fewer than 20
BRIDGE_SUBSCRIPTIONS_MAX = 1024  # the buckets of its neighbours
PAYLOAD_BYTES_MAX = 36 * 1024  # the largest envelope has 32 KiB
JOIN_SUBSCRIPTIONS_MAX = 4


def member_permissions(me: bytes, buckets: Iterable[int], capabilities: Collection[str] = ()) -> Permissions:
    """Return what a member with 32 bytes of Ed25519 key may do, who is asked for in these buckets."""
    own = subjects.messages(me).removeprefix("cx.u.")  # "<me>.>"
    sender = own.removesuffix(".>")
    publish = [f"cx.p.*.{sender}", f"cx.w.*.{sender}", f"cx.u.*.{own}"]
    subscribe = [subjects.messages(me), subjects.ANY_PRESENCE, subjects.ANY_AUTH]
    if BRIDGE in capabilities:
        subscribe.append(subjects.ANY_QUESTION)
    else:
        subscribe += [subjects.questions(bucket, again=again) for bucket in buckets for again in (False, True)]
    if ISSUER in capabilities:
        publish += [subjects.ANY_JOINED, subjects.ANY_AUTH]
        subscribe.append(subjects.ANY_JOIN)
    return Permissions(tuple(publish), tuple(subscribe))


def join_permissions(invite_id: bytes) -> Permissions:
    """Return what may be done with an invitation, and nothing else."""
    return Permissions((subjects.join(invite_id),), (subjects.joined(invite_id),))


@dataclass(frozen=True, slots=True)
class JoinPass(Record):
    """What a token carries so that the broker admits its holder: what of a JWT does not follow from the token."""

    SHAPES = (
        octets(ED25519_PUBLIC_BYTES),
        octets(ED25519_PUBLIC_BYTES),
        uint(UNIX_S_MAX),
        uint(UNIX_S_MAX),
        octets(ED25519_SIGNATURE_BYTES),
    )

    account: bytes
    signer: bytes
    issued_at: int  # unix seconds
    expires_at: int
    signature: bytes

    def rebuild(self, invite_id: bytes, secret: bytes) -> tuple[str, KeyPair]:
        """Return the JWT that was signed, byte for byte, and its user's key.

        Raises RemoteProtocolError("auth") if the pass is for another invitation or damaged.
        """
        key = join_key(invite_id, secret)
        return _join_jwt(self.account, key, invite_id, self.issued_at, self.expires_at).assemble(
            self.signer, self.signature
        ), key


def join_key(invite_id: bytes, secret: bytes) -> KeyPair:
    """Return the throw-away user key that follows from an invitation's secret."""
    seed = hkdf(secret, salt=invite_id, info=b"conflux/1/broker-join", size=SEED_BYTES)
    return KeyPair.from_seed_bytes(Kind.USER, seed)


# For how long after its end the node of a credential may still ask: what issuers renew, unless they are set otherwise.
LATE_S = 90 * 86400


def renewal_id(me: bytes) -> bytes:
    """Return what stands for an invitation when the node with 32 bytes of Ed25519 key asks for a renewal."""
    return sha256(b"conflux/1/broker-renew\0", me)[:8]


@dataclass(frozen=True, slots=True)
class LatePass(Record):
    """What of the JWT for late renewals does not follow from a member's JWT, behind which it stands in a credential."""

    BYTES_MAX = 128
    SHAPES = (uint(UNIX_S_MAX), octets(ED25519_SIGNATURE_BYTES))

    expires_at: int
    signature: bytes

    def rebuild(self, member_jwt: str) -> str:
        """Return the JWT that was signed, byte for byte.  Raises RemoteProtocolError."""
        told, signer = UserJwt.decode_untrusted(member_jwt), open_untrusted(member_jwt).issuer
        late = _late_jwt(told.user, told.account, told.issued_at, self.expires_at)
        return late.assemble(nkey.decode_untrusted(nkey.Kind.ACCOUNT, signer), self.signature)


def late_jwt_of(admission: str) -> str | None:
    """Return the JWT by which a credential's node asks for a late renewal; None: it was signed without one.

    admission: the field of the credential.  Raises RemoteProtocolError.
    """
    member_jwt, _, late = admission.partition(" ")
    if not late:
        return None
    try:
        data = base64.b64decode(late + "=" * (-len(late) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise RemoteProtocolError(Reason.MALFORMED, "what admits to late renewals is not base64") from None
    return LatePass.decode_untrusted(data).rebuild(member_jwt)


@dataclass(frozen=True, slots=True)
class Signer:
    """What makes the users of a realm's account: the account, and one of the keys that sign for it."""

    account: bytes
    key: KeyPair

    def __post_init__(self) -> None:
        """Raise LocalProtocolError for a key that is no account's."""
        if self.key.kind is not Kind.ACCOUNT:
            raise LocalProtocolError("a signing key of an account is needed")

    def mint(self, credential: Credential) -> str:
        """Return what admits a credential's node: a user JWT that lasts as long, and a pass for late renewals.

        The credential needs no signature yet.
        """
        jwt = self.member_jwt(
            credential.node_public,
            credential.name,
            credential.addresses,
            credential.capabilities,
            issued_at=credential.not_before,
            expires_at=credential.not_after,
        )
        ends_at = credential.not_after + LATE_S
        me = credential.node_public[:ED25519_PUBLIC_BYTES]
        late = _late_jwt(me, self.account, credential.not_before, ends_at).encode(self.key)
        data = LatePass(ends_at, signature_of(late)).encode()
        return f"{jwt} {base64.urlsafe_b64encode(data).decode().rstrip('=')}"

    def member_jwt(
        self,
        node_public: bytes,
        name: str,
        addresses: Iterable[IPAddress],
        capabilities: Collection[str],
        *,
        issued_at: int,
        expires_at: int,
    ) -> str:
        """Return the user JWT of a member.

        node_public: both of its public keys, 1984 bytes.  issued_at, expires_at: unix seconds.
        """
        me = node_public[:ED25519_PUBLIC_BYTES]
        buckets = subjects.buckets_of(node_id_of(node_public), name, addresses, capabilities)
        return UserJwt(
            user=me,
            account=self.account,
            issued_at=issued_at,
            expires_at=expires_at,
            permissions=member_permissions(me, buckets, capabilities),
            subscriptions_max=BRIDGE_SUBSCRIPTIONS_MAX if BRIDGE in capabilities else SUBSCRIPTIONS_MAX,
            payload_bytes_max=PAYLOAD_BYTES_MAX,
        ).encode(self.key)

    def join_pass(self, invite_id: bytes, secret: bytes, *, issued_at: int, expires_at: int) -> JoinPass:
        """Return what lets the holder of an invitation ask for membership over the broker, until expires_at."""
        user = _join_jwt(self.account, join_key(invite_id, secret), invite_id, issued_at, expires_at)
        signature = signature_of(user.encode(self.key))
        return JoinPass(self.account, self.key.public, issued_at, expires_at, signature)

    def leaf_jwt(self, user: bytes, *, issued_at: int) -> str:
        """Return the user JWT of the server of a site, which passes on what its members say; it does not end."""
        return UserJwt(
            user=user,
            account=self.account,
            issued_at=issued_at,
            expires_at=None,
            permissions=Permissions((subjects.EVERYTHING,), (subjects.EVERYTHING,)),
            subscriptions_max=UNLIMITED,
            payload_bytes_max=PAYLOAD_BYTES_MAX,
            connects_as=LEAF_NODE,
        ).encode(self.key)


def _join_jwt(account: bytes, key: KeyPair, invite_id: bytes, issued_at: int, expires_at: int) -> UserJwt:
    return _asking_jwt(key.public, account, invite_id, issued_at, expires_at)


def _late_jwt(me: bytes, account: bytes, issued_at: int, expires_at: int) -> UserJwt:
    return _asking_jwt(me, account, renewal_id(me), issued_at, expires_at)


def _asking_jwt(user: bytes, account: bytes, invite_id: bytes, issued_at: int, expires_at: int) -> UserJwt:
    return UserJwt(
        user=user,
        account=account,
        issued_at=issued_at,
        expires_at=expires_at,
        permissions=join_permissions(invite_id),
        subscriptions_max=JOIN_SUBSCRIPTIONS_MAX,
        payload_bytes_max=PAYLOAD_BYTES_MAX,
    )
