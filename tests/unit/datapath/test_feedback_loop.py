"""What a sender learns from its receiver, and what either does when the other is silent."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest
from kit.datapath import (
    FORWARD,
    HOP_A,
    HOP_B,
    LINK_A,
    LINK_B,
    REVERSE,
    STREAM,
    TETHER,
    Pair,
    frames,
    keys,
    udp,
    upcalls,
)

from conflux.anchor import frame as f
from conflux.anchor.codec import Sender, relabel
from conflux.carrier.interface import Hop
from conflux.datapath.interface import Entry, Feedback, ReceiverIdle, SenderIdle, Suspect, Upcall
from conflux.ids import LinkId


@pytest.fixture
def pair() -> Pair:
    """A's stream to B."""
    return Pair()


# ── feedback ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_sender_learns_what_arrived_and_how_long_it_took(pair: Pair) -> None:
    for _ in range(3):
        pair.a.packet(udp(), now=1.0)
        pair.carry(1.0, delay_s=0.030)
    (feedback,) = pair.report(1.050, delay_s=0.010)
    assert feedback == Feedback(
        stream=STREAM,
        epoch=0,
        counter_highest=2,
        received_count=3,
        lost_count=0,
        marked_count=0,
        received_bytes=3 * (f.ENTRY_HEADER_BYTES + len(udp())),
        delay_change_us=0,
        rtt_s=pytest.approx(0.040, abs=1e-5),
    )


def test_losses_marks_and_delay_are_reported(pair: Pair) -> None:
    now = 1.0
    pair.a.packet(udp(), now=now)
    pair.carry(now, delay_s=0.010)
    assert len(pair.report(now + 0.01)) == 1
    for index in range(10):
        now = 2.0 + index / 100
        pair.a.packet(udp(), now=now)
        (out,) = frames(pair.a, now=now)
        if index not in (2, 3):
            pair.b.frame_untrusted(LINK_B, relabel(out.data, FORWARD, index < 5), now=now + 0.025)
    (feedback,) = pair.report(2.2, delay_s=0.010)
    assert isinstance(feedback, Feedback)
    assert (feedback.counter_highest, feedback.received_count, feedback.lost_count) == (10, 9, 2)
    assert feedback.marked_count == 3
    assert feedback.delay_change_us == pytest.approx(15_000, abs=10)
    assert feedback.rtt_s == pytest.approx(0.035, abs=1e-5)


def test_the_first_frame_is_reported_at_once_and_then_every_interval(pair: Pair) -> None:
    sent_at = []
    for step in range(1000):
        now = step / 1000
        pair.a.packet(udp(), now=now)
        pair.carry(now)
        timeout = pair.b.next_timeout()
        if timeout is not None and timeout <= now:
            pair.b.handle_timeout(now=now)
        sent_at += [now for _ in pair.reports(now)]
    assert sent_at == pytest.approx([index / 10 for index in range(10)], abs=0.0015)


def test_without_frames_there_is_no_feedback(pair: Pair) -> None:
    pair.a.packet(udp(), now=0.0)
    pair.carry(0.0)
    assert len(pair.reports(0.0)) == 1
    for now in (0.1, 0.2, 1.0, 10.0):
        pair.b.handle_timeout(now=now)
        assert pair.reports(now) == []


def test_a_long_path_is_reported_on_every_two_round_trips() -> None:
    pair = Pair()
    one_way_s = 0.150
    due_back: list[tuple[float, bytes]] = []
    due_there: list[tuple[float, bytes]] = []
    sent_at = []
    for step in range(5000):
        now = step / 1000
        if step % 10 == 0:
            pair.a.packet(udp(), now=now)
        due_there += [(now + one_way_s, out.data) for out in frames(pair.a, now=now)]
        while due_there and due_there[0][0] <= now:
            pair.b.frame_untrusted(LINK_B, due_there.pop(0)[1], now=now)
        pair.b.handle_timeout(now=now)
        for out in pair.reports(now):
            sent_at.append(now)
            due_back.append((now + one_way_s, out.data))
        while due_back and due_back[0][0] <= now:
            pair.a.frame_untrusted(LINK_A, due_back.pop(0)[1], now=now)
        pair.a.handle_timeout(now=now)
    gaps = [after - before for before, after in pairwise(sent_at)]
    assert gaps[0] == pytest.approx(0.1, abs=0.002)
    assert gaps[-3:] == pytest.approx([0.6] * 3, abs=0.01)
    assert not any(isinstance(upcall, Suspect) for upcall in upcalls(pair.a))


