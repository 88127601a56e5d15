"""A sealed message that came before its sender's card waits for it: a bounded number, for a bounded time, unproven."""

from __future__ import annotations

from kit.builders import make_member, make_realm
from kit.control import World
from kit.envelopes import inner_of, sealed_to

from conflux.control.channel import Arrival
from conflux.control.envelope import Envelope, Inner, Kind
from conflux.control.event import Heard
from conflux.control.kept import KEPT_COUNT_MAX, KEPT_LIFETIME_S, KeptMessages
from conflux.control.who import Who
from conflux.ids import BootId, NodeId


def alice_and_bob() -> World:
    """A world in which both have each other's cards, and nothing else has happened."""
    world = World("alice", "bob")
    world["alice"].plane.who(Who(name="bob"), now=world.now)
    world.run(3)
    world["bob"].seen.clear()
    return world


def inner(number: int, seq: int = 1) -> Inner:
    return Inner(NodeId(bytes([number]) * 16), BootId(bytes(8)), seq, Kind.OPEN, 0, b"", bytes(64))


def arrival() -> Arrival:
    return Arrival(Envelope(None, bytes(16), 1, None, b""), None, "sim")


def test_message_before_the_card_is_acted_on_when_the_card_comes() -> None:
    world = alice_and_bob()
    bob, carol = world["bob"], world.start("carol")
    world.inject(bob, sealed_to(bob, inner_of(carol.member, bob.node, Kind.OPEN, b"hi")))
    assert bob.messages() == []
    world.run(0.1)
    assert [message.body for message in bob.messages()] == [b"hi"]


def test_message_of_a_restarted_sender_is_acted_on_after_its_card_without_a_second_one() -> None:
    world = alice_and_bob()
    bob, alice = world["bob"], world.start("alice", boot=2)
    world.inject(bob, sealed_to(bob, inner_of(alice.member, bob.node, Kind.OPEN, b"again", boot=2)))
    world.run(0.1)
    kinds = [type(event).__name__ for event in bob.seen if not isinstance(event, Heard)]
    assert kinds == ["CardChanged", "Message"]


def test_message_that_its_sender_repeats_while_it_waits_is_acted_on_once() -> None:
    world = alice_and_bob()
    bob, carol = world["bob"], world.start("carol")
    message = inner_of(carol.member, bob.node, Kind.OPEN, b"hi")
    for number in (1, 2):
        world.inject(bob, sealed_to(bob, message, number=number))
    world.run(0.1)
    world.inject(bob, sealed_to(bob, message, number=3))
    assert [message.body for message in bob.messages()] == [b"hi"]


def test_forged_message_that_waited_is_dropped_when_the_card_comes() -> None:
    world = alice_and_bob()
    bob, carol = world["bob"], world.start("carol")
    forged = inner_of(carol.member, bob.node, Kind.OPEN, b"hi", signer=make_member(make_realm(), "mallory"))
    world.inject(bob, sealed_to(bob, forged))
    world.run(0.1)
    assert bob.messages() == []
    assert bob.plane.drops["bad-signature"] == 1


def test_question_and_card_are_never_kept() -> None:
    world = World("alice", "bob")
    world["alice"].plane.request(world["bob"].node, Kind.OPEN, b"hello", now=world.now)
    world.run(0.1)  # a WHO with a card, a CARD, an OPEN
    assert [message.body for message in world["bob"].messages()] == [b"hello"]
    assert world["bob"].plane.drops["unknown-sender"] == 0


def test_last_message_of_a_sender_is_kept() -> None:
    kept = KeptMessages()
    for seq in (1, 2):
        kept.keep(inner(1, seq), arrival(), 0.0)
    assert len(kept) == 1
    found = kept.take(inner(1).src, 0.0)
    assert found is not None
    assert found.inner.seq == 2
    assert kept.take(inner(1).src, 0.0) is None


def test_messages_are_kept_up_to_the_bound_and_one_more_displaces_the_oldest() -> None:
    kept = KeptMessages()
    for number in range(KEPT_COUNT_MAX + 1):
        kept.keep(inner(number), arrival(), 0.0)
    assert len(kept) == KEPT_COUNT_MAX
    assert kept.take(inner(0).src, 0.0) is None
    assert kept.take(inner(1).src, 0.0) is not None


def test_message_is_kept_for_its_lifetime_and_no_longer() -> None:
    kept = KeptMessages()
    kept.keep(inner(1), arrival(), 5.0)
    kept.keep(inner(2), arrival(), 5.0)
    assert kept.take(inner(1).src, 5.0 + KEPT_LIFETIME_S - 0.01) is not None
    assert kept.take(inner(2).src, 5.0 + KEPT_LIFETIME_S) is None
