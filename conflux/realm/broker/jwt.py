"""JSON Web Tokens as NATS has them: an operator vouches for accounts, an account for users.

    base64url( header ) . base64url( claims ) . base64url( Ed25519 signature over what stands before )

    operator O... ──signs──► account A... ──lists──► signing key A... ──signs──► user U...

Claims are JSON with sorted keys and no spaces.  A typed token (OperatorJwt, AccountJwt, UserJwt) has one spelling:
decoding refuses what encoding would not have written.  open_untrusted() reads the tokens of other programs too.
Source: github.com/nats-io/jwt, version 2.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple, Self, TypeGuard

from conflux.crypto import nkey
from conflux.crypto.nkey import KeyPair, Kind
from conflux.errors import LocalProtocolError, RemoteProtocolError
from conflux.realm.reason import Reason

JWT_CHARS_MAX = 262144  # an account with 2,000 revocations has 220,000
USER_JWT_CHARS_MAX = 2048  # a credential carries it
UNIX_S_MAX = 2**40
SUBJECT_COUNT_MAX = 64  # of a user's permissions, in each direction
SIGNING_KEY_COUNT_MAX = 64  # of an account: one for each issuer
REVOCATION_COUNT_MAX = 2000
UNLIMITED = -1
STANDARD, LEAF_NODE = "STANDARD", "LEAFNODE"  # how a user may connect

_HEADER = {"typ": "JWT", "alg": "ed25519-nkey"}
_VERSION = 2


class Opened(NamedTuple):
    """A token whose signature is that of the key that it names; who that key is has to be asked still."""

    issuer: str  # the word of a key: A... or O...
    subject: str
    kind: str  # "operator", "account" or "user"
    issued_at: int  # unix seconds
    expires_at: int | None  # unix seconds; None: it does not end
    claims: Mapping[str, Any]


def open_untrusted(text: str) -> Opened:
    """Return a token's claims; the signature is verified.  Raises RemoteProtocolError."""
    if len(text) > JWT_CHARS_MAX:
        raise RemoteProtocolError(Reason.MALFORMED, f"JWT of {len(text)} characters, at most {JWT_CHARS_MAX}")
    signed, dot, signature = text.rpartition(".")
    head, dot_before, body = signed.partition(".")
    if not (dot and dot_before):
        raise _refuse("it has not three parts")
    if _object(head, "header") != _HEADER:
        raise _refuse(f"its header is not that of {_HEADER['alg']}")
    claims = _object(body, "claims")
    issuer, subject, issued_at = claims.get("iss"), claims.get("sub"), claims.get("iat")
    expires_at, nats = claims.get("exp"), claims.get("nats")
    if not (isinstance(issuer, str) and isinstance(subject, str) and isinstance(nats, dict)):
        raise _refuse("its issuer, subject or nats part is missing")
    kind = nats.get("type")
    if not isinstance(kind, str) or kind not in _SIGNED_BY or nats.get("version") != _VERSION:
        raise _refuse("it is no operator, account or user of version 2")
    if not _is_date(issued_at) or not (expires_at is None or _is_date(expires_at)):
        raise _refuse("its dates are no dates")
    public = nkey.decode_untrusted(_SIGNED_BY[kind], issuer)
    nkey.verify(public, signed.encode(), _decode(signature, "signature"))
    return Opened(issuer, subject, kind, issued_at, expires_at, MappingProxyType(claims))


_SIGNED_BY = {"operator": Kind.OPERATOR, "account": Kind.OPERATOR, "user": Kind.ACCOUNT}


