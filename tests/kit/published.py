"""Policies that members of the tests' realm published."""

from __future__ import annotations

import functools
import random
from base64 import b64encode
from ipaddress import IPv4Address

from kit.builders import NOW_UNIX, make_credential, make_grant, make_realm, node_keys, signing_key

from conflux.realm.credential import CREDENTIAL_LIFETIME_S, POLICY, Chain
from conflux.realm.member import Member
from conflux.realm.policy import SignedPolicy

OPEN_TEXT = b'version = 1\ndefault = "allow"\n'
CLOSED_TEXT = b'version = 1\ndefault = "deny"\n'


@functools.cache
def publisher(
    name: str = "office",
    *,
    realm: str = "home",
    granted: bool = True,
    issuer: str | None = None,
    ipv4: IPv4Address | None = None,
    not_before: int = NOW_UNIX - 86400,
) -> Member:
    """Return a member that may publish a policy.  granted: False for one that may not.  issuer: who let it in."""
    home = make_realm(realm)
    grant = None if issuer is None else make_grant(home, signing_key(issuer))
    credential = make_credential(
        home,
        name,
        capabilities=(POLICY,) if granted else (),
        ipv4=ipv4,
        not_before=not_before if issuer is None else NOW_UNIX,
        not_after=NOW_UNIX + CREDENTIAL_LIFETIME_S,
        issuer=None if issuer is None else signing_key(issuer),
    )
    return Member(node_keys(name), home.anchor, Chain(credential, grant))


@functools.cache
def published(text: bytes = CLOSED_TEXT, number: int = NOW_UNIX, by: Member | None = None) -> SignedPolicy:
    """Return a policy."""
    return SignedPolicy.make(publisher() if by is None else by, number, text)


@functools.cache
def large_text(piece_count: int = 3) -> bytes:
    """Return a rule file that takes so many pieces: its comment cannot be deflated."""
    rng = random.Random(piece_count)
    lines = [f"# {b64encode(rng.randbytes(60)).decode()}\n" for _ in range(piece_count * 16000 // 62 - 60)]
    return CLOSED_TEXT + "".join(lines).encode()
