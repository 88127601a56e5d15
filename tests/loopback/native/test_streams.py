"""Streams through the native datapath: rekeys, route changes, reports, entries, ends, and time."""

from __future__ import annotations

import struct
import time

import pytest
from kit.native import (
    CHANNEL_COUNT,
    FORWARD,
    REVERSE,
    STREAM,
    STREAM_BACK,
    TETHER,
    B,
    Node,
    Pair,
    World,
    keys,
    number_of,
    udp,
    waves,
)

from conflux.anchor import frame as f
from conflux.anchor.codec import Sender, relabel
from conflux.anchor.key import EpochKey
from conflux.carrier.interface import Hop
from conflux.datapath.config import DatapathConfig
from conflux.datapath.interface import (
    Entry,
    Feedback,
    ReceiverIdle,
    ReceiverVerified,
    RekeyDue,
    SenderIdle,
    Suspect,
    Upcall,
)
from conflux.errors import LocalProtocolError, RemoteProtocolError


def fire(node: Node, at: float) -> list[Upcall]:
    """Fire a node's timers as of a time; return its upcalls."""
    node.datapath.handle_timeout(now=at)
    return list(iter(node.datapath.next_upcall, None))


def one_way(pair: Pair, number: int = 0) -> None:
    """Send one packet from A to B."""
    pair.a.send(udp(number))
    pair.world.until(lambda: udp(number) in pair.b.packets)


def reported(pair: Pair) -> Feedback:
    """Return the next report that A has."""

    def found() -> list[Feedback]:
        return [upcall for upcall in pair.a.upcalls if isinstance(upcall, Feedback)]

    pair.world.until(found)
    feedback = found()[-1]
    pair.a.upcalls.clear()
    return feedback


def sealer(key: EpochKey, first: int = 0) -> Sender:
    """Return what seals under one of the stream's keys, from a counter on."""
    made = Sender(key.aead, key.key, key.nonce_prefix, key.epoch)
    for _ in range(first):
        made.seal(0, 0, [])
    return made


# ── feedback ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_sender_learns_what_arrived_and_how_long_it_took(pair: Pair) -> None:
    for number in range(3):
        one_way(pair, number)
    pair.world.until(lambda: any(isinstance(u, Feedback) and u.received_count == 3 for u in pair.a.upcalls))
    feedback = pair.a.upcalls[-1]
    assert isinstance(feedback, Feedback)
    assert (feedback.stream, feedback.epoch, feedback.counter_highest) == (STREAM, 0, 2)
    assert (feedback.lost_count, feedback.marked_count) == (0, 0)
    assert feedback.received_bytes == 3 * (f.ENTRY_HEADER_BYTES + len(udp()))
    assert feedback.rtt_s is not None
    assert 0 < feedback.rtt_s < 1
    assert feedback.delay_change_us is not None


def test_marks_and_losses_are_counted(pair: Pair) -> None:
    forged = sealer(keys()[0], 3)  # frames 0 to 2 are lost
    for flags in (f.CE, 0, f.CE):
        pair.forge(forged.seal(FORWARD, flags, [(f.PACKET, udp())]))
    pair.world.until(lambda: len(pair.b.packets) == 3)
    (status,) = pair.b.datapath.status().receivers
    assert (status.lost_frames, status.marked_frames, status.frames) == (3, 2, 3)


def test_an_asked_interval_costs_no_frame_of_its_own_and_is_kept(pair: Pair) -> None:
    one_way(pair)
    reported(pair)
    other_interval = struct.pack(">QQQQQII", 0, 1, 0, 0, 0, 0, 2_000_000)
    pair.b.wire.send(pair.link_b, 0, 53, sealer(keys()[1], 9).seal(REVERSE, f.FEEDBACK, [(f.REPORT, other_interval)]))
    reported(pair)
    pair.world.pass_time(0.05)
    assert pair.a.engine.sender(1).counter == 1
    one_way(pair, 1)
    assert pair.a.engine.sender(1).counter == 2
    assert pair.b.drops == {}


def test_entries_alone_keep_no_stream_alive(pair: Pair) -> None:
    one_way(pair)
    reported(pair)
    active_at = pair.a.engine.egress(1).active_at
    pair.a.datapath.queue_entry(STREAM, f.REKEY, b"fresh key")
    pair.world.until(lambda: Entry(STREAM, f.REKEY, b"fresh key", 0) in pair.b.upcalls)
    assert pair.a.engine.egress(1).active_at == active_at