@dataclass(frozen=True, slots=True)
class OperatorJwt:
    """The operator: whose accounts its servers admit.  Signed by itself."""

    operator: bytes  # 32 bytes of key, as every key here
    system_account: bytes
    name: str
    issued_at: int

    def encode(self, key: KeyPair) -> str:
        """Return the token, signed by the operator's key."""
        if key.public != self.operator:
            raise LocalProtocolError("an operator signs its own JWT")
        nats = {"system_account": nkey.encode(Kind.ACCOUNT, self.system_account), "type": "operator"}
        return _sign(key, nkey.encode(Kind.OPERATOR, self.operator), nats, self.issued_at, name=self.name)

    @classmethod
    def decode_untrusted(cls, text: str) -> Self:
        """Return what a token of ours says.  Raises RemoteProtocolError."""
        opened = _opened(text, "operator")
        name, account = opened.claims.get("name"), opened.claims["nats"].get("system_account")
        if not (isinstance(name, str) and isinstance(account, str)):
            raise _refuse("its name or system account is missing")
        operator = nkey.decode_untrusted(Kind.OPERATOR, opened.subject)
        found = cls(operator, nkey.decode_untrusted(Kind.ACCOUNT, account), name, opened.issued_at)
        if opened.issuer != opened.subject:
            raise _refuse("an operator that another one signed")
        nats = {"system_account": account, "type": "operator"}
        _require_spelling(text, opened, nats, name=name)
        return found


@dataclass(frozen=True, slots=True)
class AccountJwt:
    """An account: which keys sign its users, and which of those users count no more.  Signed by the operator."""

    account: bytes
    name: str
    issued_at: int
    signing_keys: tuple[bytes, ...] = ()  # in their order as words
    revoked: Mapping[bytes, int] = field(default_factory=dict)  # user: every JWT of it issued until then, unix seconds
    connections_max: int = UNLIMITED
    leaf_nodes_max: int = UNLIMITED

    def encode(self, operator: KeyPair) -> str:
        """Return the token, signed by the operator's key.  Raises LocalProtocolError for too many keys or users."""
        if operator.kind is not Kind.OPERATOR:
            raise LocalProtocolError("an operator signs an account's JWT")
        if len(self.signing_keys) > SIGNING_KEY_COUNT_MAX or len(self.revoked) > REVOCATION_COUNT_MAX:
            raise LocalProtocolError("an account with too many signing keys or revocations")
        return _sign(operator, nkey.encode(Kind.ACCOUNT, self.account), self._nats(), self.issued_at, name=self.name)

    @classmethod
    def decode_untrusted(cls, text: str) -> Self:
        """Return what a token of ours says.  Raises RemoteProtocolError."""
        opened = _opened(text, "account")
        nats, name = opened.claims["nats"], opened.claims.get("name")
        keys, revoked, limits = nats.get("signing_keys", []), nats.get("revocations", {}), nats.get("limits")
        if not (isinstance(name, str) and isinstance(keys, list) and len(keys) <= SIGNING_KEY_COUNT_MAX):
            raise _refuse("its name or signing keys are wrong")
        if not (isinstance(revoked, dict) and len(revoked) <= REVOCATION_COUNT_MAX and isinstance(limits, dict)):
            raise _refuse("its revocations or limits are wrong")
        if not all(_is_date(date) for date in revoked.values()):
            raise _refuse("the dates of its revocations are no dates")
        connections, leaf_nodes = limits.get("conn"), limits.get("leaf")
        if not (_is_limit(connections) and _is_limit(leaf_nodes)):
            raise _refuse("its limits are wrong")
        found = cls(
            nkey.decode_untrusted(Kind.ACCOUNT, opened.subject),
            name,
            opened.issued_at,
            tuple(nkey.decode_untrusted(Kind.ACCOUNT, _text(key)) for key in keys),
            {nkey.decode_untrusted(Kind.USER, user): date for user, date in revoked.items()},
            connections,
            leaf_nodes,
        )
        _require_spelling(text, opened, found._nats(), name=name)
        return found

    def _nats(self) -> dict[str, Any]:
        nats: dict[str, Any] = {
            "default_permissions": {"pub": {"deny": [">"]}, "sub": {"deny": [">"]}},  # of a user that names none
            "limits": {
                "conn": self.connections_max,
                "data": UNLIMITED,
                "exports": 0,
                "imports": 0,
                "leaf": self.leaf_nodes_max,
                "payload": UNLIMITED,
                "subs": UNLIMITED,
                "wildcards": False,
            },
            "type": "account",
        }
        if self.signing_keys:
            nats["signing_keys"] = sorted(nkey.encode(Kind.ACCOUNT, key) for key in self.signing_keys)
        if self.revoked:
            nats["revocations"] = {nkey.encode(Kind.USER, user): date for user, date in self.revoked.items()}
        return nats


