"""Packets through the native datapath: whole, in order, and only those that are allowed."""

from __future__ import annotations

import os
import struct
import time
from ipaddress import ip_address

import pytest
from kit.native import (
    A4,
    A6,
    B4,
    B6,
    BINARY,
    C4,
    CHANNEL_COUNT,
    FORWARD,
    REVERSE,
    SOURCES,
    STREAM,
    STREAM_BACK,
    TETHER,
    A,
    B,
    C,
    Pair,
    World,
    ip,
    keys,
    number_of,
    port_of,
    tcp_payload,
    tcp_super,
    transport_is_right,
    udp,
    waves,
)

from conflux.anchor import frame as f
from conflux.anchor.codec import Sender
from conflux.carrier.interface import Hop
from conflux.datapath.config import DatapathConfig
from conflux.datapath.interface import Miss, ReceiverVerified
from conflux.datapath.native.datapath import NO_OFFLOAD
from conflux.datapath.status import PendingStatus
from conflux.ids import LinkId, TetherId

NEEDS_CHECKSUM = 1


# ── whole and in order ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_packet_travels_unchanged(pair: Pair) -> None:
    packets = [udp(1), udp(2, source=A6, destination=B6), udp(3, size=1400)]
    for packet in packets:
        pair.a.send(packet)
        pair.world.until(lambda packet=packet: packet in pair.b.packets)
    assert pair.b.raw == [NO_OFFLOAD + packet for packet in packets]
    assert pair.a.drops == pair.b.drops == {}
    assert pair.b.upcalls == [ReceiverVerified(STREAM)]


def test_every_flow_arrives_whole_and_in_order(pair: Pair) -> None:
    for wave in waves(1200):
        for number in wave:
            pair.a.send(udp(number, port=5000 + number % 6, size=number % 1300))
        pair.world.until(lambda wave=wave: len(pair.b.packets) == wave.stop)
    for port in range(5000, 5006):
        numbers = [number_of(packet) for packet in pair.b.packets if port_of(packet) == port]
        assert sorted(numbers) == list(range(port - 5000, 1200, 6))
    assert pair.a.drops == pair.b.drops == {}


def test_a_tcp_flow_arrives_in_the_order_it_was_sent(pair: Pair) -> None:
    def segment(number: int) -> bytes:
        return ip(A4, B4, 6, struct.pack(">HHIIHHHH", 5000, 7, number, 0, 5 << 12, 0, 0, 0) + bytes(number % 1000))

    for wave in waves(600):
        for number in wave:
            pair.a.send(segment(number))
        pair.world.until(lambda wave=wave: len(pair.b.packets) == wave.stop)
    assert [tcp_payload(packet)[0] for packet in pair.b.packets] == list(range(600))


def test_packets_queued_together_share_a_frame(made: World) -> None:
    pair = Pair(made, route=False)
    for number in range(20):
        pair.a.send(udp(number))
    made.until(lambda: pair.a.engine.egress(1).packets == 20)
    pair.route()
    made.until(lambda: len(pair.b.packets) == 20)
    assert [number_of(packet) for packet in pair.b.packets] == list(range(20))
    assert pair.a.datapath.status().senders[0].frames == 1


# ── super-packets ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("source", "destination"), [(A4, B4), (A6, B6)], ids=["IPv4", "IPv6"])
def test_a_super_packet_travels_whole_when_offloads_are_agreed(pair: Pair, source: object, destination: object) -> None:
    whole = tcp_super(os.urandom(2800), 1400, source=source, destination=destination)
    pair.a.device.send(whole)
    pair.world.until(lambda: pair.b.raw)
    assert pair.b.raw == [whole]


@pytest.mark.parametrize(("source", "destination"), [(A4, B4), (A6, B6)], ids=["IPv4", "IPv6"])
def test_a_super_packet_becomes_plain_packets_when_they_are_not(
    made: World, source: object, destination: object
) -> None:
    pair = Pair(made, offload_kinds=())
    payload = os.urandom(40_000)
    pair.a.device.send(tcp_super(payload, 1400, source=source, destination=destination))
    made.until(lambda: sum(len(tcp_payload(packet)[1]) for packet in pair.b.packets) >= len(payload))
    assert all(each.startswith(NO_OFFLOAD) for each in pair.b.raw)
    assert all(transport_is_right(packet) for packet in pair.b.packets)
    assert max(len(packet) for packet in pair.b.packets) <= 1400 + 60
    position = 1
    for sequence, part in map(tcp_payload, pair.b.packets):
        assert sequence == position
        assert part == payload[position - 1 : position - 1 + len(part)]
        position += len(part)
    assert pair.a.drops == pair.b.drops == {}