def test_an_asked_interval_is_bounded(pair: Pair) -> None:
    forward = Sender(f.CHACHA20_POLY1305, keys()[0].key, b"npre", 0)
    for start, asked, interval_s in ((10.0, b"\0\0\0\0", 0.1), (20.0, b"\xff\xff\xff\xff", 2.0)):
        pair.b.frame_untrusted(LINK_B, forward.seal(FORWARD, 0, [(f.REPORT, asked)]), now=start)
        assert len(pair.reports(start)) == 1
        pair.b.frame_untrusted(LINK_B, forward.seal(FORWARD, 0, []), now=start)
        for now, count in ((start + 0.99 * interval_s, 0), (start + 1.01 * interval_s, 1)):
            pair.b.handle_timeout(now=now)
            assert len(pair.reports(now)) == count


def test_feedback_goes_over_the_newest_route_added_or_used(pair: Pair) -> None:
    other = Hop(LinkId(9), TETHER, 1, label_out=2222, label_in=1111)
    pair.b.add_receiver_route(STREAM, other, now=0.0)
    pair.b.queue_entry(STREAM, f.REKEY, b"")
    assert [out.link for out in pair.reports(0.0)] == [9]
    outs = []
    for _ in range(2):
        pair.a.packet(udp(), now=1.0)
        outs += frames(pair.a, now=1.0)
    pair.b.frame_untrusted(LINK_B, outs[1].data, now=1.0)
    assert [out.link for out in pair.reports(1.0)] == [LINK_B]
    # A frame that was overtaken does not show the sender's present route.
    pair.b.frame_untrusted(LinkId(9), relabel(outs[0].data, 1111, False), now=1.05)
    pair.b.handle_timeout(now=1.2)
    assert [out.link for out in pair.reports(1.2)] == [LINK_B]
    pair.b.remove_receiver_route(LINK_B, FORWARD)
    pair.b.queue_entry(STREAM, f.REKEY, b"")
    assert [out.link for out in pair.reports(1.3)] == [9]
    pair.b.remove_receiver_route(LinkId(9), 1111)
    pair.b.queue_entry(STREAM, f.REKEY, b"kept")
    assert pair.reports(1.4) == []
    pair.b.add_receiver_route(STREAM, HOP_B, now=1.5)
    assert Entry(STREAM, f.REKEY, b"kept", 0) in pair.report(1.5)


def test_feedback_is_accepted_on_the_label_of_the_hop_before_until_removed(pair: Pair) -> None:
    pair.a.set_route(STREAM, Hop(LinkId(2), TETHER, 1, label_out=1, label_in=3333), now=0.0)
    for index, expected in enumerate((1, 1, 0)):
        if index == 2:
            pair.a.remove_feedback_label(LINK_A, REVERSE)
            pair.a.remove_feedback_label(LINK_A, REVERSE)
        pair.b.queue_entry(STREAM, f.REKEY, bytes([index]))
        assert len(pair.report(float(index))) == expected
    assert pair.a.drop_counts() == {"unknown-label": 1}
    pair.b.queue_entry(STREAM, f.REKEY, b"")
    (out,) = pair.reports(3.0)
    pair.a.frame_untrusted(LinkId(2), relabel(out.data, 3333, False), now=3.0)
    assert len(upcalls(pair.a)) == 1


