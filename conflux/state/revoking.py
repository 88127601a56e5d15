"""Revoking a node, as the issuer that this state directory is of, or as the realm's root if its key is here.

A person revokes a node, or lets another board take its place.  Either way its name goes on the deny list.  A node that
left by itself does not: it asked for it, and its key is no danger.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from conflux.errors import ConfigError, UserError
from conflux.ids import NodeId, format_node_id, parse_node_id
from conflux.realm.anchor import RealmAnchor
from conflux.realm.credential import ISSUER
from conflux.realm.denying import Signer
from conflux.realm.issued import End, Issued
from conflux.realm.listbook import ListBook
from conflux.realm.lists import SignedList
from conflux.realm.member import Member
from conflux.state.directory import StateDir
from conflux.state.founding import issuer_of
from conflux.state.issuer_files import IssuerFiles
from conflux.state.list_files import ListFiles

log = logging.getLogger(__name__)

LONG_GONE_S = 90 * 86400  # chosen: after the end of the last credential of a node that is still on record


@dataclass(frozen=True, slots=True)
class Revoked:
    """What was done.  name: "" if this issuer has no record of the node.  cancelled: invitations, by id in hex."""

    node: NodeId
    name: str
    signed: SignedList
    cancelled: tuple[str, ...]


class Revoker:
    """Revokes nodes.  Raises UserError if this state directory is neither an issuer's nor the root's."""

    def __init__(self, state: StateDir, member: Member) -> None:
        self._me = member.node_id
        self._records = IssuerFiles(state)
        self._lists = ListFiles(state)
        self._issuer = issuer_of(state, member)
        root = state.root_key()
        if root is not None and root.public.encode() != member.anchor.root_public:
            root = None
        self._root = None if root is None else Signer(root, None)
        grant = state.grant()
        self._signer = None if self._issuer is None or grant is None else Signer(member.keys.signing, grant)
        if self._root is None and self._signer is None:
            raise UserError(f"{member.name} does not issue for realm {member.anchor.name}: an issuer can revoke")

    def find(self, target: str) -> NodeId | None:
        """See find_member()."""
        return find_member(self._records, target)

    def revoke(self, book: ListBook, node: NodeId, *, reason: str, now_unix: int) -> Revoked:
        """Put a node on the deny list, on the disk, and end its membership, which frees its name and address.

        The caller has the book learn the list, and other nodes hear of it.  After a crash in between the call can be
        repeated.  Raises UserError.
        """
        if node == self._me:
            raise UserError("this node cannot revoke itself")
        entry = self._record(lambda each: each.node_id == node)
        is_issuer = book.is_issuer(node) or (entry is not None and ISSUER in entry.capabilities)
        signer = self._root if is_issuer or self._signer is None else self._signer
        if signer is None:
            raise UserError("that node is an issuer: only the realm's root key can revoke it, and it is not here")
        signed = self._deny(signer, book, node, reason, now_unix)
        cancelled = self._cancel_invitations(node, now_unix)
        if self._issuer is not None:
            self._issuer.revoke(node, reason, now_unix=now_unix)
        return Revoked(node, "" if entry is None else entry.name, signed, cancelled)

    def settle(self, book: ListBook, publish: Callable[[SignedList], object], *, now_unix: int) -> None:
        """Bring this issuer's lists up to date with its records and its grant, on the disk, and publish what is new.

        A node in whose place another board came is denied here; and one that an older copy of the lists has forgotten.
        An issuer is not: everything that it signed would end with it, so a person revokes it if that is meant.
        """
        if self._signer is None:
            return
        for signed in self._signer.resign(book, now_unix=now_unix):
            self._lists.save(signed)
            publish(signed)
        for entry in self._undenied(book, now_unix):
            try:
                signed = self._deny(self._signer, book, entry.node_id, entry.end, now_unix)
            except UserError as error:
                log.warning("%s is not denied everywhere: %s", entry.name, error)
                return
            publish(signed)

    def _undenied(self, book: ListBook, now_unix: int) -> list[Issued]:
        return [
            each
            for each in self._records.issued()
            if each.end in (End.REPLACED, End.REVOKED)
            and not _is_long_gone(each, now_unix)
            and ISSUER not in each.capabilities
            and not book.is_issuer(each.node_id)
            and not book.denies(each.node_id)
        ]

    def _deny(self, signer: Signer, book: ListBook, node: NodeId, reason: str, now_unix: int) -> SignedList:
        long_gone = {each.node_id for each in self._records.issued() if _is_long_gone(each, now_unix)}
        signed = signer.deny(book, node, reason=reason, now_unix=now_unix, is_long_gone=long_gone.__contains__)
        self._lists.save(signed)
        return signed

    def _cancel_invitations(self, node: NodeId, now_unix: int) -> tuple[str, ...]:
        """Withdraw the invitations that let the node in and are not used up: the board may still hold the token."""
        if self._issuer is None:
            return ()
        used = [each for each in self._records.invites() if node in each.used and len(each.used) < each.count]
        for invite in used:
            self._issuer.withdraw(invite, now_unix=now_unix)
        return tuple(invite.invite_id.hex() for invite in used)

    def _record(self, is_it: Callable[[Issued], bool]) -> Issued | None:
        return next((each for each in self._records.issued() if is_it(each)), None)


def find_member(records: IssuerFiles, target: str) -> NodeId | None:
    """Return the member on this issuer's record that a person names, by name or IPv4 address; or any node by id."""
    for each in records.issued():
        if each.is_member and target in (each.name, str(each.ipv4)):
            return each.node_id
    try:
        return parse_node_id(target)
    except ConfigError:
        return None


