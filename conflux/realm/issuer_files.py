"""The issuer's records as files, one per invitation and one per node.

The command line adds an invitation while the daemon runs; the daemon counts it.  A lock file keeps their transactions
apart, and a file is read again whenever it has been replaced.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import AbstractContextManager

from conflux.ids import NodeId, format_node_id
from conflux.realm.invite import Invite
from conflux.realm.issuer import Issued
from conflux.realm.store import FileVersion, StateDir

INVITES, INVITE_SUFFIX = "invites", ".invite"
ISSUED, ISSUED_SUFFIX = "issued", ".node"
ISSUER_LOCK = "issuer.lock"
SETTLED_NS = 2 * 10**9  # file systems' clocks tick in milliseconds: two writings of one tick can look alike


class IssuerFiles:
    """IssuerRecords in a state directory."""

    def __init__(self, state: StateDir) -> None:
        self._state = state
        self._read: dict[str, tuple[FileVersion, Issued]] = {}  # by file name; a thousand nodes are slow to read anew

    def transaction(self) -> AbstractContextManager[None]:
        return self._state.exclusive(ISSUER_LOCK)

    def issued(self) -> Iterable[Issued]:
        versions = self._state.versions(ISSUED, ISSUED_SUFFIX)
        settled_ns = time.time_ns() - SETTLED_NS
        self._read = {
            name: read
            for name, read in self._read.items()
            if versions.get(name) == read[0] and read[0].written_ns < settled_ns
        }
        for name, version in versions.items():
            if name not in self._read and (entry := self._state.load_record(name, Issued)) is not None:
                self._read[name] = version, entry
        return [entry for _, entry in self._read.values()]

    def save_issued(self, entry: Issued) -> None:
        self._state.save_record(self._issued_name(entry.node_id), entry)

    def forget_issued(self, node_id: NodeId) -> None:
        self._state.remove(self._issued_name(node_id))

    def invite(self, invite_id: bytes) -> Invite | None:
        return self._state.load_record(self._invite_name(invite_id), Invite)

    def save_invite(self, invite: Invite) -> None:
        self._state.save_record(self._invite_name(invite.invite_id), invite)

    def invites(self) -> list[Invite]:
        """Every invitation, also used and expired ones."""
        found = (self._state.load_record(name, Invite) for name in self._state.versions(INVITES, INVITE_SUFFIX))
        return [invite for invite in found if invite is not None]

    def forget_invite(self, invite_id: bytes) -> None:
        """Withdraw an invitation.  No-op if unknown."""
        self._state.remove(self._invite_name(invite_id))

    def forget_invites_before(self, date_unix: int) -> None:
        """Drop the invitations that ended before a date."""
        for invite in self.invites():
            if invite.not_after < date_unix:
                self.forget_invite(invite.invite_id)

    def _issued_name(self, node_id: NodeId) -> str:
        return f"{ISSUED}/{format_node_id(node_id)}{ISSUED_SUFFIX}"

    def _invite_name(self, invite_id: bytes) -> str:
        return f"{INVITES}/{invite_id.hex()}{INVITE_SUFFIX}"