class Permissions(NamedTuple):
    """The subjects that a user may publish to and listen to, wildcards included.  Neither may be empty.

    For a NATS server an empty list of what is allowed allows everything.
    """

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UserJwt:
    """A user of an account: it proves its key to a server, and may do what stands here until it ends."""

    user: bytes
    account: bytes
    issued_at: int
    expires_at: int | None
    permissions: Permissions
    subscriptions_max: int
    payload_bytes_max: int
    connects_as: str = STANDARD

    def encode(self, signer: KeyPair) -> str:
        """Return the token, signed by the account's key or one of its signing keys."""
        if signer.kind is not Kind.ACCOUNT:
            raise LocalProtocolError("an account signs a user's JWT")
        if fault := self._fault():
            raise LocalProtocolError(fault)
        return _sign(
            signer, nkey.encode(Kind.USER, self.user), self._nats(), self.issued_at, expires_at=self.expires_at
        )

    def assemble(self, signer: bytes, signature: bytes) -> str:
        """Return the token that a 64-byte signature of this signer belongs to.  Raises RemoteProtocolError."""
        claims = _claims(
            nkey.encode(Kind.ACCOUNT, signer),
            nkey.encode(Kind.USER, self.user),
            self._nats(),
            self.issued_at,
            expires_at=self.expires_at,
        )
        signed = f"{_spell(_HEADER)}.{_spell(claims)}"
        nkey.verify(signer, signed.encode(), signature)
        return f"{signed}.{_encode(signature)}"

    @classmethod
    def decode_untrusted(cls, text: str) -> Self:
        """Return what a token of ours says.  Raises RemoteProtocolError."""
        opened = _opened(text, "user")
        nats = opened.claims["nats"]
        account, connects_as = nats.get("issuer_account"), nats.get("allowed_connection_types")
        if not (isinstance(account, str) and connects_as in ([STANDARD], [LEAF_NODE])):
            raise _refuse("its account or its ways to connect are wrong")
        if not (_is_limit(nats.get("subs")) and _is_limit(nats.get("payload"))):
            raise _refuse("its limits are wrong")
        found = cls(
            nkey.decode_untrusted(Kind.USER, opened.subject),
            nkey.decode_untrusted(Kind.ACCOUNT, account),
            opened.issued_at,
            opened.expires_at,
            Permissions(_allowed(nats, "pub"), _allowed(nats, "sub")),
            nats["subs"],
            nats["payload"],
            connects_as[0],
        )
        if fault := found._fault():
            raise _refuse(fault)
        _require_spelling(text, opened, found._nats(), expires_at=found.expires_at)
        return found

    def _fault(self) -> str | None:
        for allowed in self.permissions:
            if not 0 < len(allowed) <= SUBJECT_COUNT_MAX:
                return f"a user with {len(allowed)} subjects, not 1 to {SUBJECT_COUNT_MAX}"
        return None

    def _nats(self) -> dict[str, Any]:
        return {
            "allowed_connection_types": [self.connects_as],
            "data": UNLIMITED,
            "issuer_account": nkey.encode(Kind.ACCOUNT, self.account),
            "payload": self.payload_bytes_max,
            "pub": {"allow": list(self.permissions.publish)},
            "sub": {"allow": list(self.permissions.subscribe)},
            "subs": self.subscriptions_max,
            "type": "user",
        }