def _is_long_gone(entry: Issued, now_unix: int) -> bool:
    return entry.not_after + LONG_GONE_S < now_unix


def as_ended(entries: Iterable[Issued], book: ListBook) -> list[Issued]:
    """Return an issuer's records, with the end of those members that another signer denies."""
    since = {each.denial.node: each.denial.since for each in book.denials()}
    return [
        dataclasses.replace(each, end=str(End.REVOKED), ended_at=since[each.node_id])
        if each.is_member and each.node_id in since
        else each
        for each in entries
    ]


def load_book(files: ListFiles, member: Member, clock: Callable[[], int]) -> ListBook:
    """Return the book of the lists that are kept, which keeps what it learns.  clock: unix seconds."""
    book = ListBook(member.anchor, clock, save=files.keep, forget=files.forget)
    book.load(files.all())
    book.note(member.chain)
    return book


def revoked_words(book: ListBook, member: Member) -> list[str]:
    """Return what a person should know if this node itself is revoked; nothing if it is not."""
    why = book.denials_of(member.node_id, member.chain.credential.issuer)
    if not why:
        return []
    own = [each.denial for each in why if each.denial.node == member.node_id]
    first = own[0] if own else why[0].denial
    what = "this node" if own else "the issuer that let this node in"
    hope = "" if own else "An issuer that has this node on record renews it by itself.  Otherwise: "
    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(first.since))
    return [
        f"revoked: {what} was revoked on {since} ({first.reason}), and other nodes refuse this one; its keys are kept. "
        f"{hope}To join the realm again: conflux board renew; conflux join TOKEN"
    ]


class DeniedRow(NamedTuple):
    """One denial, as a person reads it.  by: the name of its signer, or its id.  revoked_at: Unix seconds."""

    node: str
    name: str | None
    by: str
    revoked_at: int
    reason: str


def denied_rows(book: ListBook, anchor: RealmAnchor, names: dict[NodeId, str]) -> Sequence[DeniedRow]:
    """Return every denial that counts, the oldest first.  names: those that are known."""
    root = NodeId(anchor.realm_id)
    return [
        DeniedRow(
            format_node_id(each.denial.node),
            names.get(each.denial.node),
            "the root" if each.signer == root else names.get(each.signer, format_node_id(each.signer)),
            each.denial.since,
            each.denial.reason,
        )
        for each in book.denials()
    ]
