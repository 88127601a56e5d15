"""The control plane: requests, answers, questions and recovery, in virtual time."""

from __future__ import annotations

import pytest
from kit.builders import make_member, make_realm
from kit.control import World

from conflux.control import requests as requests_module
from conflux.control.channel import Handoff
from conflux.control.choice import Handed
from conflux.control.envelope import BODY_BYTES_MAX, Inner, Kind
from conflux.control.event import Heard, RequestFailed, Transmit, Unanswered
from conflux.control.pending import ABSENT_RETRY_S
from conflux.control.who import Who
from conflux.errors import LocalProtocolError
from conflux.sim.flights import Weather


def acquainted(*names: str, **options: object) -> World:
    """A world whose nodes have each other's cards."""
    world = World(*names, **options)
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
        # The question carried alice's card, so bob can seal an answer; carol did not keep it.
        assert world["bob"].plane.card(world["alice"].node) is not None
        assert world["carol"].plane.card(world["alice"].node) is None


def test_question_for_a_feature_is_answered_by_a_node_that_has_it_each_time_anew() -> None:
    world = World("alice", "bob")
    rod = world.start("rod", features=("relay", "public"))
    for count in (1, 2):  # the second time its card is here, but the question is who is there now
        world["alice"].plane.who(Who(feature="public"), now=world.now)
        world.run(0.2)
        assert [found.card.node_id for found in world["alice"].found()] == [rod.node] * count
    world.run(4.0)
    assert world["alice"].not_found() == []
    assert world["bob"].sent_replies == []


def test_question_for_a_feature_that_no_node_has_fails() -> None:
    world = World("alice", "bob")
    world["alice"].plane.who(Who(feature="public"), now=world.now)
    world.run(3.2)
    assert [failed.query for failed in world["alice"].not_found()] == [Who(feature="public")]


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


def test_question_without_an_owner_fails_after_three_seconds() -> None:
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
    targets = [envelope.to for envelope in world["alice"].sent]
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
    assert world["alice"].found() == []  # who() was not called


def test_request_to_an_unknown_node_fails_after_the_question() -> None:
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
        for envelope in world["alice"].sent[before:] if times else world["alice"].sent:
            if envelope.key_id is not None:
                times.append(world.now - started_at)
                payloads[envelope.payload] = payloads.get(envelope.payload, 0) + 1
                ids.add(envelope.id)
    assert world["alice"].failures() == []
    assert len(times) == 4
    assert times == pytest.approx([0, 0.25, 1, 4], rel=0.21, abs=0.02)
    assert len(payloads) == 1
    assert len(ids) == 4  # each is a transmission of its own: forwarders drop the second copy of an id
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
    answers = [envelope for envelope in world["bob"].sent if envelope.key_id is not None]
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
    assert [sent.key_id is not None for sent in alice.sent] == [True, False]  # the offer, and that alice is there
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


def handed(world: World, *takers: str, best: Handoff = Handoff.ACCEPTED) -> list[Transmit]:
    """Take what alice sends, and say that these channels took it."""
    alice = world["alice"].plane
    sent = list(iter(alice.next_transmit, None))
    for transmit in sent:
        alice.handoff(transmit.token, Handed(best, frozenset(takers)), now=world.now)
    return sent


def failures_of(world: World) -> list[str]:
    events = iter(world["alice"].plane.next_event, None)
    return [event.reason for event in events if isinstance(event, RequestFailed)]


def test_absence_that_is_learnt_later_counts_once_a_try() -> None:
    world = acquainted("alice", "bob")
    alice, bob = world["alice"].plane, world["bob"].node
    alice.request(bob, Kind.OPEN, b"", now=world.now)
    assert [transmit.again for transmit in handed(world, "nats")] == [False]
    for _ in range(3):  # of two messages that went out together both come back
        alice.absent(bob, "nats", now=world.now)
    assert failures_of(world) == []
    world.now += ABSENT_RETRY_S
    alice.handle_timeout(now=world.now)
    sent = handed(world, "nats")
    assert [transmit.again for transmit in sent if transmit.envelope.key_id is not None] == [True]
    alice.absent(bob, "nats", now=world.now)
    assert failures_of(world) == ["absent"]


