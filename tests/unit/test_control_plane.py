"""The control plane: requests, answers, questions and recovery, in virtual time."""

from __future__ import annotations

import pytest
from builders import make_member, make_realm
from control_world import World

from conflux.control.channel import Kind
from conflux.control.envelope import Envelope, Inner
from conflux.control.event import Heard
from conflux.control.memory import Weather
from conflux.control.question import Who
from conflux.errors import LocalProtocolError


def acquainted(*names: str, **options: object) -> World:
    """A world whose nodes have each other's cards."""
    world = World(*names, **options)  # type: ignore[arg-type]
    for asker in world.stations.values():
        for other in world.stations.values():
            if asker is not other:
                asker.plane.who(Who(node=other.node), now=world.now)
    world.run(3.5)
    for station in world.stations.values():
        assert len(station.found()) == len(names) - 1
        station.seen.clear()
        station.sent.clear()
    world.traffic.clear()
    return world


def test_who_finds_a_node_by_address_name_and_id() -> None:
    for query in (
        Who(address=make_member(make_realm(), "bob").addresses[0]),
        Who(address=make_member(make_realm(), "bob").addresses[1]),
        Who(name="bob"),
        Who(node=make_member(make_realm(), "bob").node_id),
    ):
        world = World("alice", "bob", "carol")
        world["alice"].plane.who(query, now=world.now)
        world.run(0.2)
        (found,) = world["alice"].found()
        assert found.query == query
        assert found.card.name == "bob"
        # The question carried the asker's card, so the owner can seal an answer; nobody else kept it.
        assert world["bob"].plane.card(world["alice"].node) is not None
        assert world["carol"].plane.card(world["alice"].node) is None


def test_known_card_answers_who_without_a_message() -> None:
    world = acquainted("alice", "bob")
    world["alice"].plane.who(Who(name="bob"), now=world.now)
    world.drain()
    assert len(world["alice"].found()) == 1
    assert world["alice"].sent == []


def test_who_about_oneself_is_answered_at_once() -> None:
    world = World("alice")
    world["alice"].plane.who(Who(name="alice"), now=world.now)
    world.drain()
    assert world["alice"].found()[0].card == world["alice"].plane.own_card
    assert world["alice"].sent == []


def test_the_same_question_twice_is_one_question() -> None:
    world = World("alice", "bob")
    for _ in range(5):
        world["alice"].plane.who(Who(name="bob"), now=world.now)
    world.drain()
    assert len(world["alice"].sent) == 1
    world.run(0.2)
    assert len(world["alice"].found()) == 1


def test_nobody_owns_it_is_known_after_three_seconds() -> None:
    world = World("alice", "bob")
    world["alice"].plane.who(Who(name="nobody"), now=world.now)
    world.run(2.9)
    assert world["alice"].not_found() == []
    world.run(0.2)
    (failed,) = world["alice"].not_found()
    assert (failed.query, failed.reason) == (Who(name="nobody"), "no-answer")


def test_a_lost_question_is_asked_again() -> None:
    world = World("alice", "bob")
    world.lose.extend([world["bob"].node] * 2)
    world["alice"].plane.who(Who(name="bob"), now=world.now)
    world.run(1.5)
    assert len(world["alice"].found()) == 1


def test_a_node_that_is_no_neighbour_is_asked_for_in_the_area_at_once() -> None:
    world = World("alice", "bob")
    world["alice"].plane.who(Who(node=make_member(make_realm(), "ghost").node_id), now=world.now)
    world.run(0.01)
    targets = [Envelope.decode_untrusted(data).to for data in world["alice"].sent]
    assert targets[0] is not None
    assert targets[1] is None


def test_request_is_answered() -> None:
    world = acquainted("alice", "bob")
    token = world["alice"].plane.request(world["bob"].node, Kind.OPEN, b"hello", now=world.now)
    world.run(0.1)
    (question,) = world["bob"].messages()
    assert (question.peer, question.kind, question.body) == (world["alice"].node, Kind.OPEN, b"hello")
    world["bob"].plane.reply(question, Kind.ACCEPT, b"welcome", now=world.now)
    world.run(20)
    (answer,) = world["alice"].messages()
    assert (answer.peer, answer.kind, answer.body, answer.re) == (world["bob"].node, Kind.ACCEPT, b"welcome", token)
    assert world["alice"].failures() == []
    assert len(world["alice"].sent) == 1


