"""What an engine makes of a peer, or anybody, that sends what it should not."""

from __future__ import annotations

import random
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator

import pytest
from native_pair import (
    BINARY,
    CHANNEL_COUNT,
    FORWARD,
    REVERSE,
    STREAM,
    TETHER,
    Pair,
    World,
    keys,
    number_of,
    stun,
    udp,
    world,
)

from conflux.anchor import frame as f
from conflux.anchor.codec import Sender
from conflux.carrier.wire import WireDatagram, WireMessage, WireOpened
from conflux.datapath.config import DatapathConfig
from conflux.datapath.interface import Entry

STUN, DTLS, APPLICATION = 0, 22, 23  # first bytes (RFC 7983)


@pytest.fixture
def made() -> Iterator[World]:
    with world() as one:
        yield one


@pytest.fixture
def pair(made: World) -> Pair:
    return Pair(made)


def still_works(pair: Pair, number: int = 999) -> None:
    pair.a.send(udp(number))
    pair.world.until(lambda: udp(number) in pair.b.packets)


def stranger(pair: Pair) -> Callable[[bytes], None]:
    """Sends B's link datagrams from another address than the peer's."""
    made = pair.world.socket()
    there = pair.b.sockets[pair.link_b].getsockname()
    return lambda datagram: made.sendto(datagram, there) and None


# ── datagrams from anybody ───────────────────────────────────────────────────────────────────────────────────────────


def test_datagrams_that_are_nothing_are_counted(pair: Pair) -> None:
    send = stranger(pair)
    for datagram in (b"", b"\x04", b"\x13" * 100, b"\x40" * 1400, b"\xff"):
        send(datagram)
    pair.world.until(lambda: pair.b.drops == {"not-dtls-nor-stun": 5})
    still_works(pair)


def test_what_looks_like_stun_goes_up_with_its_sender(pair: Pair) -> None:
    made = pair.world.socket()
    good = [stun(), stun(4), stun(1200)]
    for datagram in good:
        made.sendto(datagram, pair.b.sockets[pair.link_b].getsockname())
    pair.world.until(lambda: len(pair.b.wires) == 4)
    assert pair.b.wires[1:] == [WireDatagram(pair.link_b, each, made.getsockname()) for each in good]


def test_what_begins_like_stun_and_has_not_its_header_is_counted(pair: Pair) -> None:
    send = stranger(pair)
    cut_short = [stun(8)[:size] for size in range(1, 28)]
    cookies = [stun(8, cookie=cookie) for cookie in (0, 0x2112A443, 0x42A41221)]
    lengths = [stun(8, length=length) for length in (0, 4, 7, 9, 12, 28, 65535)] + [stun(6), stun(7)]
    for datagram in (*cut_short, *cookies, *lengths):
        send(datagram)
    pair.world.until(lambda: pair.b.drops == {"stun-malformed": len(cut_short) + len(cookies) + len(lengths)})
    assert len(pair.b.wires) == 1  # it opened
    still_works(pair)


def test_records_cut_short_forged_or_repeated_change_nothing(pair: Pair) -> None:
    send = stranger(pair)
    record = struct.pack(">BHQH", APPLICATION, 0xFEFD, 1 << 48 | 1 << 40, 100) + bytes(100)
    for size in range(1, len(record)):
        send(record[:size])
    pair.world.until(lambda: pair.b.drops == {"dtls-malformed": len(record) - 1})
    send(record)
    send(struct.pack(">BHQH", APPLICATION, 0xFEFD, 1 << 48 | 1 << 40, 0))
    pair.world.until(lambda: pair.b.drops.get("dtls-auth") == 2)
    still_works(pair)


def test_random_datagrams_break_nothing(pair: Pair) -> None:
    send, draw = stranger(pair), random.Random(4)  # not a secret
    for round_ in range(20):
        for _ in range(50):
            datagram = bytearray(draw.randbytes(draw.choice((1, 13, 14, 37, 60, 200, 1400))))
            datagram[0] = draw.choice((0, 2, 3, 20, 21, 22, 23, 24, 63, draw.randrange(256)))
            if len(datagram) > 13 and draw.random() < 0.7:
                datagram[1:5] = struct.pack(">HH", 0xFEFD, draw.randrange(3))
                datagram[11:13] = struct.pack(">H", draw.choice((0, 1, len(datagram) - 13, len(datagram))))
            if datagram[0] <= 3 and draw.random() < 0.5:
                datagram[2:8] = stun(max(len(datagram) - 20, 0))[2:8]
            send(bytes(datagram))
        still_works(pair, round_)
    assert pair.b.engine.link(pair.link_b)["open"]  # type: ignore[index]


