"""A stream's rekeys, and the entries, confirmations and ends that travel sealed."""

from __future__ import annotations

import pytest
from kit.datapath import (
    FORWARD,
    HOP_A,
    LINK_A,
    LINK_B,
    REVERSE,
    STREAM,
    STREAM_BACK,
    B,
    Pair,
    deliveries,
    frames,
    keys,
    udp,
    upcalls,
)

from conflux.anchor import frame as f
from conflux.anchor.codec import Receiver, Sender, relabel
from conflux.datapath.config import DatapathConfig
from conflux.datapath.interface import (
    Entry,
    Feedback,
    ReceiverVerified,
    RekeyDue,
)
from conflux.errors import LocalProtocolError, RemoteProtocolError


@pytest.fixture
def pair() -> Pair:
    """A's stream to B."""
    return Pair()


# ── entries ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_entry_goes_alone_if_no_packet_waits(pair: Pair) -> None:
    pair.a.queue_entry(STREAM, f.REKEY, b"fresh key")
    assert pair.a.sendable() == (B,)
    assert pair.carry(0.0) == []
    assert upcalls(pair.b) == [ReceiverVerified(STREAM), Entry(STREAM, f.REKEY, b"fresh key", 0)]
    assert pair.a.sendable() == ()


def test_an_entry_goes_before_packets_and_never_with_too_many() -> None:
    pair = Pair(DatapathConfig(bundle_bytes_max=3000))
    for index in range(3):
        pair.a.packet(udp(body=bytes([index]) * 900), now=0.0)
    pair.a.queue_entry(STREAM, f.REKEY, bytes(1216))
    outs = frames(pair.a)
    assert [len(out.data) for out in outs] == [32 + 3 + 1216 + 931, 32 + 2 * 931]


def test_entries_wait_for_a_route() -> None:
    pair = Pair(route=False)
    pair.a.queue_entry(STREAM, f.REKEY, b"")
    assert pair.a.sendable() == ()
    pair.a.set_route(STREAM, HOP_A, now=0.0)
    assert pair.a.sendable() == (B,)


def test_an_entry_of_a_receiver_goes_at_once_with_its_feedback(pair: Pair) -> None:
    pair.b.queue_entry(STREAM, f.REKEY, b"answer")
    assert pair.report(0.0) == [Entry(STREAM, f.REKEY, b"answer", 0)]


def test_an_entry_no_frame_could_hold_is_refused(pair: Pair) -> None:
    for datapath in (pair.a, pair.b):
        with pytest.raises(LocalProtocolError):
            datapath.queue_entry(STREAM, f.REKEY, bytes(20_000))


@pytest.mark.parametrize(("size", "kept"), [(2, 16), (1200, 13)])
def test_of_more_entries_than_fit_a_frame_the_newest_go(pair: Pair, size: int, kept: int) -> None:
    bodies = [index.to_bytes(2, "big") + bytes(size - 2) for index in range(40)]
    for body in bodies:
        pair.b.queue_entry(STREAM, f.REKEY, body)
    assert [entry.body for entry in pair.report(0.0) if isinstance(entry, Entry)] == bodies[-kept:]
    assert pair.b.drop_counts() == {"entry-full": 40 - kept}


def test_an_entry_that_waits_is_not_queued_again() -> None:
    pair = Pair(route=False)
    for _ in range(40):
        pair.a.queue_entry(STREAM, f.REKEY, b"the same offer, repeated")
    pair.a.set_route(STREAM, HOP_A, now=0.0)
    pair.carry(0.0)
    assert upcalls(pair.b).count(Entry(STREAM, f.REKEY, b"the same offer, repeated", 0)) == 1
    assert pair.a.drop_counts() == {}


def test_padding_is_ignored_and_misplaced_entries_are_counted(pair: Pair) -> None:
    forward = Sender(f.CHACHA20_POLY1305, keys()[0].key, b"npre", 0)
    entries = [(f.PADDING, bytes(100)), (f.END, b""), (f.OFFLOAD, bytes(30)), (f.PACKET, udp()), (f.REPORT, b"?")]
    pair.b.frame_untrusted(LINK_B, forward.seal(FORWARD, 0, entries), now=0.0)
    assert deliveries(pair.b) == [udp()]
    assert upcalls(pair.b) == [ReceiverVerified(STREAM)]
    assert pair.b.drop_counts() == {"misplaced-entry": 2, "bad-report": 1}
    back = Sender(f.CHACHA20_POLY1305, keys()[1].key, b"npre", 0)
    pair.a.frame_untrusted(LINK_A, back.seal(REVERSE, f.FEEDBACK, [(f.PADDING, b""), (f.PACKET, udp())]), now=0.0)
    assert pair.a.drop_counts() == {"misplaced-entry": 1}
    assert deliveries(pair.a) == upcalls(pair.a) == []


