"""The link machine: which node dials, whose offer wins, when a link goes.  Signals and events are fed by hand."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from conflux.carrier.interface import (
    AddCandidates,
    CandidatesFound,
    Closed,
    Connect,
    ControlArrived,
    Describe,
    Described,
    Description,
    Disconnect,
    LinkKeys,
    Opened,
    SendControl,
    TetherUp,
)
from conflux.control.envelope import Kind
from conflux.errors import LocalProtocolError, RemoteProtocolError
from conflux.ids import LinkId, NodeId, TetherId
from conflux.link import DialFailed, LinkConfig, LinkDown, LinkMessage, Links, LinkUp, Signal
from conflux.link.event import DialEnd, LinkEnd
from conflux.link.records import NUMBER_MAX, Answer, Candidates, Offer, Refusal

LOW, HIGH = NodeId(b"\x01" * 16), NodeId(b"\x02" * 16)
OTHERS = [NodeId(bytes([number]) * 16) for number in range(3, 9)]


def description(name: str) -> Description:
    return Description(name, "p" * 22, b"\x07" * 32, 5000, 65536, ("1 1 udp 1 192.0.2.1 9 typ host",))


def links(me: NodeId = LOW, **settings: Any) -> Links:
    rng = Random(me[0])
    return Links(me, rng=rng, entropy=rng.randbytes, config=LinkConfig(**settings))


def commands(machine: Links) -> list[Any]:
    return list(iter(machine.next_command, None))


def signals(machine: Links) -> list[Signal]:
    return list(iter(machine.next_signal, None))


def events(machine: Links) -> list[Any]:
    return list(iter(machine.next_event, None))


def offer_of(machine: Links, peer: NodeId, *, now: float = 0.0) -> Signal:
    """Acquire a link to peer, answer as the carrier, and return the offer."""
    machine.acquire(peer, "user", now=now)
    (describe,) = commands(machine)
    assert isinstance(describe, Describe)
    assert describe.initiator
    machine.carrier_event(Described(describe.link, description("offerer")), now=now)
    (signal,) = signals(machine)
    assert (signal.peer, signal.kind, signal.re, signal.answered) == (peer, Kind.OFFER, None, True)
    return signal


def open_as_initiator(machine: Links, peer: NodeId, *, now: float = 0.0) -> LinkId:
    offer = offer_of(machine, peer, now=now)
    machine.receive_signal(peer, Kind.ANSWER, Answer(offer.attempt, description("answerer")).encode(), 1, now=now)
    (connect,) = commands(machine)
    assert isinstance(connect, Connect)
    assert connect.remote == description("answerer")
    machine.carrier_event(Opened(connect.link), now=now)
    assert events(machine) == [LinkUp(peer, connect.link)]
    return connect.link


def open_as_answerer(machine: Links, peer: NodeId, *, now: float = 0.0) -> LinkId:
    body = Offer(b"attempt1", 1, description("offerer")).encode()
    machine.receive_signal(peer, Kind.OFFER, body, 77, now=now)
    (describe,) = commands(machine)
    assert isinstance(describe, Describe)
    assert not describe.initiator
    machine.carrier_event(Described(describe.link, description("answerer")), now=now)
    (answer,) = signals(machine)
    assert (answer.kind, answer.re, answer.answered) == (Kind.ANSWER, 77, False)
    assert commands(machine) == [Connect(describe.link, description("offerer"))]
    machine.carrier_event(Opened(describe.link), now=now)
    assert events(machine) == [LinkUp(peer, describe.link)]
    return describe.link


def test_acquire_dials_and_opens() -> None:
    machine = links()
    link = open_as_initiator(machine, HIGH)
    assert machine.link(HIGH) == link
    assert machine.acquire(HIGH, "second", now=1) == link


def test_second_user_of_a_dial_starts_no_second_dial() -> None:
    machine = links()
    offer_of(machine, HIGH)
    assert machine.acquire(HIGH, "second", now=0) is None
    assert commands(machine) == []


def test_offer_is_answered_under_its_sequence_number() -> None:
    machine = links()
    open_as_answerer(machine, HIGH)


def test_repeated_offer_gets_the_same_answer_and_no_second_link() -> None:
    machine = links()
    open_as_answerer(machine, HIGH)
    machine.receive_signal(HIGH, Kind.OFFER, Offer(b"attempt1", 1, description("offerer")).encode(), 78, now=0)
    (again,) = signals(machine)
    assert (again.kind, again.re) == (Kind.ANSWER, 78)
    assert commands(machine) == []


def test_lower_node_id_keeps_its_offer_in_glare() -> None:
    machine = links(LOW)
    offer_of(machine, HIGH)
    machine.receive_signal(HIGH, Kind.OFFER, Offer(b"theirs!!", 1, description("x")).encode(), 5, now=0)
    (refusal,) = signals(machine)
    assert (refusal.kind, refusal.re) == (Kind.LINK_REFUSED, 5)
    assert Refusal.decode_untrusted(refusal.body).reason == "glare"
    assert commands(machine) == []


def test_higher_node_id_takes_the_other_offer_in_glare() -> None:
    machine = links(HIGH)
    offer_of(machine, LOW)
    machine.receive_signal(LOW, Kind.OFFER, Offer(b"theirs!!", 1, description("x")).encode(), 5, now=0)
    kinds = [type(command) for command in commands(machine)]
    assert kinds == [Disconnect, Describe]


def test_offer_of_a_peer_that_counts_anew_replaces_its_older_one() -> None:
    machine = links(HIGH)
    machine.receive_signal(LOW, Kind.OFFER, Offer(b"first!!!", 1, description("x")).encode(), 5, now=0)
    commands(machine)
    machine.receive_signal(LOW, Kind.OFFER, Offer(b"second!!", 1, description("y")).encode(), 6, now=0)
    assert [type(command) for command in commands(machine)] == [Disconnect, Describe]
    assert signals(machine) == []
    machine.receive_signal(LOW, Kind.OFFER, Offer(b"first!!!", 1, description("x")).encode(), 5, now=0)
    (refusal,) = signals(machine)
    assert refusal.kind == Kind.LINK_REFUSED, "a late offer does not bring its attempt back"
    assert commands(machine) == []


def test_glare_refusal_waits_for_the_winning_offer_then_dials_again() -> None:
    machine = links(HIGH, yield_s=2)
    offer = offer_of(machine, LOW)
    machine.receive_signal(LOW, Kind.LINK_REFUSED, Refusal(offer.attempt, 1, "glare").encode(), 9, now=1)
    assert [type(command) for command in commands(machine)] == [Disconnect]
    assert events(machine) == []
    assert machine.next_timeout() == 3
    machine.handle_timeout(now=3)
    assert [type(command) for command in commands(machine)] == [Describe]


def test_peer_that_lost_an_open_link_and_counts_anew_may_dial_again_without_a_wait() -> None:
    ours, theirs = links(LOW), links(HIGH, yield_s=2)
    open_as_initiator(ours, HIGH)
    offer = offer_of(theirs, LOW)
    ours.receive_signal(HIGH, Kind.OFFER, Offer(offer.attempt, 1, description("x")).encode(), 5, now=0)
    (refusal,) = signals(ours)
    assert Refusal.decode_untrusted(refusal.body).reason == "stale", "no offers cross over an open link"
    theirs.receive_signal(LOW, Kind.LINK_REFUSED, refusal.body, 9, now=0)
    assert [type(command) for command in commands(theirs)] == [Disconnect, Describe]


def test_offer_made_after_the_open_link_replaces_it() -> None:
    machine = links(LOW)
    old = open_as_initiator(machine, HIGH)
    machine.receive_signal(HIGH, Kind.OFFER, Offer(b"theirs!!", 2, description("x")).encode(), 5, now=9)
    assert events(machine) == [LinkDown(HIGH, old, LinkEnd.REPLACED)]
    assert [type(command) for command in commands(machine)] == [Disconnect, Describe]


def test_late_offer_does_not_touch_an_open_link() -> None:
    machine = links(HIGH)
    machine.receive_signal(LOW, Kind.OFFER, Offer(b"newer!!!", 4, description("x")).encode(), 5, now=0)
    (describe,) = commands(machine)
    machine.carrier_event(Described(describe.link, description("y")), now=0)
    machine.carrier_event(Opened(describe.link), now=0)
    signals(machine), commands(machine), events(machine)
    machine.receive_signal(LOW, Kind.OFFER, Offer(b"older!!!", 3, description("x")).encode(), 6, now=1)
    (refusal,) = signals(machine)
    assert Refusal.decode_untrusted(refusal.body).reason == "stale"
    assert (commands(machine), events(machine)) == ([], [])


def test_answer_to_an_unknown_attempt_is_told_so() -> None:
    machine = links()
    machine.receive_signal(HIGH, Kind.ANSWER, Answer(b"unknown!", description("x")).encode(), 5, now=0)
    (refusal,) = signals(machine)
    assert (refusal.kind, refusal.re, refusal.attempt) == (Kind.LINK_REFUSED, None, b"unknown!")
    assert machine.drop_counts["late-answer"] == 1


def test_dials_above_the_cap_wait_their_turn() -> None:
    machine = links(dial_count_max=2)
    for peer in OTHERS:
        machine.acquire(peer, "user", now=0)
    first = commands(machine)
    assert len(first) == 2
    machine.carrier_event(Closed(first[0].link, "failed"), now=1)
    (third,) = commands(machine)
    assert isinstance(third, Describe)
    (failed,) = events(machine)
    assert isinstance(failed, DialFailed)
    assert (failed.peer, failed.end, failed.said) == (OTHERS[0], DialEnd.FAILED, "failed")


def test_offers_above_the_cap_are_refused_as_busy() -> None:
    machine = links(answer_count_max=1)
    for number, peer in enumerate(OTHERS[:2]):
        machine.receive_signal(peer, Kind.OFFER, Offer(b"attempt1", 1, description("x")).encode(), number, now=0)
    (refusal,) = signals(machine)
    assert refusal.peer == OTHERS[1]
    assert Refusal.decode_untrusted(refusal.body).reason == "busy"


def test_dial_that_times_out_tells_the_far_end_and_backs_off() -> None:
    machine = links(dial_timeout_s=10, backoff_s_min=1)
    offer_of(machine, HIGH)
    assert machine.next_timeout() == 10
    machine.handle_timeout(now=10)
    assert [type(command) for command in commands(machine)] == [Disconnect]
    (told,) = signals(machine)
    assert Refusal.decode_untrusted(told.body).reason == "timeout"
    (failed,) = events(machine)
    assert isinstance(failed, DialFailed)
    assert 10.5 <= failed.retry_at <= 11
    machine.handle_timeout(now=failed.retry_at)
    assert [type(command) for command in commands(machine)] == [Describe]


def test_back_off_doubles_up_to_its_limit_and_has_jitter() -> None:
    machine = links(backoff_s_min=1, backoff_s_max=8)
    machine.acquire(HIGH, "user", now=0)
    now, spans = 0.0, []
    for _ in range(6):
        (describe,) = commands(machine)
        machine.carrier_event(Closed(describe.link, "failed"), now=now)
        (failed,) = events(machine)
        assert isinstance(failed, DialFailed)
        spans.append(failed.retry_at - now)
        now = failed.retry_at
        machine.handle_timeout(now=now)
    for span, most in zip(spans, (1, 2, 4, 8, 8, 8), strict=True):
        assert most / 2 <= span <= most
    assert len(set(spans)) == len(spans)


def test_peer_that_returns_is_dialled_at_once() -> None:
    machine = links()
    machine.acquire(HIGH, "user", now=0)
    (describe,) = commands(machine)
    machine.carrier_event(Closed(describe.link, "failed"), now=0)
    assert commands(machine) == []
    machine.peer_returned(HIGH, now=0.1)
    assert [type(command) for command in commands(machine)] == [Describe]


def test_user_that_comes_during_back_off_is_told() -> None:
    machine = links()
    offer_of(machine, HIGH)
    machine.handle_timeout(now=10)
    (failed,) = events(machine)
    assert isinstance(failed, DialFailed)
    machine.release(HIGH, "user", now=10)
    machine.acquire(HIGH, "later", now=10.1)
    assert events(machine) == [DialFailed(HIGH, DialEnd.BACKING_OFF, failed.retry_at)]


def test_refused_dial_fails_with_the_peers_reason() -> None:
    machine = links()
    offer = offer_of(machine, HIGH)
    machine.receive_signal(HIGH, Kind.LINK_REFUSED, Refusal(offer.attempt, 1, "busy").encode(), 9, now=0)
    (failed,) = events(machine)
    assert isinstance(failed, DialFailed)
    assert (failed.end, failed.said) == (DialEnd.REFUSED, "busy")


@pytest.mark.parametrize("word", ["timeout", "backing-off", "failed", "no-answer"])
def test_word_of_a_refusing_peer_is_not_taken_for_an_own_end(word: str) -> None:
    machine = links()
    offer = offer_of(machine, HIGH)
    machine.receive_signal(HIGH, Kind.LINK_REFUSED, Refusal(offer.attempt, 1, word).encode(), 9, now=0)
    (failed,) = events(machine)
    assert isinstance(failed, DialFailed)
    assert (failed.end, failed.said) == (DialEnd.REFUSED, word)


@pytest.mark.parametrize("word", ["peer-lost", "replaced", "dtls"])
def test_closing_by_the_carrier_is_a_failure_unless_the_link_was_let_go(word: str) -> None:
    machine = links()
    link = open_as_initiator(machine, HIGH)
    machine.carrier_event(Closed(link, word), now=0.1)
    (down,) = events(machine)
    assert isinstance(down, LinkDown)
    assert (down.end, down.said, down.let_go) == (LinkEnd.FAILED, word, False)
    assert machine.status()[0].failure_count == 1


def test_failed_signal_fails_the_dial() -> None:
    machine = links()
    offer = offer_of(machine, HIGH)
    machine.signal_failed(HIGH, offer.attempt, "absent", now=0.5)
    (failed,) = events(machine)
    assert isinstance(failed, DialFailed)
    assert (failed.end, failed.said) == (DialEnd.NO_ANSWER, "absent")


def test_pair_that_never_agrees_backs_off() -> None:
    machine = links()
    machine.acquire(HIGH, "user", now=0)
    for _ in range(4):
        (describe,) = (command for command in commands(machine) if isinstance(command, Describe))
        machine.carrier_event(Described(describe.link, description("x")), now=0)
        (offer,) = signals(machine)
        machine.receive_signal(HIGH, Kind.LINK_REFUSED, Refusal(offer.attempt, 1, "withdrawn").encode(), 9, now=0)
    assert [type(event) for event in events(machine)] == [DialFailed]


def test_unused_link_is_closed_after_the_linger() -> None:
    machine = links(linger_s=2)
    link = open_as_initiator(machine, HIGH)
    machine.release(HIGH, "user", now=5)
    assert machine.next_timeout() == 7
    machine.handle_timeout(now=7)
    assert commands(machine) == [Disconnect(link)]
    assert events(machine) == [LinkDown(HIGH, link, LinkEnd.ASKED)]
    machine.carrier_event(Closed(link, "asked"), now=7)
    assert machine.status() == ()


def test_acquiring_during_the_linger_keeps_the_link() -> None:
    machine = links()
    link = open_as_initiator(machine, HIGH)
    machine.release(HIGH, "user", now=5)
    assert machine.acquire(HIGH, "other", now=6) == link
    assert machine.next_timeout() is None


def test_answerer_leaves_closing_to_the_initiator_for_longer() -> None:
    machine = links(linger_s=2, answer_linger_s=300)
    open_as_answerer(machine, HIGH, now=1)
    assert machine.next_timeout() == 301


def test_release_of_a_dial_withdraws_the_offer() -> None:
    machine = links()
    offer = offer_of(machine, HIGH)
    machine.release(HIGH, "user", now=1)
    (told,) = signals(machine)
    assert (told.kind, told.attempt) == (Kind.LINK_REFUSED, offer.attempt)
    assert [type(command) for command in commands(machine)] == [Disconnect]
    assert machine.next_timeout() is None


def test_link_of_a_lost_peer_is_closed() -> None:
    machine = links()
    link = open_as_initiator(machine, HIGH)
    machine.peer_lost(HIGH, now=3)
    assert events(machine) == [LinkDown(HIGH, link, LinkEnd.PEER_LOST)]
    assert commands(machine) == [Disconnect(link)]
    assert machine.acquire(HIGH, "user", now=3) is None
    assert [type(command) for command in commands(machine)] == [Describe]


def test_link_that_fails_right_after_opening_counts_as_a_failed_dial() -> None:
    machine = links(settle_s=5)
    link = open_as_initiator(machine, HIGH)
    machine.carrier_event(Closed(link, "failed"), now=1)
    assert events(machine) == [LinkDown(HIGH, link, LinkEnd.FAILED, "failed")]
    machine.acquire(HIGH, "user", now=1)
    assert commands(machine) == []


def test_link_that_the_far_end_closed_may_be_dialled_at_once() -> None:
    machine = links()
    link = open_as_initiator(machine, HIGH)
    machine.carrier_event(Closed(link, "peer"), now=1)
    machine.acquire(HIGH, "user", now=1)
    assert [type(command) for command in commands(machine)] == [Describe]


def test_late_candidates_reach_the_carrier_after_the_description() -> None:
    machine = links()
    offer = offer_of(machine, HIGH)
    found = ("1 1 udp 1 198.51.100.1 9 typ srflx",)
    machine.receive_signal(HIGH, Kind.CANDIDATES, Candidates(offer.attempt, found).encode(), 1, now=0)
    assert commands(machine) == []
    machine.receive_signal(HIGH, Kind.ANSWER, Answer(offer.attempt, description("x")).encode(), 2, now=0)
    connect, add = commands(machine)
    assert isinstance(connect, Connect)
    assert add == AddCandidates(connect.link, found)


def test_own_late_candidates_are_signalled() -> None:
    machine = links()
    offer = offer_of(machine, HIGH)
    found = ("1 1 udp 1 198.51.100.1 9 typ srflx",)
    machine.carrier_event(CandidatesFound(LinkId(1), found), now=0)
    (signal,) = signals(machine)
    assert (signal.kind, signal.attempt) == (Kind.CANDIDATES, offer.attempt)


def test_messages_and_tethers_pass_through() -> None:
    machine = links()
    link = open_as_initiator(machine, HIGH)
    machine.send(link, b"out")
    assert commands(machine) == [SendControl(link, b"out")]
    up = TetherUp(link, TetherId(b"12345678"))
    machine.carrier_event(ControlArrived(link, b"in"), now=0)
    machine.carrier_event(up, now=0)
    assert events(machine) == [LinkMessage(HIGH, link, b"in"), up]


def test_events_of_a_closed_link_are_counted_and_have_no_effect() -> None:
    machine = links()
    machine.carrier_event(Opened(LinkId(99)), now=0)
    assert machine.drop_counts["late-carrier-event"] == 1
    assert (commands(machine), events(machine)) == ([], [])


@pytest.mark.parametrize("kind", [Kind.OFFER, Kind.ANSWER, Kind.CANDIDATES, Kind.LINK_REFUSED])
def test_malformed_body_is_refused_and_changes_nothing(kind: Kind) -> None:
    machine = links()
    with pytest.raises(RemoteProtocolError):
        machine.receive_signal(HIGH, kind, b"\x81\x01", 1, now=0)
    assert machine.status() == ()


def test_link_to_oneself_is_refused() -> None:
    with pytest.raises(LocalProtocolError):
        links(LOW).acquire(LOW, "user", now=0)


def test_an_offer_whose_resumption_has_no_answer_is_made_anew() -> None:
    machine = links()
    first = offer_of(machine, HIGH)
    assert machine.offers(HIGH, first.attempt)
    machine.offer_anew(HIGH, b"another", now=1.0)
    assert commands(machine) == []
    machine.offer_anew(HIGH, first.attempt, now=1.0)
    gone, describe = commands(machine)
    assert isinstance(gone, Disconnect)
    assert isinstance(describe, Describe)
    assert not machine.offers(HIGH, first.attempt)
    machine.carrier_event(Described(describe.link, description("offerer")), now=1.0)
    (second,) = signals(machine)
    assert second.attempt != first.attempt
    assert Offer.decode_untrusted(second.body).number == Offer.decode_untrusted(first.body).number + 1


def test_an_offer_that_has_its_answer_is_not_made_anew() -> None:
    machine = links()
    offer = offer_of(machine, HIGH)
    machine.receive_signal(HIGH, Kind.ANSWER, Answer(offer.attempt, description("answerer")).encode(), 1, now=0.0)
    commands(machine)
    machine.offer_anew(HIGH, offer.attempt, now=1.0)
    assert commands(machine) == []


KEYS = LinkKeys(2, b"o" * 32, b"i" * 32, b"o" * 12, b"i" * 12)


def offered_by_secret(machine: Links, number: int = 1) -> Signal:
    """Have the machine answer an offer that came along with a resumption."""
    body = Offer(b"attempt1", number, description("offerer")).encode()
    machine.receive_signal(HIGH, Kind.OFFER, body, 2**64 - 1, by_secret=True, now=0)
    (describe,) = commands(machine)
    machine.carrier_event(Described(describe.link, description("answerer")), now=0)
    (answer,) = signals(machine)
    return answer


def dialled_by_secret(machine: Links) -> None:
    """Have the machine take an answer that came along with a resumption."""
    offer = offer_of(machine, HIGH)
    body = Answer(offer.attempt, description("answerer")).encode()
    machine.receive_signal(HIGH, Kind.ANSWER, body, 0, by_secret=True, keys=KEYS, now=0)


def test_keys_go_to_the_link_whose_answer_went_along_and_to_no_other() -> None:
    machine = links()
    answer = offered_by_secret(machine)
    machine.answered_by_secret(HIGH, b"another!", KEYS)
    machine.answered_by_secret(OTHERS[0], answer.attempt, KEYS)
    (connect,) = commands(machine)
    assert connect.keys is None

    machine = links()
    answer = offered_by_secret(machine)
    machine.answered_by_secret(HIGH, answer.attempt, KEYS)
    (connect,) = commands(machine)
    assert connect.keys == KEYS
    assert machine._peers[HIGH].attempt.keys is None, "the carrier has them"


def test_only_a_link_that_the_carrier_has_yet_to_connect_can_be_keyed() -> None:
    machine = links()
    answer = offered_by_secret(machine)
    assert machine.can_be_keyed(HIGH, answer.attempt)
    assert not machine.can_be_keyed(HIGH, b"another!")
    assert not machine.can_be_keyed(OTHERS[0], answer.attempt)
    commands(machine)
    body = Offer(b"attempt1", 1, description("offerer")).encode()
    machine.receive_signal(HIGH, Kind.OFFER, body, 78, by_secret=True, now=0)
    (again,) = signals(machine)
    assert not machine.can_be_keyed(HIGH, again.attempt), "the carrier has connected it, with a handshake"


def test_an_answer_that_came_along_brings_keys_and_a_second_one_changes_nothing() -> None:
    machine = links()
    offer = offer_of(machine, HIGH)
    body = Answer(offer.attempt, description("answerer")).encode()
    machine.receive_signal(HIGH, Kind.ANSWER, body, 1, now=0)
    machine.receive_signal(HIGH, Kind.ANSWER, body, 0, by_secret=True, keys=KEYS, now=0)
    (connect,) = commands(machine)
    assert connect.keys is None
    assert machine.drop_counts == {"repeated-answer": 1}

    machine = links()
    dialled_by_secret(machine)
    (connect,) = commands(machine)
    assert connect.keys == KEYS


@pytest.mark.parametrize("answers", [False, True])
@pytest.mark.parametrize("opens", [False, True])
def test_a_link_that_a_secret_opened_ends_when_the_peer_signs(answers: bool, opens: bool) -> None:
    machine = links()
    if answers:
        answer = offered_by_secret(machine, NUMBER_MAX)
        machine.answered_by_secret(HIGH, answer.attempt, None)
    else:
        dialled_by_secret(machine)
    (connect,) = commands(machine)
    if opens:
        machine.carrier_event(Opened(connect.link), now=0)
        events(machine)
    machine.peer_signed(HIGH, now=1.0)
    gone, *dialled = commands(machine)
    assert gone == Disconnect(connect.link)
    assert machine.link(HIGH) is None
    if opens:
        assert events(machine) == [LinkDown(HIGH, connect.link, LinkEnd.SIGNED)]
    else:  # who wanted it still does
        assert [type(command) for command in dialled] == ([] if answers else [Describe])
    if opens or answers:
        offer_of(machine, HIGH, now=1.0)
    assert machine._peers[HIGH].number == 1, "the number was perhaps somebody else's"


@pytest.mark.parametrize("open_", [open_as_initiator, open_as_answerer])
def test_a_link_whose_offer_and_answer_were_signed_stays_when_the_peer_signs(open_: Any) -> None:
    machine = links()
    link = open_(machine, HIGH)
    machine.peer_signed(HIGH, now=1.0)
    machine.peer_signed(OTHERS[0], now=1.0)
    assert machine.link(HIGH) == link
    assert commands(machine) == []


@pytest.mark.parametrize("opens", [False, True])
def test_a_signed_offer_replaces_one_that_a_secret_made_whatever_number_that_had(opens: bool) -> None:
    machine = links()
    offered_by_secret(machine, NUMBER_MAX)
    (connect,) = commands(machine)
    if opens:
        machine.carrier_event(Opened(connect.link), now=0)
        events(machine)
    machine.receive_signal(HIGH, Kind.OFFER, Offer(b"attempt2", 1, description("x")).encode(), 5, now=1.0)
    gone, describe = commands(machine)
    assert gone == Disconnect(connect.link)
    assert isinstance(describe, Describe)
    assert signals(machine) == []


def test_an_offer_by_a_secret_is_ordered_by_its_number() -> None:
    machine = links()
    offered_by_secret(machine, 7)
    commands(machine)
    body = Offer(b"attempt2", 6, description("x")).encode()
    machine.receive_signal(HIGH, Kind.OFFER, body, 5, by_secret=True, now=1.0)
    (refusal,) = signals(machine)
    assert Refusal.decode_untrusted(refusal.body).reason == "stale"
