"""Two stream machines that met before: resumed without signatures, in both directions at once."""

from __future__ import annotations

from dataclasses import replace

import pytest
from kit.resuming import (
    ANSWER,
    CARDS,
    HIGH,
    LOW,
    OFFER,
    Side,
    asked,
    confirm,
    exchange,
    pair,
    signed,
)

from conflux.anchor.frame import AES_256_GCM, CHACHA20_POLY1305
from conflux.control.envelope import Kind
from conflux.crypto.seal import PUBLIC_BYTES as SEAL_PUBLIC_BYTES
from conflux.errors import RemoteProtocolError
from conflux.stream.event import (
    Pass,
    ReceiverGone,
    ReceiverReady,
    Resumed,
    RideEnded,
    Rode,
    Send,
    SenderReady,
    SignedAnew,
)
from conflux.stream.handshake import Vantage
from conflux.stream.resume import Resume, Rider
from conflux.stream.resuming import RIDE_S, SPARE_S, Resumption
from conflux.stream.resumptions import (
    GIVE_UP_S,
    HALF_OPEN_S,
    MIX_COUNT,
    MIX_S,
    REPEAT_S,
    UNKNOWN_S_MAX,
    UNKNOWN_S_MIN,
    Drop,
)


def test_two_messages_open_a_stream_in_each_direction():
    a, b = pair()
    exchange(a, b)
    of_a, of_b = a.events(), b.events()
    (ahead,) = [event for event in of_a if isinstance(event, SenderReady)]
    (there,) = [event for event in of_b if isinstance(event, ReceiverReady)]
    assert (ahead.stream, ahead.data, ahead.feedback) == (there.stream, there.data, there.feedback)
    assert ahead.data.aead == AES_256_GCM  # what the receiver opens fastest
    (here,) = [event for event in of_a if isinstance(event, ReceiverReady)]
    back = b.open(a)
    (ready,) = b.events(SenderReady)
    assert (ready.stream, ready.data, ready.feedback) == (here.stream, here.data, here.feedback)
    assert back == ready.stream
    assert ready.data.aead == CHACHA20_POLY1305
    assert len({ahead.data.key, ahead.feedback.key, ready.data.key, ready.feedback.key}) == 4
    assert b.sent() == []  # the way back took no message of its own
    assert Resumed(b.member.node_id) in of_a
    assert Resumed(a.member.node_id) in of_b


def test_the_messages_are_small_and_nobody_in_between_can_pair_them():
    a, b = pair()
    resume, resumed = exchange(a, b)
    assert len(resume.body) < 150
    assert len(resumed.body) < 150
    assert resume.id != resumed.id
    for message in (resume, resumed):
        assert a.member.node_id not in message.body
        assert b.member.node_id not in message.body


def test_each_time_there_are_other_keys_and_another_secret():
    a, b = pair()
    keys, ids = set(), set()
    for _ in range(3):
        resume, _ = exchange(a, b)
        confirm(b)
        keys |= {event.data.key for event in a.events(SenderReady)}
        ids.add(resume.id)
    assert len(keys) == 3
    assert len(ids) == 3


def test_the_acceptor_of_a_signed_opening_resumes_too():
    a, b = pair()
    resume = asked(b, a)
    a.take(resume)
    assert a.events(ReceiverReady)


def test_answerer_begins_with_the_next_secret_only_after_a_frame():
    a, b = pair()
    exchange(a, b)
    b.streams.close_sender(b.open(a))
    b.open(a)
    (first,) = b.sent()
    assert isinstance(first, Send)  # with signatures: a may not have the answer
    confirm(b)
    b.open(a)
    assert [type(each) for each in b.sent()] == [Pass]


def test_asker_begins_with_the_next_secret_at_once():
    a, b = pair()
    exchange(a, b)
    exchange(a, b)
    assert a.events(SenderReady)


