"""Streams opened before a packet waits for them: for whom, how many, and for how long."""

from __future__ import annotations

from kit.nodes import FakeStreams, card_of, id_of

from conflux.anchor.frame import CHACHA20_POLY1305
from conflux.anchor.key import EpochKey
from conflux.ids import NodeId, StreamId
from conflux.node import answering
from conflux.node.answering import KEPT_S, Answering
from conflux.stream.event import SenderEnd, SenderFailed, SenderReady
from conflux.stream.resumptions import HALF_OPEN_S

BRAVO = id_of("bravo")


def made() -> tuple[Answering, FakeStreams]:
    streams = FakeStreams()
    return Answering(streams), streams  # the part of streams that answering uses


def ready(stream: StreamId, peer: NodeId = BRAVO) -> SenderReady:
    key = EpochKey(0, CHACHA20_POLY1305, bytes(32), bytes(4))
    return SenderReady(stream, peer, key, key, (), ())


def test_stream_is_given_to_the_first_packet_with_what_is_agreed():
    answers, streams = made()
    answers.expect(card_of("bravo"), 0.0)
    ((stream, _),) = streams.opened
    assert answers.sender_ready(ready(stream))
    assert answers.take(BRAVO) == (stream, ready(stream))
    assert answers.take(BRAVO) is None
    assert answers.next_timeout() is None


def test_packet_may_come_before_the_stream_is_agreed():
    answers, streams = made()
    answers.expect(card_of("bravo"), 0.0)
    ((stream, _),) = streams.opened
    assert answers.take(BRAVO) == (stream, None)
    assert not answers.sender_ready(ready(stream)), "it is the destination's now"


def test_unused_stream_is_closed_before_its_receiver_forgets_it():
    assert KEPT_S < HALF_OPEN_S
    answers, streams = made()
    answers.expect(card_of("bravo"), 0.0)
    assert answers.next_timeout() == KEPT_S
    answers.handle_timeout(now=KEPT_S)
    assert streams.closed == [streams.opened[0][0]]


def test_node_that_was_not_answered_gets_no_second_stream_until_something_is_sent_to_it():
    answers, streams = made()
    answers.expect(card_of("bravo"), 0.0)
    answers.handle_timeout(now=KEPT_S)
    answers.expect(card_of("bravo"), 10.0)
    assert len(streams.opened) == 1
    answers.take(BRAVO)
    answers.expect(card_of("bravo"), 20.0)
    assert len(streams.opened) == 2


def test_count_of_waiting_streams_is_bounded(monkeypatch):
    monkeypatch.setattr(answering, "COUNT_MAX", 1)
    answers, streams = made()
    for name in ("bravo", "carol"):
        answers.expect(card_of(name), 0.0)
    assert [node for _, node in streams.opened] == [BRAVO]


def test_count_of_silent_nodes_is_bounded_and_the_oldest_is_forgotten(monkeypatch):
    monkeypatch.setattr(answering, "SILENT_COUNT_MAX", 1)
    answers, streams = made()
    for name in ("bravo", "carol"):
        answers.expect(card_of(name), 0.0)
        answers.handle_timeout(now=KEPT_S)
    answers.expect(card_of("bravo"), 10.0)
    assert [node for _, node in streams.opened] == [BRAVO, id_of("carol"), BRAVO]


def test_failed_and_forgotten_streams_leave_nothing():
    answers, streams = made()
    answers.expect(card_of("bravo"), 0.0)
    stream, peer = streams.opened[0]
    answers.sender_failed(SenderFailed(stream, peer, SenderEnd.NO_ANSWER, "absent"))
    answers.expect(card_of("carol"), 0.0)
    answers.close_all()
    assert streams.closed == [streams.opened[1][0]]
    assert answers.next_timeout() is None
