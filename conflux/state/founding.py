"""Creating a realm: its root, and the first node, which issues for the realm so that the root's key can be put away."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Network

from conflux.crypto.sign import SigningKey
from conflux.errors import StateError
from conflux.realm.anchor import RealmAnchor
from conflux.realm.credential import GRANT_LIFETIME_S, ISSUER, RELAY, Grant
from conflux.realm.issuer import Issuer, Rights
from conflux.realm.join import NONCE_BYTES, OfflineRequest
from conflux.realm.member import Member
from conflux.realm.name import new_node_name
from conflux.realm.signed import UNSIGNED
from conflux.state.broker_files import load_signer
from conflux.state.directory import StateDir
from conflux.state.grants import further_grants
from conflux.state.issuer_files import IssuerFiles


def found_realm(
    state: StateDir,
    realm_name: str,
    node_name: str,
    *,
    now_unix: int,
    entropy: Callable[[int], bytes],
    ipv4_prefix: IPv4Network | None = None,
    check: Callable[[RealmAnchor], None] = lambda anchor: None,
) -> Member:
    """Make a realm and its first member, save both in state, and return the member.

    ipv4_prefix: None for one that follows from the realm.  check: asked before anything is saved; what it raises ends
    the call.  Raises ConfigError for a bad name or prefix, StateError if state belongs to a realm already.  After a
    crash in the middle the call can be repeated: it uses the saved keys.
    """
    node_name = new_node_name(node_name)
    state.require_realm(None)
    kept = state.root_key()
    root = SigningKey.generate() if kept is None else kept
    anchor = RealmAnchor.build(root, realm_name, ipv4_prefix)  # a bad name is refused before a key is saved
    check(anchor)
    if kept is None:
        state.save_root_key(root)
    keys = state.make_node_keys()
    grant = make_grant(root, anchor, keys.public.encode(), first_block(anchor.ipv4_prefix), now_unix=now_unix)
    state.save_grant(grant)
    issuer = Issuer(keys.signing, anchor, grant, IssuerFiles(state))
    request = OfflineRequest.build(keys, node_name, nonce=entropy(NONCE_BYTES))
    answer = issuer.admit(request, now_unix=now_unix, rights=Rights(capabilities=(ISSUER, RELAY)))
    member = Member(keys, anchor, answer.chain)
    state.save_member(member)
    return member


def first_block(prefix: IPv4Network) -> IPv4Network:
    """Return the lower half of a realm's prefix, which the first issuer gets; the upper half is left for others."""
    return next(iter(prefix.subnets(1)))


def make_grant(
    root: SigningKey, anchor: RealmAnchor, issuer_public: bytes, block: IPv4Network, *, now_unix: int
) -> Grant:
    """Return the root's grant of a block to an issuer.  The caller makes sure that blocks do not overlap."""
    grant = Grant(anchor.realm_id, issuer_public, block, now_unix, now_unix + GRANT_LIFETIME_S, UNSIGNED)
    return grant.sign(root, anchor.realm_id)


def issuer_of(state: StateDir, member: Member) -> Issuer | None:
    """Return this node as an issuer, or None if it is none.  Raises StateError for a grant of another node."""
    grant = state.grant()
    if grant is None or grant.realm_id != member.realm_id:
        return None
    if grant.issuer_public != member.keys.public.encode():
        raise StateError(f"{state.path}: the issuer's grant is for another node's keys")
    further = tuple(each for each in further_grants(state) if each.issuer_public == grant.issuer_public)
    signer = load_signer(state, member.realm_id)
    mint = None if signer is None else signer.mint
    return Issuer(member.keys.signing, member.anchor, grant, IssuerFiles(state), mint, further=further)
