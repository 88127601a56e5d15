"""A credential is renewed in time, by its issuer, and only for its own node."""

import re

import pytest
from kit.renewing import Pair, exchange, message

from conflux.cli import parser
from conflux.control.envelope import Kind
from conflux.daemon import issuing
from conflux.errors import RemoteProtocolError
from conflux.ids import NodeId
from conflux.realm.credential import CREDENTIAL_LIFETIME_S, Chain


@pytest.fixture
def world(tmp_path):
    return Pair(tmp_path)


def test_a_credential_is_not_renewed_before_two_thirds_of_its_life(world):
    world.now_unix += CREDENTIAL_LIFETIME_S * 2 // 3 - 1
    world.kitchen.renewal.check(now=1.0)
    assert world.kitchen.asked == []
    assert world.kitchen.renewal.warnings() == []


def test_a_credential_that_is_due_is_renewed_by_its_issuer_and_used_at_once(world):
    before = world.kitchen.renewal.member
    world.now_unix += CREDENTIAL_LIFETIME_S * 2 // 3
    world.kitchen.renewal.check(now=1.0)
    assert "not-renewed" in world.kitchen.renewal.warnings()[0]
    exchange(world)
    (after,) = world.kitchen.adopted
    assert after.chain.not_after == world.now_unix + CREDENTIAL_LIFETIME_S
    assert (after.name, after.addresses, after.keys) == (before.name, before.addresses, before.keys)
    assert world.kitchen.renewal.warnings() == []


def test_an_issuer_renews_its_own_credential_without_a_message(world):
    world.now_unix += CREDENTIAL_LIFETIME_S * 2 // 3
    world.gate.renewal.check(now=1.0)
    (after,) = world.gate.adopted
    assert after.chain.credential.capabilities == ("issuer", "relay")
    assert world.gate.asked == []


def test_an_issuer_that_is_silent_is_asked_again_later_and_not_at_once(world):
    world.now_unix += CREDENTIAL_LIFETIME_S * 2 // 3
    for now in range(0, 600, 60):
        world.kitchen.renewal.check(now=float(now))
    assert len(world.kitchen.asked) == 1
    world.kitchen.renewal.check(now=4300.0)
    assert len(world.kitchen.asked) == 2


def test_an_answer_that_comes_twice_changes_nothing(world):
    world.now_unix += CREDENTIAL_LIFETIME_S * 2 // 3
    world.kitchen.renewal.check(now=1.0)
    exchange(world)
    kind, body = world.gate.answered[-1]
    world.kitchen.receive(message(world.gate.renewal.member.node_id, kind, body))
    assert len(world.kitchen.adopted) == 1


@pytest.mark.parametrize(
    ("reason", "receive"),
    [
        # Another member carries the kitchen's credential to the issuer.
        ("not-yours", lambda w: w.gate.receive(message(NodeId(b"x" * 16), Kind.RENEW, chain(w)))),
        ("malformed", lambda w: w.gate.receive(message(kitchen(w), Kind.RENEW, b"\x80"))),
        ("not-issuer", lambda w: w.kitchen.receive(message(gate(w), Kind.RENEW, chain(w)))),
        ("wrong-issuer", lambda w: w.kitchen.receive(message(NodeId(b"x" * 16), Kind.RENEWED, chain(w)))),
        ("wrong-answer", lambda w: w.kitchen.receive(message(gate(w), Kind.RENEWED, others_chain(w)))),
        ("bad-signature", lambda w: w.kitchen.receive(message(gate(w), Kind.RENEWED, forged(w)))),
    ],
)
def test_a_message_that_breaks_a_rule_is_refused_and_nothing_changes(world, reason, receive):
    before = world.kitchen.renewal.member
    with pytest.raises(RemoteProtocolError) as caught:
        receive(world)
    assert caught.value.reason in (reason, "auth")
    assert world.kitchen.renewal.member is before
    assert world.kitchen.adopted == world.gate.answered == []


def kitchen(world: Pair) -> NodeId:
    return world.kitchen.renewal.member.node_id


def gate(world: Pair) -> NodeId:
    return world.gate.renewal.member.node_id


def chain(world: Pair) -> bytes:
    return world.kitchen.renewal.member.chain.encode()