@pytest.mark.parametrize("of_a", list(Resumption))
@pytest.mark.parametrize("of_b", list(Resumption))
def test_both_agree_on_whether_and_how_to_resume(of_a, of_b):
    a, b = Side(LOW, resumption=of_a), Side(HIGH, resumption=of_b)
    signed(a, b)
    for one, other in ((a, b), (b, a)):
        one.open(other)
        (first,) = one.sent()
        if Resumption.OFF in (of_a, of_b):
            assert isinstance(first, Send)
        else:
            mixed = bool(Resume.decode_untrusted(first.body).ml_public)
            assert mixed == (Resumption.ALWAYS_KEM in (of_a, of_b))
        one.streams.close_sender(next(reversed(one.streams._outgoing)))
        if Resumption.OFF not in (of_a, of_b):
            break


def test_a_peer_of_an_earlier_build_is_met_as_before():
    a, b = Side(LOW), Side(HIGH, resumption=Resumption.OFF)
    signed(a, b)
    assert (a.secret_count(), b.secret_count()) == (0, 0)
    a.open(b)
    assert isinstance(a.sent()[0], Send)  # at once


def test_ml_kem_is_mixed_after_16_resumptions_and_after_10_minutes():
    a, b = pair()
    now, mixed = 0.0, []
    for _ in range(MIX_COUNT + 2):
        resume, _resumed = exchange(a, b, now)
        confirm(b)
        mixed.append(bool(Resume.decode_untrusted(resume.body).ml_public))
        assert (len(resume.body) > 1184) == mixed[-1]
    assert mixed == [False] * MIX_COUNT + [True, False]
    exchange(a, b, MIX_S)
    confirm(b)
    resume, _ = exchange(a, b, MIX_S + 1)
    assert not Resume.decode_untrusted(resume.body).ml_public


def test_a_resume_without_ml_kem_is_refused_where_it_must_have_it():
    a, b = pair(resumption=Resumption.ALWAYS_KEM)
    next(iter(a.secrets._kept.values()))[0].always_mix = False
    with pytest.raises(RemoteProtocolError, match=Drop.NO_KEM):
        b.take(asked(a, b))
    assert b.secret_count() == 0


# ── failing over ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_without_an_answer_it_is_repeated_once_and_then_signed():
    a, b = pair()
    resume = asked(a, b)
    assert a.streams.next_timeout() == REPEAT_S
    a.streams.handle_timeout(now=REPEAT_S)
    (again,) = a.sent()
    assert again == Pass(resume.peer, resume.id, resume.what, resume.body, again=True)
    a.streams.handle_timeout(now=GIVE_UP_S)
    (open_,) = a.sent()
    assert isinstance(open_, Send)
    assert a.secret_count() == 0


def test_a_stream_that_falls_back_takes_the_place_of_the_one_that_was_answered_in_vain():
    a, b = pair()
    b.take(asked(a, b))
    b.sent()
    b.events()
    a.streams.handle_timeout(now=GIVE_UP_S)
    (open_,) = a.sent()
    b.streams.receive_open(CARDS[LOW.node_id], open_.body, "to", now=GIVE_UP_S)
    assert [type(event) for event in b.events()] == [ReceiverGone, SignedAnew, ReceiverReady]
    assert not b.streams._outgoing, "nor is there a way back whose keys the other never had"
    a.streams.receive_accept(HIGH.node_id, b.sent()[0].body, now=GIVE_UP_S)
    with pytest.raises(RemoteProtocolError, match="replay"):
        b.streams.receive_open(CARDS[LOW.node_id], open_.body, "to", now=GIVE_UP_S)


@pytest.mark.parametrize(("said_s", "more_s"), [(0.001, UNKNOWN_S_MIN), (0.02, 0.08), (0.1, UNKNOWN_S_MAX)])
def test_not_known_is_believed_after_four_times_what_it_took(said_s: float, more_s: float) -> None:
    a, b = pair()
    resume = asked(a, b)
    a.resuming.resume_unknown(resume.id, now=said_s)
    a.streams.handle_timeout(now=said_s + more_s - 0.001)
    assert a.sent() == []
    a.streams.handle_timeout(now=said_s + more_s + 0.001)
    assert isinstance(a.sent()[-1], Send)


