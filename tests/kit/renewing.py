"""A founder and a member with their parts of renewal, and the messages between them carried by hand."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from kit.builders import NOW_UNIX
from kit.founded import gate_in

from conflux.control.envelope import Kind
from conflux.control.event import Message
from conflux.daemon.issuing import Issuing
from conflux.daemon.renewal import Renewal
from conflux.ids import BootId, NodeId
from conflux.realm.clock import RealmClock
from conflux.realm.credential import Grant
from conflux.realm.identity import NodeKeys
from conflux.realm.issuer import Issuer
from conflux.realm.join import OfflineRequest, accept_offline_untrusted
from conflux.realm.member import Member
from conflux.state.founding import issuer_of

LATE_S = 90 * 86400  # for how long the founder renews what has expired


class Party:
    """One node's renewal, and what it asked, answered and adopted."""

    def __init__(self, member: Member, issuer: Issuer | None, system: Callable[[], float]) -> None:
        self.asked: list[tuple[NodeId, Kind, bytes]] = []
        self.answered: list[tuple[Kind, bytes]] = []
        self.adopted: list[Member] = []
        self.given: dict[NodeId, Grant] = {}
        self.taken: list[Grant] = []
        self.denied: set[NodeId | None] = set()
        self.clock = RealmClock(0, system=system, save=lambda date: None)
        self.renewal = Renewal(
            member,
            lambda: issuer,
            self.clock,
            rng=random.Random(1),
            ask=self.ask,
            answer=lambda message, kind, body: self.answered.append((kind, body)),
            adopted=self.adopted.append,
            denies=self.denies,
        )
        self.issuing = Issuing(
            issuer,
            self.clock,
            late_s=LATE_S,
            grant_of=lambda node: self.given.get(node),
            take=self.take,
            look=lambda: None,
            ask=self.ask,
            answer=lambda message, kind, body: self.answered.append((kind, body)),
            adopt=self.renewal.adopt,
            denies=self.denies,
        )

    def denies(self, node: NodeId, issuer: NodeId | None) -> bool:
        """Say whether a node or its issuer is among the denied."""
        return node in self.denied or issuer in self.denied

    def ask(self, to: NodeId, kind: Kind, body: bytes) -> int:
        """Note a message that wants an answer; its token is its place."""
        self.asked.append((to, kind, body))
        return len(self.asked)

    def take(self, grant: Grant) -> Issuer | None:
        """Note a grant."""
        self.taken.append(grant)
        return None

    def receive(self, given: Message, now: float = 0.0) -> None:
        """Take a message, as the daemon hands it on."""
        if given.kind is Kind.RENEWED:
            self.renewal.receive(given, now=now)
        else:
            self.issuing.receive(given, now=now)


class Pair:
    """gate founded the realm, and let kitchen in."""

    def __init__(self, path: Path) -> None:
        self.now_unix = NOW_UNIX
        self.path = path
        state = gate_in(path)
        gate = state.member()
        assert gate is not None
        issuer = issuer_of(state, gate)
        assert issuer is not None
        keys = NodeKeys.generate()
        request = OfflineRequest.build(keys, "kitchen", nonce=bytes(32))
        answer = issuer.admit(request, now_unix=NOW_UNIX).encode()
        clock = RealmClock(0, system=lambda: NOW_UNIX, save=lambda date: None)
        kitchen = accept_offline_untrusted(answer, request, keys, clock)
        self.gate = Party(gate, issuer, lambda: self.now_unix)
        self.kitchen = Party(kitchen, None, lambda: self.now_unix)


def message(peer: NodeId, kind: Kind, body: bytes, re: int = 0) -> Message:
    """Return a verified message, as the plane hands it on."""
    return Message(peer, kind, body, 1, re, BootId(bytes(8)))


def exchange(world: Pair) -> None:
    """Carry the kitchen's request to the gate, and its answer back."""
    to, kind, body = world.kitchen.asked[-1]
    assert to == world.gate.renewal.member.node_id
    world.gate.receive(message(world.kitchen.renewal.member.node_id, kind, body))
    kind, body = world.gate.answered[-1]
    world.kitchen.receive(message(to, kind, body, re=1))