def others_chain(world: Pair) -> bytes:
    """A valid chain with a newer serial, of the issuer itself."""
    world.now_unix += 1
    issuer = world.gate.issuing.issuer
    return issuer.renew(world.gate.renewal.member.chain, now_unix=world.now_unix).encode()


def forged(world: Pair) -> bytes:
    issuer = world.gate.issuing.issuer
    fresh = issuer.renew(world.kitchen.renewal.member.chain, now_unix=world.now_unix)
    tampered = bytearray(fresh.encode())
    at = bytes(tampered).index(b"kitchen")
    tampered[at : at + 7] = b"kitchin"
    return Chain.decode_untrusted(bytes(tampered)).encode()


def test_an_expired_credential_is_a_warning(world):
    world.now_unix += CREDENTIAL_LIFETIME_S
    assert any(warning.startswith("expired:") for warning in world.kitchen.renewal.warnings())


COMMAND = re.compile(r"conflux ((?:realm )?[a-z]+(?: TOKEN| FILE)?)")


def commands(warnings: list[str]) -> list[str]:
    """The commands in the last warning, each one that the command line takes."""
    found = COMMAND.findall(warnings[-1])
    for words in found:
        parser.parser().parse_args(words.split())  # SystemExit: no such command
    return found


def test_each_warning_prints_the_commands_that_end_it(world):
    world.now_unix += CREDENTIAL_LIFETIME_S * 2 // 3
    due = world.kitchen.renewal.warnings()
    assert due[-1].startswith("not-renewed: the credential ends in 10 days")
    assert commands(due) == ["up", "realm restore FILE", "up"]
    world.now_unix += CREDENTIAL_LIFETIME_S
    assert commands(world.kitchen.renewal.warnings()) == ["up", "realm invite", "down", "join TOKEN", "up"]
    assert commands(world.gate.renewal.warnings()) == ["down", "up"]
    world.now_unix += 6 * 365 * 86400
    world.gate.renewal.check(now=1.0)
    assert commands(world.gate.renewal.warnings()[:1]) == ["down", "up", "down", "realm restore FILE", "up"]


@pytest.mark.parametrize("days", [20, 35, 400, 1800])
def test_an_issuer_renews_itself_whatever_the_date(world, days):
    world.now_unix += days * 86400
    world.gate.renewal.check(now=1.0)
    assert world.gate.renewal.member.chain.not_after > world.now_unix
    assert not any("expired" in warning for warning in world.gate.renewal.warnings())


def test_an_issuer_that_cannot_renew_itself_says_why(world):
    world.now_unix += 6 * 365 * 86400  # its grant has ended too
    world.gate.renewal.check(now=1.0)
    assert "cannot renew its own credential: grant-expired" in world.gate.renewal.warnings()[0]


def test_an_issuer_whose_records_cannot_be_written_says_why_and_tries_again_later(world):
    world.now_unix += CREDENTIAL_LIFETIME_S * 2 // 3
    kept = world.path.rename(world.path.with_name("elsewhere"))
    world.gate.renewal.check(now=1.0)
    assert str(world.path) in world.gate.renewal.warnings()[0]
    kept.rename(world.path)
    world.gate.renewal.check(now=4300.0)
    assert len(world.gate.adopted) == 1
    assert world.gate.renewal.warnings() == []


def test_a_member_is_renewed_once_a_minute_at_most(world):
    asking = message(kitchen(world), Kind.RENEW, chain(world))
    world.gate.receive(asking)
    for _ in range(20):
        with pytest.raises(RemoteProtocolError, match="too-soon"):
            world.gate.receive(asking)
    assert len(world.gate.answered) == 1
    world.now_unix += issuing.RENEW_S_MIN
    world.gate.receive(asking)
    assert len(world.gate.answered) == 2


def test_an_issuer_is_looked_for_once_it_was_asked_in_vain_or_the_credential_ended(world):
    assert not world.kitchen.renewal.is_lost()
    world.now_unix += CREDENTIAL_LIFETIME_S * 2 // 3
    for now in (0.0, 4000.0):
        assert not world.kitchen.renewal.is_lost()
        world.kitchen.renewal.check(now=now)
    assert world.kitchen.renewal.is_lost()
    exchange(world)
    assert not world.kitchen.renewal.is_lost()
    world.now_unix += CREDENTIAL_LIFETIME_S
    assert world.kitchen.renewal.is_lost()
    assert not world.gate.renewal.is_lost(), "who issues for itself asks nobody"
