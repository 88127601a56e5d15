"""The reference datapath whole: packet() → next_frame() → frame_untrusted() → next_delivery(), both ends in one thread.

extra_info carries what one core does for both ends together: packets per second and Gbit/s of IP packets, best round.
"""

from __future__ import annotations

import struct
from ipaddress import ip_address, ip_network

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from conflux.anchor import frame
from conflux.datapath.interface import EpochKey, Hop
from conflux.datapath.reference import ReferenceDatapath
from conflux.ids import LinkId, NodeId, StreamId, TetherId

HERE, THERE = ip_address("100.64.0.1"), ip_address("100.64.0.2")
REALM = (ip_network("100.64.0.0/16"),)
DESTINATION, STREAM, TETHER, LINK = NodeId(b"d" * 16), StreamId(b"s" * 16), TetherId(b"t" * 8), LinkId(1)
PACKET_COUNT = 1024  # per round
ROUND_COUNT = 30


def packet(size: int) -> bytes:
    head = struct.pack(">BBHHHBBH", 0x45, 0, size, 0, 0x4000, 64, 17, 0) + HERE.packed + THERE.packed
    return head + bytes(size - len(head))


def pair(aead: int, egress_count: int) -> tuple[ReferenceDatapath, ReferenceDatapath]:
    """Two ends of one stream, beside other destinations that wait."""
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
