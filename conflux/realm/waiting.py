"""Nodes that wait for a person: an invitation can let nobody in before somebody has approved of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from conflux.errors import RemoteProtocolError
from conflux.ids import NODE_ID_BYTES, NodeId
from conflux.realm.credential import UNIX_S_MAX
from conflux.realm.invite import INVITE_ID_BYTES, Invite
from conflux.realm.join import JoinRequest
from conflux.realm.name import label
from conflux.realm.reason import Reason
from conflux.record import Record, octets, text, uint

WAITING_COUNT_MAX = 128  # chosen: more than a person looks through
WAITING_PER_INVITE_MAX = 16  # a token's holder makes keys for nothing, and must not keep out those of other tokens


class Decision(StrEnum):
    """What a person said."""

    NONE = "none"  # nothing yet
    APPROVED = "approved"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Waiting(Record):
    """A node that holds a token's secret, and asked to join under a name."""

    BYTES_MAX = 512
    SHAPES = (
        octets(NODE_ID_BYTES),
        label(),
        octets(INVITE_ID_BYTES),
        uint(UNIX_S_MAX),
        uint(UNIX_S_MAX),
        text(16),
    )

    node_id: NodeId
    name: str
    invite_id: bytes
    asked_at: int  # unix seconds
    not_after: int  # of the invitation: nobody waits for longer
    decision: str  # a word of Decision


class WaitingRecords(Protocol):
    """The nodes that wait.  Each save is durable before it returns."""

    def waiting(self) -> Iterable[Waiting]:
        """Every node that waits, or was decided on and has not asked again."""

    def save_waiting(self, entry: Waiting) -> None:
        """Record a node, in place of what was recorded under its id."""

    def forget_waiting(self, node_id: NodeId) -> None:
        """Drop a node.  No-op if unknown."""


def queue(records: WaitingRecords, invite: Invite, request: JoinRequest, *, now_unix: int) -> bool:
    """Return False if a person approved of the node under this name; True if it waits from now on.

    Raises RemoteProtocolError if it waited before: waiting, refused; or cannot: busy.  The caller has verified that the
    node holds the secret and its keys, and that the name is free.
    """
    entries = {}
    for entry in records.waiting():
        if entry.not_after <= now_unix:
            records.forget_waiting(entry.node_id)
        else:
            entries[entry.node_id] = entry
    known = entries.get(request.node_id)
    if known is not None and (known.invite_id, known.name) == (invite.invite_id, request.name):
        if known.decision == Decision.APPROVED:
            return False
        if known.decision == Decision.NONE:
            raise RemoteProtocolError(Reason.WAITING)
    if known is not None and known.decision == Decision.REFUSED and known.invite_id == invite.invite_id:
        raise RemoteProtocolError(Reason.REFUSED)  # another name does not ask anew
    others = [entry for entry in entries.values() if entry.node_id != request.node_id]
    of_invite = sum(entry.invite_id == invite.invite_id for entry in others)
    if len(others) >= WAITING_COUNT_MAX or of_invite >= WAITING_PER_INVITE_MAX:
        raise RemoteProtocolError(Reason.BUSY, "too many nodes wait for a person")
    asked = Waiting(request.node_id, request.name, invite.invite_id, now_unix, invite.not_after, str(Decision.NONE))
    records.save_waiting(asked)
    return True


def decide(records: WaitingRecords, node_id: NodeId, decision: Decision, *, name: str | None) -> Waiting:
    """Record what a person said of a node that waits.  Raises RemoteProtocolError: unknown-node.

    name: under which the person saw it; None: whatever it asks for.  A node can ask under another name meanwhile.
    """
    for entry in records.waiting():
        if entry.node_id == node_id and name in (None, entry.name):
            decided = dataclasses.replace(entry, decision=str(decision))
            records.save_waiting(decided)
            return decided
    raise RemoteProtocolError(Reason.UNKNOWN_NODE)