def test_a_checksum_left_to_us_is_completed_when_no_offloads_are_agreed(made: World) -> None:
    pair = Pair(made, offload_kinds=())
    pair.a.device.send(tcp_super(b"short", 1400))
    made.until(lambda: pair.b.raw)
    assert pair.b.raw[0].startswith(NO_OFFLOAD)
    assert transport_is_right(pair.b.packets[0])


def test_a_large_super_packet_on_a_link_that_is_not_known_to_be_fast_is_split(pair: Pair) -> None:
    payload = os.urandom(60_000)
    pair.a.device.send(tcp_super(payload, 1000))
    pair.world.until(lambda: sum(len(tcp_payload(packet)[1]) for packet in pair.b.packets) >= len(payload))
    assert len(pair.b.raw) > 1, "one millisecond of a new link's rate holds no 60 kB"
    position = 1
    for header, packet in zip(pair.b.raw, pair.b.packets, strict=True):
        flags, kind, _, segment_bytes, _, _ = struct.unpack("<BBHHHH", header[:10])
        sequence, part = tcp_payload(packet)
        assert flags == NEEDS_CHECKSUM
        assert (kind, segment_bytes) == ((1, 1000) if len(part) > 1000 else (0, 0))
        assert sequence == position
        assert part == payload[position - 1 : position - 1 + len(part)]
        position += len(part)


def test_udp_super_packets_are_split_for_a_device_that_takes_none(made: World) -> None:
    def delivered(segments_udp: bool) -> list[bytes]:
        pair = Pair(made, segments_udp=segments_udp)
        payload = struct.pack(">HHHH", 5000, 7, 8 + 2500, 0) + bytes(range(250)) * 10
        packet = ip(A4, B4, 17, payload)
        pair.a.device.send(struct.pack("<BBHHHH", NEEDS_CHECKSUM, 5, 28, 1000, 20, 6) + packet)
        made.until(lambda: sum(len(packet) - 28 for packet in pair.b.packets) >= 2500)
        return pair.b.packets

    assert [len(packet) - 28 for packet in delivered(True)] == [2500]
    assert [len(packet) - 28 for packet in delivered(False)] == [1000, 1000, 500]


# ── what may not be sent, or delivered ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (udp(source=C4), "bad-source"),
        (udp(destination="224.0.0.1"), "no-destination"),
        (udp(destination="255.255.255.255"), "no-destination"),
        (udp(destination="192.0.2.1"), "no-destination"),
        (udp(destination=A4), "no-destination"),
        (udp(source=A6, destination="ff02::1"), "no-destination"),
        (udp(source=A6, destination="2001:db8::1"), "no-destination"),
        (b"", "packet-short"),
        (b"\x45", "packet-short"),
        (b"\x00" * 40, "packet-version"),
        (udp() + b"\0", "packet-length"),
    ],
)
def test_a_packet_that_cannot_be_sent_is_dropped_by_reason_without_a_miss(
    pair: Pair, packet: bytes, reason: str
) -> None:
    pair.a.send(packet)
    pair.world.until(lambda: pair.a.drops)
    pair.a.send(udp(7))
    pair.world.until(lambda: pair.b.packets)
    assert pair.a.drops == {reason: 1}
    assert pair.a.upcalls == []
    assert pair.b.packets == [udp(7)]


