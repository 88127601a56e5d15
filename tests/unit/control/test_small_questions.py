"""Questions without a card: who hears one, who asks back, and how long "no" is remembered."""

from __future__ import annotations

import itertools
import random

import pytest
from kit.control import Station, World

from conflux.control.channel import Handoff
from conflux.control.choice import Handed
from conflux.control.envelope import Envelope, Inner, Kind
from conflux.control.event import Unanswered
from conflux.control.giving import ASKED_BACK_EACH
from conflux.control.missing import COUNT_MAX as MISSING_COUNT_MAX
from conflux.control.missing import FAR_S as MISSING_FAR_S
from conflux.control.missing import NEAR_S as MISSING_S
from conflux.control.questions import SURE, TIMEOUT_S, Ended, Questions
from conflux.control.who import Question, Who
from conflux.ids import NodeId
from conflux.realm import card as card_module

NOBODY = Who(name="nobody")


def asked(station: Station) -> list[tuple[Who, bool]]:
    """Return what a station asked for, and whether with its card."""
    found = []
    for envelope in station.sent:
        if envelope.key_id is None:
            inner = Inner.decode_untrusted(envelope.payload)
            if inner.kind == Kind.WHO:
                question = Question.decode_untrusted(inner.body)
                found.append((question.who, bool(question.card)))
    return found


def question_of(station: Station, who: Who, seq: int = 1) -> Envelope:
    """Return a station's question without a card, for all."""
    author = station.plane._author
    message = author.sign(None, seq, Kind.WHO, Question(who, b"").encode())
    return author.envelope(None, None, message, bucket=who.bucket)


def test_question_for_many_is_small() -> None:
    world = World("alice", "bob")
    assert len(question_of(world["alice"], Who(name="bob")).encode()) < 250


def test_owner_that_does_not_know_the_asker_asks_back_and_both_have_each_others_card() -> None:
    world = World("alice", "bob", "carol")
    alice, bob = world["alice"], world["bob"]
    alice.plane.who(Who(name="bob"), now=world.now)
    world.run(0.2)
    assert [found.card for found in alice.found()] == [bob.plane.own_card]
    assert bob.plane.card(alice.node) == alice.plane.own_card
    assert asked(alice) == [(Who(name="bob"), False)]
    assert asked(bob) == [(Who(node=alice.node), True)]
    assert world["carol"].sent == []


def test_owner_that_knows_the_asker_answers_at_once() -> None:
    world = World("alice", "bob")
    alice, bob = world["alice"], world["bob"]
    bob.plane.who(Who(name="alice"), now=world.now)
    world.run(0.2)
    alice.plane._book.remove(bob.node)
    bob.sent.clear()
    alice.plane.who(Who(name="bob"), now=world.now)
    world.run(0.2)
    assert alice.found()[-1].card == bob.plane.own_card
    assert asked(bob) == []


def test_forged_question_in_the_name_of_a_known_node_is_dropped() -> None:
    world = World("alice", "bob", "mallory")
    alice, bob = world["alice"], world["bob"]
    bob.plane.who(Who(name="alice"), now=world.now)
    world.run(0.2)
    bob.sent.clear()
    forged = Inner(alice.node, alice.plane.boot, 2**40, Kind.WHO, 0, Question(Who(name="bob"), b"").encode(), bytes(64))
    world.inject(bob, world["mallory"].plane._author.envelope(None, None, forged.encode()))
    assert bob.sent == []
    assert bob.plane.drops["bad-signature"] == 1


def test_made_up_askers_are_asked_back_within_a_budget() -> None:
    world = World("bob", "mallory")
    bob, author = world["bob"], world["mallory"].plane._author
    for number in range(100):
        inner = Inner(
            NodeId(number.to_bytes(16)), author.boot, 1, Kind.WHO, 0, Question(Who(name="bob"), b"").encode(), bytes(64)
        )
        world.inject(bob, author.envelope(None, None, inner.encode()), via=world["mallory"].node)
    assert len(asked(bob)) <= ASKED_BACK_EACH.burst + 1
    assert {with_card for _, with_card in asked(bob)} == {True}


