"""The reference datapath: packets in, frames across, packets out."""

from __future__ import annotations

import gc
from ipaddress import ip_network

import pytest
from kit.datapath import (
    A4,
    A6,
    B4,
    B6,
    C4,
    FORWARD,
    HOP_A,
    HOP_B,
    LINK_A,
    LINK_B,
    REALM,
    REVERSE,
    STREAM,
    STREAM_BACK,
    TETHER,
    A,
    B,
    C,
    Pair,
    deliveries,
    frames,
    key,
    keys,
    udp,
    upcalls,
)

from conflux.anchor import frame as f
from conflux.anchor.codec import Sender, relabel
from conflux.carrier.interface import Hop
from conflux.datapath.config import DatapathConfig
from conflux.datapath.interface import Datapath, Miss, ReceiverVerified, SenderIdle
from conflux.datapath.reference.datapath import ReferenceDatapath
from conflux.datapath.reference.egress import Egress
from conflux.datapath.reference.receiver import StreamReceiver
from conflux.datapath.reference.sender import StreamSender
from conflux.errors import LocalProtocolError
from conflux.ids import LinkId


@pytest.fixture
def pair() -> Pair:
    """A's stream to B."""
    return Pair()


def test_a_packet_travels_unchanged(pair: Pair) -> None:
    for packet in (udp(body=b"four"), udp(A6, B6, body=b"six")):
        pair.a.packet(packet, now=1.0)
        assert pair.carry(1.0) == [packet]
    assert pair.a.drop_counts() == pair.b.drop_counts() == {}


def test_the_reference_is_a_datapath() -> None:
    datapath: Datapath = ReferenceDatapath()
    assert datapath.name == "reference"
    assert datapath.next_timeout() is None


def test_a_miss_is_reported_once_and_its_packets_follow_in_order() -> None:
    a = ReferenceDatapath()
    a.configure((A4, A6), REALM)
    packets = [udp(body=bytes([number])) for number in range(5)]
    for packet in packets:
        a.packet(packet, now=1.0)
    assert upcalls(a) == [Miss(B4)]
    pair = Pair()
    a.add_egress(B, (B4, B6), now=1.1)
    assert a.sendable() == ()
    a.add_sender(B, STREAM, *keys(), now=1.2)
    assert a.sendable() == ()
    assert a.next_frame(B, now=1.2) is None
    a.set_route(STREAM, HOP_A, now=1.3)
    assert a.sendable() == (B,)
    pair.a = a
    assert pair.carry(1.3) == packets
    assert a.sendable() == ()


# ── egress ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_packets_of_several_addresses_join_one_queue_oldest_first() -> None:
    pair = Pair(route=False)
    a = ReferenceDatapath()
    a.configure((A4, A6), REALM)
    packets = [udp(A4, B4, body=b"0"), udp(A6, B6, body=b"1"), udp(A4, B4, body=b"2"), udp(A6, B6, body=b"3")]
    for index, packet in enumerate(packets):
        a.packet(packet, now=float(index))
    assert upcalls(a) == [Miss(B4), Miss(B6)]
    a.add_egress(B, (B4, B6), now=4.0)
    a.add_sender(B, STREAM, *keys(), now=4.0)
    a.set_route(STREAM, HOP_A, now=4.0)
    pair.a = a
    assert sorted(pair.carry(4.0)) == sorted(packets)
    assert a.drop_counts() == {}


def test_a_refused_address_drops_what_waits_and_may_miss_again() -> None:
    a = Pair().a
    for _ in range(3):
        a.packet(udp(A4, C4), now=0.0)
    assert upcalls(a) == [Miss(C4)]
    a.refuse(C4, "no-such-node")
    assert a.drop_counts() == {"no-such-node": 3}
    a.packet(udp(A4, C4), now=1.0)
    assert upcalls(a) == [Miss(C4)]


def test_who_sent_to_an_unreachable_address_is_told_so_at_a_bounded_rate() -> None:
    a = Pair().a
    for second in (0.0, 2.0):
        for number in range(80):
            a.packet(udp(A4, C4, port=5000 + number), now=second)
        a.refuse(C4, "unreachable")
        answers = []
        while (answer := a.next_delivery()) is not None:
            answers.append(answer)
        assert len(answers) == 50
        assert all(answer[20] == 3 and answer[28:].startswith(b"\x45") for answer in answers)