def test_request_without_a_card_asks_for_it_first() -> None:
    world = World("alice", "bob")
    world["alice"].plane.request(world["bob"].node, Kind.OPEN, b"hello", now=world.now)
    world.run(0.1)
    assert [message.body for message in world["bob"].messages()] == [b"hello"]
    assert world["alice"].found() == []  # nobody called who()


def test_request_to_a_node_nobody_knows_fails_after_the_question() -> None:
    world = World("alice", "bob")
    ghost = make_member(make_realm(), "ghost").node_id
    token = world["alice"].plane.request(ghost, Kind.OPEN, b"", now=world.now)
    world.run(3.5)
    (failure,) = world["alice"].failures()
    assert (failure.peer, failure.token, failure.kind, failure.reason) == (ghost, token, Kind.OPEN, "unknown-peer")


def test_unanswered_request_is_repeated_unchanged_and_given_up_after_ten_seconds() -> None:
    world = acquainted("alice", "bob")
    world.hub.cut(world["alice"].node, world["bob"].node, silent=True)
    started_at = world.now
    times: list[float] = []
    token = world["alice"].plane.request(world["bob"].node, Kind.OPEN, b"hello", now=world.now)
    payloads: dict[bytes, int] = {}
    ids = set()
    while world.now < started_at + 9.9:
        before = len(world["alice"].sent)
        world.run(0.01)
        for data in world["alice"].sent[before:] if times else world["alice"].sent:
            envelope = Envelope.decode_untrusted(data)
            if envelope.key_id is not None:
                times.append(world.now - started_at)
                payloads[envelope.payload] = payloads.get(envelope.payload, 0) + 1
                ids.add(envelope.id)
    assert world["alice"].failures() == []
    assert len(times) == 4
    assert times == pytest.approx([0, 0.25, 1, 4], rel=0.21, abs=0.02)
    assert len(payloads) == 1
    assert len(ids) == 4  # each is a transmission of its own: forwarders remove duplicates by id
    world.run(0.2)
    assert [(failure.token, failure.reason) for failure in world["alice"].failures()] == [(token, "timeout")]


def test_duplicate_request_gets_the_identical_reply_and_acts_once() -> None:
    world = acquainted("alice", "bob")
    world["alice"].plane.request(world["bob"].node, Kind.OPEN, b"hello", now=world.now)
    world.run(0.1)
    (question,) = world["bob"].messages()
    world.lose.append(world["alice"].node)
    world["bob"].plane.reply(question, Kind.ACCEPT, b"welcome", now=world.now)
    world.run(1)
    assert len(world["bob"].messages()) == 1
    assert [answer.body for answer in world["alice"].messages()] == [b"welcome"]
    answers = [Envelope.decode_untrusted(data) for data in world["bob"].sent]
    answers = [envelope for envelope in answers if envelope.key_id is not None]
    assert len(answers) == 2
    assert answers[0].payload == answers[1].payload
    assert answers[0].id != answers[1].id


def test_withdrawn_request_is_not_sent_again_and_its_late_answer_is_still_taken() -> None:
    world = acquainted("alice", "bob")
    alice, bob = world["alice"], world["bob"]
    token = alice.plane.request(bob.node, Kind.OFFER, b"hello", now=world.now)
    world.run(0.1)
    alice.plane.withdraw(token)
    alice.plane.peer_returned(bob.node, now=world.now)
    world.run(5)
    assert len(alice.sent) == 1
    assert bob.plane.drops["replayed"] == 0
    (offer,) = bob.messages()
    bob.plane.reply(offer, Kind.ANSWER, b"late", now=world.now)
    world.run(0.1)
    assert [(answer.body, answer.re) for answer in alice.messages()] == [(b"late", token)]
    alice.plane.withdraw(token)  # no-op
    world.run(6)
    assert alice.failures() == []


def test_repeated_request_that_has_no_answer_yet_is_not_delivered_again() -> None:
    world = acquainted("alice", "bob")
    world["alice"].plane.request(world["bob"].node, Kind.OPEN, b"hello", now=world.now)
    world.run(2)
    assert len(world["bob"].messages()) == 1
    assert world["bob"].plane.drops["replayed"] == 2


def test_second_absent_fails_a_request_after_a_short_wait() -> None:
    world = acquainted("alice", "bob")
    world.hub.detach(world["bob"].node)
    world["alice"].plane.request(world["bob"].node, Kind.OPEN, b"", now=world.now)
    world.drain()
    assert world["alice"].failures() == []
    world.run(0.31)
    assert [failure.reason for failure in world["alice"].failures()] == ["absent"]