def test_without_frames_there_is_no_feedback(pair: Pair) -> None:
    one_way(pair)
    reported(pair)
    for later_s in (0.1, 0.2, 1.0, 10.0):
        pair.b.datapath.handle_timeout(now=time.monotonic() + later_s)
        pair.b.datapath.drain((), now=time.monotonic() + later_s)
    pair.world.pass_time(0.05)
    assert pair.a.upcalls == []


def test_a_report_that_cannot_be_true_changes_nothing(pair: Pair) -> None:
    pair.b.is_deaf = True  # it sends no report of its own
    pair.a.send(udp())
    pair.world.until(lambda: pair.a.engine.sender(1).counter == 1)
    back = sealer(keys()[1])
    never_sent = struct.pack(">QQQQQII", 1, 1, 0, 0, 0, 0, 0)
    for body in (b"", never_sent):
        pair.b.wire.send(pair.link_b, 0, 53, back.seal(REVERSE, f.FEEDBACK, [(f.REPORT, body)]))
    pair.world.until(lambda: pair.a.drops == {"bad-report": 2})
    assert pair.a.upcalls == []
    assert fire(pair.a, time.monotonic() + 1.1) == [Suspect(STREAM)]


def test_feedback_under_a_wrong_label_or_with_a_flipped_bit_is_dropped(pair: Pair) -> None:
    one_way(pair)
    reported(pair)
    back = sealer(keys()[1], 5).seal(REVERSE, f.FEEDBACK, [(f.REKEY, b"mine")])
    for bad in (relabel(back, REVERSE + 1, False), back[:-1] + bytes([back[-1] ^ 1])):
        pair.b.wire.send(pair.link_b, 0, 53, bad)
    pair.world.until(lambda: pair.a.drops == {"unknown-label": 1, "auth": 1})
    pair.b.wire.send(pair.link_b, 0, 53, back)
    pair.world.until(lambda: Entry(STREAM, f.REKEY, b"mine", 0) in pair.a.upcalls)


def test_a_data_frame_under_a_feedback_label_is_unknown(pair: Pair) -> None:
    pair.b.wire.send(pair.link_b, 0, 53, sealer(keys()[1]).seal(REVERSE, 0, []))
    pair.world.until(lambda: pair.a.drops == {"unknown-label": 1})


# ── time ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_silent_route_is_suspected_once_and_a_report_ends_it(pair: Pair) -> None:
    pair.b.is_deaf = True
    pair.a.send(udp())
    pair.world.until(lambda: pair.a.engine.sender(1).counter == 1)
    pair.world.step()
    sent_at = time.monotonic()
    assert fire(pair.a, sent_at + 0.9) == []
    assert fire(pair.a, sent_at + 1.1) == [Suspect(STREAM)]
    assert fire(pair.a, sent_at + 5.0) == []
    pair.b.is_deaf = False
    reported(pair)
    pair.b.is_deaf = True
    pair.a.send(udp())
    pair.world.until(lambda: pair.a.engine.sender(1).counter == 2)
    pair.world.step()
    assert fire(pair.a, time.monotonic() + 1.1) == [Suspect(STREAM)]


def test_a_route_that_carries_nothing_is_not_suspected(pair: Pair) -> None:
    one_way(pair)
    reported(pair)
    assert fire(pair.a, time.monotonic() + 14.0) == []


def test_a_report_of_the_epoch_before_leaves_no_suspicion(pair: Pair) -> None:
    pair.b.is_deaf = True
    pair.a.send(udp())
    pair.world.until(lambda: pair.a.engine.sender(1).counter == 1)
    pair.a.datapath.rekey_sender(STREAM, *keys(1), now=time.monotonic())
    pair.b.is_deaf = False
    assert reported(pair).epoch == 0
    assert fire(pair.a, time.monotonic() + 9.0) == []


def test_both_ends_report_an_idle_stream_once(pair: Pair) -> None:
    one_way(pair)
    reported(pair)
    now = time.monotonic()
    assert fire(pair.a, now + 14.5) == fire(pair.b, now + 19.5) == []
    assert fire(pair.a, now + 15.1) == [SenderIdle(STREAM)]
    assert fire(pair.b, now + 20.1) == [ReceiverIdle(STREAM)]
    assert fire(pair.a, now + 60) == fire(pair.b, now + 60) == []