@pytest.mark.parametrize(
    "header",
    [
        struct.pack("<BBHHHH", 1, 1, 40, 1000, 20, 18),  # the checksum lies elsewhere
        struct.pack("<BBHHHH", 1, 4, 40, 1000, 20, 16),  # IPv6's kind
        struct.pack("<BBHHHH", 0, 1, 40, 1000, 20, 16),  # segments, but no checksum to complete
        struct.pack("<BBHHHH", 1, 1, 40, 0, 20, 16),  # segments of 0 bytes
        struct.pack("<BBHHHH", 1, 9, 40, 1000, 20, 16),  # no such kind
        struct.pack("<BBHHHH", 1, 1, 40, 1000, 65535, 65535),
    ],
)
def test_an_offload_header_that_does_not_fit_its_packet_is_refused_at_either_end(pair: Pair, header: bytes) -> None:
    packet = tcp_super(bytes(3000), 1000)[10:]
    pair.a.device.send(header + packet)
    pair.world.until(lambda: pair.a.drops)
    assert pair.a.drops == {"packet-offload": 1}
    sealer = Sender(f.CHACHA20_POLY1305, keys()[0].key, b"npre", 0)
    pair.forge(sealer.seal(FORWARD, 0, [(f.OFFLOAD, header + packet), (f.PACKET, udp(1))]))
    pair.world.until(lambda: pair.b.packets)
    assert pair.b.drops == {"packet-offload": 1}
    assert pair.b.packets == [udp(1)]


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (udp(source=C4), "spoofed"),
        (udp(source="fd00::c", destination=B6), "spoofed"),
        (udp(destination=C4), "not-ours"),
        (udp(destination="224.0.0.1"), "not-ours"),
        (b"\x45", "packet-short"),
        (udp() + b"\0", "packet-length"),
        (b"\x55" + udp()[1:], "packet-version"),
    ],
)
def test_a_bad_packet_is_dropped_and_the_rest_of_its_bundle_is_not(pair: Pair, packet: bytes, reason: str) -> None:
    sealer = Sender(f.CHACHA20_POLY1305, keys()[0].key, b"npre", 0)
    pair.forge(sealer.seal(FORWARD, 0, [(f.PACKET, udp(1)), (f.PACKET, packet), (f.PACKET, udp(2))]))
    pair.world.until(lambda: len(pair.b.packets) == 2)
    assert pair.b.packets == [udp(1), udp(2)]
    assert pair.b.drops == {reason: 1}


def test_a_packet_with_offloads_not_agreed_on_is_misplaced(made: World) -> None:
    pair = Pair(made, offload_kinds=())
    sealer = Sender(f.CHACHA20_POLY1305, keys()[0].key, b"npre", 0)
    pair.forge(sealer.seal(FORWARD, 0, [(f.OFFLOAD, tcp_super(bytes(3000), 1000)), (f.PACKET, udp(1))]))
    made.until(lambda: pair.b.packets)
    assert pair.b.packets == [udp(1)]
    assert pair.b.drops == {"misplaced-entry": 1}


@pytest.mark.parametrize(("tos", "tos_after"), [(0, 0), (1, 3), (2, 3), (3, 3)])
@pytest.mark.parametrize("version", [4, 6])
def test_a_relays_congestion_mark_reaches_the_inner_flow(pair: Pair, version: int, tos: int, tos_after: int) -> None:
    ends = {"source": A4, "destination": B4} if version == 4 else {"source": A6, "destination": B6}
    sealer = Sender(f.CHACHA20_POLY1305, keys()[0].key, b"npre", 0)
    pair.forge(sealer.seal(FORWARD, f.CE, [(f.PACKET, udp(tos=tos, **ends))]))
    pair.world.until(lambda: pair.b.packets)
    assert pair.b.packets == [udp(tos=tos_after, **ends)]


# ── packets without an egress ────────────────────────────────────────────────────────────────────────────────────────


def test_a_miss_is_reported_once_and_its_packets_follow_in_order(made: World) -> None:
    pair = Pair(made)
    pair.a.datapath.remove_egress(B, "gone")
    pair.a.datapath.remove_sender(STREAM)
    for number in range(20):
        pair.a.send(udp(number))
    made.until(lambda: pair.a.datapath.status().pending == (PendingStatus(str(B4), 20, 20 * 42),))
    assert pair.a.upcalls == [Miss(B4)]
    now = time.monotonic()
    pair.a.datapath.add_egress(B, (B4, B6), now=now)
    pair.a.datapath.add_sender(B, STREAM, *keys(), now=now)
    assert pair.b.packets == []
    pair.route()
    made.until(lambda: len(pair.b.packets) == 20)
    assert pair.b.packets == [udp(number) for number in range(20)]
    assert pair.a.drops == {}