def test_a_frame_of_the_route_before_measures_nothing(pair: Pair) -> None:
    pair.a.packet(udp(), now=0.0)
    (old,) = frames(pair.a)
    pair.a.set_route(STREAM, Hop(LINK_A, TETHER, 1, label_out=FORWARD, label_in=3333), now=1.0)
    pair.b.frame_untrusted(LINK_B, old.data, now=1.1)
    (feedback,) = pair.report(1.1)
    assert isinstance(feedback, Feedback)
    assert feedback.rtt_s is feedback.delay_change_us is None
    pair.a.packet(udp(), now=2.0)
    pair.carry(2.0)
    (feedback,) = pair.report(2.0, delay_s=0.05)
    assert isinstance(feedback, Feedback)
    assert feedback.rtt_s == pytest.approx(0.05)


def test_a_report_that_cannot_be_true_changes_nothing(pair: Pair) -> None:
    pair.a.packet(udp(), now=0.0)
    frames(pair.a)
    back = Sender(f.CHACHA20_POLY1305, keys()[1].key, b"npre", 0)
    never_sent = struct.pack(">QQQQQII", 1, 1, 0, 0, 0, 0, 0)
    for body in (b"", never_sent):
        pair.a.frame_untrusted(LINK_A, back.seal(REVERSE, f.FEEDBACK, [(f.REPORT, body)]), now=0.1)
    assert pair.a.drop_counts() == {"bad-report": 2}
    assert upcalls(pair.a) == []
    pair.a.handle_timeout(now=1.0)
    assert upcalls(pair.a) == [Suspect(STREAM)]


def test_a_receiver_that_lies_about_its_hold_is_not_measured(pair: Pair) -> None:
    pair.a.packet(udp(), now=0.0)
    frames(pair.a)
    back = Sender(f.CHACHA20_POLY1305, keys()[1].key, b"npre", 0)
    body = struct.pack(">QQQQQII", 0, 1, 0, 0, 0, 2**32 - 1, 0)
    pair.a.frame_untrusted(LINK_A, back.seal(REVERSE, f.FEEDBACK, [(f.REPORT, body)]), now=0.1)
    (feedback,) = upcalls(pair.a)
    assert isinstance(feedback, Feedback)
    assert feedback.rtt_s is None


# ── time ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_silent_route_is_suspected_once_after_five_intervals(pair: Pair) -> None:
    pair.a.packet(udp(), now=0.0)
    pair.carry(0.0)
    assert len(pair.report(0.0, delay_s=0.01)) == 1
    pair.a.packet(udp(), now=1.0)
    frames(pair.a, now=1.0)
    pair.a.handle_timeout(now=1.49)
    assert upcalls(pair.a) == []
    assert pair.a.next_timeout() == 1.5
    pair.a.handle_timeout(now=1.5)
    assert upcalls(pair.a) == [Suspect(STREAM)]
    for now in (2.0, 3.0):
        pair.a.packet(udp(), now=now)
        frames(pair.a, now=now)
        pair.a.handle_timeout(now=now + 0.9)
    assert upcalls(pair.a) == []


def test_a_late_report_of_some_frames_starts_the_silence_of_the_rest_anew(pair: Pair) -> None:
    pair.a.packet(udp(), now=0.0)
    pair.carry(0.0)
    pair.a.packet(udp(), now=0.0)
    frames(pair.a)  # lost
    pair.a.handle_timeout(now=1.0)
    assert upcalls(pair.a) == [Suspect(STREAM)]
    (feedback,) = pair.report(1.0, delay_s=0.01)
    assert isinstance(feedback, Feedback)
    pair.a.handle_timeout(now=20.0)
    assert Suspect(STREAM) in upcalls(pair.a)


