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

NOW_UNIX = 1_800_000_000  # the tests' present
FIRST_BOOT = BootId(b"\0\0\0\0\1abc")


def seed_of(name: str) -> bytes:
    """64 bytes that a name determines."""
    return hashlib.sha512(name.encode()).digest()


@functools.cache
def signing_key(name: str) -> SigningKey:
    return SigningKey.from_seed(seed_of(name))


@functools.cache
def node_keys(name: str) -> NodeKeys:
    return NodeKeys(signing_key(name))


@functools.cache
def hop_key(name: str) -> SealKey:
    """A sealing key of this run; other runs have others."""
    return SealKey.generate()


@dataclass(frozen=True)
class Realm:
    root: SigningKey
    anchor: RealmAnchor


@functools.cache
def make_realm(name: str = "home") -> Realm:
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
    """A credential signed by the root, or by issuer.  Without an address given, one that the name determines."""
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
    """The root lets issuer sign, with the whole prefix."""
    anchor = realm.anchor
    grant = Grant(anchor.realm_id, issuer.public.encode(), anchor.ipv4_prefix, NOW_UNIX, not_after, UNSIGNED)
    return grant.sign(realm.root, anchor.realm_id)


@functools.cache
def make_member(realm: Realm, name: str) -> Member:
    """A member whose keys and address its name determines."""
    return Member(node_keys(name), realm.anchor, Chain(make_credential(realm, name), None))


@functools.cache
def make_card(member: Member, *, boot: BootId = FIRST_BOOT, serial: int = 1) -> Card:
    hop_public = hop_key(member.name).public
    return Card.build(member.keys, member.chain, boot=boot, hop_public=hop_public, serial=serial)