def test_packets_on_their_way_up_when_their_egress_is_made_keep_their_place(made: World) -> None:
    pair = Pair(made, route=False)
    pair.a.datapath.remove_egress(B, "gone")
    pair.a.datapath.remove_sender(STREAM)
    pair.a.is_deaf = True
    for number in range(5):
        pair.a.send(udp(number))
    made.until(lambda: pair.a.datapath.device_counts()[0] == 5)
    now = time.monotonic()
    pair.a.datapath.add_egress(B, (B4, B6), now=now)
    pair.a.datapath.add_sender(B, STREAM, *keys(), now=now)
    for number in range(5, 10):
        pair.a.send(udp(number))
    made.until(lambda: pair.a.datapath.device_counts()[0] == 10)
    pair.a.is_deaf = False
    made.step()
    pair.route()
    made.until(lambda: len(pair.b.packets) == 10)
    assert [number_of(packet) for packet in pair.b.packets] == list(range(10))


def test_a_refused_address_drops_what_waits_and_may_miss_again(made: World) -> None:
    a = made.node(A4)
    for number in range(3):
        a.send(udp(number, destination=C4))
    made.until(lambda: a.datapath.status().pending == (PendingStatus(str(C4), 3, 3 * 42),))
    assert a.upcalls == [Miss(C4)]
    a.datapath.refuse(C4, "no-such-node")
    assert a.drops == {"no-such-node": 3}
    a.send(udp(destination=C4))
    made.until(lambda: a.upcalls == [Miss(C4), Miss(C4)])


def test_a_program_is_told_that_its_destination_is_not_there(made: World) -> None:
    a = made.node(A4)
    a.send(udp(7, destination=C4))
    made.until(lambda: a.upcalls == [Miss(C4)])
    a.datapath.refuse(C4, "unknown-destination")
    made.until(lambda: len(a.packets) == 1)
    (answer,) = a.packets
    assert (answer[12:20], answer[20:22], answer[28:]) == (C4.packed + A4.packed, b"\3\1", udp(7, destination=C4))


def test_packets_that_wait_too_long_for_an_answer_are_dropped(made: World) -> None:
    a = made.node(A4)
    a.send(udp())
    made.until(lambda: a.upcalls)
    a.datapath.handle_timeout(now=time.monotonic() + 10.1)
    assert a.drops == {"aged": 1}
    assert a.datapath.next_timeout() is None


def test_addresses_asked_for_are_bounded_and_so_are_the_packets_of_each(made: World) -> None:
    a = made.node(A4, config=DatapathConfig(pending_address_count_max=4, pending_bytes_max=1100))
    for last in range(10, 20):
        a.send(udp(destination=f"100.64.0.{last}"))
    made.until(lambda: a.drops == {"pending-full": 6})
    assert len(a.upcalls) == 4
    for _ in range(10):
        a.send(udp(destination="100.64.0.10", size=300))
    made.until(lambda: a.drops == {"pending-full": 6, "queue-full": 8})


# ── packets that are held ────────────────────────────────────────────────────────────────────────────────────────────


def test_packets_without_a_route_age_and_those_with_one_do_not(made: World) -> None:
    pair = Pair(made, DatapathConfig(hold_age_s_max=0.2), route=False)
    pair.a.send(udp(1))
    made.until(lambda: pair.a.drops == {"aged": 1})
    pair.route()
    pair.a.send(udp(2))
    made.until(lambda: pair.b.packets == [udp(2)])
    pair.a.datapath.set_route(STREAM, None, now=time.monotonic())
    pair.a.send(udp(3))
    made.until(lambda: pair.a.drops == {"aged": 2})
    assert pair.b.packets == [udp(2)]


def test_packets_of_a_removed_sender_age_though_nothing_else_happens(made: World) -> None:
    pair = Pair(made, DatapathConfig(hold_age_s_max=0.2))
    made.settle()
    pair.b.wire.unmap(pair.link_b, TETHER)
    pair.a.wire.unmap(pair.link_a, TETHER)
    pair.a.send(udp(1))
    made.until(lambda: pair.a.engine.egress(1).packets == 1)
    pair.a.datapath.remove_sender(STREAM)
    made.until(lambda: pair.a.drops == {"aged": 1})


