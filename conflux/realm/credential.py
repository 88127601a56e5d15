"""What the realm says of a node, and how anybody checks it from the root's keys alone.

root ──Grant──► issuer ──Credential──► node          the usual case: the root's key can stay offline
root ──────────Credential────────────► node          no grant
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address

from conflux.crypto.kdf import sha256
from conflux.crypto.sign import PUBLIC_BYTES, VerifyKey
from conflux.errors import RemoteProtocolError
from conflux.ids import NODE_ID_BYTES, REALM_ID_BYTES, IPAddress, NodeId, RealmId
from conflux.realm import address
from conflux.realm.anchor import RealmAnchor
from conflux.realm.identity import node_id_of
from conflux.realm.name import label
from conflux.realm.signed import SIGNATURE, Signed
from conflux.wire import Record, nested, octets, optional, sequence, text, uint

CREDENTIAL_LIFETIME_S = 30 * 86400
GRANT_LIFETIME_S = 5 * 365 * 86400  # chosen: renewing one needs the root's key, which may lie in a drawer
SKEW_S = 86400  # how far in the future a credential may begin: clocks of boards differ, and expiry is what protects
UNIX_S_MAX = 2**40  # room for a date, and for sums of dates
TAG_COUNT_MAX = 16
CAPABILITY_COUNT_MAX = 16

RELAY, GATEWAY, EXIT, ISSUER = "relay", "gateway", "exit", "issuer"
CAPABILITIES = (RELAY, GATEWAY, EXIT, ISSUER)


def _verify_dates(what: str, not_before: int, not_after: int, now_unix: int) -> None:
    if now_unix >= not_after:
        raise RemoteProtocolError("expired", f"{what} ended {now_unix - not_after} s ago")
    if now_unix + SKEW_S < not_before:
        raise RemoteProtocolError("not-yet-valid", f"{what} begins in {not_before - now_unix} s")


@dataclass(frozen=True, slots=True)
class Credential(Signed):
    """This node may be a member under this name, with these rights, from then until then."""

    BYTES_MAX = 12288
    PURPOSE = "credential"
    SHAPES = (
        octets(REALM_ID_BYTES),
        octets(PUBLIC_BYTES),
        label(),
        sequence(label(), TAG_COUNT_MAX),
        sequence(text(64), CAPABILITY_COUNT_MAX),
        optional(address.ipv4()),
        text(2048),
        uint(UNIX_S_MAX),
        uint(UNIX_S_MAX),
        uint(),
        octets(NODE_ID_BYTES),
        SIGNATURE,
    )

    realm_id: RealmId
    node_public: bytes
    name: str
    tags: tuple[str, ...]
    capabilities: tuple[str, ...]  # unknown ones mean nothing to us and are kept
    ipv4: IPv4Address | None
    nats_jwt: str  # user JWT of the realm's NATS account; empty: the node has none
    not_before: int  # unix seconds: when it was signed
    not_after: int  # unix seconds: the first second in which it no longer holds
    serial: int  # unique per issuer, grows
    issuer: NodeId  # the realm id if the root signed
    signature: bytes

    def verify_key(self) -> VerifyKey:
        """The node's keys.  Raises RemoteProtocolError if they are no keys."""
        return VerifyKey.decode_untrusted(self.node_public)

    @property
    def node_id(self) -> NodeId:
        return node_id_of(self.node_public)

    @property
    def ipv6(self) -> IPv6Address:
        return address.ipv6_address(self.realm_id, self.node_id)

    @property
    def addresses(self) -> tuple[IPAddress, ...]:
        """Every overlay address, IPv6 first."""
        return (self.ipv6,) if self.ipv4 is None else (self.ipv6, self.ipv4)

    @property
    def renew_at(self) -> int:
        """Unix seconds at two thirds of the lifetime: early enough to fail for days before it matters."""
        return self.not_before + (self.not_after - self.not_before) * 2 // 3

    @property
    def digest(self) -> bytes:
        """32 bytes that stand for the whole credential in a transcript."""
        return sha256(self.encode())


