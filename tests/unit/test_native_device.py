"""Devices and sockets that fill, fail or vanish: told once, counted, and never spun upon."""

from __future__ import annotations

import resource
import socket
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from native_pair import (
    BINARY,
    Pair,
    World,
    number_of,
    udp,
    waves,
    world,
)

from conflux.carrier.wire import WireClosed, WireError
from conflux.datapath.interface import Feedback
from conflux.ids import LinkId

IP_RECVERR = 11  # linux/in.h
WAKEUPS_MAX = 60  # in the watched time, of whatever protocol timers there are


@pytest.fixture
def made() -> Iterator[World]:
    with world() as one:
        yield one


@pytest.fixture
def pair(made: World) -> Pair:
    return Pair(made)


def spent(made: World, duration_s: float) -> tuple[list[int], float]:
    """How often each engine wakes in so long, and the processor's time all of it takes."""

    def processor_s() -> float:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return usage.ru_utime + usage.ru_stime

    before = [node.engine.counts()[2] for node in made.nodes]
    began = processor_s()
    made.pass_time(duration_s)
    after = [node.engine.counts()[2] for node in made.nodes]
    return [one - other for one, other in zip(after, before, strict=True)], processor_s() - began


def test_an_idle_engine_does_not_wake(pair: Pair) -> None:
    for number in range(20):
        pair.a.send(udp(number))
    pair.world.until(lambda: len(pair.b.packets) == 20)
    pair.world.settle()
    pair.world.until(lambda: spent(pair.world, 0.6)[0] == [0, 0])  # after the last report and acknowledgement


def test_an_engine_with_nothing_does_not_wake(made: World) -> None:
    made.node()
    made.pass_time(0.05)
    assert spent(made, 0.3)[0] == [0]


# ── the device ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("unread", [False, True], ids=["at its end", "with an error"])
def test_a_device_that_vanishes_is_told_once_and_not_read_again(pair: Pair, unread: bool) -> None:
    if unread:  # what nobody has read makes the far close an error (ECONNRESET)
        pair.a.is_deaf = True
        back = pair.a.tun.dup()
        back.send(bytes(100))
        back.close()
    pair.a.device.close()
    pair.a.is_deaf = False
    pair.world.until(lambda: pair.a.lost_count)
    pair.world.pass_time(0.3)
    wakeups, processor_s = spent(pair.world, 0.3)
    assert pair.a.lost_count == 1
    assert max(wakeups) < WAKEUPS_MAX
    assert processor_s < 0.2


def test_packets_for_a_device_that_is_gone_are_counted(pair: Pair) -> None:
    pair.b.device.close()
    pair.world.until(lambda: pair.b.lost_count)
    for number in range(10):
        pair.a.send(udp(number))
    pair.world.until(lambda: pair.b.drops == {"tun-down": 10})
    assert pair.b.datapath.device_counts() == (0, 0)


def test_packets_for_a_device_that_is_full_are_counted_and_the_rest_arrives(made: World) -> None:
    pair = Pair(made)
    pair.b.tun.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)  # the least there is
    pair.b.is_deaf = True
    for number in range(40):
        pair.a.send(udp(number, size=1000))
    made.until(lambda: pair.b.engine.receiver(1, False)[7] == 40)
    full = pair.b.drops["tun-full"]
    assert 0 < full < 40
    pair.b.is_deaf = False
    made.until(lambda: len(pair.b.packets) == 40 - full)
    pair.a.send(udp(77))
    made.until(lambda: udp(77) in pair.b.packets)
    assert pair.b.drops == {"tun-full": full}


# ── the sockets ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_socket_that_is_full_loses_nothing(made: World) -> None:
    pair = Pair(made)
    for node, link in ((pair.a, pair.link_a), (pair.b, pair.link_b)):
        node.sockets[link].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
    for wave in waves(600, 60):
        for number in wave:
            pair.a.send(udp(number, size=1000))
        # Where all is slow, emulated say, a full socket makes the queue stand, and CoDel may have its say.
        made.until(lambda wave=wave: len(pair.b.packets) + pair.a.drops.get("codel", 0) == wave.stop)
    arrived = list(map(number_of, pair.b.packets))
    assert len(arrived) == len(set(arrived)) > 500
    assert set(pair.a.drops) <= {"codel"}
    assert pair.b.drops == {}