def test_held_packets_flow_once_a_route_is_set(made: World) -> None:
    pair = Pair(made, route=False)
    for number in range(50):
        pair.a.send(udp(number))
    made.until(lambda: pair.a.engine.egress(1).packets == 50)
    assert pair.b.packets == []
    pair.route()
    made.until(lambda: len(pair.b.packets) == 50)
    assert [number_of(packet) for packet in pair.b.packets] == list(range(50))


LATE = TetherId(b"later..!")


def map_late(pair: Pair) -> None:
    for index in range(CHANNEL_COUNT):
        for node, link in ((pair.b, pair.link_b), (pair.a, pair.link_a)):
            node.wire.map(link, 100 + 2 * index, LATE, index, lifetime_ms=500)


def test_packets_wait_for_a_tether_that_comes_after_their_route(made: World) -> None:
    pair = Pair(made, route=False)
    for number in range(8):
        pair.a.send(udp(number, port=5000 + number))
    made.until(lambda: pair.a.engine.egress(1).packets == 8)
    hop = Hop(pair.link_a, LATE, CHANNEL_COUNT, FORWARD, REVERSE)
    pair.a.datapath.set_route(STREAM, hop, now=time.monotonic())
    made.pass_time(0.05)
    assert pair.a.drops == {}
    map_late(pair)
    made.until(lambda: len(pair.b.packets) == 8)


def test_packets_wait_for_a_link_that_comes_after_their_route(made: World) -> None:
    pair = Pair(made, route=False)
    hop = Hop(LinkId(50), TETHER, CHANNEL_COUNT, FORWARD, REVERSE)
    pair.b.datapath.add_receiver_route(STREAM, Hop(LinkId(51), TETHER, CHANNEL_COUNT, REVERSE, FORWARD), now=0.0)
    pair.a.datapath.set_route(STREAM, hop, now=time.monotonic())
    pair.a.send(udp(1))
    made.until(lambda: pair.a.engine.egress(1).packets == 1)
    ends, dtls = (made.socket(), made.socket()), made.pair_keys()
    for node, link, mine, far, key_ in (
        (pair.b, LinkId(51), ends[1], ends[0], dtls[1]),
        (pair.a, LinkId(50), ends[0], ends[1], dtls[0]),
    ):
        made.add_link(node, link, mine, far.getsockname(), key_)
        made.map(node, link)
    made.until(lambda: pair.b.packets == [udp(1)])


def test_a_full_queue_drops_the_oldest_of_the_largest_flow(made: World) -> None:
    pair = Pair(made, DatapathConfig(queue_packets_max=10), route=False)
    for number in range(15):
        pair.a.send(udp(number))
    made.until(lambda: pair.a.drops == {"queue-full": 5})
    pair.route()
    made.until(lambda: len(pair.b.packets) == 10)
    assert [number_of(packet) for packet in pair.b.packets] == list(range(5, 15))


def test_all_destinations_together_are_bounded_and_a_new_one_finds_room(made: World) -> None:
    pair = Pair(made, DatapathConfig(queue_bytes_max=30_000, queues_bytes_max=40_000), route=False)
    second_destination(pair, route=False)
    for address in (B4, C4):
        for number in range(50):
            pair.a.send(udp(number, destination=address, size=1000 - len(udp())))
    held = [20, 10]  # half of what is still free
    made.until(lambda: pair.a.drops == {"queue-full": 100 - sum(held)})
    egresses = pair.a.datapath.status().egresses
    assert sorted((egress.packets for egress in egresses), reverse=True) == held
    pair.route()
    made.until(lambda: len(pair.b.packets) == 20)
    for number in range(50):
        pair.a.send(udp(number, destination=C4, size=1000 - len(udp())))
    made.until(lambda: pair.a.drops == {"queue-full": 110})


