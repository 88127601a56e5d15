"""What an engine does with bytes that a peer, or a stranger, should not send."""

from __future__ import annotations

import random
import select
import socket
import struct
import time
from collections.abc import Callable

import pytest
from kit.native import (
    BINARY,
    CHANNEL_COUNT,
    FORWARD,
    REVERSE,
    STREAM,
    STUN_KEYS,
    TETHER,
    Pair,
    World,
    keys,
    number_of,
    stun,
    udp,
)

from conflux.anchor import frame as f
from conflux.anchor.codec import Sender
from conflux.carrier.wire import WireDatagram, WireMessage, WireOpened
from conflux.datapath.config import DatapathConfig
from conflux.datapath.interface import Entry

STUN, DTLS, APPLICATION = 0, 22, 23  # first bytes (RFC 7983)
STUN_BURST, STUN_INTERVAL_S = 50, 0.05  # cext/engine/datagrams.c
STUN_COPIES_MAX = 7  # as in stun.h
ENTRY_BURST, ENTRY_INTERVAL_S = 30, 0.1  # cext/engine/incoming.c
FEEDBACK_BURST, FEEDBACK_INTERVAL_S = 20, 0.05


def still_works(pair: Pair, number: int = 999) -> None:
    """Assert that a packet still gets through."""
    pair.a.send(udp(number))
    pair.world.until(lambda: udp(number) in pair.b.packets)


def stranger(pair: Pair) -> Callable[[bytes], None]:
    """Sends datagrams to B's link from an address that is not the peer's."""
    made = pair.world.socket()
    there = pair.b.sockets[pair.link_b].getsockname()
    return lambda datagram: made.sendto(datagram, there) and None


# ── datagrams from strangers ─────────────────────────────────────────────────────────────────────────────────────────


def test_unknown_datagrams_are_counted(pair: Pair) -> None:
    send = stranger(pair)
    for datagram in (b"", b"\x04", b"\x13" * 100, b"\x40" * 1400, b"\xff"):
        send(datagram)
    pair.world.until(lambda: pair.b.drops == {"not-dtls-nor-stun": 5})
    still_works(pair)


def test_stun_goes_up_with_its_sender(pair: Pair) -> None:
    made = pair.world.socket()
    good = [stun(), stun(4), stun(1200), stun(kind=0x0101, password=STUN_KEYS.peers)]
    for datagram in good:
        made.sendto(datagram, pair.b.sockets[pair.link_b].getsockname())
    pair.world.until(lambda: len(pair.b.wires) == 5)
    assert pair.b.wires[1:] == [WireDatagram(pair.link_b, each, made.getsockname()) for each in good]


def test_datagrams_with_half_a_stun_header_are_counted(pair: Pair) -> None:
    send = stranger(pair)
    cut_short = [stun(8)[:size] for size in range(1, 28)]
    cookies = [stun(8, cookie=cookie) for cookie in (0, 0x2112A443, 0x42A41221)]
    lengths = [stun(8, length=length) for length in (0, 4, 7, 9, 12, 28, 65535)] + [stun(6), stun(7)]
    overrun = [stun(length=28) + b"\0\0\0\1", stun(length=28) + b"\0\0\xff\xff"]
    for datagram in (*cut_short, *cookies, *lengths, *overrun):
        send(datagram)
    malformed_count = len(cut_short) + len(cookies) + len(lengths) + len(overrun)
    pair.world.until(lambda: pair.b.drops == {"stun-malformed": malformed_count})
    assert len(pair.b.wires) == 1  # the WireOpened
    still_works(pair)


def test_stun_without_proof_of_the_links_passwords_never_reaches_python(pair: Pair) -> None:
    send = stranger(pair)
    whole = stun(8)
    forged = [
        stun(8, password=None),
        stun(8, password=STUN_KEYS.peers),  # of a response, on a request
        stun(8, kind=0x0101),  # the other way round
        stun(8, kind=0x0011, password=None),  # an indication
        stun(4, length=28 + 8) + bytes(8),  # proof, and then what nothing vouches for
        *(bytes([*whole[:at], whole[at] ^ 1, *whole[at + 1 :]]) for at in (1, 8, 20, 33, len(whole) - 1)),
    ]
    for datagram in forged:
        send(datagram)
    pair.world.until(lambda: sum(pair.b.drops.values()) == len(forged))
    assert set(pair.b.drops) <= {"stun-auth", "stun-malformed"}
    assert pair.b.drops["stun-auth"] >= len(forged) - 2  # changing a length makes it malformed
    assert len(pair.b.wires) == 1  # the WireOpened


