"""An issuer in memory: its records, its invitations, and a way to ask it."""

from __future__ import annotations

import contextlib
import dataclasses
import random
from ipaddress import IPv4Network
from typing import Any

import pytest
from kit.builders import NOW_UNIX, make_grant, make_realm, node_keys, signing_key

from conflux.errors import RemoteProtocolError
from conflux.ids import NodeId, RealmId
from conflux.realm.audit import START, Head, decode_line, digest_of
from conflux.realm.clock import RealmClock
from conflux.realm.credential import Chain
from conflux.realm.invite import Invite, Token, make_invite
from conflux.realm.issued import Issued
from conflux.realm.issuer import Issuer
from conflux.realm.join import REFUSALS, JoinAnswer, JoinRequest
from conflux.realm.waiting import Waiting

REALM = make_realm()
BINDING = b"B" * 32
NONCE = b"N" * 32


class Log:
    """AuditLog in memory."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def head(self) -> Head:
        return Head(len(self.lines), digest_of(self.lines[-1])) if self.lines else Head(0, START)

    def torn_bytes(self) -> int:
        return 0

    def append(self, line: bytes) -> None:
        self.lines.append(line)

    def acts(self) -> list[tuple[str, str]]:
        """Return what is on record, and of whom."""
        return [(entry.what, entry.name) for entry in map(decode_line, self.lines)]


class Records:
    """IssuerRecords in memory, with the order of the saves."""

    def __init__(self) -> None:
        self.nodes: dict[NodeId, Issued] = {}
        self.invitations: dict[bytes, Invite] = {}
        self.saved: list[str] = []
        self.log = Log()
        self.queue: dict[NodeId, Waiting] = {}

    def transaction(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def issued(self) -> list[Issued]:
        return list(self.nodes.values())

    def save_issued(self, entry: Issued) -> None:
        self.saved.append("issued")
        self.nodes[entry.node_id] = Issued.decode_untrusted(entry.encode())

    def forget_issued(self, node_id: NodeId) -> None:
        self.nodes.pop(node_id, None)

    def forget_invite(self, invite_id: bytes) -> None:
        self.invitations.pop(invite_id, None)

    def waiting(self) -> list[Waiting]:
        return list(self.queue.values())

    def save_waiting(self, entry: Waiting) -> None:
        self.queue[entry.node_id] = Waiting.decode_untrusted(entry.encode())

    def forget_waiting(self, node_id: NodeId) -> None:
        self.queue.pop(node_id, None)

    def audit(self, realm_id: RealmId) -> Log:
        return self.log

    def invite(self, invite_id: bytes) -> Invite | None:
        return self.invitations.get(invite_id)

    def save_invite(self, invite: Invite) -> None:
        self.saved.append("invite")
        self.invitations[invite.invite_id] = Invite.decode_untrusted(invite.encode())


class Office:
    """An issuer by grant, its records, and a way to invite."""

    def __init__(self, *, block: IPv4Network | None = None, grant_ends: int = NOW_UNIX + 10**8) -> None:
        self.key = signing_key("issuer")
        grant = make_grant(REALM, self.key, not_after=grant_ends)
        if block is not None:
            grant = dataclasses.replace(grant, ipv4_block=block).sign(REALM.root, REALM.anchor.realm_id)
        self.records = Records()
        self.issuer = Issuer(self.key, REALM.anchor, grant, self.records)
        self.entropy = random.Random(1).randbytes

    def invite(self, **choice: Any) -> Token:
        """Return the token of a new invitation."""
        invite, token = make_invite(
            REALM.anchor, self.issuer.issuer_id, now_unix=NOW_UNIX, entropy=self.entropy, **choice
        )
        self.records.save_invite(invite)
        self.records.saved.clear()
        return token

    def join(self, token: Token, name: str, *, now_unix: int = NOW_UNIX, binding: bytes = BINDING) -> JoinAnswer:
        """Let the node of that name in."""
        request = JoinRequest.build(token, node_keys(name), name, binding=binding, nonce=NONCE)
        return self.issuer.join(request, binding=binding, now_unix=now_unix)

    def refusal(self, request: JoinRequest, *, now_unix: int = NOW_UNIX, binding: bytes = BINDING) -> str:
        """Return the reason of the refusal, having made sure that nothing was recorded."""
        nodes, invitations = dict(self.records.nodes), dict(self.records.invitations)
        with pytest.raises(RemoteProtocolError) as caught:
            self.issuer.join(request, binding=binding, now_unix=now_unix)
        assert (self.records.nodes, self.records.invitations) == (nodes, invitations)
        assert caught.value.reason in REFUSALS
        return caught.value.reason


def clock(now_unix: int = NOW_UNIX) -> RealmClock:
    """Return a realm's clock that stands still."""
    return RealmClock(0, system=lambda: now_unix, save=lambda date: None)


def request_of(token: Token, name: str = "alpha") -> JoinRequest:
    """Return the request of the node of that name."""
    return request_as(token, name, name)


def request_as(token: Token, keys: str, name: str) -> JoinRequest:
    """Return the request of one node for a name."""
    return JoinRequest.build(token, node_keys(keys), name, binding=BINDING, nonce=NONCE)


def renewal_refusal(office: Office, chain: Chain, now_unix: int = NOW_UNIX) -> str:
    """Return why a renewal is refused."""
    with pytest.raises(RemoteProtocolError) as caught:
        office.issuer.renew(chain, now_unix=now_unix)
    return caught.value.reason
