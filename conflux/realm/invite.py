"""Invitations: the token that a joiner gets, and the record that its issuer keeps.

    cfx1 | base64url( canonical CBOR of Token | first 4 bytes of SHA-256 over it )

The token proves the realm to the joiner, by the root's fingerprint, and the joiner to the issuer, by a secret that
never crosses the wire: see join.py.  If the realm has a broker, the token says where it is, and admits to it.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv6Address
from types import MappingProxyType
from typing import Any, Self

from conflux.crypto.kdf import sha256
from conflux.errors import ConfigError, LocalProtocolError, RemoteProtocolError
from conflux.ids import NODE_ID_BYTES, NodeId, RealmId
from conflux.realm.anchor import RealmAnchor
from conflux.realm.broker.users import JoinPass
from conflux.realm.credential import (
    CAPABILITIES,
    CAPABILITY_COUNT_MAX,
    CREDENTIAL_LIFETIME_S,
    TAG_COUNT_MAX,
    UNIX_S_MAX,
)
from conflux.realm.name import label, parse_name
from conflux.realm.reason import Reason
from conflux.record import Record, flag, nested, octets, optional, sequence, text, uint

INVITE_ID_BYTES = 8
SECRET_BYTES = 16
HINT_COUNT_MAX = 4
SERVER_COUNT_MAX = 4  # of the broker; one that answers is enough
PLACE_CHARS_MAX = 80
USE_COUNT_MAX = 1000  # bounds the file in which an invitation is counted
INVITE_LIFETIME_S = 86400
LIFETIME_S_MAX = 10 * 365 * 86400

_PREFIX = "cfx1"
_CHECK_BYTES = 4  # so that a mistyped token is noticed before anything is sent
_TOKEN_CHARS_MAX = 1024
_FINGERPRINT_BYTES = 32
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
class BrokerWay(Record):
    """The way to the issuer over the realm's broker."""

    SHAPES = (sequence(text(PLACE_CHARS_MAX), SERVER_COUNT_MAX), octets(_FINGERPRINT_BYTES), nested(JoinPass))

    servers: tuple[str, ...]  # host:port, at least one
    ca_fingerprint: bytes  # SHA-256 of the certificate, in DER, that signed those of the servers
    admission: JoinPass

    @classmethod
    def _from_item(cls, item: Any) -> Self:
        found = super(BrokerWay, cls)._from_item(item)
        if not found.servers:
            raise RemoteProtocolError(Reason.MALFORMED, "a broker without servers")
        return found


