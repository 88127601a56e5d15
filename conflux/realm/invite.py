"""Invitations: the token a joiner is given, and what its issuer keeps of it.

    cfx1 | base64url( canonical CBOR of Token | first 4 bytes of SHA-256 over it )

The token proves the realm to the joiner (the root's fingerprint) and the joiner to the issuer (the secret, which never
crosses the wire: see join.py).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv6Address
from typing import Self

from conflux.crypto.kdf import sha256
from conflux.errors import ConfigError, RemoteProtocolError
from conflux.ids import NODE_ID_BYTES, NodeId, RealmId
from conflux.realm.anchor import RealmAnchor
from conflux.realm.credential import (
    CAPABILITIES,
    CAPABILITY_COUNT_MAX,
    CREDENTIAL_LIFETIME_S,
    TAG_COUNT_MAX,
    UNIX_S_MAX,
)
from conflux.realm.name import label, parse_name
from conflux.wire import Record, octets, sequence, text, uint

INVITE_ID_BYTES = 8
SECRET_BYTES = 16
HINT_COUNT_MAX = 4
USE_COUNT_MAX = 1000  # bounds the file an invitation is counted in
INVITE_LIFETIME_S = 86400
LIFETIME_S_MAX = 10 * 365 * 86400

_PREFIX = "cfx1"
_CHECK_BYTES = 4  # a mistyped token is told apart from a wrong one before anything is sent
_TOKEN_CHARS_MAX = 1024
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")


def parse_hint(hint: str) -> tuple[str, int]:
    """Return (host, port) of "host:port" or "[IPv6]:port".  Raises ConfigError."""
    host, colon, port = hint.rpartition(":")
    valid = bool(colon) and len(port) <= 5 and port.isascii() and port.isdecimal() and 0 < int(port) < 65536
    if valid and host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        try:
            IPv6Address(host)
        except AddressValueError:
            valid = False
    elif _HOST.fullmatch(host) is None:
        valid = False
    if not valid:
        raise ConfigError(f"{hint!r} is not HOST:PORT or [IPV6]:PORT")
    return host, int(port)


@dataclass(frozen=True, slots=True)
class Token(Record):
    """What `conflux realm invite` prints."""

    BYTES_MAX = 512
    SHAPES = (
        octets(32),
        octets(NODE_ID_BYTES),
        octets(INVITE_ID_BYTES),
        octets(SECRET_BYTES),
        uint(UNIX_S_MAX),
        uint(USE_COUNT_MAX),
        sequence(text(80), HINT_COUNT_MAX),
    )

    root_fingerprint: bytes
    issuer: NodeId  # the one that counts this invitation; the realm id if the root does
    invite_id: bytes
    secret: bytes = field(repr=False)
    not_after: int  # unix seconds; the issuer's clock decides
    count: int  # how many nodes may join with it
    hints: tuple[str, ...]  # where the issuer may be found besides the LAN: host:port

    @property
    def realm_id(self) -> RealmId:
        return RealmId(self.root_fingerprint[:16])

    def format(self) -> str:
        """Return the text form."""
        data = self.encode()
        check = sha256(data)[:_CHECK_BYTES]
        return _PREFIX + base64.urlsafe_b64encode(data + check).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the token of a text form; space around it is forgiven, nothing else.  Raises ConfigError."""
        text = text.strip()
        if not text.startswith(_PREFIX):
            raise ConfigError(f"this is no invitation: it must begin with {_PREFIX}")
        if len(text) > _TOKEN_CHARS_MAX:
            raise ConfigError(f"this is no invitation: {len(text)} characters, at most {_TOKEN_CHARS_MAX}")
        body = text[len(_PREFIX) :]
        try:
            data = base64.b64decode(body.encode("ascii") + b"=" * (-len(body) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            data = b""
        token_bytes, check = data[:-_CHECK_BYTES], data[-_CHECK_BYTES:]
        if sha256(token_bytes)[:_CHECK_BYTES] != check:
            raise ConfigError("the invitation is damaged: characters are missing or mistyped")
        try:
            token = cls.decode_untrusted(token_bytes)
        except RemoteProtocolError as error:
            raise ConfigError(f"the invitation does not fit this version of conflux ({error})") from None
        if token.format() != text:
            raise ConfigError("the invitation is damaged: it has more than one spelling")
        for hint in token.hints:
            parse_hint(hint)
        return token


@dataclass(frozen=True, slots=True)
class Invite(Record):
    """What the issuer keeps: the secret, what a joiner is granted, and who has used it."""

    BYTES_MAX = 32768
    SHAPES = (
        octets(INVITE_ID_BYTES),
        octets(SECRET_BYTES),
        uint(UNIX_S_MAX),
        uint(USE_COUNT_MAX),
        sequence(label(), TAG_COUNT_MAX),
        sequence(text(64), CAPABILITY_COUNT_MAX),
        uint(UNIX_S_MAX),
        sequence(octets(NODE_ID_BYTES), USE_COUNT_MAX),
    )

    invite_id: bytes
    secret: bytes = field(repr=False)
    not_after: int
    count: int
    tags: tuple[str, ...]
    capabilities: tuple[str, ...]
    lifetime_s: int  # of the credentials it leads to
    used: tuple[NodeId, ...]  # a node that asks again is answered again and not counted again


def make_invite(
    anchor: RealmAnchor,
    issuer: NodeId,
    *,
    now_unix: int,
    entropy: Callable[[int], bytes],
    valid_s: int = INVITE_LIFETIME_S,
    count: int = 1,
    tags: tuple[str, ...] = (),
    capabilities: tuple[str, ...] = (),
    lifetime_s: int = CREDENTIAL_LIFETIME_S,
    hints: tuple[str, ...] = (),
) -> tuple[Invite, Token]:
    """Return a new invitation as its issuer keeps it and as the joiner gets it.  Raises ConfigError."""
    if not 1 <= count <= USE_COUNT_MAX:
        raise ConfigError(f"an invitation is for 1 to {USE_COUNT_MAX} nodes, not {count}")
    if not 1 <= valid_s <= LIFETIME_S_MAX:
        raise ConfigError(f"an invitation cannot be valid for {valid_s} s: at most ten years")
    if not 1 <= lifetime_s <= LIFETIME_S_MAX:
        raise ConfigError(f"a credential cannot last {lifetime_s} s: at most ten years")
    if len(hints) > HINT_COUNT_MAX:
        raise ConfigError(f"an invitation carries at most {HINT_COUNT_MAX} addresses")
    if len(tags) > TAG_COUNT_MAX:
        raise ConfigError(f"a node has at most {TAG_COUNT_MAX} tags")
    for hint in hints:
        parse_hint(hint)
    for tag in tags:
        parse_name(tag, "tag")
    for capability in capabilities:
        if capability not in CAPABILITIES:
            raise ConfigError(f"capability {capability!r}: must be one of {', '.join(CAPABILITIES)}")
    invite_id, secret, not_after = entropy(INVITE_ID_BYTES), entropy(SECRET_BYTES), now_unix + valid_s
    invite = Invite(invite_id, secret, not_after, count, tags, capabilities, lifetime_s, ())
    return invite, Token(anchor.fingerprint, issuer, invite_id, secret, not_after, count, hints)