def test_a_liar_that_says_not_known_is_overtaken():
    a, b = pair()
    resume = asked(a, b)
    b.take(resume)
    a.take(b.sent()[0], 0.05)  # what b takes
    confirm(b)
    a.events()
    resume = asked(a, b, 1.0)
    a.resuming.resume_unknown(resume.id, now=1.0)
    b.take(resume, 1.0)
    a.streams.handle_timeout(now=1.15)
    a.take(b.sent()[0], 1.15)
    assert a.events(SenderReady)


def test_a_slow_peer_is_waited_for_as_long_as_it_took():
    a, b = pair()
    resume = asked(a, b)
    b.take(resume)
    a.take(b.sent()[0], 0.3)
    confirm(b)
    asked(a, b, 1.0)
    a.streams.handle_timeout(now=1.0 + 4 * 0.3 - 0.01)
    assert all(isinstance(each, Pass) for each in a.sent())
    a.streams.handle_timeout(now=1.0 + 4 * 0.3)
    assert isinstance(a.sent()[-1], Send)


def test_a_stream_that_is_closed_meanwhile_asks_nothing_more():
    a, b = pair()
    stream = a.open(b)
    a.sent()
    a.streams.close_sender(stream)
    a.streams.handle_timeout(now=1.0)
    assert a.sent() == []
    assert a.secret_count() == 0


@pytest.mark.parametrize("spoilt", ["x_public", "box", "head"])
def test_a_damaged_message_changes_nothing(spoilt):
    a, b = pair()
    resume = asked(a, b)
    message = Resume.decode_untrusted(resume.body)
    other = {
        "x_public": replace(message, x_public=bytes([message.x_public[0] ^ 1]) + message.x_public[1:]),
        "box": replace(message, box=message.box[:-1] + bytes([message.box[-1] ^ 1])),
        "head": replace(message, ml_public=bytes(1184)),
    }[spoilt]
    with pytest.raises(RemoteProtocolError, match=Drop.SEAL):
        b.take(replace(resume, body=other.encode()))
    assert b.secret_count() == 1
    b.take(resume)
    assert b.events(ReceiverReady)


def test_an_answer_of_somebody_else_changes_nothing():
    a, b = pair()
    resume = asked(a, b)
    b.take(resume)
    (resumed,) = b.sent()
    with pytest.raises(RemoteProtocolError, match=Drop.SEAL):
        a.take(replace(resumed, body=resumed.body[:-1] + bytes([resumed.body[-1] ^ 1])))
    a.take(resumed)
    assert a.events(SenderReady)
    with pytest.raises(RemoteProtocolError, match=Drop.LATE):
        a.take(resumed)


def test_a_point_that_makes_the_secret_public_is_refused():
    a, b = pair()
    kept = next(iter(a.secrets._kept.values()))[0]
    resume = asked(a, b)
    schedule, ends = a.secrets._schedule, a.secrets._ends(kept, asks=True)
    early = schedule.early(kept.secret, ends)
    ahead = schedule.unseal_ahead(early, Resume.decode_untrusted(resume.body))
    draft = Resume(bytes(32), b"", bytes(17))
    bad = replace(draft, box=schedule.seal_ahead(early, draft.head(), ahead))
    with pytest.raises(RemoteProtocolError, match="malformed"):
        b.take(replace(resume, body=bad.encode()))
    assert b.events(ReceiverReady) == []
    assert b.secret_count() == 0