def test_upcalls_a_peer_causes_are_bounded() -> None:
    pair = Pair(DatapathConfig(upcall_count_max=10))
    forward = Sender(f.CHACHA20_POLY1305, keys()[0].key, b"npre", 0)
    pair.b.frame_untrusted(LINK_B, forward.seal(FORWARD, 0, [(f.REKEY, b"")] * 1000), now=0.0)
    assert len(upcalls(pair.b)) == 10
    assert pair.b.drop_counts() == {"upcall-full": 991}


# ── confirmation and end ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_confirmation_opens_once_and_only_for_its_stream(pair: Pair) -> None:
    frame = pair.b.seal_feedback(STREAM, b"forward label")
    with pytest.raises(RemoteProtocolError):
        pair.a.unseal_confirmation(STREAM_BACK, frame)
    assert pair.a.unseal_confirmation(STREAM, frame) == b"forward label"
    with pytest.raises(RemoteProtocolError):
        pair.a.unseal_confirmation(STREAM, frame)


def test_other_frames_do_not_open_as_a_confirmation(pair: Pair) -> None:
    back = Sender(f.CHACHA20_POLY1305, keys()[1].key, b"npre", 0)
    frame = back.seal(0, f.FEEDBACK, [(f.CONFIRM, b"1")])
    for bad in (b"", frame[:-1], frame[:-1] + bytes([frame[-1] ^ 1]), back.seal(0, f.FEEDBACK, [(f.PADDING, b"")])):
        with pytest.raises(RemoteProtocolError):
            pair.a.unseal_confirmation(STREAM, bad)
    with pytest.raises(RemoteProtocolError):
        pair.a.unseal_confirmation(STREAM, pair.a.last_frame(STREAM))
    assert pair.a.unseal_confirmation(STREAM, frame) == b"1"


def test_the_last_frame_ends_the_stream_once(pair: Pair) -> None:
    last = pair.a.last_frame(STREAM)
    assert not pair.b.verify_last(STREAM_BACK, last)
    assert not pair.b.verify_last(STREAM, last[:-1] + bytes([last[-1] ^ 1]))
    assert pair.b.verify_last(STREAM, last)
    assert not pair.b.verify_last(STREAM, last)


def test_no_other_frame_ends_a_stream(pair: Pair) -> None:
    pair.a.packet(udp(), now=0.0)
    (out,) = frames(pair.a)
    for frame in (out.data, b"", pair.b.seal_feedback(STREAM, b"")):
        assert not pair.b.verify_last(STREAM, frame)


def test_an_end_that_comes_in_a_data_frame_ends_nothing(pair: Pair) -> None:
    last = pair.a.last_frame(STREAM)
    pair.b.frame_untrusted(LINK_B, relabel(last, FORWARD, False), now=0.0)
    assert pair.b.drop_counts() == {"misplaced-entry": 1}
    assert upcalls(pair.b) == [ReceiverVerified(STREAM)]


# ── epochs ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_rekey_is_due_once_per_epoch_after_its_time_of_use() -> None:
    pair = Pair(DatapathConfig(idle_timeout_s=1000.0, epoch_s=120.0, epoch_frames_min=1))
    pair.a.handle_timeout(now=500.0)
    assert upcalls(pair.a) == []
    for start, epoch in ((500.0, 1), (700.0, 2)):
        pair.a.packet(udp(), now=start)
        pair.carry(start)
        pair.report(start)
        upcalls(pair.a)
        pair.a.handle_timeout(now=start + 119.9)
        assert upcalls(pair.a) == []
        pair.a.handle_timeout(now=start + 120.0)
        pair.a.handle_timeout(now=start + 130.0)
        assert upcalls(pair.a) == [RekeyDue(STREAM)]
        pair.b.rekey_receiver(STREAM, *keys(epoch), now=start + 130.0)
        pair.a.rekey_sender(STREAM, *keys(epoch), now=start + 130.0)