def test_a_flood_of_datagrams_keeps_out_no_message(made: World) -> None:
    pair = Pair(made, DatapathConfig(upcall_count_max=50))
    send = stranger(pair)
    pair.b.is_deaf = True
    for _ in range(200):
        send(stun(80))
    made.until(lambda: pair.b.drops.get("upcall-full", 0) == 150)
    assert pair.a.wire.send(pair.link_a, 1, BINARY, b"control")
    made.until(lambda: pair.b.engine.link(pair.link_b)["messages_received"])  # type: ignore[index]
    pair.b.is_deaf = False
    made.until(lambda: WireMessage(pair.link_b, 1, BINARY, b"control") in pair.b.wires)
    assert pair.b.drops == {"upcall-full": 150}


def test_upcalls_are_bounded_in_bytes_too(made: World) -> None:
    pair = Pair(made)
    send = stranger(pair)
    pair.b.is_deaf = True
    for _ in range(10):
        for _ in range(20):
            send(stun(60_000))
        made.turn(0.01)
    made.until(lambda: pair.b.drops.get("upcall-full", 0) > 0)
    pair.b.is_deaf = False
    made.turn()
    assert sum(len(each.data) for each in pair.b.wires if isinstance(each, WireDatagram)) <= 4 << 20
    still_works(pair)


# ── a path that damages ──────────────────────────────────────────────────────────────────────────────────────────────


class Middle:
    """Stands between A and B and carries their datagrams, as it likes."""

    def __init__(self, made: World) -> None:
        self.at_a, self.at_b = made.socket(), made.socket()  # what A, and what B, take for the other
        self.pair = Pair(made, through=(self.at_a, self.at_b))
        a, b = self.pair.a.sockets[self.pair.link_a], self.pair.b.sockets[self.pair.link_b]
        self.ways = ((self.at_a, self.at_b, b.getsockname()), (self.at_b, self.at_a, a.getsockname()))
        self.mangle: Callable[[bytes], list[bytes]] = lambda datagram: [datagram]

    def carry(self) -> bool:
        """Carry all that came; always True, to be asked in until()."""
        for here, there, address in self.ways:
            while select.select([here], [], [], 0)[0]:
                for datagram in self.mangle(here.recv(65536)):
                    there.sendto(datagram, address)
        return True

    def until(self, claim: Callable[[], object]) -> None:
        self.pair.world.until(lambda: self.carry() and claim())


@pytest.fixture
def middle(made: World) -> Middle:
    one = Middle(made)
    one.until(
        lambda: WireOpened(one.pair.link_a) in one.pair.a.wires and WireOpened(one.pair.link_b) in one.pair.b.wires
    )
    return one


def arrive_but_for_codel(middle: Middle, count: int) -> None:
    """Wait until every packet came once, but for those the sender's own queue let go while repairs held it up."""

    def missing() -> int:
        return count - len(middle.pair.b.packets) - middle.pair.a.drops.get("codel", 0)

    middle.until(lambda: missing() == 0)
    assert len(set(map(number_of, middle.pair.b.packets))) == len(middle.pair.b.packets) > count / 2


def test_records_with_flipped_bits_are_counted_and_repaired(middle: Middle) -> None:
    draw, count = random.Random(1), 60  # not a secret

    def mangle(datagram: bytes) -> list[bytes]:
        if draw.random() < 0.3:
            bad = bytearray(datagram)
            bad[draw.randrange(len(bad))] ^= 1 << draw.randrange(8)
            return [bytes(bad)]
        return [datagram]

    middle.mangle = mangle
    for number in range(count):
        middle.pair.a.send(udp(number, size=1000))
    arrive_but_for_codel(middle, count)
    assert middle.pair.b.drops.get("dtls-auth", 0) > 0


def test_records_that_come_twice_late_cut_or_several_at_once_are_taken_once(middle: Middle) -> None:
    draw, count = random.Random(2), 60  # not a secret
    kept: list[bytes] = []

    def mangle(datagram: bytes) -> list[bytes]:
        kept.append(datagram)
        choice = draw.random()
        if choice < 0.2:
            return [datagram, datagram]
        if choice < 0.3:
            return [datagram[: draw.randrange(len(datagram))], datagram]
        if choice < 0.4:
            return [datagram + draw.choice(kept)]
        if choice < 0.5:
            return [draw.choice(kept), datagram]
        return [datagram]

    middle.mangle = mangle
    for number in range(count):
        middle.pair.a.send(udp(number, size=1000))
    arrive_but_for_codel(middle, count)
    assert middle.pair.b.drops.get("dtls-replay", 0) > 0