def test_an_idle_stream_that_goes_on_is_idle_anew(pair: Pair) -> None:
    one_way(pair)
    reported(pair)
    assert fire(pair.a, time.monotonic() + 15.1) == [SenderIdle(STREAM)]
    assert fire(pair.b, time.monotonic() + 20.1) == [ReceiverIdle(STREAM)]
    one_way(pair, 1)
    reported(pair)
    assert fire(pair.a, time.monotonic() + 15.1) == [SenderIdle(STREAM)]
    assert fire(pair.b, time.monotonic() + 20.1) == [ReceiverIdle(STREAM)]


def test_a_late_report_does_not_keep_an_idle_stream_from_being_idle_anew(pair: Pair) -> None:
    pair.b.is_deaf = True
    for number in range(2):
        pair.a.send(udp(number))
        pair.world.until(lambda number=number: pair.a.engine.sender(1).counter == number + 1)
    pair.world.step()
    assert SenderIdle(STREAM) in fire(pair.a, time.monotonic() + 15.1)
    back = sealer(keys()[1])
    first_only = struct.pack(">QQQQQII", 0, 1, 0, 0, 0, 0, 100_000)
    pair.b.wire.send(pair.link_b, 0, 53, back.seal(REVERSE, f.FEEDBACK, [(f.REPORT, first_only)]))
    pair.world.until(lambda: pair.a.upcalls)
    pair.a.send(udp(2))
    pair.world.until(lambda: pair.a.engine.sender(1).counter == 3)
    pair.world.step()
    assert SenderIdle(STREAM) in fire(pair.a, time.monotonic() + 15.1)


def test_a_stream_that_never_carried_anything_is_idle_too(pair: Pair) -> None:
    now = time.monotonic()
    assert fire(pair.a, now + 15.1) == [SenderIdle(STREAM)]
    assert fire(pair.b, now + 20.1) == [ReceiverIdle(STREAM)]


def test_a_rekey_is_due_once_after_its_time_of_use(made: World) -> None:
    pair = Pair(made, DatapathConfig(idle_timeout_s=1000.0, epoch_frames_min=1))
    assert fire(pair.a, time.monotonic() + 500) == []
    one_way(pair)
    reported(pair)
    now = time.monotonic()
    assert fire(pair.a, now + 119.5) == []
    assert fire(pair.a, now + 120.1) == [RekeyDue(STREAM)]
    assert fire(pair.a, now + 130) == []


def test_a_rekey_is_due_once_after_its_bytes(made: World) -> None:
    pair = Pair(made, DatapathConfig(epoch_bytes_max=5000))
    for number in range(8):
        one_way(pair, number)
        pair.a.send(udp(100 + number, size=1000))
        made.until(lambda number=number: len(pair.b.packets) == 2 * number + 2)
    made.until(lambda: RekeyDue(STREAM) in pair.a.upcalls)
    made.pass_time(0.3)
    assert pair.a.upcalls.count(RekeyDue(STREAM)) == 1


# ── rekeys ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_rekeys_under_load_lose_nothing(pair: Pair) -> None:
    for turn, wave in enumerate(waves(2000, 40)):
        for number in wave:
            if number == wave.start + 20:
                pair.b.datapath.rekey_receiver(STREAM, *keys((turn + 1) % 256), now=time.monotonic())
                pair.a.datapath.rekey_sender(STREAM, *keys((turn + 1) % 256), now=time.monotonic())
            pair.a.send(udp(number, size=800))
        pair.world.until(lambda wave=wave: len(pair.b.packets) == wave.stop)
    assert sorted(map(number_of, pair.b.packets)) == list(range(2000))
    assert pair.b.drops == {}
    assert set(pair.a.drops) <= {"unknown-epoch"}, "a report that two rekeys overtook"


