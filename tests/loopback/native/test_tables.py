"""The engine's tables: entries are removed in any order, twice, under load, and by handles that never existed."""

from __future__ import annotations

import gc
import platform
import random
import subprocess
import sys
import time
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from kit.native import (
    A4,
    B4,
    B6,
    BINARY,
    CHANNEL_COUNT,
    FORWARD,
    REALM,
    REVERSE,
    SOURCES,
    STREAM,
    TETHER,
    A,
    B,
    Node,
    Pair,
    World,
    key,
    keys,
    udp,
)

from conflux.anchor import frame as f
from conflux.anchor.key import EpochKey
from conflux.carrier import wire
from conflux.carrier.interface import TETHER_CHANNEL_COUNT_MAX, Hop
from conflux.datapath.config import DatapathConfig
from conflux.datapath.drop import Drop
from conflux.datapath.native import _engine
from conflux.datapath.native.datapath import NO_OFFLOAD, NativeDatapath
from conflux.datapath.native.receiver import NativeReceiver
from conflux.datapath.native.sender import NativeSender
from conflux.errors import LocalProtocolError
from conflux.ids import LinkId, NodeId, StreamId

NOWHERE = 4_000_000_000  # a handle, a link and a label that never existed


def load(pair: Pair, count: int = 400) -> None:
    """Give A so many packets that some wait, some are under way and some arrive."""
    for number in range(count):
        pair.a.engine.packet(NO_OFFLOAD + udp(number, size=1200, port=5000 + number % 8), time.monotonic())


# ── handles that are not ─────────────────────────────────────────────────────────────────────────────────────────────


def test_unknown_handles_are_refused_or_ignored(pair: Pair) -> None:
    engine = pair.a.engine
    hop = Hop(LinkId(NOWHERE), TETHER, 1, 1, 1)
    for handle in (0, 2, 63, 64, 65, NOWHERE, 2**32 - 1):
        refused: tuple[Callable[[], object], ...] = (
            lambda handle=handle: engine.egress(handle),
            lambda handle=handle: engine.set_addresses(handle, []),
            lambda handle=handle: engine.sender(handle),
            lambda handle=handle: engine.add_sender(handle, keys()[0], True),
            lambda handle=handle: engine.rekey_sender(handle, keys()[0]),
            lambda handle=handle: engine.set_route(handle, hop),
            lambda handle=handle: engine.queue_entry(handle, 3, b""),
            lambda handle=handle: engine.seal_last(handle),
            lambda handle=handle: engine.receiver(handle, False),
            lambda handle=handle: engine.rekey_receiver(handle, keys()[0]),
        )
        for call in refused:
            with pytest.raises(LocalProtocolError):
                call()
        engine.remove_egress(handle)
        engine.detach_sender(handle)
        engine.remove_sender(handle)
        engine.notify_sent(handle)
        engine.sender_reported(handle, 0, 0.0)
        engine.forget_epoch(handle)
        engine.remove_receiver(handle)
        assert not engine.add_label(handle, 1, 1)
        assert not engine.verify_last(handle, bytes(35))
    pair.a.send(udp(1))
    pair.world.until(lambda: pair.b.packets == [udp(1)])


def test_unknown_links_are_refused_or_ignored(made: World) -> None:
    node = made.node()
    engine = node.engine
    for link in (0, 1, NOWHERE, 2**32 - 1):
        engine.close_link(link)
        engine.remove_link(link)
        engine.unmap(link, TETHER)
        engine.remove_label(link, 1)
        engine.remove_relay(link, 1)
        assert engine.link(link) is None
        assert not engine.send(link, 0, BINARY, b"x")
        assert not engine.send_frame(Hop(LinkId(link), TETHER, 1, 1, 1), 0, b"x")
        assert not engine.map(link, 0, TETHER, 0, 100)
        assert not engine.reset_streams(link, (1,))
        assert not engine.holds_label(link, 1)
    assert node.drops == {"no-tether": 4}


def test_engine_keeps_as_many_channels_of_a_tether_as_a_peer_may_ask_for() -> None:
    assert _engine.CHANNEL_COUNT_MAX == TETHER_CHANNEL_COUNT_MAX


def test_engine_keeps_as_many_entries_as_the_reference() -> None:
    assert DatapathConfig().entry_count_max == _engine.ENTRY_COUNT_MAX


