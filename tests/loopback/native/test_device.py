"""Devices and sockets that fill, fail or vanish: reported once, counted, and no cause of a busy loop."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import suppress
from statistics import median

import pytest
from kit.native import (
    A4,
    A6,
    B4,
    B6,
    BINARY,
    Pair,
    World,
    ip,
    number_of,
    udp,
    waves,
)

from conflux.carrier.wire import WireClosed, WireEnd, WireError
from conflux.datapath.interface import Feedback
from conflux.ids import LinkId

IP_RECVERR = 11  # linux/in.h
WAKEUPS_MAX = 60  # in the watched time, for any protocol timers


def wakeups(made: World, duration_s: float) -> list[int]:
    """Return how often each engine wakes while time passes, and last how often their messages wake us."""
    before = [node.engine.counts().wakeups for node in made.nodes]
    step_count = made.pass_time(duration_s)
    after = [node.engine.counts().wakeups for node in made.nodes]
    return [*(one - other for one, other in zip(after, before, strict=True)), step_count]


def test_an_idle_engine_does_not_wake(pair: Pair) -> None:
    for number in range(20):
        pair.a.send(udp(number))
    pair.world.until(lambda: len(pair.b.packets) == 20)
    pair.world.settle()
    pair.world.until(lambda: wakeups(pair.world, 0.6)[:2] == [0, 0])  # after the last report and acknowledgement


def test_an_engine_with_nothing_does_not_wake(made: World) -> None:
    made.node()
    made.pass_time(0.05)
    assert wakeups(made, 0.3)[0] == 0


# ── the device ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("unread", [False, True], ids=["at its end", "with an error"])
def test_a_lost_device_is_reported_once_and_not_read_again(pair: Pair, unread: bool) -> None:
    if unread:  # unread data turns the far end's close into an error (ECONNRESET)
        pair.a.is_deaf = True
        back = pair.a.tun.dup()
        back.send(bytes(100))
        back.close()
    pair.a.device.close()
    pair.a.is_deaf = False
    pair.world.until(lambda: pair.a.lost_count)
    pair.world.pass_time(0.3)
    counts = wakeups(pair.world, 0.3)
    assert pair.a.lost_count == 1
    assert max(counts) < WAKEUPS_MAX


def test_packets_for_a_lost_device_are_counted(pair: Pair) -> None:
    pair.b.device.close()
    pair.world.until(lambda: pair.b.lost_count)
    for number in range(10):
        pair.a.send(udp(number))
    pair.world.until(lambda: pair.b.drops == {"tun-down": 10})
    assert pair.b.datapath.device_counts() == (0, 0)


def test_packets_for_a_full_device_are_counted_and_the_rest_arrives(made: World) -> None:
    pair = Pair(made)
    pair.b.tun.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)  # the kernel's minimum
    pair.b.is_deaf = True
    for number in range(40):
        pair.a.send(udp(number, size=1000))
    made.until(lambda: pair.b.engine.receiver(1, False).packets == 40)
    full = pair.b.drops["tun-full"]
    assert 0 < full < 40
    pair.b.is_deaf = False
    made.until(lambda: len(pair.b.packets) == 40 - full)
    pair.a.send(udp(77))
    made.until(lambda: udp(77) in pair.b.packets)
    assert pair.b.drops == {"tun-full": full}


# ── the sockets ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_full_socket_loses_nothing(made: World) -> None:
    pair = Pair(made)
    for node, link in ((pair.a, pair.link_a), (pair.b, pair.link_b)):
        node.sockets[link].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
    for wave in waves(600, 60):
        for number in wave:
            pair.a.send(udp(number, size=1000))
        # On a slow machine (in an emulator) a full socket makes a standing queue, and CoDel may drop.
        made.until(lambda wave=wave: len(pair.b.packets) + pair.a.drops.get("codel", 0) == wave.stop)
    arrived = list(map(number_of, pair.b.packets))
    assert len(arrived) == len(set(arrived)) > 500
    assert set(pair.a.drops) <= {"codel"}
    assert pair.b.drops == {}


def test_a_full_socket_pair_is_waited_for(made: World) -> None:
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


def test_a_peers_closed_socket_is_reported_and_the_engine_does_not_spin(made: World) -> None:
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
    counts = wakeups(made, 0.5)
    assert max(counts) < WAKEUPS_MAX
    assert set(pair.a.drops) <= {"socket-send", "socket-receive"}


def test_a_connected_socket_without_a_peer_does_not_make_the_engine_spin(made: World) -> None:
    node, gone = made.node(), made.socket()
    end = made.socket()
    end.connect(gone.getsockname())
    gone.close()
    made.add_link(node, LinkId(1), end, None, made.pair_keys()[0])
    made.pass_time(0.1)
    counts = wakeups(made, 0.5)
    assert max(counts) < WAKEUPS_MAX


def test_a_socket_pair_whose_far_end_is_closed_ends_the_link_once(made: World) -> None:
    node = made.node()
    end, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made.sockets += (end, far)
    end.setblocking(False)
    made.add_link(node, LinkId(1), end, None, made.pair_keys()[0])
    far.close()
    made.until(lambda: node.wires)
    counts = wakeups(made, 0.3)
    assert node.wires == [WireClosed(LinkId(1), WireEnd.SOCKET)]
    assert max(counts) < WAKEUPS_MAX


def test_a_socket_shut_down_under_a_link_does_not_make_the_engine_spin(pair: Pair) -> None:
    end = pair.a.sockets[pair.link_a]
    end.connect(pair.b.sockets[pair.link_b].getsockname())
    end.shutdown(socket.SHUT_RDWR)
    counts = wakeups(pair.world, 0.3)
    assert max(counts) < WAKEUPS_MAX


def test_a_send_error_costs_its_own_batch_alone(made: World) -> None:
    """A datagram to a closed port makes the next send fail, whatever its destination."""
    pair = Pair(made)
    end = pair.a.sockets[pair.link_a]
    end.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
    closed = made.socket()
    address = closed.getsockname()
    closed.close()
    for wave in waves(400, 40):
        for number in wave:
            if number % 10 == 0:
                with suppress(ConnectionRefusedError):
                    end.sendto(b"\0", address)
            pair.a.send(udp(number, size=1000))
        made.until(lambda wave=wave: len(pair.b.packets) == wave.stop)
    made.until(lambda: WireError(pair.link_a, address) in pair.a.wires)
    assert sorted(map(number_of, pair.b.packets)) == list(range(400))


# ── echo replies ──────────────────────────────────────────────────────────────────────────────────────────────────────


class Pinger:
    """A listener that waits for the echo replies of one identifier, and takes those of one payload."""

    identifier = 0x1234
    on_change: Callable[[tuple[int, ...]], None]

    def __init__(self) -> None:
        self.taken: list[bytes] = []

    def take(self, packet: bytes, *, now: float) -> bool:
        """Take what ends in "ours"."""
        if packet.endswith(b"ours"):
            self.taken.append(packet)
        return packet.endswith(b"ours")


def echo_reply(identifier: int, payload: bytes) -> bytes:
    return ip(A6, B6, 58, b"\x81\0\0\0" + identifier.to_bytes(2, "big") + b"\0\1" + payload)


def echo_reply4(identifier: int, payload: bytes) -> bytes:
    return ip(A4, B4, 1, b"\0\0\0\0" + identifier.to_bytes(2, "big") + b"\0\1" + payload)


def test_echo_replies_of_other_programs_go_to_the_device_while_a_ping_runs(pair: Pair) -> None:
    pinger = Pinger()
    pair.b.datapath.attach(lambda upcall: None, pinger)
    pinger.on_change((1, pinger.identifier))
    ours, ours4 = echo_reply(pinger.identifier, b"ours"), echo_reply4(pinger.identifier, b"ours")
    others = [
        echo_reply(0x4321, b"another identifier, ours"),
        echo_reply(pinger.identifier, b"our identifier by chance"),
        ip(A6, B6, 58, b"\x81\0\0\0"),  # too short to have one
        echo_reply4(0x4321, b"another identifier, ours"),
        ip(A4, B4, 1, b"\0\0\0\0"),
        udp(1),
    ]
    for packet in (ours, ours4, *others):
        pair.a.send(packet)
    pair.world.until(lambda: len(pair.b.packets) == len(others) and len(pinger.taken) == 2)
    assert (sorted(pair.b.packets), sorted(pinger.taken)) == (sorted(others), sorted([ours, ours4]))
    pinger.on_change(())
    pair.a.send(ours)
    pair.world.until(lambda: ours in pair.b.packets)
    assert pair.b.drops == {}


# ── under load ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_saturated_device_delays_neither_tables_nor_feedback(made: World) -> None:
    pair = Pair(made)
    packet = udp(0, size=1300)
    waits_s: list[float] = []

    def saturated() -> bool:
        with suppress(BlockingIOError):
            for _ in range(10_000):  # in an emulator the engine may read faster than this writes, and never be full
                pair.a.send(packet)
        asked_at = time.monotonic()
        pair.a.datapath.status()
        waits_s.append(time.monotonic() - asked_at)
        return sum(isinstance(upcall, Feedback) for upcall in pair.a.upcalls) >= 5

    made.until(saturated)
    assert median(waits_s) < 0.5  # the median: a busy machine may delay any one of them