@dataclass(frozen=True, slots=True)
class Grant(Signed):
    """The root lets an issuer sign credentials and hand out the addresses of one block; blocks are disjoint."""

    BYTES_MAX = 8192
    PURPOSE = "grant"
    SHAPES = (
        octets(REALM_ID_BYTES),
        octets(PUBLIC_BYTES),
        address.ipv4_network(),
        uint(UNIX_S_MAX),
        uint(UNIX_S_MAX),
        SIGNATURE,
    )

    realm_id: RealmId
    issuer_public: bytes
    ipv4_block: IPv4Network
    not_before: int
    not_after: int
    signature: bytes

    @property
    def issuer(self) -> NodeId:
        return node_id_of(self.issuer_public)


@dataclass(frozen=True, slots=True)
class Chain(Record):
    """A credential and what links its issuer to the root."""

    BYTES_MAX = 20480
    SHAPES = (nested(Credential), optional(nested(Grant)))

    credential: Credential
    grant: Grant | None  # None: the root signed the credential itself

    def verify(self, anchor: RealmAnchor, *, now_unix: int) -> None:
        """Raise RemoteProtocolError unless this chain makes its node a member now.

        Reasons: foreign-realm, wrong-issuer, bad-address, bad-signature, expired, not-yet-valid.  Dates come last: with
        either of the last two the chain is authentic, and its dates may be believed (see clock.py).
        """
        self.verify_signatures(anchor)
        self.verify_dates(now_unix)

    def verify_signatures(self, anchor: RealmAnchor) -> None:
        """verify() without the present: all that a board without a clock can judge when it joins."""
        credential, grant = self.credential, self.grant
        realm_id = anchor.realm_id
        if credential.realm_id != realm_id or (grant is not None and grant.realm_id != realm_id):
            raise RemoteProtocolError("foreign-realm")
        if credential.issuer != (realm_id if grant is None else grant.issuer):
            raise RemoteProtocolError("wrong-issuer", "the grant is for another issuer than the credential's")
        # The root cannot be held to a block: a realm of one issuer has no other.
        block = anchor.ipv4_prefix if grant is None else grant.ipv4_block
        if not block.subnet_of(anchor.ipv4_prefix):
            raise RemoteProtocolError("bad-address", "block outside the realm's prefix")
        if credential.ipv4 is not None and credential.ipv4 not in block:
            raise RemoteProtocolError("bad-address", "address outside the issuer's block")
        root = anchor.root_key()
        credential.verify_key()
        if grant is None:
            credential.verify_signature(root, realm_id)
        else:
            grant.verify_signature(root, realm_id)
            credential.verify_signature(VerifyKey.decode_untrusted(grant.issuer_public), realm_id)
        # Its dates are about to be believed, and the newest one believed ends whatever ended before: an issuer cannot
        # push the realm's clock beyond its own grant.
        if self.newest_date >= self.not_after:
            raise RemoteProtocolError("expired", "it began after its end")

    def verify_dates(self, now_unix: int) -> None:
        """Raise RemoteProtocolError("expired") or ("not-yet-valid") unless every link of the chain holds now."""
        _verify_dates("credential", self.credential.not_before, self.credential.not_after, now_unix)
        if self.grant is not None:
            _verify_dates("grant", self.grant.not_before, self.grant.not_after, now_unix)

    @property
    def not_after(self) -> int:
        """Unix seconds: the first second in which the chain no longer holds."""
        ends = self.credential.not_after
        return ends if self.grant is None else min(ends, self.grant.not_after)

    @property
    def newest_date(self) -> int:
        """Unix seconds of the newest signing in the chain: the present cannot be earlier."""
        begins = self.credential.not_before
        return begins if self.grant is None else max(begins, self.grant.not_before)