def test_the_old_key_is_accepted_for_ten_seconds_after_the_first_frame_of_the_new(pair: Pair) -> None:
    old = sealer(keys(0)[0])
    pair.forge(old.seal(FORWARD, 0, [(f.PACKET, udp(0))]))
    pair.world.until(lambda: len(pair.b.packets) == 1)
    pair.b.datapath.rekey_receiver(STREAM, *keys(1), now=time.monotonic())
    fire(pair.b, time.monotonic() + 15)  # without a frame of the new epoch the old key stays valid
    pair.forge(old.seal(FORWARD, 0, [(f.PACKET, udp(1))]))
    pair.world.until(lambda: len(pair.b.packets) == 2)
    pair.a.datapath.rekey_sender(STREAM, *keys(1), now=time.monotonic())
    one_way(pair, 2)
    pair.forge(old.seal(FORWARD, 0, [(f.PACKET, udp(3))]))
    pair.world.until(lambda: len(pair.b.packets) == 4)
    pair.world.until(lambda: pair.b.datapath.status().receivers[0].epoch == 1)
    fire(pair.b, time.monotonic() + 10.1)
    pair.forge(old.seal(FORWARD, 0, [(f.PACKET, udp(4))]))
    pair.world.until(lambda: pair.b.drops == {"unknown-epoch": 1})
    assert len(pair.b.packets) == 4


def test_reports_of_the_epoch_before_stay_readable(pair: Pair) -> None:
    pair.b.is_deaf = True
    pair.a.send(udp())
    pair.world.until(lambda: pair.a.engine.sender(1).counter == 1)
    pair.a.datapath.rekey_sender(STREAM, *keys(1), now=time.monotonic())
    pair.b.is_deaf = False
    feedback = reported(pair)
    assert (feedback.epoch, feedback.received_count, feedback.rtt_s) == (0, 1, None)


def test_counts_begin_anew_with_an_epoch(pair: Pair) -> None:
    for number in range(3):
        one_way(pair, number)
    pair.b.datapath.rekey_receiver(STREAM, *keys(1), now=time.monotonic())
    pair.a.datapath.rekey_sender(STREAM, *keys(1), now=time.monotonic())
    one_way(pair, 9)
    pair.world.until(lambda: any(isinstance(u, Feedback) and u.epoch == 1 for u in pair.a.upcalls))
    feedback = next(u for u in pair.a.upcalls if isinstance(u, Feedback) and u.epoch == 1)
    assert (feedback.counter_highest, feedback.received_count, feedback.lost_count) == (0, 1, 0)


def test_an_unknown_epoch_and_repeated_frames_are_refused(pair: Pair) -> None:
    alien = Sender(f.CHACHA20_POLY1305, keys()[0].key, b"npre", 7)
    pair.forge(alien.seal(FORWARD, 0, []))
    pair.world.until(lambda: pair.b.drops == {"unknown-epoch": 1})
    frame = sealer(keys()[0]).seal(FORWARD, 0, [(f.PACKET, udp())])
    for _ in range(3):
        pair.forge(frame)
    pair.world.until(lambda: pair.b.drops == {"unknown-epoch": 1, "replay": 2} and pair.b.packets == [udp()])


def test_a_frame_with_a_flipped_bit_or_under_another_label_changes_nothing(pair: Pair) -> None:
    frame = sealer(keys()[0]).seal(FORWARD, 0, [(f.PACKET, udp())])
    for index in (8, 15, 16, len(frame) - 1):
        bad = bytearray(frame)
        bad[index] ^= 1
        pair.forge(bytes(bad))
    pair.forge(relabel(frame, FORWARD + 1, False))
    pair.world.until(lambda: pair.b.drops == {"auth": 4, "unknown-label": 1})
    assert pair.b.upcalls == pair.b.packets == []
    pair.forge(frame)
    pair.world.until(lambda: pair.b.packets == [udp()])


# ── routes that change ───────────────────────────────────────────────────────────────────────────────────────────────


def second_route(pair: Pair) -> tuple[Hop, Hop]:
    """Make another link between the two; return the stream's hops over it."""
    link_a, link_b = pair.world.join(pair.a, pair.b)
    hop_a = Hop(link_a, TETHER, CHANNEL_COUNT, label_out=3000, label_in=4000)
    hop_b = Hop(link_b, TETHER, CHANNEL_COUNT, label_out=4000, label_in=3000)
    pair.b.datapath.add_receiver_route(STREAM, hop_b, now=time.monotonic())
    return hop_a, hop_b


