"""The whole reference datapath: packet() → next_frame() → frame_untrusted() → next_delivery(), both ends in one thread.

extra_info has the rate of one core for both ends together: packets per second and Gbit/s of IP packets, best round.
For a relay: nanoseconds and Gbit/s per frame passed on, and the memory one route takes, idle and after traffic.
"""

from __future__ import annotations

import struct
import tracemalloc
from ipaddress import ip_address, ip_network

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from conflux.anchor import frame
from conflux.anchor.key import EpochKey
from conflux.carrier.interface import Hop
from conflux.datapath.reference.datapath import ReferenceDatapath
from conflux.ids import LinkId, NodeId, StreamId, TetherId

HERE, THERE = ip_address("100.64.0.1"), ip_address("100.64.0.2")
REALM = (ip_network("100.64.0.0/16"),)
DESTINATION, STREAM, TETHER, LINK = NodeId(b"d" * 16), StreamId(b"s" * 16), TetherId(b"t" * 8), LinkId(1)
PACKET_COUNT = 1024  # per round
ROUND_COUNT = 30


def packet(size: int) -> bytes:
    """Return a UDP packet of a size, from here to there."""
    head = struct.pack(">BBHHHBBH", 0x45, 0, size, 0, 0x4000, 64, 17, 0) + HERE.packed + THERE.packed
    return head + bytes(size - len(head))


def pair(aead: int, egress_count: int) -> tuple[ReferenceDatapath, ReferenceDatapath]:
    """Return both ends of one stream; the near end has other destinations too."""
    data = EpochKey(0, aead, b"k" * 32, b"pre1")
    feedback = EpochKey(0, aead, b"f" * 32, b"pre2")
    near, far = ReferenceDatapath(), ReferenceDatapath()
    near.configure((HERE,), REALM)
    far.configure((THERE,), REALM)
    for index in range(egress_count - 1):
        near.add_egress(NodeId(index.to_bytes(16, "big")), (HERE + 256 + index,), now=0.0)
    near.add_egress(DESTINATION, (THERE,), now=0.0)
    near.add_sender(DESTINATION, STREAM, data, feedback, now=0.0)
    near.set_route(STREAM, Hop(LINK, TETHER, 4, label_out=5, label_in=6), now=0.0)
    far.add_receiver(STREAM, NodeId(b"n" * 16), (ip_network(f"{HERE}/32"),), data, feedback, now=0.0)
    far.add_receiver_route(STREAM, Hop(LINK, TETHER, 4, label_out=6, label_in=5), now=0.0)
    return near, far


@pytest.mark.parametrize("burst", [256, 1], ids=["bundled", "one packet per frame"])
@pytest.mark.parametrize("size", [1400, 84])
@pytest.mark.parametrize("aead", list(frame.AEAD_NAMES), ids=list(frame.AEAD_NAMES.values()))
def test_packet_to_delivery(benchmark: BenchmarkFixture, aead: int, size: int, burst: int) -> None:
    near, far = pair(aead, egress_count=64)
    body = packet(size)
    clock = 0.0

    def run() -> None:
        nonlocal clock
        delivered = 0
        for _ in range(PACKET_COUNT // burst):
            clock += 0.001
            for _ in range(burst):
                near.packet(body, now=clock)
            while near.sendable():
                out = near.next_frame(DESTINATION, now=clock)
                assert out is not None
                far.frame_untrusted(LINK, out.data, now=clock)
            while far.next_delivery() is not None:
                delivered += 1
            timeout = near.next_timeout()
            if timeout is not None and timeout <= clock:
                near.handle_timeout(now=clock)
            while (back := far.next_feedback(now=clock)) is not None:
                near.frame_untrusted(LINK, back.data, now=clock)
            while near.next_upcall() is not None:
                pass
            while far.next_upcall() is not None:
                pass
        assert delivered == PACKET_COUNT

    benchmark.pedantic(run, rounds=ROUND_COUNT, warmup_rounds=2)
    if benchmark.stats is None:  # --benchmark-disable
        return
    per_packet_s = benchmark.stats.stats.min / PACKET_COUNT
    benchmark.extra_info["packets_per_s"] = round(1 / per_packet_s)
    benchmark.extra_info["gigabits_per_s"] = round(size * 8 / per_packet_s / 1e9, 3)


def through(route: int) -> tuple[Hop, Hop]:
    """Return both hops of one of many routes through a relay, as objects of its own, as the node makes them."""
    tethers = [TetherId(side + route.to_bytes(7)) for side in (b"b", b"a")]
    return (
        Hop(LinkId(1), tethers[0], 4, label_out=2**31 + 4 * route, label_in=2**31 + 4 * route + 1),
        Hop(LinkId(2), tethers[1], 4, label_out=2**31 + 4 * route + 2, label_in=2**31 + 4 * route + 3),
    )


def frame_under(label: int, size: int) -> bytes:
    """Return a frame that a relay takes for a real one."""
    return bytes([frame.VERSION, 0, 0, 0]) + label.to_bytes(4) + bytes(size - 8)


@pytest.mark.parametrize("route_count", [1, 100])
@pytest.mark.parametrize("size", [16_416, 1450, 116])
def test_frame_relayed(benchmark: BenchmarkFixture, size: int, route_count: int) -> None:
    relay = ReferenceDatapath()
    sides = [through(route) for route in range(route_count)]
    for before, ahead in sides:
        relay.add_relay(before, ahead, now=0.0)
    burst = [frame_under(before.label_in, size) for before, _ in sides] * max(1, 20 // route_count)
    repeats = PACKET_COUNT // len(burst)

    def run() -> None:
        for _ in range(repeats):
            for each in burst:
                relay.frame_untrusted(LinkId(1), each, now=0.0, channel=1)
            while relay.next_relayed(LinkId(2), now=0.0) is not None:
                pass

    benchmark.pedantic(run, rounds=ROUND_COUNT, warmup_rounds=2)
    assert relay.drop_counts() == {}
    if benchmark.stats is None:  # --benchmark-disable
        return
    per_frame_s = benchmark.stats.stats.min / (repeats * len(burst))
    benchmark.extra_info["ns_per_frame"] = round(per_frame_s * 1e9)
    benchmark.extra_info["gigabits_per_s"] = round(size * 8 / per_frame_s / 1e9, 3)


def test_route_added_and_removed(benchmark: BenchmarkFixture) -> None:
    relay = ReferenceDatapath()
    for route in range(1000):
        relay.add_relay(*through(route), now=0.0)
    before, ahead = through(1000)

    def run() -> None:
        relay.add_relay(before, ahead, now=0.0)
        relay.remove_relay(ahead.link, ahead.label_in)

    benchmark(run)
    benchmark.extra_info["bytes_per_route"] = round(route_bytes(1000, traffic=False))
    benchmark.extra_info["bytes_per_route_after_traffic"] = round(route_bytes(1000, traffic=True))


def route_bytes(route_count: int, *, traffic: bool) -> float:
    """Return the memory of one route through a relay, with its two hops, while no frame waits."""
    relay = ReferenceDatapath()
    tracemalloc.start()
    try:
        for route in range(route_count):
            relay.add_relay(*through(route), now=0.0)
        if traffic:
            for route in range(route_count):
                relay.frame_untrusted(LinkId(1), frame_under(2**31 + 4 * route + 1, 1450), now=0.0)
            while relay.next_relayed(LinkId(2), now=0.0) is not None:
                pass
        assert relay.drop_counts() == {}
        return tracemalloc.get_traced_memory()[0] / route_count
    finally:
        tracemalloc.stop()
