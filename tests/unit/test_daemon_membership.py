"""Credentials are renewed in time, by the issuer that gave them, and for their own node only."""

import random

import pytest
from builders import NOW_UNIX

from conflux import membership
from conflux.control.channel import Kind
from conflux.control.event import Message
from conflux.errors import RemoteProtocolError
from conflux.ids import BootId, NodeId
from conflux.membership import Membership
from conflux.realm.clock import RealmClock
from conflux.realm.credential import CREDENTIAL_LIFETIME_S, Chain
from conflux.realm.founding import found_realm, issuer_of
from conflux.realm.identity import NodeKeys
from conflux.realm.join import OfflineRequest, accept_offline_untrusted
from conflux.realm.member import Member
from conflux.realm.store import StateDir


class Side:
    """One node's membership, with what it asked, answered and adopted."""

    def __init__(self, member, issuer, system):
        self.asked: list[tuple[NodeId, Kind, bytes]] = []
        self.answered: list[tuple[Kind, bytes]] = []
        self.adopted: list[Member] = []
        self.clock = RealmClock(0, system=system, save=lambda date: None)
        self.membership = Membership(
            member,
            issuer,
            self.clock,
            rng=random.Random(1),
            ask=lambda *what: self.asked.append(what),
            answer=lambda message, kind, body: self.answered.append((kind, body)),
            adopted=self.adopted.append,
        )


class World:
    def __init__(self, path):
        self.now_unix = NOW_UNIX
        self.path = path
        state = StateDir.open(path, create=True)
        gate = found_realm(state, "home", "gate", now_unix=NOW_UNIX, entropy=random.Random(2).randbytes)
        issuer = issuer_of(state, gate)
        keys = NodeKeys.generate()
        request = OfflineRequest.build(keys, "kitchen", nonce=bytes(32))
        answer = issuer.admit(request, now_unix=NOW_UNIX).encode()
        clock = RealmClock(0, system=lambda: NOW_UNIX, save=lambda date: None)
        kitchen = accept_offline_untrusted(answer, request, keys, clock)
        self.gate = Side(gate, issuer, lambda: self.now_unix)
        self.kitchen = Side(kitchen, None, lambda: self.now_unix)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def message(peer: NodeId, kind: Kind, body: bytes) -> Message:
    return Message(peer, kind, body, 1, 0, BootId(bytes(8)))


def exchange(world: World) -> None:
    """Carry the kitchen's question to the gate, and its answer back."""
    to, kind, body = world.kitchen.asked[-1]
    assert to == world.gate.membership.member.node_id
    world.gate.membership.receive(message(world.kitchen.membership.member.node_id, kind, body))
    kind, body = world.gate.answered[-1]
    world.kitchen.membership.receive(message(to, kind, body))


def test_before_two_thirds_of_its_life_a_credential_is_left_alone(world):
    world.now_unix += CREDENTIAL_LIFETIME_S * 2 // 3 - 1
    world.kitchen.membership.check(now=1.0)
    assert world.kitchen.asked == []
    assert world.kitchen.membership.warnings() == []


def test_from_then_on_it_is_renewed_by_its_issuer_and_used_at_once(world):
    before = world.kitchen.membership.member
    world.now_unix += CREDENTIAL_LIFETIME_S * 2 // 3
    world.kitchen.membership.check(now=1.0)
    assert "not-renewed" in world.kitchen.membership.warnings()[0]
    exchange(world)
    (after,) = world.kitchen.adopted
    assert after.chain.not_after == world.now_unix + CREDENTIAL_LIFETIME_S
    assert (after.name, after.addresses, after.keys) == (before.name, before.addresses, before.keys)
    assert world.kitchen.membership.warnings() == []


def test_the_issuer_renews_its_own_without_asking_anybody(world):
    world.now_unix += CREDENTIAL_LIFETIME_S * 2 // 3
    world.gate.membership.check(now=1.0)
    (after,) = world.gate.adopted
    assert after.chain.credential.capabilities == ("issuer", "relay")
    assert world.gate.asked == []


def test_an_issuer_that_is_silent_is_asked_again_later_and_not_at_once(world):
    world.now_unix += CREDENTIAL_LIFETIME_S * 2 // 3
    for now in range(0, 600, 60):
        world.kitchen.membership.check(now=float(now))
    assert len(world.kitchen.asked) == 1
    world.kitchen.membership.check(now=4300.0)
    assert len(world.kitchen.asked) == 2


