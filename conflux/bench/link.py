"""Measures a link: two engines joined over loopback, without devices.  Run as a process of its own.

The far engine has no device, so it counts and drops the packets that it has opened.  The time of this process's own
thread is no cost of the engines and is left out.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from dataclasses import dataclass
from typing import Final

from conflux.bench import child
from conflux.bench.figure import LESS, MORE, Figure, PartFailed, Plan, Recorder
from conflux.bench.pair import FAR, NEAR, Pair
from conflux.datapath.config import DatapathConfig
from conflux.datapath.native import _engine
from conflux.host.memory import MIB, memory

SUPER_BYTES: Final = 60_000  # of a TCP super-packet, as the kernel hands the engine in a bulk flow
SMALL_BYTES: Final = 100
_SEGMENT_BYTES = 1400
_TCP_CHECKSUM_AT = 16
_GSO_TCP4, _NEEDS_CHECKSUM = 1, 1  # linux/virtio_net.h

_CONFIG = DatapathConfig()
# The queue is kept no fuller than this, so that no packet is dropped for lack of room.
_QUEUE_BYTES = _CONFIG.queue_bytes_max - 4 * SUPER_BYTES
_QUEUE_PACKETS = _CONFIG.queue_packets_max - 128
# Small packets wait in the queue before they leave.  A program in Python that pushes them one by one is either faster
# than the engine, and bundles are full, or slower, and each packet wakes it: 0.3 or 3.5 us, as it happens.
_SMALL_COUNT = 16384  # 10 ms at 1.6 million a second; at 200 thousand still less than CoDel waits
_CONFIG_SMALL = _CONFIG._replace(queue_packets_max=2 * _SMALL_COUNT, queue_bytes_max=4 * _CONFIG.queue_bytes_max)
_PAUSE_S = 0.0002  # less than the engine takes to empty the queue, even at 20 Gbit/s
_START_COUNT = 20
_OPEN_COUNT = 10


@dataclass(frozen=True, slots=True)
class Push:
    """The packets that one round got through, and what they cost."""

    packets: int
    seconds: float
    cpu_s: float  # of the two engines
    frames: int


def measure(plan: Plan, recorder: Recorder) -> None:
    """Measure how engines start and join, then what a pair carries, then its memory."""
    recorder.step("start", "an engine, and an association between two")
    rounds = range(plan.round_count)
    recorder.figure(Figure("start", "start_engine", "an engine starts", "ms", LESS, tuple(_start_ms() for _ in rounds)))
    opened = tuple(_open_ms() for _ in rounds)
    recorder.figure(Figure("start", "start_association", "two engines join: SCTP handshake", "ms", LESS, opened))
    with Pair(config=_CONFIG_SMALL) as pair:
        recorder.setting("socket_buffer_bytes", pair.near.socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2)
        recorder.step("link", f"super-packets of {SUPER_BYTES:,} bytes, {plan.flow_round_s:g} s")
        bulk = [_push(pair, super_packet(SUPER_BYTES), plan.flow_round_s) for _ in rounds]
        bits = SUPER_BYTES * 8
        rates = tuple(push.packets * bits / push.seconds / 1e9 for push in bulk)
        costs = tuple(push.cpu_s / (push.packets * bits / 1e9) for push in bulk)
        recorder.figure(Figure("link", "link_bulk", f"super-packets of {SUPER_BYTES:,} bytes", "Gbit/s", MORE, rates))
        recorder.figure(
            Figure("link", "link_bulk_cpu", "super-packets: processor time, both engines", "CPU-s/Gbit", LESS, costs)
        )
        recorder.step("link", f"packets of {SMALL_BYTES} bytes, {plan.flow_round_s:g} s")
        small = [_drain(pair, small_packet(SMALL_BYTES), plan.flow_round_s) for _ in rounds]
        bundles = tuple(push.packets / push.frames for push in small)
        title = "small packets: in a frame, on average"
        recorder.figure(Figure("link", "link_small_bundle", title, "packets/frame", MORE, bundles))
        rates = tuple(push.packets / push.seconds / 1e3 for push in small)
        costs = tuple(push.cpu_s / push.packets * 1e6 for push in small)
        recorder.figure(
            Figure("link", "link_full_small", f"packets of {SMALL_BYTES} bytes, bundled", "k packets/s", MORE, rates)
        )
        recorder.figure(
            Figure(
                "link",
                "link_full_small_cpu",
                "small packets: processor time, both engines",
                "CPU-µs/packet",
                LESS,
                costs,
            )
        )
        held = memory()._asdict()
        for kind, title in (("pss", "proportional share"), ("rss", "resident")):
            if (size := held[f"{kind}_bytes"]) is not None:
                words = f"Python and two engines after full load: {title}"
                recorder.figure(Figure("memory", f"memory_engines_{kind}", words, "MB", LESS, (size / MIB,)))
        recorder.setting("link_drops", _notable(pair.drops()))


def _notable(drops: dict[str, int]) -> dict[str, int]:
    """Return the drops but those that the far engine has for lack of a device."""
    return {reason: count for reason, count in drops.items() if reason != "far: tun-down"}


def _start_ms() -> float:
    began = time.perf_counter()
    for _ in range(_START_COUNT):
        _engine.Engine(-1, False, _CONFIG, os.urandom).close()
    return (time.perf_counter() - began) / _START_COUNT * 1e3


def _open_ms() -> float:
    spent = 0.0
    for _ in range(_OPEN_COUNT):
        with Pair() as pair:
            spent += pair.open_s
    return spent / _OPEN_COUNT * 1e3


def _push(pair: Pair, packet: bytes, seconds: float) -> Push:
    """Keep the near engine's queue full for a while, then wait until it is empty."""
    engine, egress = pair.near.engine, pair.near.egress

    def has_room() -> bool:
        queued = engine.egress(egress)
        return queued.bytes < _QUEUE_BYTES and queued.packets < _QUEUE_PACKETS

    packets, frames = pair.far.arrived, pair.far.frames
    began, cpu, own_cpu = time.perf_counter(), time.process_time(), time.thread_time()
    while time.perf_counter() - began < seconds:
        now = time.monotonic()
        while has_room():
            engine.packet(packet, now)
        time.sleep(_PAUSE_S)
    child.until(lambda: not pair.near.queued, "the end of what was queued", within_s=10.0, pause_s=_PAUSE_S)
    spent = time.perf_counter() - began
    cpu_s = time.process_time() - cpu - (time.thread_time() - own_cpu)
    arrived = pair.far.arrived - packets
    if not arrived:
        raise PartFailed("no packet got through")
    return Push(arrived, spent, cpu_s, pair.far.frames - frames)


