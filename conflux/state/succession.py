"""An issuer that lasts: it renews itself at its start, it is backed up, and another board takes its place."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable

from conflux.crypto.sign import SigningKey
from conflux.errors import RemoteProtocolError, StateError, UserError
from conflux.realm.backup import FILE_BYTES_MAX, NODE_COUNT_MAX, Backup, KeptFile
from conflux.realm.credential import ISSUER, RELAY, Grant
from conflux.realm.issued import Issued
from conflux.realm.issuer import Issuer, Rights
from conflux.realm.join import NONCE_BYTES, OfflineRequest, explain_refusal
from conflux.realm.member import Member
from conflux.realm.name import new_node_name
from conflux.realm.reason import Reason
from conflux.state.directory import ROOT_KEY, StateDir
from conflux.state.founding import issuer_of, make_grant
from conflux.state.grants import further_grants, given_grants, save_further, save_given
from conflux.state.issuer_files import IssuerFiles

log = logging.getLogger(__name__)

# Files that go with the root's key, if they are there: what signs the users of the realm's broker.
KEPT_FILES = ("broker", "broker.key")


def may_take_another_address(state: StateDir, member: Member, *, now_unix: int) -> bool:
    """Say whether renew_self() might: this node issues, and another issuer let its credential end.

    That one should be asked before.  Raises StateError.
    """
    issuer = issuer_of(state, member)
    return issuer is not None and now_unix >= member.chain.not_after and not issuer.renews(member.chain)


def renew_self(state: StateDir, member: Member, *, now_unix: int, entropy: Callable[[int], bytes]) -> Member:
    """Return this node with a fresh credential if it is due and this node issues, whatever the date; else as it is.

    Where the root's key is, the grants are renewed too.  A node whose own issuer let it expire takes an address of its
    own block.  Called before the node comes up.  Raises StateError.
    """
    if now_unix < member.chain.credential.renew_at or issuer_of(state, member) is None:
        return member
    root = state.root_key()
    if root is not None:
        _renew_grants(state, member, root, now_unix)
    issuer = issuer_of(state, member)
    assert issuer is not None
    try:
        chain = issuer.renew(member.chain, now_unix=now_unix, late_s=None)
    except RemoteProtocolError as error:
        if now_unix < member.chain.not_after or error.reason not in (Reason.WRONG_ISSUER, Reason.UNKNOWN_NODE):
            log.warning("this node issues, and cannot renew itself: %s", error)
            return member
        credential = member.chain.credential
        request = OfflineRequest.build(member.keys, credential.name, nonce=entropy(NONCE_BYTES))
        try:
            chain = issuer.admit(
                request, now_unix=now_unix, rights=Rights(credential.tags, credential.capabilities)
            ).chain
        except RemoteProtocolError as refusal:
            log.warning("this node issues, and cannot let itself in: %s", refusal)
            return member
    renewed = Member(member.keys, member.anchor, chain)
    state.save_member(renewed)
    log.info("renewed this node's credential, as an issuer may")
    return renewed


def _renew_grants(state: StateDir, member: Member, root: SigningKey, now_unix: int) -> None:
    def fresh(grant: Grant) -> Grant | None:
        if now_unix < grant.not_before + (grant.not_after - grant.not_before) * 2 // 3:
            return None
        return make_grant(root, member.anchor, grant.issuer_public, grant.ipv4_block, now_unix=now_unix)

    own = state.grant()
    if own is not None and (renewed := fresh(own)) is not None:
        state.save_grant(renewed)
    for grant in further_grants(state):
        if (renewed := fresh(grant)) is not None:
            save_further(state, renewed)


def make_backup(state: StateDir, member: Member, *, now_unix: int) -> Backup:
    """Return what another board needs to be the founder.  Raises StateError if the root's key is not here."""
    root = state.root_key()
    if root is None:
        raise StateError(f"{state.path / ROOT_KEY}: missing: only the board with the root's key can make a backup")
    own = state.grant()
    entries = sorted(IssuerFiles(state).issued(), key=lambda entry: -entry.serial)[:NODE_COUNT_MAX]
    kept = ((name, state.read(name)) for name in KEPT_FILES)
    return Backup(
        root.seed,
        member.anchor,
        now_unix,
        (*(() if own is None else (own,)), *further_grants(state)),
        given_grants(state),
        tuple(dataclasses.replace(entry, node_public=b"").encode() for entry in entries),
        tuple(KeptFile(name, data) for name, data in kept if data is not None and len(data) <= FILE_BYTES_MAX),
    )