def signature_of(text: str) -> bytes:
    """Return the signature at the end of a token of ours."""
    return _decode(text.rpartition(".")[2], "signature")


# ── spelling ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _claims(
    issuer: str, subject: str, nats: Mapping[str, Any], issued_at: int, *, name: str = "", expires_at: int | None = None
) -> dict[str, Any]:
    claims: dict[str, Any] = {"iat": issued_at, "iss": issuer, "nats": {**nats, "version": _VERSION}, "sub": subject}
    if name:
        claims["name"] = name
    if expires_at is not None:
        claims["exp"] = expires_at
    if nats["type"] != "user":  # servers tell two account JWTs apart by it, and a user's has to be short
        digest = hashlib.new("sha512_256", _json(claims)).digest()
        claims["jti"] = base64.b32encode(digest).decode().rstrip("=")
    return claims


def _sign(
    key: KeyPair,
    subject: str,
    nats: Mapping[str, Any],
    issued_at: int,
    *,
    name: str = "",
    expires_at: int | None = None,
) -> str:
    for date in (issued_at, 0 if expires_at is None else expires_at):
        if not _is_date(date):
            raise LocalProtocolError(f"{date} is no date")
    claims = _claims(key.word, subject, nats, issued_at, name=name, expires_at=expires_at)
    signed = f"{_spell(_HEADER)}.{_spell(claims)}"
    text = f"{signed}.{_encode(key.sign(signed.encode()))}"
    chars_max = USER_JWT_CHARS_MAX if nats["type"] == "user" else JWT_CHARS_MAX
    if len(text) > chars_max:
        raise LocalProtocolError(f"JWT of {len(text)} characters, at most {chars_max}")
    return text


def _opened(text: str, kind: str) -> Opened:
    opened = open_untrusted(text)
    if opened.kind != kind:
        raise _refuse(f"it is of an {opened.kind}, not of an {kind}")
    return opened


def _require_spelling(
    text: str, opened: Opened, nats: Mapping[str, Any], *, name: str = "", expires_at: int | None = None
) -> None:
    claims = _claims(opened.issuer, opened.subject, nats, opened.issued_at, name=name, expires_at=expires_at)
    if not text.startswith(f"{_spell(_HEADER)}.{_spell(claims)}."):
        raise _refuse("it says more, or in another way, than this version of conflux writes")


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def _spell(value: object) -> str:
    return _encode(_json(value))


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decode(text: str, what: str) -> bytes:
    try:
        data = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise _refuse(f"its {what} is no base64url") from None
    if _encode(data) != text:
        raise _refuse(f"its {what} has more than one spelling")
    return data


def _object(text: str, what: str) -> dict[str, Any]:
    """Return the JSON object of a part; a key that stands twice, and a number that is no integer, is refused."""

    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a key stands twice")
        return found

    def refuse(number: str) -> None:
        raise ValueError(f"the number {number[:32]}")

    try:
        value = json.loads(_decode(text, what), object_pairs_hook=build, parse_float=refuse, parse_constant=refuse)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError too
        raise _refuse(f"its {what} is no JSON ({error})") from None
    if not isinstance(value, dict):
        raise _refuse(f"its {what} is no JSON object")
    return value


def _allowed(nats: Mapping[str, Any], way: str) -> tuple[str, ...]:
    permission = nats.get(way)
    subjects = permission.get("allow") if isinstance(permission, dict) else None
    if not (isinstance(subjects, list) and len(subjects) <= SUBJECT_COUNT_MAX):
        raise _refuse(f"what it may {way} is wrong")
    return tuple(_text(subject) for subject in subjects)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise _refuse("a text is none")
    return value


def _is_date(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value <= UNIX_S_MAX


def _is_limit(value: object) -> TypeGuard[int]:
    return type(value) is int and UNLIMITED <= value <= UNIX_S_MAX


def _refuse(detail: str) -> RemoteProtocolError:
    return RemoteProtocolError(Reason.MALFORMED, f"JWT: {detail}")