def _drain(pair: Pair, packet: bytes, seconds: float) -> Push:
    """Fill the near engine's queue, let it run empty, and so on for a while; only the time of the second counts."""
    engine, packets, frames = pair.near.engine, pair.far.arrived, pair.far.frames
    spent = cpu_s = 0.0
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        pair.near.hold()
        now = time.monotonic()
        for _ in range(_SMALL_COUNT):
            engine.packet(packet, now)
        began, cpu, own_cpu = time.perf_counter(), time.process_time(), time.thread_time()
        pair.near.release()
        child.until(lambda: not pair.near.queued, "the end of what was queued", within_s=10.0, pause_s=_PAUSE_S)
        spent += time.perf_counter() - began
        cpu_s += time.process_time() - cpu - (time.thread_time() - own_cpu)
    arrived = pair.far.arrived - packets
    if not arrived:
        raise PartFailed("no packet got through")
    return Push(arrived, spent, cpu_s, pair.far.frames - frames)


def super_packet(size: int) -> bytes:
    """Return a TCP packet from near to far whose offload header asks for segmentation, as the kernel's does."""
    ip_bytes, tcp_bytes = 20, 20
    header = struct.pack(
        "<BBHHHH", _NEEDS_CHECKSUM, _GSO_TCP4, ip_bytes + tcp_bytes, _SEGMENT_BYTES, ip_bytes, _TCP_CHECKSUM_AT
    )
    data_offset_and_ack = (5 << 12) | 0x10
    tcp = struct.pack("!HHIIHHHH", 5001, 5001, 0, 0, data_offset_and_ack, 1000, 0, 0)
    return header + _ipv4(socket.IPPROTO_TCP, tcp + bytes(size - ip_bytes - tcp_bytes))


def small_packet(size: int) -> bytes:
    """Return a UDP packet from near to far with an offload header that asks for nothing."""
    udp_bytes = size - 20
    return bytes(10) + _ipv4(socket.IPPROTO_UDP, struct.pack("!HHHH", 5001, 5001, udp_bytes, 0) + bytes(udp_bytes - 8))


def _ipv4(protocol: int, payload: bytes) -> bytes:
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 0, 0, 64, protocol, 0, NEAR.packed, FAR.packed)
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return head[:10] + struct.pack("!H", ~total & 0xFFFF) + head[12:] + payload


if __name__ == "__main__":
    child.serve(measure)
