"""What an issuer keeps of every node that it let in, and the interface of its records."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address
from types import MappingProxyType
from typing import Protocol

from conflux.crypto.sign import PUBLIC_BYTES
from conflux.ids import NODE_ID_BYTES, NodeId, RealmId
from conflux.realm import address
from conflux.realm.audit import AuditLog
from conflux.realm.credential import CAPABILITY_COUNT_MAX, TAG_COUNT_MAX, UNIX_S_MAX
from conflux.realm.invite import INVITE_ID_BYTES, Invite
from conflux.realm.name import label
from conflux.realm.waiting import WaitingRecords
from conflux.record import Record, flag, nested, octets, sequence, text, uint

FORMER_COUNT_MAX = 8  # chosen: names that one node may have had within the life of a credential


class End(StrEnum):
    """Why a membership ended before its credential did."""

    LEFT = "left"  # the node said so itself
    REPLACED = "replaced"  # another board came in its place, under its name
    REVOKED = "revoked"  # a person threw it out


@dataclass(frozen=True, slots=True)
class Former(Record):
    """A name that a node had before, and that a credential still says: no other node gets it until then."""

    SHAPES = (label(), uint(UNIX_S_MAX))

    name: str
    not_after: int  # unix seconds: when that credential ends


@dataclass(frozen=True, slots=True)
class Issued(Record):
    """An issuer's record of one node.

    A node whose credential has ended keeps its name and its address.  One whose membership was ended keeps neither: its
    record stays only so that no used invitation and no old credential brings it back.
    """

    VERSION = 3
    EARLIER = MappingProxyType({1: 8, 2: 15})
    BYTES_MAX = 8192
    SHAPES = (
        octets(NODE_ID_BYTES),
        label(),
        sequence(label(), TAG_COUNT_MAX),
        sequence(text(64), CAPABILITY_COUNT_MAX),
        address.ipv4(),
        uint(),
        uint(UNIX_S_MAX),
        uint(UNIX_S_MAX),
        octets(0, PUBLIC_BYTES),
        uint(UNIX_S_MAX),
        octets(0, INVITE_ID_BYTES),
        sequence(nested(Former), FORMER_COUNT_MAX),
        text(16),
        uint(UNIX_S_MAX),
        flag(),
        uint(UNIX_S_MAX),
        uint(UNIX_S_MAX),
    )

    node_id: NodeId
    name: str
    tags: tuple[str, ...]
    capabilities: tuple[str, ...]
    ipv4: IPv4Address
    serial: int
    lifetime_s: int
    not_after: int  # of the newest credential
    node_public: bytes = b""  # its keys; empty in a record of version 1, until the next renewal
    admitted_at: int = 0  # unix seconds; 0: not known
    invite_id: bytes = b""  # the invitation that let it in; empty: a person signed its request
    former: tuple[Former, ...] = ()
    end: str = ""  # a word of End; empty: it is a member
    ended_at: int = 0
    due: bool = False  # what is granted to it has changed since its newest credential
    withdrawn_at: int = 0  # unix seconds: what was signed until then grants a capability that was taken back; 0: none
    withdrawn_until: int = 0  # unix seconds: when the last credential of these ends

    @property
    def is_member(self) -> bool:
        """Whether its membership has not been ended; its credential may have run out."""
        return not self.end

    def holds(self, name: str, now_unix: int) -> bool:
        """Say whether no other node may get this name."""
        if not self.is_member:
            return False
        return self.name == name or any(old.name == name and old.not_after > now_unix for old in self.former)


class IssuerRecords(WaitingRecords, Protocol):
    """The records of an issuer.  Each save is durable before it returns."""

    def transaction(self) -> AbstractContextManager[object]:
        """Keep other processes of the issuer out until the context ends."""

    def issued(self) -> Iterable[Issued]:
        """Every node on record."""

    def save_issued(self, entry: Issued) -> None:
        """Record a node, in place of what was recorded under its id."""

    def forget_issued(self, node_id: NodeId) -> None:
        """Drop a node's record.  No-op if unknown."""

    def forget_invite(self, invite_id: bytes) -> None:
        """Drop an invitation.  No-op if unknown."""

    def audit(self, realm_id: RealmId) -> AuditLog:
        """Return the record of what was done, to add to it inside a transaction."""

    def invite(self, invite_id: bytes) -> Invite | None:
        """Return an invitation, or None."""

    def save_invite(self, invite: Invite) -> None:
        """Record an invitation, in place of what was recorded under its id."""
