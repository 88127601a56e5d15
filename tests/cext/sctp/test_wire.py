"""What the association sends and accepts, packet by packet; a peer that breaks rules."""

from __future__ import annotations

import ctypes
import random
import struct

import pytest
from kit.forger import (
    ABORT,
    COOKIE_ACK,
    COOKIE_ECHO,
    DATA,
    ERROR,
    FORWARD,
    HEARTBEAT,
    HEARTBEAT_ACK,
    INIT,
    INIT_ACK,
    PAD,
    RECONFIG,
    WINDOW,
    Forger,
    of_kind,
)
from kit.sctp import (
    MS,
    NEVER,
    SECOND,
    Association,
    chunk,
    chunks_of,
    data_chunk,
    exchange,
    opened_pair,
    packet_of,
    run_until,
    sack_chunk,
    sealed,
)

# --- set-up ----------------------------------------------------------------------------------------------------------


def test_init_says_what_we_are_and_can(sctp: ctypes.CDLL) -> None:
    with Association(sctp, 1, window_bytes=777777) as a:
        a.connect(0)
        (packet,) = a.packets(0)
        ((kind, _, body),) = chunks_of(packet)
        tag, window, streams_out, streams_in, tsn = struct.unpack_from("!IIHHI", body)
        assert (kind, packet[4:8]) == (INIT, bytes(4))
        assert (tag, window, streams_out, streams_in, tsn) == (a.tag, 777777, 4096, 4096, a.first_tsn)
        assert body[16:] == bytes.fromhex("c000 0004 8008 0006 82c0 0000")


def test_ends_that_know_each_others_start_need_no_handshake(sctp: ctypes.CDLL) -> None:
    with Association(sctp, 1) as a, Association(sctp, 2) as b:
        a.start(b.own_start, 0)
        assert (a.opened, a.state.open) == (1, True)
        assert a.send(b"first", 0)
        packet, *probes = a.packets(0)
        assert (packet[4:8], chunks_of(packet)[0][0]) == (b.own_start[:4], DATA)
        assert all(kind != INIT for probe in probes for kind, _, _ in chunks_of(probe))
        b.start(a.own_start, 0)
        b.receive(packet, 0)
        assert [one.data for one in b.messages] == [b"first"]
        assert b.send(b"back", 0, stream=4095)
        exchange(a, b, 0)
        assert [one.data for one in a.messages] == [b"back"]
        assert a.reset_streams([4095], 0)  # what an INIT would have to say is taken for granted
        exchange(a, b, 0)
        assert b.resets == [(True, True, [4095])]


def test_start_promises_no_larger_window_than_every_link_has(sctp: ctypes.CDLL) -> None:
    with Association(sctp, 1, send_bytes_max=8 << 20) as a:
        a.start(bytes(8), 0)  # tag 0 stands for 1, as in an INIT of ours
        assert a.state.peer_window_bytes == 128 << 10
        assert a.send(b"x", 0)
        packet, *_ = a.packets(0)
        assert packet[4:8] == bytes([0, 0, 0, 1])


def test_packet_that_comes_before_the_start_is_dropped_and_repaired(sctp: ctypes.CDLL) -> None:
    with Association(sctp, 1) as a, Association(sctp, 2) as b:
        a.start(b.own_start, 0)
        assert a.send(b"early", 0)
        for packet in a.packets(0):
            b.receive(packet, 0)
        assert b.messages == []
        b.start(a.own_start, MS)
        run_until(a, b, MS, 3 * SECOND)
        assert [one.data for one in b.messages] == [b"early"]


def init_of(tag: int = 77, tsn: int = 1000, extra: bytes = b"") -> bytes:
    return chunk(INIT, struct.pack("!IIHHI", tag, WINDOW, 100, 100, tsn) + extra)