def test_area_is_asked_for_a_node_that_a_broker_does_not_find_and_not_again_for_minutes() -> None:
    world = acquainted("alice", "bob")
    alice, bob = world["alice"].plane, world["bob"].node
    asked = []
    for _ in range(4):
        alice.request(bob, Kind.OPEN, b"", now=world.now)
        handed(world, "nats")
        alice.absent(bob, "nats", now=world.now)
        asked.append(sum(transmit.envelope.bucket is not None for transmit in handed(world, "nats")))
        world.run(100.0)
    assert asked == [1, 0, 0, 1]


def test_node_that_another_channel_took_the_message_for_is_not_absent() -> None:
    world = acquainted("alice", "bob")
    alice, bob = world["alice"].plane, world["bob"].node
    alice.request(bob, Kind.OPEN, b"", now=world.now)
    for _ in range(3):
        handed(world, "lan", "nats")
        alice.absent(bob, "nats", now=world.now)
        world.now = alice.next_timeout()
        alice.handle_timeout(now=world.now)
    assert failures_of(world) == []
    handed(world, "lan", "nats")
    for channel in ("nats", "lan"):
        alice.absent(bob, channel, now=world.now)
    world.now += ABSENT_RETRY_S
    alice.handle_timeout(now=world.now)
    handed(world, best=Handoff.ABSENT)
    assert failures_of(world) == ["absent"]


def test_node_that_a_broker_does_not_know_is_asked_for_in_its_bucket_at_once() -> None:
    world = acquainted("alice", "bob")
    alice, carol = world["alice"].plane, make_member(make_realm("home"), "carol").node_id
    alice.who(Who(node=carol), now=world.now)
    assert [transmit.envelope.to for transmit in handed(world, "nats")] == [carol]
    alice.absent(carol, "nats", now=world.now)
    alice.handle_timeout(now=world.now)
    (asked,) = handed(world, "nats")
    assert (asked.envelope.to, asked.envelope.bucket, asked.again) == (None, Who(node=carol).bucket, True)
    alice.absent(carol, "nats", now=world.now)  # of the first try, and late
    alice.handle_timeout(now=world.now)
    assert handed(world) == []


def test_channel_that_comes_up_gets_what_waits_for_an_answer() -> None:
    world = acquainted("alice", "bob")
    alice = world["alice"].plane
    alice.request(world["bob"].node, Kind.OPEN, b"", now=world.now)
    alice.who(Who(name="nobody"), now=world.now)
    handed(world, best=Handoff.DOWN)
    alice.channel_up(now=world.now)
    alice.handle_timeout(now=world.now)
    presence, *again = handed(world, "nats")
    assert (presence.envelope.to, presence.envelope.bucket) == (None, None)
    assert [(transmit.envelope.to, transmit.again) for transmit in again] == [(world["bob"].node, True), (None, True)]


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
    assert len([envelope for envelope in world["alice"].sent if envelope.to is not None]) == 1


def test_sender_and_kind_cannot_be_read_from_a_sealed_envelope() -> None:
    world = acquainted("alice", "bob")
    world["alice"].plane.request(world["bob"].node, Kind.OPEN, b"a secret body", now=world.now)
    world.drain()
    (envelope,) = world["alice"].sent
    data = envelope.encode()
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