def test_engine_numbers_the_dtls_ciphers_as_the_carrier_does() -> None:
    assert (wire.AES_128_GCM, wire.AES_256_GCM, wire.CHACHA20_POLY1305) == _engine.DTLS_CIPHERS


def test_every_drop_of_the_engine_is_in_the_table_of_drops() -> None:
    assert len(set(_engine.DROPS)) == len(_engine.DROPS)
    assert set(_engine.DROPS) <= set(Drop)


def test_values_beyond_the_tables_are_refused(pair: Pair) -> None:
    engine, link = pair.a.engine, pair.link_a
    assert not engine.map(link, 4096, TETHER, 0, 100)
    assert not engine.map(link, 0, TETHER, TETHER_CHANNEL_COUNT_MAX, 100)
    assert not engine.send(link, 0, BINARY, b"")
    for channel_count in (0, TETHER_CHANNEL_COUNT_MAX + 1, 2**32 - 1):
        with pytest.raises(LocalProtocolError):
            engine.set_route(1, Hop(link, TETHER, channel_count, 1, 1))
        for ends in ((channel_count, 1), (1, channel_count)):
            hops = (Hop(LinkId(link + at), TETHER, count, 50 + at, 60 + at) for at, count in enumerate(ends))
            with pytest.raises(LocalProtocolError):
                engine.add_relay(*hops)
    with pytest.raises(LocalProtocolError):
        engine.configure([(bytes(5), bytes(5))], [])
    with pytest.raises(LocalProtocolError):
        engine.configure([(bytes(4), b"\xff" * 4)] * 65, [])
    with pytest.raises(LocalProtocolError):
        engine.add_receiver([], EpochKey(0, 1, b"short", b"npre"), False)
    with pytest.raises(LocalProtocolError):
        pair.world.add_link(pair.a, link, pair.a.sockets[link], None, pair.world.pair_keys()[0])
    pair.a.send(udp(1))
    pair.world.until(lambda: pair.b.packets == [udp(1)])


def test_tethers_and_networks_are_bounded(pair: Pair) -> None:
    engine = pair.a.engine
    mapped = [engine.map(pair.link_a, 500 + number, number.to_bytes(8, "big"), 0, 9) for number in range(300)]
    assert sum(mapped) == 255, "and the tether that was there"
    networks = [(bytes([number]) * 4, b"\xff" * 4) for number in range(65)]
    assert engine.add_receiver(networks[:64], key(0, b"x"), False) > 0
    with pytest.raises(LocalProtocolError):
        engine.add_receiver(networks, key(0, b"x"), False)


def test_a_closed_engine_answers_its_counters_and_refuses_the_rest(pair: Pair) -> None:
    pair.a.send(udp(source="1.2.3.4"))
    pair.world.until(lambda: pair.a.drops == {"bad-source": 1})
    pair.a.stop()
    assert pair.a.drops == {"bad-source": 1}
    assert pair.a.datapath.status().drops == {"bad-source": 1}
    assert pair.a.datapath.device_counts() == (1, 0)
    with pytest.raises(LocalProtocolError):
        _ = pair.a.datapath.fd
    with pytest.raises(LocalProtocolError):
        pair.a.wire.remove(pair.link_a)


# ── in any order ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("seed", range(12))
def test_everything_may_be_removed_in_any_order_twice_and_under_load(made: World, seed: int) -> None:
    draw = random.Random(seed)  # not a secret
    pair = Pair(made)
    load(pair)
    removals: list[Callable[[], object]] = [
        lambda: pair.a.datapath.remove_egress(B, "gone"),
        lambda: pair.a.datapath.remove_sender(STREAM),
        lambda: pair.a.datapath.remove_feedback_label(pair.link_a, REVERSE),
        lambda: pair.b.datapath.remove_receiver(STREAM),
        lambda: pair.b.datapath.remove_receiver_route(pair.link_b, FORWARD),
        lambda: pair.a.wire.unmap(pair.link_a, TETHER),
        lambda: pair.b.wire.unmap(pair.link_b, TETHER),
        lambda: pair.a.wire.close(pair.link_a),
        lambda: pair.b.wire.close(pair.link_b),
        lambda: pair.a.wire.remove(pair.link_a),
        lambda: pair.b.wire.remove(pair.link_b),
    ] * 2
    draw.shuffle(removals)
    for removal in removals:
        removal()
        if draw.random() < 0.5:
            load(pair, 20)
        made.step(0)
    again = Pair(made)
    again.a.send(udp(5))
    made.until(lambda: again.b.packets == [udp(5)])