def test_an_answer_that_comes_twice_changes_nothing(world):
    world.now_unix += CREDENTIAL_LIFETIME_S * 2 // 3
    world.kitchen.membership.check(now=1.0)
    exchange(world)
    kind, body = world.gate.answered[-1]
    world.kitchen.membership.receive(message(world.gate.membership.member.node_id, kind, body))
    assert len(world.kitchen.adopted) == 1


@pytest.mark.parametrize(
    ("reason", "receive"),
    [
        # Another member carries the kitchen's credential to the issuer.
        ("not-yours", lambda w: w.gate.membership.receive(message(NodeId(b"x" * 16), Kind.RENEW, chain(w)))),
        ("malformed", lambda w: w.gate.membership.receive(message(kitchen(w), Kind.RENEW, b"\x80"))),
        ("not-issuer", lambda w: w.kitchen.membership.receive(message(gate(w), Kind.RENEW, chain(w)))),
        ("wrong-issuer", lambda w: w.kitchen.membership.receive(message(NodeId(b"x" * 16), Kind.RENEWED, chain(w)))),
        ("wrong-answer", lambda w: w.kitchen.membership.receive(message(gate(w), Kind.RENEWED, others_chain(w)))),
        ("bad-signature", lambda w: w.kitchen.membership.receive(message(gate(w), Kind.RENEWED, forged(w)))),
    ],
)
def test_what_breaks_a_rule_is_refused_and_nothing_changes(world, reason, receive):
    before = world.kitchen.membership.member
    with pytest.raises(RemoteProtocolError) as caught:
        receive(world)
    assert caught.value.reason in (reason, "auth")
    assert world.kitchen.membership.member is before
    assert world.kitchen.adopted == world.gate.answered == []


def kitchen(world: World) -> NodeId:
    return world.kitchen.membership.member.node_id


def gate(world: World) -> NodeId:
    return world.gate.membership.member.node_id


def chain(world: World) -> bytes:
    return world.kitchen.membership.member.chain.encode()


def others_chain(world: World) -> bytes:
    """A valid chain with a newer serial, of the issuer itself."""
    world.now_unix += 1
    issuer = world.gate.membership._issuer
    return issuer.renew(world.gate.membership.member.chain, now_unix=world.now_unix).encode()


def forged(world: World) -> bytes:
    issuer = world.gate.membership._issuer
    fresh = issuer.renew(world.kitchen.membership.member.chain, now_unix=world.now_unix)
    tampered = bytearray(fresh.encode())
    at = bytes(tampered).index(b"kitchen")
    tampered[at : at + 7] = b"kitchin"
    return Chain.decode_untrusted(bytes(tampered)).encode()


def test_an_expired_credential_is_said_aloud(world):
    world.now_unix += CREDENTIAL_LIFETIME_S
    assert any(warning.startswith("expired:") for warning in world.kitchen.membership.warnings())


def test_an_issuer_that_cannot_renew_itself_says_why(world):
    world.now_unix += CREDENTIAL_LIFETIME_S
    world.gate.membership.check(now=1.0)
    assert "cannot renew its own credential" in world.gate.membership.warnings()[0]


def test_an_issuer_whose_records_cannot_be_written_says_why_and_tries_again_later(world):
    world.now_unix += CREDENTIAL_LIFETIME_S * 2 // 3
    kept = world.path.rename(world.path.with_name("elsewhere"))
    world.gate.membership.check(now=1.0)
    assert str(world.path) in world.gate.membership.warnings()[0]
    kept.rename(world.path)
    world.gate.membership.check(now=4300.0)
    assert len(world.gate.adopted) == 1
    assert world.gate.membership.warnings() == []


def test_a_member_that_asks_all_the_time_is_not_signed_for_all_the_time(world):
    asking = message(kitchen(world), Kind.RENEW, chain(world))
    world.gate.membership.receive(asking)
    for _ in range(20):
        with pytest.raises(RemoteProtocolError, match="too-soon"):
            world.gate.membership.receive(asking)
    assert len(world.gate.answered) == 1
    world.now_unix += membership.RENEW_S_MIN
    world.gate.membership.receive(asking)
    assert len(world.gate.answered) == 2
