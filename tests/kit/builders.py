"""Realms and members for tests: deterministic, cached, and as cheap as signatures allow."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from ipaddress import IPv4Address

from conflux.crypto.seal import SealKey
from conflux.crypto.sign import SigningKey
from conflux.ids import BootId, NodeId
from conflux.realm.anchor import RealmAnchor
from conflux.realm.card import Card
from conflux.realm.credential import CREDENTIAL_LIFETIME_S, GRANT_LIFETIME_S, Chain, Credential, Grant
from conflux.realm.identity import NodeKeys
from conflux.realm.member import Member
from conflux.realm.signed import UNSIGNED

NOW_UNIX = 1_800_000_000  # the date of all tests
FIRST_BOOT = BootId(b"\0\0\0\0\1abc")


def seed_of(name: str) -> bytes:
    """Return 64 bytes that a name determines."""
    return hashlib.sha512(name.encode()).digest()


@functools.cache
def signing_key(name: str) -> SigningKey:
    """Return the signing key that a name determines."""
    return SigningKey.from_seed(seed_of(name))


@functools.cache
def node_keys(name: str) -> NodeKeys:
    """Return the keys of the node of that name."""
    return NodeKeys(signing_key(name))


@functools.cache
def hop_key(name: str) -> SealKey:
    """Return a sealing key of this run; another run has another one."""
    return SealKey.generate()


@dataclass(frozen=True)
class Realm:
    """A realm and the key of its root."""

    root: SigningKey
    anchor: RealmAnchor


@functools.cache
def make_realm(name: str = "home") -> Realm:
    """Return the realm that a name determines."""
    root = signing_key(f"root of {name}")
    return Realm(root, RealmAnchor.build(root, name))


def make_credential(
    realm: Realm,
    name: str,
    *,
    tags: tuple[str, ...] = (),
    capabilities: tuple[str, ...] = (),
    ipv4: IPv4Address | None = None,
    not_before: int = NOW_UNIX,
    not_after: int = NOW_UNIX + CREDENTIAL_LIFETIME_S,
    issuer: SigningKey | None = None,
) -> Credential:
    """Return a credential, signed by the root or by issuer.  Without an address given, the name determines one."""
    prefix = realm.anchor.ipv4_prefix
    number = 1 + int.from_bytes(seed_of(name)[:4]) % (prefix.num_addresses - 2)
    realm_id = realm.anchor.realm_id
    credential = Credential(
        realm_id=realm_id,
        node_public=node_keys(name).public.encode(),
        name=name,
        tags=tags,
        capabilities=capabilities,
        ipv4=prefix[number] if ipv4 is None else ipv4,
        nats_jwt="",
        not_before=not_before,
        not_after=not_after,
        serial=1,
        issuer=NodeId(realm_id if issuer is None else issuer.public.fingerprint[:16]),
        signature=UNSIGNED,
    )
    return credential.sign(realm.root if issuer is None else issuer, realm_id)


def make_grant(realm: Realm, issuer: SigningKey, *, not_after: int = NOW_UNIX + GRANT_LIFETIME_S) -> Grant:
    """Return a grant of the whole prefix to issuer."""
    anchor = realm.anchor
    grant = Grant(anchor.realm_id, issuer.public.encode(), anchor.ipv4_prefix, NOW_UNIX, not_after, UNSIGNED)
    return grant.sign(realm.root, anchor.realm_id)


@functools.cache
def make_member(realm: Realm, name: str) -> Member:
    """Return a member whose keys and address its name determines."""
    return Member(node_keys(name), realm.anchor, Chain(make_credential(realm, name), None))


@functools.cache
def make_card(member: Member, *, boot: BootId = FIRST_BOOT, serial: int = 1) -> Card:
    """Return a card of a member."""
    hop_public = hop_key(member.name).public
    return Card.build(member.keys, member.chain, boot=boot, hop_public=hop_public, serial=serial)
