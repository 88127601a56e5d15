"""What a member trusts of its realm without asking: the root's keys, the name, the IPv4 prefix."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Self

from conflux.crypto.kdf import sha256
from conflux.crypto.sign import PUBLIC_BYTES, SigningKey, VerifyKey
from conflux.errors import ConfigError, RemoteProtocolError
from conflux.ids import RealmId
from conflux.realm import address
from conflux.realm.identity import realm_id_of
from conflux.realm.name import label, parse_name
from conflux.realm.reason import Reason
from conflux.realm.signed import SIGNATURE, UNSIGNED, Signed
from conflux.record import octets


@dataclass(frozen=True, slots=True)
class RealmAnchor(Signed):
    """The realm, signed by its own root: a token with the root's fingerprint vouches for all of it."""

    BYTES_MAX = 8192
    PURPOSE = "anchor"
    SHAPES = (octets(PUBLIC_BYTES), label(), address.ipv4_network(), SIGNATURE)

    root_public: bytes
    name: str
    ipv4_prefix: IPv4Network
    signature: bytes

    @classmethod
    def build(cls, root: SigningKey, name: str, ipv4_prefix: IPv4Network | None = None) -> Self:
        """Return the anchor of a new realm.  Raises ConfigError for a bad name or prefix."""
        public = root.public.encode()
        realm_id = realm_id_of(public)
        prefix = address.default_ipv4_prefix(realm_id) if ipv4_prefix is None else ipv4_prefix
        if not address.realm_prefix_allowed(prefix):
            raise ConfigError(f"IPv4 prefix {prefix}: must be private (RFC 1918 or 100.64.0.0/10), /28 or wider")
        return cls(public, parse_name(name, "realm name"), prefix, UNSIGNED).sign(root, realm_id)

    def verify(self, fingerprint: bytes | None = None) -> None:
        """Raise RemoteProtocolError unless the root signed this and has the 32-byte fingerprint; None: any root."""
        if fingerprint is not None and self.fingerprint != fingerprint:
            raise RemoteProtocolError(Reason.FOREIGN_REALM, "not the root that was named")
        if not address.realm_prefix_allowed(self.ipv4_prefix):
            raise RemoteProtocolError(Reason.BAD_ADDRESS, f"realm prefix {self.ipv4_prefix}")
        self.verify_signature(self.root_key(), self.realm_id)

    def root_key(self) -> VerifyKey:
        """The root's keys."""
        return VerifyKey.decode_untrusted(self.root_public)

    @property
    def fingerprint(self) -> bytes:
        """32 bytes over the root's keys; the realm id is the first 16."""
        return sha256(self.root_public)

    @property
    def realm_id(self) -> RealmId:
        """The first 16 bytes of the fingerprint."""
        return realm_id_of(self.root_public)

    @property
    def ipv6_prefix(self) -> IPv6Network:
        """The /48 of every overlay address of the realm."""
        return address.ipv6_prefix(self.realm_id)