def cookie_from(library: ctypes.CDLL, a: Association, now: int, init: bytes) -> tuple[bytes, bytes]:
    """Return the cookie, and the whole body of the INIT-ACK."""
    a.receive(packet_of(library, 0, init), now)
    (answer,) = [packet for packet in a.packets(now) if chunks_of(packet)[0][0] == INIT_ACK]
    body = chunks_of(answer)[0][2]
    at = body.index(bytes.fromhex("0007 0044"))
    return body[at + 4 : at + 0x44], body


def test_nothing_is_kept_of_an_init(sctp: ctypes.CDLL) -> None:
    with Association(sctp, 1) as a:
        cookies = {cookie_from(sctp, a, 0, init_of(tag))[0] for tag in range(1, 50)}
        assert len(cookies) == 49
        assert a.next_timeout == NEVER


def test_an_echoed_cookie_opens(sctp: ctypes.CDLL) -> None:
    with Association(sctp, 1) as a:
        cookie, _ = cookie_from(sctp, a, 0, init_of())
        a.receive(packet_of(sctp, a.tag, chunk(COOKIE_ECHO, cookie)), 59 * SECOND)
        assert a.opened == 1
        assert chunks_of(next(a.packets(59 * SECOND)))[0][0] == COOKIE_ACK
        assert a.state.peer_window_bytes == WINDOW


def test_a_forged_cookie_opens_nothing(sctp: ctypes.CDLL) -> None:
    with Association(sctp, 1) as a:
        cookie, _ = cookie_from(sctp, a, 0, init_of())
        for at in range(len(cookie)):
            forged = bytearray(cookie)
            forged[at] ^= 1
            a.receive(packet_of(sctp, a.tag, chunk(COOKIE_ECHO, bytes(forged))), 0)
        for size in range(len(cookie)):
            a.receive(packet_of(sctp, a.tag, chunk(COOKIE_ECHO, cookie[:size])), 0)
        assert a.opened == 0
        assert list(a.packets(0)) == []


def test_a_stale_cookie_is_refused_by_name(sctp: ctypes.CDLL) -> None:
    with Association(sctp, 1) as a:
        cookie, _ = cookie_from(sctp, a, 0, init_of())
        a.receive(packet_of(sctp, a.tag, chunk(COOKIE_ECHO, cookie)), 61 * SECOND)
        assert a.opened == 0
        with Association(sctp, 2) as b:
            assert b.opened == 0
        assert list(a.packets(61 * SECOND)) != []


def test_unknown_parameters_are_reported_as_their_bits_ask(sctp: ctypes.CDLL) -> None:
    def parameter(kind: int) -> bytes:
        return struct.pack("!HH", kind, 8) + b"abcd"

    with Association(sctp, 1) as a:
        _, body = cookie_from(sctp, a, 0, init_of(extra=parameter(0x8777) + parameter(0xC777) + parameter(0x4777)))
        assert b"\x00\x08\x00\x0c" + parameter(0xC777) in body
        assert b"\x00\x08\x00\x0c" + parameter(0x4777) in body
        assert parameter(0x8777) not in body
        _, body = cookie_from(sctp, a, 0, init_of(extra=parameter(0x0777) + parameter(0xC777)))
        assert parameter(0xC777) not in body  # parameters behind the first are not read


def test_malformed_inits_are_dropped(sctp: ctypes.CDLL) -> None:
    with Association(sctp, 1) as a:
        for bad in (
            init_of(tag=0),
            chunk(INIT, struct.pack("!IIHHI", 5, WINDOW, 0, 1, 1)),
            chunk(INIT, struct.pack("!IIHHI", 5, WINDOW, 1, 0, 1)),
            init_of(extra=b"\xc0\x00\x00\x03"),
            init_of(extra=b"\xc0\x00\x00\xff"),
            init_of() + chunk(PAD),
        ):
            a.receive(packet_of(sctp, 0, bad), 0)
            assert list(a.packets(0)) == []
        assert a.counts.dropped_malformed == 6