@pytest.mark.parametrize("how", ["time", "answer"])
@pytest.mark.parametrize("spoilt", [{"x_public": bytes(32)}, {"ml_public": b"short"}])
def test_a_bad_key_beside_an_offer_is_refused_before_the_offer_is_looked_at(how: str, spoilt: dict[str, bytes]) -> None:
    a, b = pair()
    kept = next(iter(a.secrets._kept.values()))[0]
    a.open(b)
    a.resuming.ride(HIGH.node_id, OFFER, now=0.0)
    (resume,) = a.sent()
    schedule, early = a.secrets._schedule, a.secrets._schedule.early(kept.secret, a.secrets._ends(kept, asks=True))
    ahead = schedule.unseal_ahead(early, Resume.decode_untrusted(resume.body))
    draft = replace(Resume.decode_untrusted(resume.body), **spoilt)
    bad = replace(draft, box=schedule.seal_ahead(early, draft.head(), ahead))
    with pytest.raises(RemoteProtocolError, match="malformed"):
        b.take(replace(resume, body=bad.encode()))
    assert b.events() == []
    if how == "time":
        b.streams.handle_timeout(now=RIDE_S)
    else:
        b.resuming.ride_back(LOW.node_id, OFFER.seq, ANSWER, now=0.0)
    assert b.secret_count() == 0


# ── both at once, and riders ─────────────────────────────────────────────────────────────────────────────────────────


def test_when_both_ask_at_once_one_exchange_serves_both():
    a, b = pair()
    stream_a, stream_b = a.open(b), b.open(a)
    (of_a,), (of_b,) = a.sent(), b.sent()
    a.take(of_b)
    assert a.sent() == []  # the lower node id's counts
    b.take(of_a)
    (resumed,) = b.sent()
    a.take(resumed)
    assert {event.stream for event in a.events(SenderReady, ReceiverReady)} == {stream_a, stream_b}
    assert {event.stream for event in b.events(SenderReady, ReceiverReady)} == {stream_a, stream_b}
    for side in (a, b):
        side.streams.handle_timeout(now=GIVE_UP_S)
        assert side.sent() == []


def test_an_offer_goes_along_and_so_does_its_answer():
    a, b = pair()
    a.open(b)
    assert a.streams.next_transmit(lambda peer: False) is None  # the link is described first
    assert a.resuming.ride(HIGH.node_id, OFFER, now=0.0)
    (resume,) = a.sent()
    b.take(resume)
    assert b.sent() == []
    assert b.events() == [Rode(LOW.node_id, Kind.OFFER, b"offer", 7)]
    assert not b.resuming.ride_back(LOW.node_id, 8, ANSWER, now=0.0)
    assert b.resuming.ride_back(LOW.node_id, 7, ANSWER, now=0.0)
    a.take(b.sent()[0])
    assert Rode(HIGH.node_id, Kind.ANSWER, b"answer", 0) in a.events()


def test_an_answer_that_takes_long_is_not_waited_for():
    a, b = pair()
    a.open(b)
    a.resuming.ride(HIGH.node_id, OFFER, now=0.0)
    b.take(a.sent()[0])
    b.streams.handle_timeout(now=RIDE_S)
    assert not b.resuming.ride_back(LOW.node_id, 7, ANSWER, now=RIDE_S)
    a.take(b.sent()[0])
    assert RideEnded(HIGH.node_id, answered=True) in a.events()


def test_an_offer_whose_resumption_fails_is_to_be_sent_by_itself():
    a, b = pair()
    a.open(b)
    a.resuming.ride(HIGH.node_id, OFFER, now=0.0)
    a.sent()
    a.streams.handle_timeout(now=GIVE_UP_S)
    assert a.events() == [RideEnded(HIGH.node_id, answered=False)]