def test_packets_queued_for_a_removed_link_go_over_the_next(made: World) -> None:
    pair = Pair(made)
    pair.b.is_deaf = True
    load(pair, 200)
    pair.a.wire.remove(pair.link_a)
    waiting = pair.a.engine.egress(1).packets
    pair.b.is_deaf = False
    made.pass_time(0.05)
    came = len(pair.b.packets)
    link_a, link_b = made.join(pair.a, pair.b)
    pair.b.datapath.add_receiver_route(STREAM, Hop(link_b, TETHER, CHANNEL_COUNT, 6, 5), now=time.monotonic())
    pair.a.datapath.set_route(STREAM, Hop(link_a, TETHER, CHANNEL_COUNT, 5, 6), now=time.monotonic())
    made.until(lambda: len(pair.b.packets) == came + waiting)


def test_a_link_number_may_be_used_again(made: World) -> None:
    pair = Pair(made)
    for turn in range(5):
        load(pair, 50)
        for node, link in ((pair.a, pair.link_a), (pair.b, pair.link_b)):
            node.wire.remove(link)
            node.sockets.pop(link).close()
        ends, dtls = (made.socket(), made.socket()), made.pair_keys()
        for node, link, mine, far, key_ in (
            (pair.b, pair.link_b, ends[1], ends[0], dtls[1]),
            (pair.a, pair.link_a, ends[0], ends[1], dtls[0]),
        ):
            made.add_link(node, link, mine, far.getsockname(), key_)
            made.map(node, link)
        pair.a.send(udp(1000 + turn))
        made.until(lambda turn=turn: udp(1000 + turn) in pair.b.packets)


def test_a_removed_receiver_leaves_labels_to_others(pair: Pair) -> None:
    pair.b.datapath.remove_receiver(STREAM)
    pair.b.datapath.remove_receiver(STREAM)
    pair.a.send(udp())
    pair.world.until(lambda: pair.b.drops == {"unknown-label": 1})
    now = time.monotonic()
    pair.b.datapath.add_receiver(STREAM, A, SOURCES, *keys(), now=now)
    pair.b.datapath.add_receiver_route(STREAM, pair.hop_b, now=now)
    pair.a.send(udp(1))
    pair.world.until(lambda: pair.b.packets == [udp(1)])


def test_a_replaced_stream_sends_nothing_more_but_ends_properly(pair: Pair) -> None:
    now = time.monotonic()
    other = StreamId(b"other-stream-id!")
    pair.b.datapath.add_receiver(other, A, SOURCES, *keys(what=b"2"), now=now)
    pair.b.datapath.add_receiver_route(other, Hop(pair.link_b, TETHER, CHANNEL_COUNT, 6, 5), now=now)
    pair.a.datapath.add_sender(B, other, *keys(what=b"2"), now=now)
    pair.a.send(udp(1))
    pair.world.until(lambda: pair.a.engine.egress(1).packets == 1)
    pair.a.datapath.set_route(other, Hop(pair.link_a, TETHER, CHANNEL_COUNT, 5, 6), now=now)
    pair.world.until(lambda: pair.b.packets == [udp(1)])
    assert pair.b.datapath.verify_last(STREAM, pair.a.datapath.last_frame(STREAM))
    pair.a.datapath.remove_sender(STREAM)
    pair.a.send(udp(2))
    pair.world.until(lambda: len(pair.b.packets) == 2)
    assert pair.b.engine.receiver(1, False).frames == 1, "the END alone"


def test_an_egress_whose_addresses_changed_keeps_its_queue(made: World) -> None:
    pair = Pair(made, route=False)
    pair.a.send(udp(1))
    made.until(lambda: pair.a.engine.egress(1).packets == 1)
    pair.a.datapath.add_egress(B, (B6,), now=time.monotonic())
    pair.a.send(udp(2))
    made.until(lambda: pair.a.upcalls)
    pair.a.datapath.refuse(B4, "gone")
    pair.route()
    made.until(lambda: pair.b.packets == [udp(1)])
    assert pair.a.drops == {"gone": 1}


