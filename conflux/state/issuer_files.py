"""The issuer's records as files, one per invitation and one per node.

The command line adds an invitation while the daemon runs, and the daemon counts its uses.  A lock file lets one of them
write at a time, and a file is read again once it was replaced.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import AbstractContextManager

from conflux.ids import NodeId, RealmId, format_node_id
from conflux.realm.invite import Invite
from conflux.realm.issued import Issued
from conflux.realm.waiting import Waiting
from conflux.state.audit_files import AuditFiles
from conflux.state.directory import FileVersion, StateDir

INVITES, INVITE_SUFFIX = "invites", ".invite"
ISSUED, ISSUED_SUFFIX = "issued", ".node"
WAITING, WAITING_SUFFIX = "waiting", ".wait"
ISSUER_LOCK = "issuer.lock"
SETTLED_NS = (
    2 * 10**9
)  # the clock of a file system ticks in milliseconds: two writes in one tick can have equal versions


class IssuerFiles:
    """See IssuerRecords: those of a node, in its state directory."""

    def __init__(self, state: StateDir) -> None:
        self._state = state
        self._read: dict[str, tuple[FileVersion, Issued]] = {}  # by file name: reading a thousand again is slow

    def transaction(self) -> AbstractContextManager[None]:
        """See IssuerRecords.  Raises StateError if another process holds the lock for too long."""
        return self._state.exclusive(ISSUER_LOCK)

    def issued(self) -> Iterable[Issued]:
        """See IssuerRecords."""
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
        """See IssuerRecords."""
        self._state.save_record(self._issued_name(entry.node_id), entry)

    def forget_issued(self, node_id: NodeId) -> None:
        """See IssuerRecords."""
        self._state.remove(self._issued_name(node_id))

    def invite(self, invite_id: bytes) -> Invite | None:
        """See IssuerRecords."""
        return self._state.load_record(self._invite_name(invite_id), Invite)

    def save_invite(self, invite: Invite) -> None:
        """See IssuerRecords."""
        self._state.save_record(self._invite_name(invite.invite_id), invite)

    def invites(self) -> list[Invite]:
        """Return every invitation, including those that are used up or expired."""
        found = (self._state.load_record(name, Invite) for name in self._state.versions(INVITES, INVITE_SUFFIX))
        return [invite for invite in found if invite is not None]

    def forget_invite(self, invite_id: bytes) -> None:
        """Withdraw an invitation.  No-op if unknown."""
        self._state.remove(self._invite_name(invite_id))

    def forget_invites_before(self, date_unix: int) -> None:
        """Remove the invitations that ended before a date, in Unix seconds."""
        for invite in self.invites():
            if invite.not_after < date_unix:
                self.forget_invite(invite.invite_id)

    def waiting(self) -> list[Waiting]:
        """See WaitingRecords."""
        found = (self._state.load_record(name, Waiting) for name in self._state.versions(WAITING, WAITING_SUFFIX))
        return [entry for entry in found if entry is not None]

    def save_waiting(self, entry: Waiting) -> None:
        """See WaitingRecords."""
        self._state.save_record(self._waiting_name(entry.node_id), entry)

    def forget_waiting(self, node_id: NodeId) -> None:
        """See WaitingRecords."""
        self._state.remove(self._waiting_name(node_id))

    def _waiting_name(self, node_id: NodeId) -> str:
        return f"{WAITING}/{format_node_id(node_id)}{WAITING_SUFFIX}"

    def audit(self, realm_id: RealmId) -> AuditFiles:
        """See IssuerRecords."""
        return AuditFiles(self._state, realm_id)

    def _issued_name(self, node_id: NodeId) -> str:
        return f"{ISSUED}/{format_node_id(node_id)}{ISSUED_SUFFIX}"

    def _invite_name(self, invite_id: bytes) -> str:
        return f"{INVITES}/{invite_id.hex()}{INVITE_SUFFIX}"