def test_a_report_or_a_new_route_ends_suspicion_and_later_silence_is_reported(pair: Pair) -> None:
    def silence(now: float) -> list[Upcall]:
        pair.a.packet(udp(), now=now)
        frames(pair.a, now=now)
        pair.a.handle_timeout(now=now + 1.0)
        return upcalls(pair.a)

    assert silence(0.0) == [Suspect(STREAM)]
    pair.a.packet(udp(), now=2.0)
    pair.carry(2.0)
    assert len(pair.report(2.0)) == 1
    assert silence(3.0) == [Suspect(STREAM)]
    pair.a.set_route(STREAM, HOP_A, now=5.0)
    assert silence(5.0) == [Suspect(STREAM)]
    pair.a.set_route(STREAM, None, now=6.5)
    pair.a.handle_timeout(now=10.0)
    assert upcalls(pair.a) == []


def test_a_route_that_carries_nothing_is_not_suspected(pair: Pair) -> None:
    pair.a.packet(udp(), now=0.0)
    pair.carry(0.0)
    pair.report(0.0)
    pair.a.handle_timeout(now=14.0)
    assert upcalls(pair.a) == []


def test_both_ends_report_an_idle_stream_once(pair: Pair) -> None:
    pair.a.packet(udp(), now=10.0)
    pair.carry(10.0)
    pair.report(10.0)
    upcalls(pair.b)
    for datapath in (pair.a, pair.b):
        datapath.handle_timeout(now=24.9)
        assert upcalls(datapath) == []
    assert pair.a.next_timeout() == 25.0
    pair.a.handle_timeout(now=25.0)
    pair.b.handle_timeout(now=25.0)
    assert upcalls(pair.a) == [SenderIdle(STREAM)]
    assert upcalls(pair.b) == []
    assert pair.b.next_timeout() == 30.0
    pair.b.handle_timeout(now=30.0)
    pair.b.handle_timeout(now=60.0)
    pair.a.handle_timeout(now=60.0)
    assert upcalls(pair.b) == [ReceiverIdle(STREAM)]
    assert upcalls(pair.a) == []
    pair.a.remove_sender(STREAM)
    assert pair.a.next_timeout() is None
    assert pair.b.next_timeout() is None


def test_a_stream_that_never_carried_anything_is_idle_too(pair: Pair) -> None:
    pair.a.handle_timeout(now=15.0)
    pair.b.handle_timeout(now=20.0)
    assert upcalls(pair.a) == [SenderIdle(STREAM)]
    assert upcalls(pair.b) == [ReceiverIdle(STREAM)]


def test_an_idle_stream_that_goes_on_is_idle_anew(pair: Pair) -> None:
    pair.a.handle_timeout(now=15.0)
    pair.a.packet(udp(), now=16.0)
    pair.carry(16.0)
    pair.report(16.0)
    upcalls(pair.a)
    pair.a.handle_timeout(now=31.0)
    assert upcalls(pair.a) == [SenderIdle(STREAM)]


def test_feedback_keeps_no_receiver_alive(pair: Pair) -> None:
    for now in range(20):
        pair.b.queue_entry(STREAM, f.REKEY, b"")
        pair.reports(float(now))
    pair.b.handle_timeout(now=20.0)
    assert upcalls(pair.b) == [ReceiverIdle(STREAM)]


def test_a_shorter_idle_time_counts_at_once_for_open_streams_and_a_longer_one_too(pair: Pair) -> None:
    pair.a.packet(udp(), now=10.0)
    pair.carry(10.0)
    pair.report(10.0)
    upcalls(pair.b)
    pair.a.set_idle_timeout(3.0)
    pair.b.set_idle_timeout(60.0)
    pair.a.handle_timeout(now=12.9)
    assert upcalls(pair.a) == []
    pair.a.handle_timeout(now=13.0)
    pair.b.handle_timeout(now=69.0)
    assert (upcalls(pair.a), upcalls(pair.b)) == ([SenderIdle(STREAM)], [])
    pair.b.handle_timeout(now=75.0)
    assert upcalls(pair.b) == [ReceiverIdle(STREAM)]
