"""The root's grants as files: those that put this issuer in another's place, and those that the root gave to others.

further/BLOCK.grant     blocks that this issuer has besides issuer.grant
given/BLOCK.grant       blocks of other issuers, where the root's key is
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network

from conflux.crypto.sign import SigningKey
from conflux.errors import RemoteProtocolError, UserError
from conflux.ids import NodeId
from conflux.realm.credential import GRANT_LIFETIME_S, Grant
from conflux.realm.member import Member
from conflux.realm.reason import Reason
from conflux.realm.signed import UNSIGNED
from conflux.state.directory import StateDir

FURTHER, GIVEN, SUFFIX = "further", "given", ".grant"
SHARES = 16  # chosen: the upper half of a realm's prefix is enough for so many issuers besides the founder
BLOCK_LENGTH_MAX = 30  # two addresses


def further_grants(state: StateDir) -> tuple[Grant, ...]:
    """Return the grants of blocks that this issuer has besides its first."""
    return _load(state, FURTHER)


def given_grants(state: StateDir) -> tuple[Grant, ...]:
    """Return the grants that the root gave to other issuers."""
    return _load(state, GIVEN)


def given_grant(state: StateDir, node_id: NodeId) -> Grant | None:
    """Return what the root gave to an issuer, or None."""
    return next((grant for grant in given_grants(state) if grant.issuer == node_id), None)


def give_block(
    state: StateDir, root: SigningKey, member: Member, public: bytes, block: IPv4Network | None, *, now_unix: int
) -> Grant:
    """Return the root's grant to an issuer with these keys, saved among those that were given.

    block: None for the one that it has, or a free one.  Raises UserError if it is not free, or not of the realm.
    """
    given = given_grants(state)
    own = state.grant()
    others = [grant.ipv4_block for grant in given if grant.issuer_public != public]
    others += [grant.ipv4_block for grant in ((() if own is None else (own,)) + further_grants(state))]
    before = next((grant.ipv4_block for grant in given if grant.issuer_public == public), None)
    chosen = block or before or free_block(member.anchor.ipv4_prefix, others)
    if not chosen.subnet_of(member.anchor.ipv4_prefix) or chosen.prefixlen > BLOCK_LENGTH_MAX:
        raise UserError(f"block {chosen}: must be inside {member.anchor.ipv4_prefix}, /{BLOCK_LENGTH_MAX} or wider")
    if (taken := next((other for other in others if other.overlaps(chosen)), None)) is not None:
        raise UserError(f"block {chosen}: another issuer has {taken}")
    begins, ends = now_unix, now_unix + GRANT_LIFETIME_S
    grant = Grant(member.realm_id, public, chosen, begins, ends, UNSIGNED).sign(root, member.realm_id)
    save_given(state, grant)
    if before is not None and before != chosen:
        state.remove(_name(GIVEN, before))
    return grant


def accept_grant(state: StateDir, member: Member, grant: Grant, *, now_unix: int) -> bool:
    """Keep a grant to this node, and say whether it was new.

    Raises RemoteProtocolError: foreign-realm, wrong-issuer, bad-address, bad-signature, expired.
    """
    if grant.realm_id != member.realm_id:
        raise RemoteProtocolError(Reason.FOREIGN_REALM)
    if grant.issuer_public != member.keys.public.encode():
        raise RemoteProtocolError(Reason.WRONG_ISSUER, "a grant to another node")
    if not grant.ipv4_block.subnet_of(member.anchor.ipv4_prefix):
        raise RemoteProtocolError(Reason.BAD_ADDRESS, f"block {grant.ipv4_block}")
    own = state.grant()
    held = further_grants(state) if own is None else (own, *further_grants(state))
    if any(other.ipv4_block == grant.ipv4_block and other.not_before >= grant.not_before for other in held):
        return False
    grant.verify_signature(member.anchor.root_key(), member.realm_id)
    if now_unix >= grant.not_after:
        raise RemoteProtocolError(Reason.EXPIRED)
    if own is None or own.realm_id != grant.realm_id or own.ipv4_block == grant.ipv4_block:
        state.save_grant(grant)
    else:
        save_further(state, grant)
    return True


def save_further(state: StateDir, grant: Grant) -> None:
    """Save a further grant of this issuer."""
    state.save_record(_name(FURTHER, grant.ipv4_block), grant)


def save_given(state: StateDir, grant: Grant) -> None:
    """Save what the root gave to another issuer."""
    state.save_record(_name(GIVEN, grant.ipv4_block), grant)


def _load(state: StateDir, directory: str) -> tuple[Grant, ...]:
    found = (state.load_record(name, Grant) for name in state.versions(directory, SUFFIX))
    return tuple(grant for grant in found if grant is not None)


def _name(directory: str, block: IPv4Network) -> str:
    return f"{directory}/{block.network_address}-{block.prefixlen}{SUFFIX}"


def free_block(prefix: IPv4Network, held: Iterable[IPv4Network]) -> IPv4Network:
    """Return a block of the upper half of a realm's prefix that no issuer has.  Raises UserError if there is none."""
    held = list(held)
    _, upper = prefix.subnets(1)
    length = min(BLOCK_LENGTH_MAX, upper.prefixlen + (SHARES - 1).bit_length())
    for block in upper.subnets(new_prefix=length):
        if not any(block.overlaps(other) for other in held):
            return block
    raise UserError(f"every block of {upper} has an issuer")