def test_a_route_changes_between_two_links_without_loss(pair: Pair) -> None:
    hops = second_route(pair)[0], pair.hop_a
    for turn, wave in enumerate(waves(2000, 40)):
        for number in wave:
            if number == wave.start + 20:
                pair.a.datapath.set_route(STREAM, hops[turn % 2], now=time.monotonic())
            pair.a.send(udp(number, size=800))
        pair.world.until(lambda wave=wave: len(pair.b.packets) == wave.stop)
    assert sorted(map(number_of, pair.b.packets)) == list(range(2000))
    assert pair.a.drops == pair.b.drops == {}


def test_feedback_follows_the_newest_route_and_the_old_label_stays_until_removed(pair: Pair) -> None:
    def link_of_receiver() -> object:
        return pair.b.datapath.status().receivers[0].link

    hop_a, hop_b = second_route(pair)
    one_way(pair, 1)
    reported(pair)
    pair.world.until(lambda: link_of_receiver() == pair.link_b)
    pair.a.datapath.set_route(STREAM, hop_a, now=time.monotonic())
    one_way(pair, 2)
    feedback = reported(pair)
    assert feedback.counter_highest == 1
    assert link_of_receiver() == hop_b.link
    pair.b.datapath.remove_receiver_route(hop_b.link, 3000)
    pair.b.datapath.queue_entry(STREAM, f.REKEY, b"over the old one")
    pair.world.until(lambda: Entry(STREAM, f.REKEY, b"over the old one", 0) in pair.a.upcalls)
    pair.a.datapath.remove_feedback_label(pair.link_a, REVERSE)
    pair.b.datapath.queue_entry(STREAM, f.REKEY, b"unheard")
    pair.world.until(lambda: pair.a.drops == {"unknown-label": 1})


def test_a_frame_of_the_route_before_measures_nothing(pair: Pair) -> None:
    pair.b.is_deaf = True
    pair.a.send(udp())
    pair.world.until(lambda: pair.a.engine.sender(1).counter == 1)
    pair.a.datapath.set_route(STREAM, pair.hop_a, now=time.monotonic())
    pair.b.is_deaf = False
    assert reported(pair).rtt_s is None
    one_way(pair, 1)
    assert reported(pair).rtt_s is not None


def test_a_label_has_one_use(pair: Pair) -> None:
    now = time.monotonic()
    pair.b.datapath.add_receiver(STREAM_BACK, B, (), *keys(), now=now)
    with pytest.raises(LocalProtocolError):
        pair.b.datapath.add_receiver_route(STREAM_BACK, pair.hop_b, now=now)
    elsewhere = Hop(pair.link_b + 99, TETHER, 1, 1, 2)
    with pytest.raises(LocalProtocolError):
        pair.b.datapath.add_relay(pair.hop_b, elsewhere, now=now)
    with pytest.raises(LocalProtocolError):
        pair.a.datapath.add_relay(elsewhere, pair.hop_a, now=now)
    one_way(pair)


# ── entries, confirmations, ends ─────────────────────────────────────────────────────────────────────────────────────


def test_entries_travel_both_ways(pair: Pair) -> None:
    pair.a.datapath.queue_entry(STREAM, f.REKEY, b"fresh key")
    pair.world.until(lambda: Entry(STREAM, f.REKEY, b"fresh key", 0) in pair.b.upcalls)
    pair.b.datapath.queue_entry(STREAM, f.REKEY, b"answer")
    pair.world.until(lambda: Entry(STREAM, f.REKEY, b"answer", 0) in pair.a.upcalls)


def test_the_stream_is_verified_before_anything_in_its_first_frame_is_reported(pair: Pair) -> None:
    pair.a.datapath.queue_entry(STREAM, f.REKEY, b"fresh key")
    pair.world.until(lambda: len(pair.b.upcalls) >= 2)
    assert pair.b.upcalls == [ReceiverVerified(STREAM), Entry(STREAM, f.REKEY, b"fresh key", 0)]


def test_entries_wait_for_a_route_and_a_waiting_entry_is_not_queued_again(made: World) -> None:
    pair = Pair(made, route=False)
    for _ in range(40):
        pair.a.datapath.queue_entry(STREAM, f.REKEY, b"the same offer, repeated")
    pair.route()
    made.until(lambda: pair.b.upcalls)
    made.settle()
    made.step()
    assert pair.b.upcalls.count(Entry(STREAM, f.REKEY, b"the same offer, repeated", 0)) == 1
    assert pair.a.drops == {}