def test_stun_is_rationed_per_link_before_python_sees_it(pair: Pair) -> None:
    send = stranger(pair)
    began_at = time.monotonic()
    for _ in range(STUN_BURST + 100):
        send(stun(80))
    pair.world.until(lambda: len(pair.b.wires) - 1 + pair.b.drops.get("stun-rate", 0) == STUN_BURST + 100)
    refilled = (time.monotonic() - began_at) / STUN_INTERVAL_S
    assert STUN_BURST <= len(pair.b.wires) - 1 <= STUN_BURST + refilled + 1
    pair.world.pass_time(2 * STUN_INTERVAL_S)
    count = len(pair.b.wires)
    send(stun())
    pair.world.until(lambda: len(pair.b.wires) > count)


def test_a_message_that_a_stranger_heard_takes_nothing_from_the_peers(pair: Pair) -> None:
    send, heard = stranger(pair), [stun(80) for _ in range(3)]
    for _ in range(10 * STUN_BURST):
        for datagram in heard:
            send(datagram)
    pair.world.until(lambda: pair.b.drops == {"stun-repeated": len(heard) * (10 * STUN_BURST - STUN_COPIES_MAX)})
    left = STUN_BURST - len(heard) * STUN_COPIES_MAX
    for _ in range(left):
        send(stun())
    pair.world.until(lambda: len(pair.b.wires) - 1 == STUN_BURST)
    still_works(pair)


def test_a_flood_of_forged_stun_takes_nothing_from_the_peers(pair: Pair) -> None:
    send = stranger(pair)
    for _ in range(10 * STUN_BURST):
        send(stun(80, password=b"a guess of 22 byteszzz"))
    pair.world.until(lambda: pair.b.drops == {"stun-auth": 10 * STUN_BURST})
    for _ in range(STUN_BURST):
        send(stun())
    pair.world.until(lambda: len(pair.b.wires) - 1 == STUN_BURST)


def test_a_datagram_is_left_at_its_first_bad_record(pair: Pair) -> None:
    send = stranger(pair)
    forged = [struct.pack(">BHQH", APPLICATION, 0xFEFD, 1 << 48 | (1 << 40) + at, 24) + bytes(24) for at in range(39)]
    send(b"".join(forged))
    pair.world.until(lambda: pair.b.drops == {"dtls-auth": 1})
    send(b"".join(struct.pack(">BHQH", APPLICATION, 0xFEFD, 1 << 48, 24) + bytes(24) for _ in range(39)))
    pair.world.until(lambda: pair.b.drops == {"dtls-auth": 1, "dtls-replay": 1})
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
                datagram[2:8] = stun(max(len(datagram) - 20, 0), password=None)[2:8]
            send(bytes(datagram))
        still_works(pair, round_)
    assert pair.b.engine.link(pair.link_b)["open"]


def test_a_flood_of_datagrams_keeps_out_no_message(made: World) -> None:
    pair = Pair(made, DatapathConfig(upcall_count_max=10))
    send = stranger(pair)
    pair.b.is_deaf = True
    for _ in range(STUN_BURST):
        send(stun(80))
    made.until(lambda: pair.b.drops.get("upcall-full", 0) == STUN_BURST - 10)
    assert pair.a.wire.send(pair.link_a, 1, BINARY, b"control")
    made.until(lambda: pair.b.engine.link(pair.link_b)["messages_received"])
    pair.b.is_deaf = False
    made.until(lambda: WireMessage(pair.link_b, 1, BINARY, b"control") in pair.b.wires)
    assert pair.b.drops == {"upcall-full": STUN_BURST - 10}