def test_addresses_asked_for_are_bounded_and_so_are_the_packets_of_each() -> None:
    config = DatapathConfig(pending_address_count_max=4, pending_bytes_max=1000)
    a = ReferenceDatapath(config)
    a.configure((A4,), REALM)
    for last in range(10, 20):
        a.packet(udp(A4, f"100.64.0.{last}"), now=0.0)
    assert len(upcalls(a)) == 4
    assert a.drop_counts() == {"pending-full": 6}
    for _ in range(10):
        a.packet(udp(A4, "100.64.0.10", body=bytes(300)), now=0.0)
    assert a.drop_counts() == {"pending-full": 6, "queue-full": 8}


def test_packets_that_wait_too_long_for_an_answer_are_dropped_and_their_address_forgotten() -> None:
    a = ReferenceDatapath(DatapathConfig(hold_age_s_max=10.0))
    a.configure((A4,), REALM)
    a.packet(udp(A4, B4), now=0.0)
    a.packet(udp(A4, B4), now=4.0)
    a.packet(udp(A4, C4), now=5.0)
    assert a.next_timeout() == 10.0
    a.handle_timeout(now=10.0)
    assert a.drop_counts() == {"aged": 1}
    assert a.next_timeout() == 14.0
    a.handle_timeout(now=14.0)
    a.handle_timeout(now=15.0)
    assert a.drop_counts() == {"aged": 3}
    assert a.next_timeout() is None
    assert a.status().pending == ()


def test_packets_without_a_route_age_and_those_with_one_do_not() -> None:
    pair = Pair(DatapathConfig(idle_timeout_s=1000.0), route=False)
    pair.a.packet(udp(body=b"old"), now=0.0)
    pair.a.packet(udp(body=b"new"), now=5.0)
    pair.a.handle_timeout(now=10.0)
    assert pair.a.drop_counts() == {"aged": 1}
    pair.a.set_route(STREAM, HOP_A, now=11.0)
    pair.a.handle_timeout(now=100.0)
    assert pair.carry(100.0) == [udp(body=b"new")]
    pair.a.packet(udp(body=b"held"), now=101.0)
    pair.a.set_route(STREAM, None, now=101.0)
    assert pair.a.sendable() == ()
    pair.a.handle_timeout(now=111.0)
    assert pair.a.drop_counts() == {"aged": 2}


def test_packets_queued_during_set_up_arrive_in_order_with_none_lost() -> None:
    pair = Pair(route=False)
    packets = [udp(body=index.to_bytes(2, "big") + bytes(1000)) for index in range(900)]
    for index, packet in enumerate(packets):
        pair.a.packet(packet, now=index / 1000)
    pair.a.set_route(STREAM, HOP_A, now=1.0)
    arrived: list[bytes] = []
    for step in range(len(packets)):  # a slow link: CoDel would drop if these were a standing queue
        out = pair.a.next_frame(B, now=1.0 + step / 20)
        if out is not None:
            pair.b.frame_untrusted(LINK_B, out.data, now=1.0 + step / 20)
            arrived += deliveries(pair.b)
    assert arrived == packets
    assert pair.a.drop_counts() == {}


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (udp(C4, B4), "bad-source"),
        (udp(A4, "224.0.0.1"), "no-destination"),
        (udp(A4, "255.255.255.255"), "no-destination"),
        (udp(A4, "192.0.2.1"), "no-destination"),
        (udp(A4, A4), "no-destination"),
        (udp(A6, "ff02::1"), "no-destination"),
        (udp(A6, "2001:db8::1"), "no-destination"),
        (b"", "packet-short"),
        (b"\x00" * 40, "packet-version"),
        (udp() + b"\0", "packet-length"),
        (udp(body=bytes(65507)), "packet-too-big"),
    ],
)
def test_a_packet_that_cannot_be_sent_is_dropped_by_reason_without_a_miss(packet: bytes, reason: str) -> None:
    pair = Pair()
    pair.a.packet(packet, now=0.0)
    assert pair.a.drop_counts() == {reason: 1}
    assert pair.a.next_upcall() is None
    assert pair.a.sendable() == ()


def test_a_removed_egress_drops_its_queue_and_misses_again() -> None:
    pair = Pair()
    pair.a.packet(udp(), now=0.0)
    pair.a.remove_egress(B, "revoked")
    pair.a.remove_egress(B, "revoked")
    assert pair.a.drop_counts() == {"revoked": 1}
    assert pair.a.sendable() == ()
    assert pair.b.verify_last(STREAM, pair.a.last_frame(STREAM))
    pair.a.set_route(STREAM, None, now=0.0)
    with pytest.raises(LocalProtocolError):
        pair.a.set_route(STREAM, HOP_A, now=0.0)
    pair.a.remove_sender(STREAM)
    pair.a.packet(udp(), now=1.0)
    assert upcalls(pair.a) == [Miss(B4)]