def test_many_destinations_come_and_go(made: World) -> None:
    node = made.node(A4)
    now = time.monotonic()
    numbers = [number.to_bytes(2, "big") for number in range(300)]
    nodes = [(NodeId(number * 8), ip_address(b"\x64\x40" + number)) for number in numbers]
    for index, (name, address) in enumerate(nodes):
        node.datapath.add_egress(name, (address,), now=now)
        node.datapath.add_sender(name, StreamId(name), *keys(), now=now)
        if index % 3 == 0:
            node.datapath.remove_egress(name, "gone")
            node.datapath.remove_sender(StreamId(name))
    for _, address in nodes:
        node.engine.packet(NO_OFFLOAD + udp(destination=address), time.monotonic())
    made.step()
    for name, _ in nodes:
        node.datapath.remove_sender(StreamId(name))
        node.datapath.remove_egress(name, "gone")
    assert node.datapath.status().egresses == node.datapath.status().senders == ()
    assert node.drops["gone"] == 200


# ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("after_s", [0.0, 0.002, 0.02])
def test_an_engine_stops_with_everything_in_flight(made: World, after_s: float) -> None:
    pair = Pair(made)
    pair.b.datapath.add_relay(
        Hop(pair.link_b, TETHER, 4, 70, 71), Hop(LinkId(500), TETHER, 4, 72, 73), now=time.monotonic()
    )
    load(pair, 1000)
    for number in range(50):
        pair.a.wire.send(pair.link_a, 1, BINARY, bytes(20_000))
        pair.a.send(udp(number, size=1300))
        pair.a.send(udp(number, destination="100.64.0.99"))
    made.pass_time(after_s)
    pair.b.stop()
    pair.a.stop()


def test_engines_come_and_go_without_leaving_descriptors(made: World) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    gc.collect()  # of other tests
    before = descriptors()
    for _ in range(20):
        datapath = NativeDatapath()
        datapath.configure((A4,), REALM)
        datapath.stop()
    assert descriptors() == before


def test_a_removed_stream_is_freed_without_the_collector_and_before_its_timers_fire(made: World) -> None:
    gc.collect()
    gc.disable()
    try:
        pair = Pair(made)
        pair.a.send(udp())
        made.until(lambda: pair.b.packets)
        pair.a.datapath.remove_sender(STREAM)
        pair.b.datapath.remove_receiver(STREAM)
        ends = (NativeSender, NativeReceiver)
        assert [type(one).__name__ for one in gc.get_objects() if isinstance(one, ends)] == []
    finally:
        gc.enable()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other libraries have no arenas")
def test_threads_take_memory_from_one_arena_which_can_be_given_back_to_its_end(tmp_path: Path) -> None:
    source = """
import ctypes, sys, threading
from conflux.datapath.native.datapath import NativeDatapath
datapath = NativeDatapath()
thread = threading.Thread(target=bytes, args=(100_000,))
thread.start()
thread.join()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fopen(sys.argv[1].encode(), b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
datapath.stop()
"""
    seen = tmp_path / "malloc.xml"
    subprocess.run([sys.executable, "-c", source, str(seen)], check=True)
    assert seen.read_text().count("<heap nr=") == 1


def test_spoofing_is_judged_by_every_granted_network(made: World) -> None:
    pair = Pair(made)
    now = time.monotonic()
    pair.b.datapath.remove_receiver(STREAM)
    pair.b.datapath.add_receiver(
        STREAM,
        A,
        (ip_network("100.64.128.0/17"), ip_network("fd00::/64")),
        *keys(),
        offload_kinds=(f.OFFLOAD,),
        now=now,
    )
    pair.b.datapath.add_receiver_route(STREAM, pair.hop_b, now=now)
    pair.a.datapath.configure((ip_address("100.64.127.255"), ip_address("100.64.200.1")), REALM)
    for source in ("100.64.127.255", "100.64.200.1"):
        pair.a.send(udp(source=source))
    made.until(lambda: pair.b.packets == [udp(source="100.64.200.1")] and pair.b.drops == {"spoofed": 1})


def test_nodes_are_told_apart(made: World) -> None:
    one, other = Node(A4), Node(A4)
    made.nodes += (one, other)
    one.send(udp(destination=B4))
    made.until(lambda: one.upcalls)
    assert other.upcalls == []