@dataclass(frozen=True, slots=True)
class Token(Record):
    """The content of the text that `conflux realm invite` prints.

    One without a broker is written in version 1, which programs of before there was one read too.
    """

    VERSION = 2
    EARLIER = MappingProxyType({1: 7})
    BYTES_MAX = 752  # 1,012 characters of text
    SHAPES = (
        octets(32),
        octets(NODE_ID_BYTES),
        octets(INVITE_ID_BYTES),
        octets(SECRET_BYTES),
        uint(UNIX_S_MAX),
        uint(USE_COUNT_MAX),
        sequence(text(PLACE_CHARS_MAX), HINT_COUNT_MAX),
        optional(nested(BrokerWay)),
    )

    root_fingerprint: bytes
    issuer: NodeId  # counts this invitation; the realm id if it is the root
    invite_id: bytes
    secret: bytes = field(repr=False)
    not_after: int  # unix seconds, by the issuer's clock
    count: int  # how many nodes may join with it
    hints: tuple[str, ...]  # where the issuer may be, besides the LAN: host:port
    broker: BrokerWay | None = None

    def _to_item(self) -> list[Any]:
        version, *fields = super(Token, self)._to_item()
        return [version, *fields] if self.broker is not None else [1, *fields[:-1]]

    @property
    def realm_id(self) -> RealmId:
        """The realm that the token invites to."""
        return RealmId(self.root_fingerprint[:16])

    def format(self) -> str:
        """Return the text form."""
        data = self.encode()
        check = sha256(data)[:_CHECK_BYTES]
        return _PREFIX + base64.urlsafe_b64encode(data + check).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the token of a text form; space around it is ignored.  Raises ConfigError."""
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
        for place in (*token.hints, *(() if token.broker is None else token.broker.servers)):
            parse_hint(place)
        return token

    def with_broker(self, servers: Iterable[str], ca_fingerprint: bytes, admission: JoinPass) -> Self:
        """Return the token with a way over the broker, by as many of the servers as fit.  Raises ConfigError.

        servers: host:port each.  ca_fingerprint: see BrokerWay.
        """
        named = tuple(server for server in servers if len(server) <= PLACE_CHARS_MAX)[:SERVER_COUNT_MAX]
        for server in named:
            parse_hint(server)
        while named:
            token = dataclasses.replace(self, broker=BrokerWay(named, ca_fingerprint, admission))
            try:
                token.encode()
            except LocalProtocolError:
                named = named[:-1]
            else:
                return token
        raise ConfigError("no server of the broker fits the token beside the addresses that it carries")


@dataclass(frozen=True, slots=True)
class Invite(Record):
    """The issuer's record of an invitation: the secret, what a joiner is granted, and which nodes have used it."""

    VERSION = 2
    EARLIER = MappingProxyType({1: 8})
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
        uint(UNIX_S_MAX),
        octets(0, NODE_ID_BYTES),
        flag(),
    )

    invite_id: bytes
    secret: bytes = field(repr=False)
    not_after: int
    count: int
    tags: tuple[str, ...]
    capabilities: tuple[str, ...]
    lifetime_s: int  # of the credentials that are issued for it
    used: tuple[NodeId, ...]  # a node that asks again gets the record that it made, and is counted once
    made_at: int = 0  # unix seconds; 0: not known
    replaces: bytes = b""  # the node whose place the joiner takes, under its name; empty: none's
    approve: bool = False  # who joins with it waits for a person


def check_rights(tags: Iterable[str], capabilities: Iterable[str]) -> None:
    """Raise ConfigError unless a node can have these tags and capabilities."""
    tags = tuple(tags)
    if len(tags) > TAG_COUNT_MAX:
        raise ConfigError(f"a node has at most {TAG_COUNT_MAX} tags")
    for tag in tags:
        parse_name(tag, "tag")
    for capability in capabilities:
        if capability not in CAPABILITIES:
            raise ConfigError(f"capability {capability!r}: must be one of {', '.join(CAPABILITIES)}")


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
    replaces: bytes = b"",
    approve: bool = False,
) -> tuple[Invite, Token]:
    """Return a new invitation: the issuer's record and the joiner's token.  Raises ConfigError."""
    if not 1 <= count <= USE_COUNT_MAX:
        raise ConfigError(f"an invitation is for 1 to {USE_COUNT_MAX} nodes, not {count}")
    if not 1 <= valid_s <= LIFETIME_S_MAX:
        raise ConfigError(f"an invitation cannot be valid for {valid_s} s: at most ten years")
    if not 1 <= lifetime_s <= LIFETIME_S_MAX:
        raise ConfigError(f"a credential cannot last {lifetime_s} s: at most ten years")
    if len(hints) > HINT_COUNT_MAX:
        raise ConfigError(f"an invitation carries at most {HINT_COUNT_MAX} addresses")
    if replaces and count != 1:
        raise ConfigError(f"one node takes the place of one node, not {count}")
    for hint in hints:
        parse_hint(hint)
    check_rights(tags, capabilities)
    invite_id, secret, not_after = entropy(INVITE_ID_BYTES), entropy(SECRET_BYTES), now_unix + valid_s
    invite = Invite(
        invite_id, secret, not_after, count, tags, capabilities, lifetime_s, (), now_unix, replaces, approve
    )
    return invite, Token(anchor.fingerprint, issuer, invite_id, secret, not_after, count, hints)