@pytest.mark.parametrize(("size", "kept"), [(2, 16), (1200, 13)])
def test_of_more_entries_than_fit_a_frame_the_newest_go(made: World, size: int, kept: int) -> None:
    pair = Pair(made, route=False)
    bodies = [index.to_bytes(2, "big") + bytes(size - 2) for index in range(40)]
    for body in bodies:
        pair.a.datapath.queue_entry(STREAM, f.REKEY, body)
    pair.route()
    made.until(lambda: len(pair.b.upcalls) > kept)
    assert [entry.body for entry in pair.b.upcalls if isinstance(entry, Entry)] == bodies[-kept:]
    assert pair.a.drops == {"entry-full": 40 - kept}


def test_an_entry_no_frame_could_hold_is_refused(pair: Pair) -> None:
    for node in (pair.a, pair.b):
        with pytest.raises(LocalProtocolError):
            node.datapath.queue_entry(STREAM, f.REKEY, bytes(20_000))


def test_entries_and_large_packets_do_not_push_one_another_out(made: World) -> None:
    pair = Pair(made, route=False)
    packets = [udp(number, size=64_000) for number in range(3)]
    for packet in packets:
        pair.a.send(packet)
    for number in range(13):
        pair.a.datapath.queue_entry(STREAM, f.REKEY, bytes([number]) * 1200)
    made.until(lambda: pair.a.engine.egress(1).packets == 3)
    pair.route()
    made.until(lambda: len(pair.b.packets) == 3 and len(pair.b.upcalls) == 14)
    assert sorted(pair.b.packets) == sorted(packets)
    assert pair.a.drops == {}


def test_padding_is_ignored_and_misplaced_entries_are_counted(pair: Pair) -> None:
    entries = [(f.PADDING, bytes(100)), (f.END, b""), (f.PACKET, udp()), (f.REPORT, b"?")]
    pair.forge(sealer(keys()[0]).seal(FORWARD, 0, entries))
    pair.world.until(lambda: pair.b.drops == {"misplaced-entry": 1, "bad-report": 1} and pair.b.packets == [udp()])
    assert pair.b.upcalls == [ReceiverVerified(STREAM)]


def test_a_confirmation_opens_once_and_only_for_its_stream(pair: Pair) -> None:
    frame = pair.b.datapath.seal_feedback(STREAM, b"forward label")
    with pytest.raises(RemoteProtocolError):
        pair.a.datapath.unseal_confirmation(STREAM_BACK, frame)
    assert pair.a.datapath.unseal_confirmation(STREAM, frame) == b"forward label"
    with pytest.raises(RemoteProtocolError):
        pair.a.datapath.unseal_confirmation(STREAM, frame)


def test_the_last_frame_ends_the_stream_once(pair: Pair) -> None:
    one_way(pair)
    last = pair.a.datapath.last_frame(STREAM)
    assert not pair.b.datapath.verify_last(STREAM_BACK, last)
    assert not pair.b.datapath.verify_last(STREAM, last[:-1] + bytes([last[-1] ^ 1]))
    assert not pair.b.datapath.verify_last(STREAM, last + b"\0")
    assert not pair.b.datapath.verify_last(STREAM, b"")
    assert pair.b.datapath.verify_last(STREAM, last)
    assert not pair.b.datapath.verify_last(STREAM, last)


def test_a_detached_sender_still_ends_its_stream(pair: Pair) -> None:
    one_way(pair)
    pair.a.datapath.remove_egress(B, "over")
    assert pair.b.datapath.verify_last(STREAM, pair.a.datapath.last_frame(STREAM))
    pair.a.datapath.set_route(STREAM, None, now=time.monotonic())
    with pytest.raises(LocalProtocolError):
        pair.a.datapath.set_route(STREAM, pair.hop_a, now=time.monotonic())


def test_an_end_that_comes_in_a_data_frame_ends_nothing(pair: Pair) -> None:
    pair.forge(relabel(pair.a.datapath.last_frame(STREAM), FORWARD, False))
    pair.world.until(lambda: pair.b.drops == {"misplaced-entry": 1})


def test_an_end_is_no_sign_of_life(pair: Pair) -> None:
    one_way(pair)
    reported(pair)
    now = time.monotonic()
    assert pair.b.datapath.verify_last(STREAM, pair.a.datapath.last_frame(STREAM))
    assert pair.b.engine.receiver(1, False).active_at < now