def test_a_jumbo_packet_arrives_whole_whatever_the_links_rate(pair: Pair) -> None:
    packets = [udp(1, size=20_000), udp(2, size=60_000)]
    for packet in packets:
        pair.a.send(packet)
    pair.world.until(lambda: len(pair.b.packets) == 2)
    assert sorted(pair.b.packets) == sorted(packets)
    assert pair.a.drops == {}


def test_a_packet_larger_than_any_frame_holds_up_no_other(pair: Pair) -> None:
    pair.a.datapath.set_route(STREAM, None, now=time.monotonic())
    pair.a.send(udp(0, size=65_503, port=5000))
    for port in range(5001, 5030):
        pair.a.send(udp(port, port=port))
    pair.world.until(lambda: pair.a.engine.egress(1).packets == 30)
    pair.route()
    pair.world.until(lambda: len(pair.b.packets) == 29)
    assert pair.a.drops == {"packet-too-big": 1}


# ── destinations beside one another ──────────────────────────────────────────────────────────────────────────────────


def second_destination(pair: Pair, route: bool) -> None:
    """Add another stream from A over the same link, for C's addresses; B delivers its packets too."""
    now = time.monotonic()
    data, feedback = keys(what=b"2")
    pair.b.datapath.configure((B4, B6, C4), ())
    pair.a.datapath.add_egress(C, (C4,), now=now)
    pair.a.datapath.add_sender(C, STREAM_BACK, data, feedback, offload_kinds=(f.OFFLOAD,), now=now)
    pair.b.datapath.add_receiver(STREAM_BACK, A, SOURCES, data, feedback, offload_kinds=(f.OFFLOAD,), now=now)
    pair.b.datapath.add_receiver_route(STREAM_BACK, Hop(pair.link_b, TETHER, CHANNEL_COUNT, 22, 11), now=now)
    if route:
        pair.a.datapath.set_route(STREAM_BACK, Hop(pair.link_a, TETHER, CHANNEL_COUNT, 11, 22), now=now)


def test_a_destination_without_a_route_holds_up_no_other(made: World) -> None:
    pair = Pair(made, DatapathConfig(queue_bytes_max=20_000))
    second_destination(pair, route=False)
    for wave in waves(200, 20):
        for number in wave:
            pair.a.send(udp(number, destination=C4, size=1000))
            pair.a.send(udp(number))
        made.until(lambda wave=wave: len(pair.b.packets) == wave.stop)
    assert pair.b.packets == [udp(number) for number in range(200)]
    assert set(pair.a.drops) == {"queue-full"}


def test_two_destinations_share_one_link_evenly(made: World) -> None:
    pair = Pair(made, route=False)
    second_destination(pair, route=False)
    for number in range(600):
        for destination in (B4, C4):
            pair.a.engine.packet(NO_OFFLOAD + udp(number, size=1000, destination=destination), time.monotonic())
    for stream, labels in ((STREAM, (FORWARD, REVERSE)), (STREAM_BACK, (11, 22))):
        hop = Hop(pair.link_a, LATE, CHANNEL_COUNT, *labels)
        pair.a.datapath.set_route(stream, hop, now=time.monotonic())
    map_late(pair)  # both begin at the same time
    made.until(lambda: len(pair.b.packets) == 1200)
    served = {B4: 0, C4: 0}
    for packet in pair.b.packets:
        destination = ip_address(packet[16:20])
        served[destination] += len(packet)
        if max(served.values()) < 600_000:
            assert abs(served[B4] - served[C4]) < 3 * 65536, "a quantum each, and one frame"
    assert pair.a.drops == pair.b.drops == {}


def test_flows_of_a_destination_use_all_channels_and_each_only_one(made: World) -> None:
    """B has not mapped the tether, so every message comes up with its stream."""
    pair = Pair(made)
    pair.b.wire.unmap(pair.link_b, TETHER)
    streams: dict[int, set[int]] = {}
    for port in range(5000, 5024):
        for _ in range(2):
            pair.b.wires.clear()
            pair.a.send(udp(port=port))
            made.until(lambda: pair.b.wires)
            (message,) = pair.b.wires
            assert message.ppid == BINARY
            streams.setdefault(port, set()).add(message.stream)
    assert all(len(each) == 1 for each in streams.values())
    assert set.union(*streams.values()) == {0, 2, 4, 6}