def test_an_egress_whose_addresses_changed_keeps_its_queue() -> None:
    pair = Pair()
    pair.a.packet(udp(), now=0.0)
    pair.a.add_egress(B, (B6,), now=1.0)
    pair.a.packet(udp(), now=1.0)
    assert upcalls(pair.a) == [Miss(B4)]
    assert pair.carry(1.0) == [udp()]


def test_a_stuck_destination_never_affects_another() -> None:
    pair = Pair(DatapathConfig(queue_bytes_max=20_000))
    pair.a.add_egress(C, (C4,), now=0.0)
    for index in range(200):
        now = index / 1000
        pair.a.packet(udp(A4, C4, body=bytes(1000)), now=now)  # these frames are not carried
        packet = udp(A4, B4, body=index.to_bytes(2, "big"))
        pair.a.packet(packet, now=now)
        assert pair.a.sendable() == (B,)
        assert pair.carry(now) == [packet]
    assert set(pair.a.drop_counts()) == {"queue-full"}
    assert pair.a.next_frame(C, now=1.0) is None


def test_destinations_take_turns() -> None:
    pair = Pair()
    pair.a.add_egress(C, (C4,), now=0.0)
    pair.a.add_sender(C, STREAM_BACK, *keys(what=b"c"), now=0.0)
    pair.a.set_route(STREAM_BACK, Hop(LinkId(2), TETHER, 1, 5, 6), now=0.0)
    for _ in range(40):
        pair.a.packet(udp(A4, B4, body=bytes(1000)), now=0.0)
        pair.a.packet(udp(A4, C4, body=bytes(1000)), now=0.0)
    served = []
    while order := pair.a.sendable():
        served.append(order[0])
        assert pair.a.next_frame(order[0], now=0.0) is not None
    assert served == [B, C, B, C, B, C]


# ── frames ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_one_flow_stays_on_one_channel_and_flows_spread(pair: Pair) -> None:
    channels: dict[int, set[int]] = {}
    for port in range(5000, 5040):
        for _ in range(3):
            pair.a.packet(udp(port=port), now=0.0)
            (out,) = frames(pair.a)
            channels.setdefault(port, set()).add(out.channel)
    assert all(len(each) == 1 for each in channels.values())
    assert set.union(*channels.values()) == {0, 1, 2}


def test_a_single_packet_goes_at_once_in_a_frame_of_its_own(pair: Pair) -> None:
    pair.a.packet(udp(), now=0.0)
    (out,) = frames(pair.a)
    assert (out.link, out.tether) == (LINK_A, TETHER)
    assert len(out.data) == f.HEADER_BYTES + f.ENTRY_HEADER_BYTES + len(udp()) + f.TAG_BYTES


def test_a_frame_under_another_label_or_link_is_unknown(pair: Pair) -> None:
    pair.a.packet(udp(), now=0.0)
    (out,) = frames(pair.a)
    pair.b.frame_untrusted(LinkId(8), out.data, now=0.0)
    pair.b.frame_untrusted(LINK_B, relabel(out.data, FORWARD + 1, False), now=0.0)
    pair.b.frame_untrusted(LINK_B, relabel(out.data, REVERSE, False), now=0.0)
    assert pair.b.drop_counts() == {"unknown-label": 3}
    assert upcalls(pair.b) == deliveries(pair.b) == []
    pair.b.frame_untrusted(LINK_B, out.data, now=0.0)
    assert deliveries(pair.b) == [udp()]


def test_a_data_frame_under_a_feedback_label_is_unknown(pair: Pair) -> None:
    sealer = Sender(f.CHACHA20_POLY1305, key(0, b"back\0").key, b"npre", 0)
    pair.a.frame_untrusted(LINK_A, sealer.seal(REVERSE, 0, []), now=0.0)
    assert pair.a.drop_counts() == {"unknown-label": 1}


def test_a_frame_counts_once_however_often_it_comes(pair: Pair) -> None:
    pair.a.packet(udp(), now=0.0)
    (out,) = frames(pair.a)
    for _ in range(3):
        pair.b.frame_untrusted(LINK_B, out.data, now=0.0)
    assert deliveries(pair.b) == [udp()]
    assert pair.b.drop_counts() == {"replay": 2}


