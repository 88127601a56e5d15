"""What the realm says of a node, and how it is verified with nothing but the root's keys.

root ──Grant──► issuer ──Credential──► node          the usual case: the root's key stays offline
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
from conflux.realm.dates import span, utc
from conflux.realm.identity import node_id_of
from conflux.realm.name import label
from conflux.realm.reason import Reason
from conflux.realm.signed import SIGNATURE, Signed
from conflux.record import Record, nested, octets, optional, sequence, text, uint

CREDENTIAL_LIFETIME_S = 30 * 86400
GRANT_LIFETIME_S = 5 * 365 * 86400  # chosen: its renewal needs the root's key, which may lie in a drawer
SKEW_S = 86400  # a credential may begin this far in the future: clocks of boards differ, and expiry protects
UNIX_S_MAX = 2**40  # room for a date, and for sums of dates
TAG_COUNT_MAX = 16
CAPABILITY_COUNT_MAX = 16

RELAY, GATEWAY, EXIT, ISSUER, BRIDGE, POLICY = "relay", "gateway", "exit", "issuer", "bridge", "policy"
CAPABILITIES = (RELAY, GATEWAY, EXIT, ISSUER, BRIDGE, POLICY)


def _verify_dates(what: str, not_before: int, not_after: int, now_unix: int) -> None:
    if now_unix >= not_after:
        raise RemoteProtocolError(Reason.EXPIRED, f"{what} ended {span(now_unix - not_after)} ago{_by(now_unix)}")
    if now_unix + SKEW_S < not_before:
        raise RemoteProtocolError(
            Reason.NOT_YET_VALID, f"{what} begins in {span(not_before - now_unix)}{_by(now_unix)}"
        )


def _by(now_unix: int) -> str:
    """Return what a date was held against, and the question that a person should ask first."""
    return f" by this device's clock ({utc(now_unix)}): is that right?"


@dataclass(frozen=True, slots=True)
class Credential(Signed):
    """A node is a member under this name, with these rights, from not_before to not_after."""

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
    capabilities: tuple[str, ...]  # unknown ones are ignored, and kept
    ipv4: IPv4Address | None
    nats_jwt: str  # user JWT of the realm's NATS account, perhaps with a pass behind it; empty: the node has none
    not_before: int  # unix seconds: when it was signed
    not_after: int  # unix seconds: the first second in which it is not valid any more
    serial: int  # unique per issuer, grows
    issuer: NodeId  # the realm id if the root signed
    signature: bytes

    def verify_key(self) -> VerifyKey:
        """The node's keys.  Raises RemoteProtocolError if the bytes are no keys."""
        return VerifyKey.decode_untrusted(self.node_public)

    @property
    def node_id(self) -> NodeId:
        """The node that the credential is of."""
        return node_id_of(self.node_public)

    @property
    def user_jwt(self) -> str:
        """The user JWT alone; empty: the node has none."""
        return self.nats_jwt.partition(" ")[0]

    @property
    def ipv6(self) -> IPv6Address:
        """The overlay address that follows from the node's keys."""
        return address.ipv6_address(self.realm_id, self.node_id)

    @property
    def addresses(self) -> tuple[IPAddress, ...]:
        """Every overlay address, IPv6 first."""
        return (self.ipv6,) if self.ipv4 is None else (self.ipv6, self.ipv4)

    @property
    def renew_at(self) -> int:
        """Unix seconds at two thirds of the lifetime: renewal may then fail for days before the end."""
        return self.not_before + (self.not_after - self.not_before) * 2 // 3

    @property
    def digest(self) -> bytes:
        """32 bytes for the whole credential in a transcript."""
        return sha256(self.encode())


@dataclass(frozen=True, slots=True)
class Grant(Signed):
    """The root permits an issuer to sign credentials and to grant the addresses of one block; blocks are disjoint."""

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
        """The node id of the issuer."""
        return node_id_of(self.issuer_public)


def granted_later(new: Grant | None, old: Grant | None) -> bool:
    """Say whether the root gave a block to one issuer after it gave it to another."""
    return new is not None and old is not None and new.not_before > old.not_before


@dataclass(frozen=True, slots=True)
class Chain(Record):
    """A credential, and the grant that links its issuer to the root."""

    BYTES_MAX = 20480
    SHAPES = (nested(Credential), optional(nested(Grant)))

    credential: Credential
    grant: Grant | None  # None: the root signed the credential itself

    def verify(self, anchor: RealmAnchor, *, now_unix: int) -> None:
        """Raise RemoteProtocolError unless this chain makes its node a member now.

        Reasons: foreign-realm, wrong-issuer, bad-address, bad-signature, expired, not-yet-valid.  Dates come last: a
        chain that is expired or not yet valid is authentic, and its dates can be believed (see clock.py).
        """
        self.verify_signatures(anchor)
        self.verify_dates(now_unix)

    def verify_signatures(self, anchor: RealmAnchor) -> None:
        """Verify everything but the dates: a board without a clock can do no more when it joins."""
        credential, grant = self.credential, self.grant
        realm_id = anchor.realm_id
        if credential.realm_id != realm_id or (grant is not None and grant.realm_id != realm_id):
            raise RemoteProtocolError(Reason.FOREIGN_REALM)
        if credential.issuer != (realm_id if grant is None else grant.issuer):
            raise RemoteProtocolError(Reason.WRONG_ISSUER, "the grant is for another issuer than the credential's")
        # The root has no block: in a realm without a grant it is the only issuer.
        block = anchor.ipv4_prefix if grant is None else grant.ipv4_block
        if not block.subnet_of(anchor.ipv4_prefix):
            raise RemoteProtocolError(Reason.BAD_ADDRESS, "block outside the realm's prefix")
        if credential.ipv4 is not None and credential.ipv4 not in block:
            raise RemoteProtocolError(Reason.BAD_ADDRESS, "address outside the issuer's block")
        root = anchor.root_key()
        credential.verify_key()
        if grant is None:
            credential.verify_signature(root, realm_id)
        else:
            grant.verify_signature(root, realm_id)
            credential.verify_signature(VerifyKey.decode_untrusted(grant.issuer_public), realm_id)
        # The chain's dates are about to be believed, and everything that ended before the newest of them is expired.
        # So an issuer cannot move the realm's clock beyond its own grant.
        if self.newest_date >= self.not_after:
            raise RemoteProtocolError(Reason.EXPIRED, "it began after its end")

    def verify_dates(self, now_unix: int) -> None:
        """Raise RemoteProtocolError("expired") or ("not-yet-valid") unless credential and grant are valid now."""
        _verify_dates(
            f"{self.credential.name}'s credential", self.credential.not_before, self.credential.not_after, now_unix
        )
        if self.grant is not None:
            _verify_dates(
                f"the grant of {self.credential.name}'s issuer", self.grant.not_before, self.grant.not_after, now_unix
            )

    @property
    def not_after(self) -> int:
        """Unix seconds: the first second in which the chain is not valid any more."""
        ends = self.credential.not_after
        return ends if self.grant is None else min(ends, self.grant.not_after)

    @property
    def newest_date(self) -> int:
        """Unix seconds of the newest signature in the chain: the present cannot be earlier."""
        begins = self.credential.not_before
        return begins if self.grant is None else max(begins, self.grant.not_before)