def test_a_key_that_sealed_few_frames_is_not_renewed_by_the_clock_alone() -> None:
    pair = Pair(DatapathConfig(idle_timeout_s=10_000.0, epoch_s=120.0, epoch_frames_min=64, epoch_quiet_s=1800.0))

    def ping(now: float) -> None:
        pair.a.packet(udp(), now=now)
        pair.carry(now)
        pair.report(now)
        upcalls(pair.a)

    for minute in range(30):
        ping(60.0 * minute)
        pair.a.handle_timeout(now=60.0 * minute + 59.0)
        assert RekeyDue(STREAM) not in upcalls(pair.a)
    pair.a.handle_timeout(now=1800.0)
    assert upcalls(pair.a).count(RekeyDue(STREAM)) == 1, "half an hour is the most"


def test_a_key_is_renewed_as_soon_as_it_is_old_and_sealed_enough() -> None:
    pair = Pair(DatapathConfig(idle_timeout_s=10_000.0, epoch_s=120.0, epoch_frames_min=64))
    due_at = []
    for second in range(400):
        now = float(second)
        pair.a.packet(udp(), now=now)
        pair.carry(now)
        pair.report(now)
        pair.a.handle_timeout(now=now)
        due_at += [second] * upcalls(pair.a).count(RekeyDue(STREAM))
    assert due_at == [120]


def test_a_new_epoch_is_measured_from_its_first_frame_on(pair: Pair) -> None:
    for _ in range(3):
        pair.a.packet(udp(), now=0.0)
        pair.carry(0.0)
    pair.a.set_route(STREAM, HOP_A, now=0.0)  # from here on, counters below 3 measure another route
    pair.report(0.2)
    pair.b.rekey_receiver(STREAM, *keys(1), now=1.0)
    pair.a.rekey_sender(STREAM, *keys(1), now=1.0)
    pair.a.packet(udp(), now=2.0)
    pair.carry(2.0, delay_s=0.03)
    (feedback,) = pair.report(2.03, delay_s=0.01)
    assert isinstance(feedback, Feedback)
    assert (feedback.epoch, feedback.counter_highest) == (1, 0)
    assert feedback.rtt_s == pytest.approx(0.04)


def test_a_rekey_is_due_once_per_epoch_after_its_bytes() -> None:
    pair = Pair(DatapathConfig(epoch_bytes_max=5000))
    due = []
    for _ in range(12):
        pair.a.packet(udp(body=bytes(1000)), now=0.0)
        pair.carry(0.0)
        due.append(upcalls(pair.a).count(RekeyDue(STREAM)))
    assert due == [0] * 4 + [1] + [0] * 7


def test_frames_of_both_epochs_are_accepted_until_ten_seconds_after_the_first_of_the_new(pair: Pair) -> None:
    late = []
    for _ in range(3):
        pair.a.packet(udp(body=b"old"), now=0.0)
        late += frames(pair.a)
    pair.b.frame_untrusted(LINK_B, late[0].data, now=0.0)
    pair.reports(0.0)
    pair.b.rekey_receiver(STREAM, *keys(1), now=1.0)
    pair.b.handle_timeout(now=15.0)  # without a frame of the new epoch the old key stays valid
    pair.a.rekey_sender(STREAM, *keys(1), now=15.0)
    pair.a.packet(udp(body=b"new"), now=15.0)
    assert pair.carry(15.0) == [udp(body=b"old"), udp(body=b"new")]
    pair.b.frame_untrusted(LINK_B, late[1].data, now=24.9)
    assert deliveries(pair.b) == [udp(body=b"old")]
    pair.b.handle_timeout(now=25.0)
    pair.b.frame_untrusted(LINK_B, late[2].data, now=25.0)
    assert deliveries(pair.b) == []
    assert pair.b.drop_counts() == {"unknown-epoch": 1}


def test_the_answer_to_a_rekey_travels_under_the_old_key(pair: Pair) -> None:
    pair.b.rekey_receiver(STREAM, *keys(1), now=0.0)
    pair.b.queue_entry(STREAM, f.REKEY, b"answer")
    assert pair.report(0.0) == [Entry(STREAM, f.REKEY, b"answer", 0)]