def test_a_socket_pair_that_is_full_is_waited_for(made: World) -> None:
    one, other = made.node(), made.node()
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made.sockets += ends
    dtls = made.pair_keys()
    for node, end, mine, link in zip((one, other), ends, dtls, (LinkId(1), LinkId(2)), strict=True):
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
        made.add_link(node, link, end, None, mine)
    made.until(lambda: one.wires and other.wires)
    for _ in range(20):
        assert one.wire.send(LinkId(1), 1, BINARY, bytes(60_000))
    made.until(lambda: len(other.wires) == 21)


def test_a_peers_socket_that_is_closed_is_told_and_not_spun_upon(made: World) -> None:
    pair = Pair(made)
    pair.a.sockets[pair.link_a].setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
    gone = pair.b.sockets[pair.link_b]
    address = gone.getsockname()
    pair.b.wire.remove(pair.link_b)
    gone.close()
    del pair.b.sockets[pair.link_b]
    for number in range(5):
        pair.a.send(udp(number))
    made.until(lambda: WireError(pair.link_a, address) in pair.a.wires)
    wakeups, processor_s = spent(made, 0.5)
    assert max(wakeups) < WAKEUPS_MAX
    assert processor_s < 0.3
    assert set(pair.a.drops) <= {"socket-send", "socket-receive"}


def test_a_connected_socket_whose_peer_is_gone_is_not_spun_upon(made: World) -> None:
    node, gone = made.node(), made.socket()
    end = made.socket()
    end.connect(gone.getsockname())
    gone.close()
    made.add_link(node, LinkId(1), end, None, made.pair_keys()[0])
    made.pass_time(0.1)
    wakeups, processor_s = spent(made, 0.5)
    assert max(wakeups) < WAKEUPS_MAX
    assert processor_s < 0.3


def test_a_socket_pair_whose_far_end_is_closed_ends_the_link_once(made: World) -> None:
    node = made.node()
    end, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made.sockets += (end, far)
    end.setblocking(False)
    made.add_link(node, LinkId(1), end, None, made.pair_keys()[0])
    far.close()
    made.until(lambda: node.wires)
    wakeups, processor_s = spent(made, 0.3)
    assert node.wires == [WireClosed(LinkId(1), "socket")]
    assert max(wakeups) < WAKEUPS_MAX
    assert processor_s < 0.2


def test_a_socket_shut_down_under_a_link_is_not_spun_upon(pair: Pair) -> None:
    end = pair.a.sockets[pair.link_a]
    end.connect(pair.b.sockets[pair.link_b].getsockname())
    end.shutdown(socket.SHUT_RDWR)
    wakeups, processor_s = spent(pair.world, 0.3)
    assert max(wakeups) < WAKEUPS_MAX
    assert processor_s < 0.2


def test_an_error_amid_a_batch_costs_that_batch_and_no_more(made: World) -> None:
    """A datagram to where nobody listens makes the next one fail, wherever that goes."""
    pair = Pair(made)
    end = pair.a.sockets[pair.link_a]
    end.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
    nobody = made.socket()
    address = nobody.getsockname()
    nobody.close()
    for wave in waves(400, 40):
        for number in wave:
            if number % 10 == 0:
                with suppress(ConnectionRefusedError):
                    end.sendto(b"\0", address)
            pair.a.send(udp(number, size=1000))
        made.until(lambda wave=wave: len(pair.b.packets) == wave.stop)
    made.until(lambda: WireError(pair.link_a, address) in pair.a.wires)
    assert sorted(map(number_of, pair.b.packets)) == list(range(400))


# ── under load ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_saturated_device_keeps_out_neither_tables_nor_feedback(made: World) -> None:
    pair = Pair(made)
    packet, slowest_s = udp(0, size=1300), 0.0

    def saturated() -> bool:
        nonlocal slowest_s
        with suppress(BlockingIOError):
            for _ in range(10_000):  # an engine that reads faster than this writes, emulated say, is never full
                pair.a.send(packet)
        asked_at = time.monotonic()
        pair.a.datapath.status()
        slowest_s = max(slowest_s, time.monotonic() - asked_at)
        return sum(isinstance(upcall, Feedback) for upcall in pair.a.upcalls) >= 5

    made.until(saturated)
    assert slowest_s < 0.5