def test_a_path_that_ends_is_told_and_costs_nobody_else(middle: Middle) -> None:
    middle.mangle = lambda datagram: []
    pair, other = middle.pair, None
    other = pair.world.join(pair.a, pair.b)
    now = time.monotonic()
    pair.b.datapath.add_receiver_route(STREAM, pair.hop_b.__class__(other[1], TETHER, CHANNEL_COUNT, 6, 5), now=now)
    pair.a.send(udp(1))
    middle.until(lambda: pair.a.engine.sender(1)[1] == 1)
    pair.a.datapath.set_route(STREAM, pair.hop_a.__class__(other[0], TETHER, CHANNEL_COUNT, 5, 6), now=now)
    pair.a.send(udp(2))
    middle.until(lambda: pair.b.packets == [udp(2)])


# ── a member that misbehaves ─────────────────────────────────────────────────────────────────────────────────────────


def test_frames_that_are_none_are_counted_by_reason(pair: Pair) -> None:
    good = Sender(f.CHACHA20_POLY1305, keys()[0].key, b"npre", 0).seal(FORWARD, 0, [(f.PACKET, udp(1))])
    for bad in (
        b"x",
        good[:31],
        b"\x07" + good[1:],
        good[:1] + b"\xf0" + good[2:],
        good[:3] + b"\1" + good[4:],
        good[:4] + bytes(4) + good[8:],
        good[:2] + b"\x09" + good[3:],
    ):
        pair.forge(bad)
    pair.world.until(lambda: sum(pair.b.drops.values()) == 7)
    assert pair.b.drops == {"truncated": 2, "version": 1, "reserved": 2, "unknown-label": 1, "unknown-epoch": 1}
    pair.forge(good)
    pair.world.until(lambda: pair.b.packets == [udp(1)])


def test_bundles_that_are_malformed_are_counted(pair: Pair) -> None:
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    aead = ChaCha20Poly1305(keys()[0].key)

    def frame(counter: int, bundle: bytes) -> bytes:
        head = struct.pack(">BBBBI", 1, 0, 0, 0, 0) + counter.to_bytes(8, "big")
        sealed = aead.encrypt(b"npre" + counter.to_bytes(8, "big"), bundle, head)
        return head[:4] + FORWARD.to_bytes(4, "big") + head[8:] + sealed

    for counter, bundle in enumerate((b"\1", b"\1\0", b"\1\0\x09abc", b"\1\0\0", b"\2\0\x0a" + bytes(10))):
        pair.forge(frame(counter, bundle))
    pair.forge(frame(5, b"\x08\0\0"))
    pair.forge(frame(6, b""))
    pair.forge(frame(7, b"\1\0\x20" + udp(1)))
    pair.world.until(lambda: pair.b.packets == [udp(1)])
    assert pair.b.drops == {"malformed": 5, "unknown-kind": 1}


def test_random_frames_under_the_right_label_break_nothing(pair: Pair) -> None:
    draw = random.Random(3)  # not a secret
    sealer = Sender(f.CHACHA20_POLY1305, keys()[0].key, b"npre", 0)
    header = struct.pack("<BBHHHH", 1, 1, 40, 100, 20, 16)
    for round_ in range(30):
        bundle = []
        for _ in range(draw.randrange(8)):
            packet = bytearray(udp(draw.randrange(99), size=draw.randrange(200)))
            for _ in range(draw.randrange(4)):
                packet[draw.randrange(min(len(packet), 44))] = draw.randrange(256)
            bundle.append((f.OFFLOAD, header + packet) if draw.random() < 0.5 else (f.PACKET, bytes(packet)))
            bundle.append((draw.choice((f.REKEY, f.PADDING, f.CONFIRM, f.END, f.REPORT)), draw.randbytes(4)))
        pair.forge(sealer.seal(FORWARD, draw.choice((0, f.CE)), bundle))
        pair.world.turn(0.0 if round_ % 8 else 0.02)
    pair.forge(sealer.seal(FORWARD, 0, [(f.PACKET, udp(7777))]))
    pair.world.until(lambda: udp(7777) in pair.b.packets)
    assert all(packet[16:20] == udp()[16:20] or packet[0] >> 4 == 6 for packet in pair.b.packets)


def test_messages_of_the_largest_size_pass_and_larger_ones_are_refused_here(pair: Pair) -> None:
    assert not pair.a.wire.send(pair.link_a, 0, BINARY, bytes(65537))
    assert pair.a.wire.send(pair.link_a, 1, BINARY, bytes(65536))
    pair.world.until(lambda: WireMessage(pair.link_b, 1, BINARY, bytes(65536)) in pair.b.wires)
    sealer = Sender(f.CHACHA20_POLY1305, keys()[0].key, b"npre", 0)
    pair.forge(sealer.seal(FORWARD, 0, [(f.PADDING, bytes(65_000)), (f.PACKET, udp(1))]))
    pair.world.until(lambda: pair.b.packets == [udp(1)])