@pytest.mark.parametrize(("of_a", "of_b"), [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("answer", [ANSWER, Rider(int(Kind.LINK_REFUSED), b"refused"), None])
@pytest.mark.parametrize("sends", [False, True])
def test_a_link_gets_the_keys_of_the_exchange_that_its_answer_came_with_and_no_other(
    of_a: bool, of_b: bool, answer: Rider | None, sends: bool
) -> None:
    a, b = Side(LOW, keyed_links=of_a), Side(HIGH, keyed_links=of_b)
    signed(a, b)
    if sends:  # b keeps no stream for its answers then
        exchange(b, a)
        confirm(a)
        a.events(), b.events()
    a.open(b)
    a.resuming.ride(HIGH.node_id, OFFER, now=0.0)
    b.take(a.sent()[0])
    theirs = None
    if answer is None:
        b.streams.handle_timeout(now=RIDE_S)
    else:
        rode = b.resuming.ride_back(LOW.node_id, OFFER.seq, answer, keyed=True, now=0.0)
        assert rode is not None
        theirs = rode.keys
    a.take(b.sent()[0])
    ours = next((event.keys for event in a.events(Rode)), None)
    assert (ours is None) == (theirs is None) == (not (of_a and of_b and answer is ANSWER))
    if ours is not None and theirs is not None:
        assert (ours.key_out, ours.key_in, ours.iv_out, ours.iv_in) == (
            theirs.key_in,
            theirs.key_out,
            theirs.iv_in,
            theirs.iv_out,
        )
        assert ours.key_out != ours.key_in
        assert ours.aead == theirs.aead == CHACHA20_POLY1305  # one of the two is faster with it
        assert ours.key_out.hex() not in repr(ours)


def test_each_link_has_keys_of_its_own() -> None:
    a, b = pair(keyed_links=True)
    keys = set()
    for _ in range(3):
        stream = a.open(b)
        a.resuming.ride(HIGH.node_id, OFFER, now=0.0)
        b.take(a.sent()[0])
        b.resuming.ride_back(LOW.node_id, OFFER.seq, ANSWER, keyed=True, now=0.0)
        a.take(b.sent()[0])
        (rode,) = a.events(Rode)
        keys |= {rode.keys.key_out, rode.keys.key_in}
        a.streams.close_sender(stream)
        confirm(b)
    assert len(keys) == 6


@pytest.mark.parametrize("rides", [False, True])
def test_a_link_without_a_handshake_that_was_not_asked_for_is_refused(rides: bool) -> None:
    a, b = Side(LOW), Side(HIGH, keyed_links=True)
    signed(a, b)
    a.open(b)
    if rides:
        a.resuming.ride(HIGH.node_id, OFFER, now=0.0)
    terms = b.resuming._terms
    b.resuming._terms = lambda stream, peer, rider, link_aead: terms(stream, peer, ANSWER, CHACHA20_POLY1305)
    b.take(a.sent()[0])
    if rides:
        b.resuming.ride_back(LOW.node_id, OFFER.seq, ANSWER, keyed=True, now=0.0)
    with pytest.raises(RemoteProtocolError, match="parameters"):
        a.take(b.sent()[0])


@pytest.mark.parametrize("wanted", [0, 3, 255])
def test_a_cipher_that_is_not_known_leads_to_a_handshake(wanted: int) -> None:
    a, b = pair(keyed_links=True)
    a.open(b)
    terms = a.resuming._terms
    a.resuming._terms = lambda stream, peer, rider, link_aead: terms(stream, peer, rider, wanted)
    a.resuming.ride(HIGH.node_id, OFFER, now=0.0)
    b.take(a.sent()[0])
    rode = b.resuming.ride_back(LOW.node_id, OFFER.seq, ANSWER, keyed=True, now=0.0)
    assert rode is not None
    assert rode.keys is None
    a.take(b.sent()[0])
    assert [event.keys for event in a.events(Rode)] == [None]


def test_an_answer_whose_exchange_is_erased_goes_by_itself_and_without_keys() -> None:
    a, b = pair(keyed_links=True)
    a.open(b)
    a.resuming.ride(HIGH.node_id, OFFER, now=0.0)
    b.take(a.sent()[0])
    b.secrets.forget(LOW.node_id)
    assert b.resuming.ride_back(LOW.node_id, OFFER.seq, ANSWER, keyed=True, now=0.0) is None
    assert b.sent() == []


def test_a_stream_that_is_wanted_while_the_peers_resume_waits_is_opened_by_that_one() -> None:
    a, b = pair()
    a.open(b)
    a.resuming.ride(HIGH.node_id, OFFER, now=0.0)
    b.take(a.sent()[0])
    own = b.open(a)
    assert b.sent() == [], "two under one secret would cross"
    assert not b.resuming.ride(LOW.node_id, OFFER, now=0.0)
    b.resuming.ride_back(LOW.node_id, OFFER.seq, ANSWER, now=0.0)
    (resumed,) = b.sent()
    a.take(resumed)
    (ready,) = b.events(SenderReady)
    (there,) = a.events(ReceiverReady)
    assert ready.stream == there.stream == own
    assert ready.data == there.data


def test_a_stream_that_is_wanted_while_the_peers_resume_waits_is_opened_with_signatures_if_the_secret_ends() -> None:
    a, b = pair()
    a.open(b)
    a.resuming.ride(HIGH.node_id, OFFER, now=0.0)
    b.take(a.sent()[0])
    b.open(a)
    b.resuming.forget(LOW.node_id)
    (open_,) = b.sent()
    assert isinstance(open_, Send)


def test_no_offer_rides_where_nothing_waits():
    a, _b = pair()
    assert not a.resuming.ride(HIGH.node_id, OFFER, now=0.0)


def test_a_node_that_sends_already_keeps_no_stream_for_a_later_packet() -> None:
    a, b = pair()
    a.take(asked(b, a))  # for b's answers; a sends to b on the stream that it opened
    (own,) = a.streams._outgoing
    assert a.events(ReceiverReady)
    b.take(a.sent()[0])
    assert b.events(SenderReady)
    confirm(a)
    a.streams.close_sender(own)
    asked(a, b)  # so that b's stream for answers is agreed as well


def test_a_spare_stream_that_nobody_asks_for_ends():
    a, b = pair()
    exchange(a, b)
    b.events()
    b.streams.handle_timeout(now=SPARE_S)
    assert not b.streams._outgoing
    assert a.streams._incoming, "whoever takes a spare at the last moment is still understood"
    a.streams.handle_timeout(now=HALF_OPEN_S)
    assert not a.streams._incoming


@pytest.mark.parametrize("at_once", [False, True])
def test_each_end_learns_the_relays_that_the_other_reaches_well(at_once):
    """A stream whose sender knows no relay of its receiver finds no path where two relays are needed."""
    of_a, of_b = (Vantage(bytes([node] * 16), 0, bytes(8), bytes(SEAL_PUBLIC_BYTES)) for node in (1, 2))
    a, b = Side(LOW, vantage=lambda peer: (of_a,)), Side(HIGH, vantage=lambda peer: (of_b,))
    signed(a, b)
    if at_once:
        b.open(a)
        b.sent()
    exchange(a, b)
    if not at_once:
        b.open(a)
    assert [event.vantage for event in a.events(SenderReady)] == [(of_b,)]
    assert [event.vantage for event in b.events(SenderReady)] == [(of_a,)]


def test_it_is_known_which_way_a_message_came_before_the_answer_names_relays():
    a, b = pair()
    order: list[object] = []
    b.streams._book.vantage = lambda peer: order.append("named") or ()
    resume = asked(a, b)
    b.resuming.receive_resume(resume.id, resume.body, b.cards.get, order.append, now=0.0)
    assert order == [LOW.node_id, "named"]
    (resumed,) = b.sent()
    heard: list[object] = []
    a.resuming.receive_resumed(resumed.id, resumed.body, a.cards.get, heard.append, now=0.0)
    assert heard == [HIGH.node_id]
    b.resuming.receive_resume(resume.id, resume.body, b.cards.get, order.append, now=0.0)
    assert order == [LOW.node_id, "named"], "anybody can repeat it, by any way"


def test_a_node_that_sends_already_opens_no_second_stream_at_either_end():
    a, b = Side(LOW), Side(HIGH)
    signed(b, a)
    exchange(a, b)
    assert len(b.streams._outgoing) == len(b.streams._incoming) == 1
    assert len(a.streams._outgoing) == len(a.streams._incoming) == 1
    confirm(b)
    b.streams.handle_timeout(now=HALF_OPEN_S)
    a.streams.handle_timeout(now=HALF_OPEN_S)
    assert all(state.is_used for side in (a, b) for state in side.streams._incoming.values())