def test_a_frame_with_a_flipped_bit_changes_nothing(pair: Pair) -> None:
    pair.a.packet(udp(), now=0.0)
    (out,) = frames(pair.a)
    for index in (8, 15, 16, len(out.data) - 1):
        bad = bytearray(out.data)
        bad[index] ^= 1
        pair.b.frame_untrusted(LINK_B, bytes(bad), now=0.0)
    assert pair.b.drop_counts() == {"auth": 4}
    assert upcalls(pair.b) == []
    pair.b.frame_untrusted(LINK_B, out.data, now=0.0)
    assert deliveries(pair.b) == [udp()]


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (udp(C4, B4), "spoofed"),
        (udp("fd00::c", B6), "spoofed"),
        (udp(A4, C4), "not-ours"),
        (udp(A4, "224.0.0.1"), "not-ours"),
        (b"\x45", "packet-short"),
        (udp() + b"\0", "packet-length"),
    ],
)
def test_a_bad_packet_is_dropped_and_the_rest_of_its_bundle_is_not(pair: Pair, packet: bytes, reason: str) -> None:
    sealer = Sender(f.CHACHA20_POLY1305, keys()[0].key, b"npre", 0)
    bundle = [(f.PACKET, udp(body=b"1")), (f.PACKET, packet), (f.PACKET, udp(body=b"2"))]
    pair.b.frame_untrusted(LINK_B, sealer.seal(FORWARD, 0, bundle), now=0.0)
    assert deliveries(pair.b) == [udp(body=b"1"), udp(body=b"2")]
    assert pair.b.drop_counts() == {reason: 1}


def test_packets_from_a_granted_subnet_are_delivered() -> None:
    pair = Pair()
    pair.b.remove_receiver(STREAM)
    pair.b.add_receiver(STREAM, A, (ip_network("100.64.128.0/17"),), *keys(), now=0.0)
    pair.b.add_receiver_route(STREAM, HOP_B, now=0.0)
    sealer = Sender(f.CHACHA20_POLY1305, keys()[0].key, b"npre", 0)
    for source in ("100.64.127.255", "100.64.200.1"):
        pair.b.frame_untrusted(LINK_B, sealer.seal(FORWARD, 0, [(f.PACKET, udp(source, B4))]), now=0.0)
    assert deliveries(pair.b) == [udp("100.64.200.1", B4)]
    assert pair.b.drop_counts() == {"spoofed": 1}


@pytest.mark.parametrize(("tos", "tos_after"), [(0, 0), (1, 3), (2, 3), (3, 3)])
def test_a_relays_congestion_mark_reaches_the_inner_flow(pair: Pair, tos: int, tos_after: int) -> None:
    pair.a.packet(udp(tos=tos), now=0.0)
    (out,) = frames(pair.a)
    pair.b.frame_untrusted(LINK_B, relabel(out.data, FORWARD, True), now=0.0)
    assert deliveries(pair.b) == [udp(tos=tos_after)]


def test_deliveries_that_are_not_taken_are_bounded() -> None:
    pair = Pair(DatapathConfig(delivery_bytes_max=2500))
    for _ in range(4):
        pair.a.packet(udp(body=bytes(1000)), now=0.0)
    assert len(pair.carry(0.0)) == 2
    assert pair.b.drop_counts() == {"delivery-full": 2}


def test_the_first_verified_frame_is_reported_once(pair: Pair) -> None:
    for now in (0.0, 1.0):
        pair.a.packet(udp(), now=now)
        pair.carry(now)
    assert upcalls(pair.b) == [ReceiverVerified(STREAM)]


# ── tables ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_replaced_stream_sends_nothing_more_but_ends_properly(pair: Pair) -> None:
    pair.a.packet(udp(), now=0.0)
    pair.a.add_sender(B, STREAM_BACK, *keys(what=b"2"), now=0.0)
    assert pair.a.sendable() == ()
    pair.a.set_route(STREAM_BACK, Hop(LINK_A, TETHER, 1, label_out=5, label_in=6), now=0.0)
    assert pair.a.sendable() == (B,)
    pair.carry(0.0)
    assert pair.b.drop_counts() == {"unknown-label": 1}
    assert pair.b.verify_last(STREAM, pair.a.last_frame(STREAM))
    pair.a.remove_sender(STREAM)
    pair.a.packet(udp(), now=0.0)
    assert pair.a.sendable() == (B,)
    pair.a.handle_timeout(now=15.0)
    assert SenderIdle(STREAM) not in upcalls(pair.a)