def test_hop_key_is_replaced_hourly_and_the_old_one_is_valid_a_quarter_more() -> None:
    world = acquainted("alice", "bob")
    first = world["bob"].plane.own_card
    world.run(3600)
    second = world["bob"].plane.own_card
    assert second.hop_key_id != first.hop_key_id
    assert second.newer_than(first)
    world["alice"].plane.notify(world["bob"].node, Kind.CANDIDATES, b"overlap", now=world.now)
    world.run(0.1)
    assert [message.body for message in world["bob"].messages()] == [b"overlap"]
    world.hub.cut(world["alice"].node, world["bob"].node)  # its presence, which would have said so, is lost
    world.run(901)
    world.hub.mend(world["alice"].node, world["bob"].node)
    assert world["bob"].plane.hop_key(first.hop_key_id) is None
    assert world["bob"].plane.hop_key(second.hop_key_id) is not None
    world["alice"].plane.request(world["bob"].node, Kind.OPEN, b"after", now=world.now)
    world.run(0.1)
    assert world["bob"].messages()[-1].body == b"after"
    assert world["bob"].plane.drops["unknown-key"] == 1
    assert world["alice"].changed() == []  # the key is another one, the process is the same


def test_request_heals_when_the_card_with_the_new_key_is_lost() -> None:
    world = acquainted("alice", "bob")
    world.start("bob", boot=2)
    world.lose.append(world["alice"].node)  # bob's card, the answer to a message that bob cannot unseal
    world["alice"].plane.request(world["bob"].node, Kind.OPEN, b"hello", now=world.now)
    world.run(0.1)
    assert world["bob"].messages() == []
    world.run(1.5)
    assert [message.body for message in world["bob"].messages()] == [b"hello"]


def test_answer_is_sealed_anew_when_the_requester_replaced_its_key() -> None:
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


def test_card_that_changed_without_a_restart_is_followed_by_presence() -> None:
    world = acquainted("alice", "bob")
    world["alice"].plane.adopt(world["alice"].member, now=world.now)
    world.run(2.5)
    assert world["bob"].plane.card(world["alice"].node) == world["alice"].plane.own_card
    assert world["bob"].changed() == [], "no restart"


def test_replaced_hop_key_is_followed_before_the_old_one_is_erased() -> None:
    world = acquainted("alice", "bob")
    world.run(3600 + 901 * 1.2)
    assert world["bob"].plane.card(world["alice"].node) == world["alice"].plane.own_card
    assert world["bob"].plane.drops["unknown-key"] == world["alice"].plane.drops["unknown-key"] == 0


# ── size and rate of what we send ────────────────────────────────────────────────────────────────────────────────────


def test_presence_is_at_most_160_bytes_and_rare() -> None:
    world = World("alice", "bob")
    world.run(3600 * 4)
    presences = world["alice"].sent
    assert all(Inner.decode_untrusted(envelope.payload).kind == Kind.PRESENCE for envelope in presences)
    assert all(len(envelope.encode()) <= 160 for envelope in presences)
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
    weather = Weather(control_loss=0.2, control_repeat=0.2, delay_s=0.001, jitter_s=0.079)
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


def test_body_of_a_message_is_as_large_as_the_bound_and_no_larger() -> None:
    world = acquainted("alice", "bob")
    alice, bob = world["alice"], world["bob"]
    alice.plane.notify(bob.node, Kind.OPEN, bytes(BODY_BYTES_MAX), now=world.now)
    world.run(0.1)
    assert [len(message.body) for message in bob.messages()] == [BODY_BYTES_MAX]
    with pytest.raises(LocalProtocolError, match="at most"):
        alice.plane.notify(bob.node, Kind.OPEN, bytes(BODY_BYTES_MAX + 1), now=world.now)


def test_requests_are_pending_up_to_the_bound_and_one_more_fails_as_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests_module, "REQUEST_COUNT_MAX", 2)
    world = acquainted("alice", "bob")
    alice, bob = world["alice"], world["bob"]
    tokens = [alice.plane.request(bob.node, Kind.OPEN, b"x", now=world.now) for _ in range(3)]
    world.drain()
    assert [(failed.token, failed.reason) for failed in alice.failures()] == [(tokens[2], Unanswered.BUSY)]