def test_text_on_a_tether_is_dropped_and_dcep_goes_up(pair: Pair) -> None:
    for ppid in (51, 56, 0):
        pair.a.wire.send(pair.link_a, 0, ppid, b"text")
    pair.world.until(lambda: pair.b.drops == {"text-message": 3})
    pair.a.wire.send(pair.link_a, 0, 50, b"\2")
    pair.world.until(lambda: WireMessage(pair.link_b, 0, 50, b"\2") in pair.b.wires)


def test_what_comes_on_streams_nobody_mapped_goes_up(pair: Pair) -> None:
    for stream in (1, 9, 4095):
        pair.a.wire.send(pair.link_a, stream, BINARY, b"hello")
    pair.world.until(lambda: len(pair.b.wires) == 4)
    assert pair.b.wires[1:] == [WireMessage(pair.link_b, stream, BINARY, b"hello") for stream in (1, 9, 4095)]
    assert not pair.a.wire.send(pair.link_a, 4096, BINARY, b"hello")


def test_more_upcalls_than_the_bound_are_counted(made: World) -> None:
    pair = Pair(made, DatapathConfig(upcall_count_max=10))
    sealer = Sender(f.CHACHA20_POLY1305, keys()[0].key, b"npre", 0)
    pair.forge(sealer.seal(FORWARD, 0, [(f.REKEY, b"")] * 1000))
    made.until(lambda: sum(isinstance(upcall, Entry) for upcall in pair.b.upcalls) == 9)
    assert pair.b.drops == {"upcall-full": 991}  # the first frame's ReceiverVerified is one too
    pair.forge(sealer.seal(FORWARD, 0, [(f.REKEY, b"next")]))
    made.until(lambda: Entry(STREAM, f.REKEY, b"next", 0) in pair.b.upcalls)


def test_feedback_nobody_waits_for_is_bounded(made: World) -> None:
    pair = Pair(made, DatapathConfig(upcall_count_max=10))
    pair.a.is_deaf = True
    back = Sender(f.CHACHA20_POLY1305, keys()[1].key, b"npre", 0)
    for _ in range(30):
        pair.b.wire.send(pair.link_b, 0, BINARY, back.seal(REVERSE, f.FEEDBACK, []))
    made.until(lambda: pair.a.drops.get("upcall-full") == 20)


def test_an_alert_or_a_goodbye_ends_the_link_once(pair: Pair) -> None:
    pair.a.wire.close(pair.link_a)
    pair.world.until(lambda: len(pair.b.wires) == 2)
    pair.a.wire.close(pair.link_a)
    pair.world.turn()
    assert type(pair.b.wires[1]).__name__ == "WireClosed"
    assert [type(each).__name__ for each in pair.a.wires] == ["WireOpened", "WireClosed"]
    assert not pair.a.wire.send(pair.link_a, 1, BINARY, b"late")
    pair.a.send(udp())
    pair.world.until(lambda: pair.a.engine.egress(1)[1] == 1)
    for node, link in ((pair.a, pair.link_a), (pair.b, pair.link_b)):
        node.wire.remove(link)
        node.wire.remove(link)


def test_a_channel_opened_twice_under_one_index_is_forgotten_whole(pair: Pair) -> None:
    pair.b.wire.map(pair.link_b, 100, TETHER, 0, lifetime_ms=500)
    pair.b.wire.unmap(pair.link_b, TETHER)
    for stream in (0, 100):
        pair.a.wire.send(pair.link_a, stream, BINARY, b"to nobody")
    pair.world.until(lambda: len(pair.b.wires) == 3)
    assert [each.stream for each in pair.b.wires if isinstance(each, WireMessage)] == [0, 100]


def test_only_its_links_peer_is_heard_on_a_connected_socket(made: World) -> None:
    node, other = made.node(), made.node()
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made.sockets += ends
    dtls = made.pair_keys()
    for each, end, mine, link in zip((node, other), ends, dtls, (1, 2), strict=True):
        end.setblocking(False)
        made.add_link(each, link, end, None, mine)  # type: ignore[arg-type]
    made.until(lambda: node.wires and other.wires)
    assert node.wire.send(1, 1, BINARY, bytes(50_000))  # type: ignore[arg-type]
    made.until(lambda: len(other.wires) == 2)