def test_a_peer_that_began_anew_ends_the_association(sctp: ctypes.CDLL, pair: tuple[Association, Association]) -> None:
    a, _ = pair
    cookie, _ = cookie_from(sctp, a, SECOND, init_of(tag=4711))
    assert a.state.open  # an INIT alone changes nothing
    a.receive(packet_of(sctp, a.tag, chunk(COOKIE_ECHO, cookie)), SECOND)
    assert a.closed == ["aborted"]


def test_no_answer_ends_in_time(sctp: ctypes.CDLL) -> None:
    with Association(sctp, 1) as a:
        a.connect(0)
        now = sent = 0
        while not a.closed:
            sent += len(list(a.packets(now)))
            now = a.next_timeout
            a.handle_timeout(now)
        assert a.closed == ["timeout"]
        assert sent == 9
        assert now < 40 * SECOND


# --- packets ---------------------------------------------------------------------------------------------------------


def test_packets_for_others_are_dropped(sctp: ctypes.CDLL, forger: Forger) -> None:
    a = forger.a
    good = packet_of(sctp, a.tag, forger.data(0))
    bad_tag = packet_of(sctp, a.tag ^ 1, forger.data(0))
    zero_tag = packet_of(sctp, 0, forger.data(0))
    other_port = sealed(sctp, b"\x00\x07" + good[2:])
    flipped = good[:-1] + bytes([good[-1] ^ 1])
    for packet in (bad_tag, zero_tag, other_port, flipped, b"", good[:15]):
        a.receive(packet, forger.now)
    counts = a.counts
    assert (counts.dropped_tag, counts.dropped_checksum) == (2, 1)
    assert a.messages == []
    a.receive(good, forger.now)
    assert [message.data for message in a.messages] == [b"x"]