def test_returned_peer_gets_pending_requests_at_once() -> None:
    world = acquainted("alice", "bob")
    world.hub.cut(world["alice"].node, world["bob"].node, silent=True)
    world["alice"].plane.request(world["bob"].node, Kind.OPEN, b"", now=world.now)
    world.run(1.5)
    world.hub.mend(world["alice"].node, world["bob"].node)
    world["alice"].plane.peer_returned(world["bob"].node, now=world.now)
    world.run(0.01)
    assert len(world["bob"].messages()) == 1


def test_notify_is_sent_once() -> None:
    world = acquainted("alice", "bob")
    world["alice"].plane.notify(world["bob"].node, Kind.CANDIDATES, b"x", now=world.now)
    world.run(5)
    assert [(message.kind, message.re) for message in world["bob"].messages()] == [(Kind.CANDIDATES, 0)]
    assert len([data for data in world["alice"].sent if Envelope.decode_untrusted(data).to is not None]) == 1


def test_sender_and_kind_cannot_be_read_from_a_sealed_envelope() -> None:
    world = acquainted("alice", "bob")
    world["alice"].plane.request(world["bob"].node, Kind.OPEN, b"a secret body", now=world.now)
    world.drain()
    (data,) = world["alice"].sent
    assert world["alice"].node not in data
    assert b"a secret body" not in data


def test_two_requests_are_answered_each() -> None:
    world = acquainted("alice", "bob")
    tokens = [
        world["alice"].plane.request(world["bob"].node, Kind.OPEN, bytes([index]), now=world.now) for index in range(2)
    ]
    world.run(0.1)
    for message in reversed(world["bob"].messages()):
        world["bob"].plane.reply(message, Kind.ACCEPT, message.body * 2, now=world.now)
    world.run(0.1)
    answers = {message.re: message.body for message in world["alice"].messages()}
    assert answers == {tokens[0]: b"\0\0", tokens[1]: b"\1\1"}


def test_late_answer_is_dropped() -> None:
    world = acquainted("alice", "bob")
    world["alice"].plane.request(world["bob"].node, Kind.OPEN, b"", now=world.now)
    world.run(11)
    assert [failure.reason for failure in world["alice"].failures()] == ["timeout"]
    world["bob"].plane.reply(world["bob"].messages()[0], Kind.ACCEPT, b"", now=world.now)
    world.run(0.1)
    assert world["alice"].messages() == []
    assert world["alice"].plane.drops["late"] == 1


# ── restarts and hop keys ────────────────────────────────────────────────────────────────────────────────────────────


def test_restarted_peer_gets_the_request_sealed_anew_at_once() -> None:
    world = acquainted("alice", "bob")
    world.start("bob", boot=2)
    world["alice"].plane.request(world["bob"].node, Kind.OPEN, b"hello", now=world.now)
    world.run(0.1)
    assert [change.card.boot for change in world["alice"].changed()] == [world["bob"].plane.boot]
    assert [message.body for message in world["bob"].messages()] == [b"hello"]
    assert world["bob"].plane.drops["unknown-key"] == 1


def test_restarted_peer_is_noticed_by_its_presence() -> None:
    world = acquainted("alice", "bob")
    world.start("bob", boot=2)
    world.run(3)
    assert [change.card.boot for change in world["alice"].changed()] == [world["bob"].plane.boot]


def test_request_of_a_restarted_peer_comes_after_its_card() -> None:
    world = acquainted("alice", "bob")
    bob = world.start("bob", boot=2)
    bob.plane.request(world["alice"].node, Kind.OPEN, b"again", now=world.now)
    world.run(1)
    kinds = [type(event).__name__ for event in world["alice"].seen if not isinstance(event, Heard)]
    assert kinds == ["CardChanged", "Message"]


def test_boot_that_goes_backward_is_refused() -> None:
    world = acquainted("alice", "bob")
    world.start("alice", boot=3)
    world["alice"].plane.request(world["bob"].node, Kind.OPEN, b"new", now=world.now)
    world.run(0.5)
    world.start("alice", boot=2)
    world["alice"].plane.request(world["bob"].node, Kind.OPEN, b"old", now=world.now)
    world.run(5)
    assert [message.body for message in world["bob"].messages()] == [b"new"]
    assert world["bob"].plane.drops["old-boot"] > 0