def test_counts_begin_anew_with_an_epoch_and_old_reports_stay_readable_ten_seconds(pair: Pair) -> None:
    for _ in range(5):
        pair.a.packet(udp(), now=0.0)
        pair.carry(0.0)
    old = pair.reports(0.0)
    pair.b.handle_timeout(now=0.2)
    pair.a.packet(udp(), now=0.2)
    pair.carry(0.2)
    older = pair.reports(0.2)
    pair.b.rekey_receiver(STREAM, *keys(1), now=1.0)
    pair.a.rekey_sender(STREAM, *keys(1), now=1.0)
    pair.a.packet(udp(), now=1.0)
    pair.carry(1.0)
    (feedback,) = pair.report(1.0)
    assert isinstance(feedback, Feedback)
    assert (feedback.epoch, feedback.counter_highest, feedback.received_count) == (1, 0, 1)
    pair.a.frame_untrusted(LINK_A, old[0].data, now=10.9)
    (feedback,) = upcalls(pair.a)
    assert isinstance(feedback, Feedback)
    assert (feedback.epoch, feedback.rtt_s) == (0, None)
    pair.a.handle_timeout(now=11.0)
    pair.a.frame_untrusted(LINK_A, older[0].data, now=11.0)
    assert pair.a.drop_counts() == {"unknown-epoch": 1}


def test_an_epoch_that_was_not_agreed_on_is_unknown(pair: Pair) -> None:
    forward = Sender(f.CHACHA20_POLY1305, keys()[0].key, b"npre", 7)
    pair.b.frame_untrusted(LINK_B, forward.seal(FORWARD, 0, []), now=0.0)
    assert pair.b.drop_counts() == {"unknown-epoch": 1}


def test_epochs_wrap_around(pair: Pair) -> None:
    for turn in range(1, 300):
        pair.b.rekey_receiver(STREAM, *keys(turn % 256), now=float(turn))
        pair.a.rekey_sender(STREAM, *keys(turn % 256), now=float(turn))
        pair.a.packet(udp(), now=float(turn))
        assert pair.carry(float(turn)) == [udp()]
    assert pair.b.drop_counts() == {}


# ── erasure ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def erased(key: Sender | Receiver) -> bool:
    """Say whether a key was erased."""
    try:
        key.seal(0, 0, []) if isinstance(key, Sender) else key.unseal(b"")
    except (LocalProtocolError, RemoteProtocolError) as error:
        return "erased" in str(error)
    return False


def test_a_senders_keys_are_erased_as_its_epochs_end_and_at_removal(pair: Pair) -> None:
    sender = pair.a._senders[STREAM]
    epochs = [sender._epoch]
    pair.a.rekey_sender(STREAM, *keys(1), now=0.0)
    assert erased(epochs[0].data)
    assert not erased(epochs[0].feedback)
    pair.a.handle_timeout(now=10.0)
    assert erased(epochs[0].feedback)
    for number in (2, 3):
        epochs.append(sender._epoch)
        pair.a.rekey_sender(STREAM, *keys(number), now=11.0)
    assert erased(epochs[1].feedback), "two epochs back, even within the grace"
    assert not erased(epochs[2].feedback)
    epochs.append(sender._epoch)
    pair.a.remove_sender(STREAM)
    assert all(erased(epoch.data) and erased(epoch.feedback) for epoch in epochs)


def test_a_receivers_keys_are_erased_as_its_epochs_end_and_at_removal(pair: Pair) -> None:
    receiver = pair.b._receivers[STREAM]

    def rekey(number: int, now: float) -> None:
        pair.a.rekey_sender(STREAM, *keys(number), now=now)
        pair.a.packet(udp(), now=now)
        pair.carry(now)
        assert receiver._epoch.number == number

    epochs = [receiver._epoch]
    pair.b.rekey_receiver(STREAM, *keys(1, b"never used"), now=0.0)
    unused = receiver._next
    assert unused is not None
    pair.b.rekey_receiver(STREAM, *keys(1), now=0.0)
    assert erased(unused.data)
    assert erased(unused.feedback)
    rekey(1, 1.0)
    assert erased(epochs[0].feedback)
    assert not erased(epochs[0].data), "frames of the epoch before may still be under way"
    pair.b.handle_timeout(now=11.0)
    assert erased(epochs[0].data)
    for number in (2, 3):
        epochs.append(receiver._epoch)
        pair.b.rekey_receiver(STREAM, *keys(number), now=12.0)
        rekey(number, 12.0)
    assert erased(epochs[1].data), "two epochs back, even within the grace"
    pair.b.rekey_receiver(STREAM, *keys(4), now=12.0)
    assert receiver._next is not None
    epochs += [receiver._epoch, receiver._next]
    pair.b.remove_receiver(STREAM)
    assert all(erased(epoch.data) and erased(epoch.feedback) for epoch in epochs)