def test_upcalls_are_bounded_in_bytes_too(made: World) -> None:
    pair = Pair(made)
    pair.b.is_deaf = True
    for _ in range(200):
        assert pair.a.wire.send(pair.link_a, 1, BINARY, bytes(60_000))
    made.until(lambda: pair.b.drops.get("upcall-full", 0) > 0)
    pair.b.is_deaf = False
    made.step()
    assert sum(len(each.data) for each in pair.b.wires if isinstance(each, WireMessage)) <= 4 << 20
    still_works(pair)


# ── a path that damages ──────────────────────────────────────────────────────────────────────────────────────────────


class Middle:
    """Is on the path between A and B, and may change, drop or repeat their datagrams."""

    def __init__(self, made: World) -> None:
        self.at_a, self.at_b = made.socket(), made.socket()  # what A takes for B, and B for A
        self.pair = Pair(made, through=(self.at_a, self.at_b))
        a, b = self.pair.a.sockets[self.pair.link_a], self.pair.b.sockets[self.pair.link_b]
        self.ways = ((self.at_a, self.at_b, b.getsockname()), (self.at_b, self.at_a, a.getsockname()))
        self.mangle: Callable[[bytes], list[bytes]] = lambda datagram: [datagram]

    def carry(self) -> bool:
        """Carry everything that came; return True, for use in until()."""
        for here, there, address in self.ways:
            while select.select([here], [], [], 0)[0]:
                for datagram in self.mangle(here.recv(65536)):
                    there.sendto(datagram, address)
        return True

    def until(self, claim: Callable[[], object]) -> None:
        """Carry datagrams and take steps until the claim holds."""
        self.pair.world.until(lambda: self.carry() and claim())


@pytest.fixture
def middle(made: World) -> Middle:
    """A and B, connected through a Middle."""
    one = Middle(made)
    one.until(
        lambda: WireOpened(one.pair.link_a) in one.pair.a.wires and WireOpened(one.pair.link_b) in one.pair.b.wires
    )
    return one


def arrive_but_for_codel(middle: Middle, count: int) -> None:
    """Wait until every packet came once, except those that the sender's queue dropped while repairs delayed it."""

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


def test_a_dead_path_is_reported_and_costs_no_other_link(middle: Middle) -> None:
    middle.mangle = lambda datagram: []
    pair, other = middle.pair, None
    other = pair.world.join(pair.a, pair.b)
    now = time.monotonic()
    pair.b.datapath.add_receiver_route(STREAM, pair.hop_b.__class__(other[1], TETHER, CHANNEL_COUNT, 6, 5), now=now)
    pair.a.send(udp(1))
    middle.until(lambda: pair.a.engine.sender(1).counter == 1)
    pair.a.datapath.set_route(STREAM, pair.hop_a.__class__(other[0], TETHER, CHANNEL_COUNT, 5, 6), now=now)
    pair.a.send(udp(2))
    middle.until(lambda: pair.b.packets == [udp(2)])


# ── a member that misbehaves ─────────────────────────────────────────────────────────────────────────────────────────


def test_malformed_frames_are_counted_by_reason(pair: Pair) -> None:
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


def test_malformed_bundles_are_counted(pair: Pair) -> None:
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
        pair.world.step(0.0 if round_ % 8 else 0.02)
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


def test_messages_on_unmapped_streams_go_up(pair: Pair) -> None:
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
    # One of the ten is the first frame's ReceiverVerified.
    assert pair.b.drops == {"upcall-full": ENTRY_BURST - 9, "entry-rate": 1000 - ENTRY_BURST}
    made.pass_time(2 * ENTRY_INTERVAL_S)
    pair.forge(sealer.seal(FORWARD, 0, [(f.REKEY, b"next")]))
    made.until(lambda: Entry(STREAM, f.REKEY, b"next", 0) in pair.b.upcalls)


def test_entries_of_a_stream_are_rationed_before_python_sees_them(pair: Pair) -> None:
    sealer = Sender(f.CHACHA20_POLY1305, keys()[0].key, b"npre", 0)
    began_at = time.monotonic()
    for _ in range(10):
        pair.forge(sealer.seal(FORWARD, 0, [(f.REKEY, b"")] * 100))
    pair.forge(sealer.seal(FORWARD, 0, [(f.PACKET, udp(1))]))
    pair.world.until(lambda: pair.b.packets)  # it came behind the entries
    pair.world.step()
    refilled = (time.monotonic() - began_at) / ENTRY_INTERVAL_S
    count = sum(isinstance(upcall, Entry) for upcall in pair.b.upcalls)
    assert ENTRY_BURST <= count <= ENTRY_BURST + refilled + 1
    assert pair.b.drops == {"entry-rate": 1000 - count}