def test_a_removed_sender_leaves_the_queue_to_the_next(pair: Pair) -> None:
    pair.a.packet(udp(), now=0.0)
    pair.a.remove_sender(STREAM)
    pair.a.remove_sender(STREAM)
    assert pair.a.sendable() == ()
    pair.b.remove_receiver(STREAM)
    pair.b.add_receiver(STREAM_BACK, A, (ip_network(f"{A4}/32"),), *keys(what=b"2"), now=1.0)
    pair.b.add_receiver_route(STREAM_BACK, HOP_B, now=1.0)
    pair.a.add_sender(B, STREAM_BACK, *keys(what=b"2"), now=1.0)
    pair.a.set_route(STREAM_BACK, HOP_A, now=1.0)
    assert pair.carry(1.0) == [udp()]


def test_packets_of_a_removed_sender_age(pair: Pair) -> None:
    pair.a.packet(udp(), now=0.0)
    pair.a.remove_sender(STREAM)
    assert pair.a.next_timeout() == 10.0
    pair.a.handle_timeout(now=10.0)
    assert pair.a.drop_counts() == {"aged": 1}


def test_a_removed_receiver_has_no_label_and_sends_no_feedback(pair: Pair) -> None:
    pair.a.packet(udp(), now=0.0)
    pair.carry(0.0)
    pair.b.remove_receiver(STREAM)
    pair.b.remove_receiver(STREAM)
    assert pair.reports(0.0) == []
    assert pair.b.next_timeout() is None
    pair.a.packet(udp(), now=0.0)
    pair.carry(0.0)
    assert pair.b.drop_counts() == {"unknown-label": 1}
    pair.b.remove_receiver_route(LINK_B, FORWARD)


def test_our_own_mistakes_are_local_errors(pair: Pair) -> None:
    hop = Hop(LINK_A, TETHER, 1, label_out=1, label_in=REVERSE)
    with pytest.raises(LocalProtocolError):
        pair.a.add_sender(C, STREAM_BACK, *keys(), now=0.0)
    with pytest.raises(LocalProtocolError):
        pair.a.add_sender(B, STREAM, *keys(), now=0.0)
    with pytest.raises(LocalProtocolError):
        pair.b.add_receiver(STREAM, A, (), *keys(), now=0.0)
    with pytest.raises(LocalProtocolError):
        pair.a.last_frame(STREAM_BACK)
    with pytest.raises(LocalProtocolError):
        pair.a.set_route(STREAM_BACK, HOP_A, now=0.0)
    with pytest.raises(LocalProtocolError):
        pair.b.seal_feedback(STREAM_BACK, b"")
    with pytest.raises(LocalProtocolError):
        pair.b.queue_entry(STREAM_BACK, f.REKEY, b"")
    pair.a.add_egress(C, (C4,), now=0.0)
    pair.a.add_sender(C, STREAM_BACK, *keys(what=b"2"), now=0.0)
    with pytest.raises(LocalProtocolError):
        pair.a.set_route(STREAM_BACK, hop, now=0.0)  # the label is that of another stream


def test_a_removed_stream_is_freed_without_the_collector_and_before_its_timers_fire() -> None:
    gc.collect()
    gc.disable()
    try:
        held = Pair()
        held.a.packet(udp(), now=0.0)
        held.carry(0.0)
        held.report(0.0)
        held.a.remove_sender(STREAM)
        held.b.remove_receiver(STREAM)
        held.a.remove_egress(B, "test")
        assert held.a.next_timeout() is None
        ends = (Egress, StreamSender, StreamReceiver)
        assert [type(one).__name__ for one in gc.get_objects() if isinstance(one, ends)] == []
    finally:
        gc.enable()


def test_status_shows_streams_and_queues_and_never_a_key(pair: Pair) -> None:
    pair.a.packet(udp(), now=0.0)
    pair.carry(0.0)
    pair.report(0.0)
    pair.a.packet(udp(A4, C4), now=0.0)
    shown = f"{pair.a.status()} {pair.b.status()}"
    for field in ("packets=1", "frames=1", "destination=", "'100.64.0.3'", STREAM.hex()):
        assert field in shown
    for secret in keys():
        assert secret.key.hex() not in shown
        assert str(secret.key) not in shown
        assert str(secret.key) not in repr(secret)