def test_question_of_a_revoked_node_is_not_asked_back() -> None:
    world = World("alice", "bob")
    alice, bob = world["alice"], world["bob"]
    bob.plane.lists.book.denies = lambda node, *issuer: node == alice.node
    world.inject(bob, question_of(alice, Who(name="bob")))
    assert asked(bob) == []
    assert bob.plane.drops["revoked"] == 1


def test_repetition_carries_the_card_if_a_node_of_an_earlier_build_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr("conflux.control.author.FEATURES_OF_BUILD", (card_module.ONE_SLOT,))
        world = World("alice", "bob")
        world["alice"].plane.who(Who(node=world["bob"].node), now=world.now)
        world.run(0.2)
    world["alice"].sent.clear()
    world["alice"].plane.who(NOBODY, now=world.now)
    world.run(3.2)
    assert asked(world["alice"]) == [(NOBODY, False), *[(NOBODY, True)] * 3]


def test_what_lan_neighbours_took_is_asked_once() -> None:
    machine = Questions(next_seq=itertools.count(1).__next__, rng=random.Random(1))
    machine.ask(NOBODY, asked=True, quiet=False, now=0.0)
    assert machine.next_ask() is not None
    machine.handed_off(1, Handed(Handoff.ACCEPTED, SURE), now=0.0)
    machine.handle_timeout(now=2.9)
    assert machine.next_ask() is None
    machine.hurry(now=2.9)  # a neighbour is new
    machine.handle_timeout(now=2.9)
    assert machine.next_ask() is not None
    machine.handle_timeout(now=TIMEOUT_S + 3)
    assert machine.next_end() == Ended(NOBODY, True, Unanswered.NO_ANSWER)


def test_no_is_remembered_for_half_a_minute() -> None:
    world = World("alice", "bob")
    alice = world["alice"]
    alice.plane.who(NOBODY, now=world.now)
    world.run(3.2)
    alice.sent.clear()
    alice.plane.who(NOBODY, now=world.now)
    world.drain()
    assert [failed.reason for failed in alice.not_found()] == ["no-answer"] * 2
    assert asked(alice) == []
    world.run(MISSING_S)
    alice.plane.who(NOBODY, now=world.now)
    world.run(0.1)
    assert asked(alice) == [(NOBODY, False)]


def test_no_is_forgotten_when_a_node_is_new() -> None:
    world = World("alice", "bob")
    alice = world["alice"]
    alice.plane.who(Who(name="carol"), now=world.now)
    world.run(3.2)
    world.start("carol")
    alice.plane.peer_returned(world["carol"].node, now=world.now)
    alice.plane.who(Who(name="carol"), now=world.now)
    world.run(0.2)
    assert [found.card.name for found in alice.found()] == ["carol"]


def test_so_many_noes_are_remembered() -> None:
    world = World("alice")
    plane = world["alice"].plane
    for number in range(MISSING_COUNT_MAX + 10):
        plane._missing.note(Who(name=f"n{number}"), world.now)
    assert len(plane._missing._until) == MISSING_COUNT_MAX


@pytest.mark.parametrize("by", ["bridge", "broker"])
def test_no_is_soon_forgotten_where_more_nodes_than_the_neighbours_are_asked(by: str) -> None:
    world = World("alice", "bob")
    alice = world["alice"]
    if by == "bridge":
        alice.plane.bridge_up()
    else:
        alice.plane.channel_up(now=world.now)
    alice.plane.who(NOBODY, now=world.now)
    world.run(3.1)
    alice.sent.clear()
    world.run(MISSING_FAR_S)
    alice.plane.who(NOBODY, now=world.now)
    world.run(0.1)
    assert asked(alice) == [(NOBODY, False)]