def test_feedback_of_a_link_is_rationed_before_python_sees_it(pair: Pair) -> None:
    back = Sender(f.CHACHA20_POLY1305, keys()[1].key, b"npre", 0)
    began_at = time.monotonic()
    for _ in range(200):
        pair.b.wire.send(pair.link_b, 0, BINARY, back.seal(REVERSE, f.FEEDBACK, [(f.REKEY, b"")]))
    pair.world.until(lambda: len(pair.a.upcalls) + pair.a.drops.get("feedback-rate", 0) == 200)
    refilled = (time.monotonic() - began_at) / FEEDBACK_INTERVAL_S
    assert FEEDBACK_BURST <= len(pair.a.upcalls) <= FEEDBACK_BURST + refilled + 1


def test_feedback_of_more_entries_than_a_receiver_keeps_is_void(pair: Pair) -> None:
    back = Sender(f.CHACHA20_POLY1305, keys()[1].key, b"npre", 0)
    for count in (18, 17):
        pair.b.wire.send(pair.link_b, 0, BINARY, back.seal(REVERSE, f.FEEDBACK, [(f.REKEY, b"")] * count))
    pair.world.until(lambda: pair.a.upcalls == [Entry(STREAM, f.REKEY, b"", 0)] * 17)
    assert pair.a.drops == {"malformed": 1}


def test_unexpected_feedback_is_bounded(made: World) -> None:
    pair = Pair(made, DatapathConfig(upcall_count_max=10))
    pair.a.is_deaf = True
    back = Sender(f.CHACHA20_POLY1305, keys()[1].key, b"npre", 0)
    for _ in range(FEEDBACK_BURST):
        pair.b.wire.send(pair.link_b, 0, BINARY, back.seal(REVERSE, f.FEEDBACK, []))
    made.until(lambda: pair.a.drops.get("upcall-full") == FEEDBACK_BURST - 10)


def test_an_alert_or_a_goodbye_ends_the_link_once(pair: Pair) -> None:
    pair.a.wire.close(pair.link_a)
    pair.world.until(lambda: len(pair.b.wires) == 2)
    pair.a.wire.close(pair.link_a)
    pair.world.step()
    assert type(pair.b.wires[1]).__name__ == "WireClosed"
    assert [type(each).__name__ for each in pair.a.wires] == ["WireOpened", "WireClosed"]
    assert not pair.a.wire.send(pair.link_a, 1, BINARY, b"late")
    pair.a.send(udp())
    pair.world.until(lambda: pair.a.engine.egress(1).packets == 1)
    for node, link in ((pair.a, pair.link_a), (pair.b, pair.link_b)):
        node.wire.remove(link)
        node.wire.remove(link)


def test_a_channel_opened_twice_under_one_index_is_forgotten_whole(pair: Pair) -> None:
    pair.b.wire.map(pair.link_b, 100, TETHER, 0, lifetime_ms=500)
    pair.b.wire.unmap(pair.link_b, TETHER)
    for stream in (0, 100):
        pair.a.wire.send(pair.link_a, stream, BINARY, b"to no application")
    pair.world.until(lambda: len(pair.b.wires) == 3)
    assert [each.stream for each in pair.b.wires if isinstance(each, WireMessage)] == [0, 100]


def test_only_its_links_peer_is_heard_on_a_connected_socket(made: World) -> None:
    node, other = made.node(), made.node()
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made.sockets += ends
    dtls = made.pair_keys()
    for each, end, mine, link in zip((node, other), ends, dtls, (1, 2), strict=True):
        end.setblocking(False)
        made.add_link(each, link, end, None, mine)
    made.until(lambda: node.wires and other.wires)
    assert node.wire.send(1, 1, BINARY, bytes(50_000))
    made.until(lambda: len(other.wires) == 2)