def test_hop_key_turns_hourly_and_the_old_one_serves_a_quarter_more() -> None:
    world = acquainted("alice", "bob")
    first = world["bob"].plane.own_card
    world.run(3600)
    second = world["bob"].plane.own_card
    assert second.hop_key_id != first.hop_key_id
    assert second.newer_than(first)
    world["alice"].plane.notify(world["bob"].node, Kind.CANDIDATES, b"overlap", now=world.now)
    world.run(0.1)
    assert [message.body for message in world["bob"].messages()] == [b"overlap"]
    world.run(901)
    assert world["bob"].plane.hop_key(first.hop_key_id) is None
    assert world["bob"].plane.hop_key(second.hop_key_id) is not None
    world["alice"].plane.request(world["bob"].node, Kind.OPEN, b"after", now=world.now)
    world.run(0.1)
    assert world["bob"].messages()[-1].body == b"after"
    assert world["bob"].plane.drops["unknown-key"] == 1
    assert world["alice"].changed() == []  # another key, the same process


def test_request_heals_when_the_word_of_a_new_key_is_lost() -> None:
    world = acquainted("alice", "bob")
    world.start("bob", boot=2)
    world.lose.append(world["alice"].node)  # bob's card, in answer to what he cannot read
    world["alice"].plane.request(world["bob"].node, Kind.OPEN, b"hello", now=world.now)
    world.run(0.1)
    assert world["bob"].messages() == []
    world.run(1.5)
    assert [message.body for message in world["bob"].messages()] == [b"hello"]


def test_answer_is_sealed_anew_when_the_asker_turned_its_key() -> None:
    world = acquainted("alice", "bob")
    world.run(3600 + 901)
    token = world["alice"].plane.request(world["bob"].node, Kind.OPEN, b"", now=world.now)
    world.run(0.05)
    world["bob"].plane.reply(world["bob"].messages()[0], Kind.ACCEPT, b"yes", now=world.now)
    world.run(0.1)
    assert [answer.re for answer in world["alice"].messages()] == [token]


def test_renewed_credential_appears_on_the_card() -> None:
    world = acquainted("alice", "bob")
    before = world["alice"].plane.own_card
    world["alice"].plane.adopt(world["alice"].member, now=world.now)
    assert world["alice"].plane.own_card.newer_than(before)
    with pytest.raises(LocalProtocolError):
        world["alice"].plane.adopt(world["bob"].member, now=world.now)


# ── size and rate of what we send ────────────────────────────────────────────────────────────────────────────────────


def test_presence_is_at_most_160_bytes_and_rare() -> None:
    world = World("alice", "bob")
    world.run(3600 * 4)
    presences = [Envelope.decode_untrusted(data) for data in world["alice"].sent]
    assert all(Inner.decode_untrusted(envelope.payload).kind == Kind.PRESENCE for envelope in presences)
    assert all(len(data) <= 160 for data in world["alice"].sent)
    assert 12 <= len(presences) <= 22


def test_oversized_body_is_our_own_bug() -> None:
    world = acquainted("alice", "bob")
    with pytest.raises(LocalProtocolError):
        world["alice"].plane.request(world["bob"].node, Kind.OPEN, bytes(27 * 1024), now=world.now)


def test_many_questions_are_spread_over_time_and_all_asked() -> None:
    world = World("alice", "bob")
    for index in range(120):
        world["alice"].plane.who(Who(name=f"nobody-{index}"), now=world.now)
    world.drain()
    assert len(world["alice"].sent) == 60
    world.run(1.0)
    assert 75 <= len(world["alice"].sent) <= 85


@pytest.mark.parametrize("seed", range(3))
def test_every_request_is_answered_once_in_bad_weather(seed: int) -> None:
    weather = Weather(loss=0.2, duplicate=0.2, delay_s_min=0.001, delay_s_max=0.08)
    world = World("alice", "bob", seed=seed, weather=weather)
    tokens = []
    for index in range(12):
        tokens.append(world["alice"].plane.request(world["bob"].node, Kind.OPEN, bytes([index]), now=world.now))
        for _ in range(5):
            world.run(0.1)
            for message in world["bob"].messages()[len(world["bob"].sent_replies) :]:
                world["bob"].plane.reply(message, Kind.ACCEPT, message.body, now=world.now)
                world["bob"].sent_replies.append(message.seq)
    world.run(12)
    answered = [message.re for message in world["alice"].messages()]
    failed = [failure.token for failure in world["alice"].failures()]
    assert sorted(answered + failed) == sorted(tokens), f"seed {seed}"
    assert len(answered) >= 10, f"seed {seed}"
    assert len(world["bob"].messages()) == len({message.seq for message in world["bob"].messages()})