def restore_realm(
    state: StateDir, backup: Backup, node_name: str, *, now_unix: int, entropy: Callable[[int], bytes]
) -> Member:
    """Make this board the founder of a realm, save all of it in state, and return it as a member.

    node_name: of a board that is no member yet; a member keeps its name and addresses.  The blocks of the board that
    made the backup become this one's.  Raises UserError.  After a crash it can be repeated.
    """
    node_name = new_node_name(node_name)
    root = backup.root_key()
    state.require_realm(backup.anchor)
    kept = state.root_key()
    if kept is None:
        state.save_root_key(root)
    elif kept.public != root.public:
        raise StateError(f"{state.path / ROOT_KEY}: the key of another realm is here")
    keys = state.make_node_keys()
    member = state.member()
    _take_blocks(state, backup, root, keys.public.encode(), now_unix)
    files = IssuerFiles(state)
    with files.transaction():
        known = {entry.node_id for entry in files.issued()}
        for entry in backup.issued():
            if entry.node_id not in known:
                files.save_issued(entry)
    for file in backup.files:
        if file.name in KEPT_FILES and state.read(file.name) is None:
            state.atomic_write(file.name, file.data)
    grant = state.grant()
    assert grant is not None
    issuer = Issuer(keys.signing, backup.anchor, grant, files, further=further_grants(state))
    try:
        if member is None:
            request = OfflineRequest.build(keys, node_name, nonce=entropy(NONCE_BYTES))
            place = _place(backup, node_name)
            rights = Rights(capabilities=(ISSUER, RELAY), replaces=place)
            chain = issuer.admit(request, now_unix=now_unix, rights=rights).chain
        else:
            capabilities = tuple(dict.fromkeys((*member.chain.credential.capabilities, ISSUER)))
            issuer.renew(member.chain, now_unix=now_unix, late_s=None)
            issuer.change(keys.node_id, now_unix=now_unix, capabilities=capabilities)
            chain = issuer.reissue(keys.node_id, now_unix=now_unix)
            issuer.delivered(keys.node_id, chain.credential.serial)
    except RemoteProtocolError as error:
        raise UserError(explain_refusal(error.reason)) from None
    founder = Member(keys, backup.anchor, chain)
    state.save_member(founder)
    return founder


def _take_blocks(state: StateDir, backup: Backup, root: SigningKey, public: bytes, now_unix: int) -> None:
    for old in backup.own:
        mine = state.grant()
        held = [] if mine is None else [mine, *further_grants(state)]
        if any(old.ipv4_block == grant.ipv4_block for grant in held):
            continue
        # Later than the grant that it follows, whatever this board's clock says: that is what members go by.
        begins = max(now_unix, old.not_before + 1)
        grant = make_grant(root, backup.anchor, public, old.ipv4_block, now_unix=begins)
        if mine is None:
            state.save_grant(grant)
        else:
            save_further(state, grant)
    for given in backup.given:
        if given.issuer_public != public:
            save_given(state, given)


def _place(backup: Backup, node_name: str) -> bytes:
    """Return the node id of the dead founder if the new one has its name: it takes that node's place."""
    founders = {grant.issuer for grant in backup.own}
    named: list[Issued] = [entry for entry in backup.issued() if entry.name == node_name and entry.is_member]
    return next((entry.node_id for entry in named if entry.node_id in founders), b"")