def test_every_flipped_bit_is_noticed(sctp: ctypes.CDLL, forger: Forger) -> None:
    good = packet_of(sctp, forger.a.tag, forger.data(0, b"payload"))
    for bit in range(8 * len(good)):
        flipped = bytearray(good)
        flipped[bit // 8] ^= 1 << bit % 8
        forger.a.receive(bytes(flipped), forger.now)
    assert forger.a.messages == []
    assert forger.a.state.open


def samples(forger: Forger) -> list[bytes]:
    tsn = forger.b.first_tsn
    ours = forger.a.first_tsn
    reset = struct.pack("!HHIIIHH", 13, 20, tsn, ours, tsn, 1, 2)
    return [
        data_chunk(tsn, b"0123456789"),
        data_chunk(tsn + 1, b"0123456789", flags=2) + data_chunk(tsn + 2, b"01234", flags=1),
        sack_chunk(ours - 1, gaps=[], duplicates=[1, 2, 3]),
        init_of(extra=bytes.fromhex("c000 0004 8008 0006 82c0 0000")),
        chunk(INIT_ACK, struct.pack("!IIHHI", 5, WINDOW, 9, 9, 1) + bytes.fromhex("0007 0008 01020304")),
        chunk(HEARTBEAT, struct.pack("!HHQ", 1, 12, 5)),
        chunk(HEARTBEAT_ACK, struct.pack("!HHQ", 1, 12, 5)),
        chunk(ERROR, struct.pack("!HHI", 3, 8, 5)),
        chunk(COOKIE_ECHO, bytes(64)),
        chunk(RECONFIG, reset),
        chunk(RECONFIG, struct.pack("!HHII", 16, 12, ours, 1)),
        chunk(FORWARD, struct.pack("!IHHHH", tsn + 5, 1, 2, 3, 4)),
        chunk(99, b"abcdef"),
        chunk(0xFE, b"abcdef"),
    ]


def test_packets_cut_short_at_every_byte_harm_nobody(sctp: ctypes.CDLL, forger: Forger) -> None:
    for sample in samples(forger):
        for tag in (forger.a.tag, 0):
            whole = packet_of(sctp, tag, sample)
            for size in range(len(whole)):
                cut = whole[:size] if size < 12 else sealed(sctp, whole[:size])
                forger.a.receive(cut, forger.now)
                forger.hear()
    assert forger.a.state.held_bytes < 10_000
    assert forger.a.closed in ([], ["malformed"])


def test_every_length_field_is_checked(sctp: ctypes.CDLL, forger: Forger) -> None:
    for sample in samples(forger):
        for length in (0, 1, 3, 4, 5, 8, len(sample) - 1, len(sample) + 1, len(sample) + 4, 0xFFFF):
            lying = sample[:2] + struct.pack("!H", length) + sample[4:]
            forger.say(lying)
    assert forger.a.state.held_bytes < 10_000


@pytest.mark.parametrize("seed", range(3))
def test_random_chunks_end_in_a_state(sctp: ctypes.CDLL, seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(40):
        a, b = opened_pair(sctp)
        forger = Forger(sctp, a, b)
        for _ in range(100):
            sample = bytearray(draw.choice(samples(forger)))
            for _ in range(draw.randrange(4)):
                sample[draw.randrange(len(sample))] = draw.randrange(256)
            forger.say(bytes(sample))
            assert a.state.held_bytes <= WINDOW + 4 * 65536
            if draw.randrange(10) == 0:
                forger.wait(forger.now + draw.randrange(SECOND))
        a.delete()
        b.delete()


@pytest.mark.parametrize(("kind", "goes_on", "reported"), [(50, 0, 0), (80, 0, 1), (150, 1, 0), (240, 1, 1)])
def test_unknown_chunks_are_treated_as_their_bits_ask(forger: Forger, kind: int, goes_on: int, reported: int) -> None:
    said = forger.say(chunk(kind, b"what"), forger.data(0))
    assert len(forger.a.messages) == goes_on
    errors = [body for _, body in of_kind(said, ERROR)]
    assert errors == ([b"\x00\x06\x00\x0c" + chunk(kind, b"what")] if reported else [])


# --- silence and goodbye ----------------------------------------------------------------------------------------------


def test_a_silent_peer_is_asked_and_then_given_up(forger: Forger) -> None:
    assert of_kind(forger.wait(forger.now + 290 * SECOND), HEARTBEAT) == []  # ICE asks more often
    said = forger.wait(forger.now + 20 * SECOND)
    assert len(of_kind(said, HEARTBEAT)) >= 1
    forger.wait(forger.now + 120 * SECOND)
    assert forger.a.closed == ["timeout"]


def test_a_quiet_pair_lives_on(pair: tuple[Association, Association]) -> None:
    a, b = pair
    packets = a.counts.packets_sent
    run_until(a, b, 100 * MS, 600 * SECOND)
    assert a.state.open
    assert b.state.open
    assert a.counts.packets_sent - packets < 60


def test_an_abort_under_the_peers_own_tag_ends_the_association(sctp: ctypes.CDLL, forger: Forger) -> None:
    forger.a.receive(packet_of(sctp, forger.b.tag, chunk(ABORT, flags=0)), forger.now)
    assert forger.a.closed == []
    forger.a.receive(packet_of(sctp, forger.b.tag, chunk(ABORT, flags=1)), forger.now)
    assert forger.a.closed == ["aborted"]


def test_abort_is_one_packet_and_then_silence(pair: tuple[Association, Association]) -> None:
    a, b = pair
    assert a.send(bytes(5000), SECOND)
    a.close(SECOND, abort=True)
    assert a.closed == []  # told from within handle_timeout()
    assert exchange(a, b, SECOND) == 1
    assert (a.closed, b.closed) == (["asked"], ["aborted"])
    assert a.next_timeout == NEVER
    assert not a.send(b"x", SECOND)
    assert a.room(SECOND) == 0
