"""What the association says and takes, packet by packet; a peer that breaks rules."""

from __future__ import annotations

import ctypes
import random
import struct
from collections.abc import Iterator

import pytest
from sctp_library import (
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

DATA, INIT, INIT_ACK, SACK, HEARTBEAT, HEARTBEAT_ACK, ABORT = range(7)
ERROR, COOKIE_ECHO, COOKIE_ACK = 9, 10, 11
RECONFIG, PAD, FORWARD = 130, 132, 192
BEGIN_END, UNORDERED = 3, 7  # flags of a message in one chunk
WINDOW = 1 << 20


@pytest.fixture
def pair(sctp: ctypes.CDLL) -> Iterator[tuple[Association, Association]]:
    a, b = opened_pair(sctp)
    run_until(a, b, 0, 50 * MS)
    yield a, b
    a.delete()
    b.delete()


class Forger:
    """Speaks for b to a, packet by packet."""

    def __init__(self, library: ctypes.CDLL, a: Association, b: Association) -> None:
        self.library = library
        self.a = a
        self.b = b
        self.now = 100 * MS

    def say(self, *chunks: bytes) -> list[list[tuple[int, int, bytes]]]:
        """Send one packet; return the chunks of each that comes back now."""
        self.a.receive(packet_of(self.library, self.a.tag, *chunks), self.now)
        return self.hear()

    def hear(self) -> list[list[tuple[int, int, bytes]]]:
        return [chunks_of(packet) for packet in self.a.packets(self.now)]

    def wait(self, until: int) -> list[list[tuple[int, int, bytes]]]:
        """Let time pass for a alone; return all it said."""
        said = []
        while (at := self.a.next_timeout) <= until:
            self.now = max(self.now + 1, at)
            self.a.handle_timeout(self.now)
            said += self.hear()
        self.now = until
        return said

    def data(self, offset: int, data: bytes = b"x", **how: int) -> bytes:
        return data_chunk(self.b.first_tsn + offset, data, **how)


@pytest.fixture
def forger(sctp: ctypes.CDLL, pair: tuple[Association, Association]) -> Forger:
    return Forger(sctp, *pair)


def of_kind(said: list[list[tuple[int, int, bytes]]], kind: int) -> list[tuple[int, bytes]]:
    return [(flags, body) for packet in said for found, flags, body in packet if found == kind]


def sack_of(said: list[list[tuple[int, int, bytes]]]) -> tuple[int, int, list[tuple[int, int]], list[int]]:
    ((_, body),) = of_kind(said, SACK)
    tsn, window, gap_count, duplicate_count = struct.unpack_from("!IIHH", body)
    gaps = [struct.unpack_from("!HH", body, 12 + 4 * index) for index in range(gap_count)]
    duplicates = struct.unpack_from(f"!{duplicate_count}I", body, 12 + 4 * gap_count)
    return tsn, window, [(first, last) for first, last in gaps], list(duplicates)


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


def init_of(tag: int = 77, tsn: int = 1000, extra: bytes = b"") -> bytes:
    return chunk(INIT, struct.pack("!IIHHI", tag, WINDOW, 100, 100, tsn) + extra)


def cookie_from(library: ctypes.CDLL, a: Association, now: int, init: bytes) -> tuple[bytes, bytes]:
    """Return the cookie, and all of INIT-ACK's body."""
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
        assert parameter(0xC777) not in body  # nothing behind the first is read


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
    assert a.state.open  # a mere INIT does nothing
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


# --- data that comes --------------------------------------------------------------------------------------------------


def test_gaps_and_duplicates_are_acknowledged(forger: Forger) -> None:
    tsn = forger.b.first_tsn
    assert sack_of(forger.say(forger.data(0)) + forger.wait(forger.now + 10 * MS))[0] == tsn
    assert sack_of(forger.say(forger.data(3), forger.data(4), forger.data(7)))[2] == [(3, 4), (7, 7)]
    assert sack_of(forger.say(forger.data(4), forger.data(0)))[2:] == ([(3, 4), (7, 7)], [tsn + 4, tsn])
    got = sack_of(forger.say(forger.data(1), forger.data(2)))
    assert got[0] == tsn + 4
    assert got[2:] == ([(3, 3)], [])


def test_a_lone_packet_is_acknowledged_soon_and_a_second_at_once(forger: Forger) -> None:
    assert forger.say(forger.data(0)) == []
    assert forger.a.next_timeout - forger.now <= 20 * MS
    assert len(of_kind(forger.say(forger.data(1)), SACK)) == 1
    assert len(of_kind(forger.say(forger.data(2, flags=UNORDERED | 8)), SACK)) == 1  # the peer asks for it at once


def test_one_acknowledgement_for_a_batch(sctp: ctypes.CDLL, forger: Forger) -> None:
    for offset in range(50):
        forger.a.receive(packet_of(sctp, forger.a.tag, forger.data(offset)), forger.now, done=False)
    forger.a._library.sctp_receive_done(forger.a._self, forger.now)
    assert len(of_kind(forger.hear(), SACK)) == 1


def test_fragments_in_any_order_make_the_message(sctp: ctypes.CDLL) -> None:
    for seed in range(60):
        a, b = opened_pair(sctp)
        forger = Forger(sctp, a, b)
        pieces = []
        tsn = 0
        expected = []
        for number in range(5):
            parts = [bytes([number, part]) * 40 for part in range(1 + number)]
            for part, data in enumerate(parts):
                flags = 4 | (2 if part == 0 else 0) | (1 if part == len(parts) - 1 else 0)
                pieces.append(forger.data(tsn, data, flags=flags, stream=number))
                tsn += 1
            expected.append(b"".join(parts))
        random.Random(seed).shuffle(pieces)
        for piece in pieces:
            forger.say(piece)
        assert sorted(message.data for message in a.messages) == sorted(expected)
        assert a.state.held_bytes == 0
        a.delete()
        b.delete()


def test_ordered_messages_wait_for_their_turn(forger: Forger) -> None:
    for offset in (3, 1, 2):
        forger.say(forger.data(offset, bytes([offset]), ssn=offset, flags=BEGIN_END))
    forger.say(forger.data(4, b"other", stream=1, ssn=0, flags=BEGIN_END))
    assert [message.data for message in forger.a.messages] == [b"other"]
    forger.say(forger.data(0, b"\0", ssn=0, flags=BEGIN_END))
    assert [message.data for message in forger.a.messages[1:]] == [b"\0", b"\1", b"\2", b"\3"]


def test_ssns_wrap_around(forger: Forger) -> None:
    for offset in range(0, 66000, 30):
        forger.say(*(forger.data(at, b"%d" % at, ssn=at % 65536, flags=BEGIN_END) for at in range(offset, offset + 30)))
    assert [message.data for message in forger.a.messages] == [b"%d" % at for at in range(66000)]


def test_forward_tsn_skips_what_was_given_up(forger: Forger) -> None:
    tsn = forger.b.first_tsn
    forger.say(forger.data(1, b"half", ssn=1, flags=2))  # and TSN 0 is missing
    forger.say(forger.data(3, b"after", ssn=2, flags=BEGIN_END), forger.data(4, b"last", ssn=3, flags=BEGIN_END))
    assert forger.a.messages == []
    said = forger.say(chunk(FORWARD, struct.pack("!IHH", tsn + 2, 0, 1)))
    assert sack_of(said)[0] == tsn + 4
    assert [message.data for message in forger.a.messages] == [b"after", b"last"]
    assert forger.a.state.held_bytes == 0
    assert sack_of(forger.say(chunk(FORWARD, struct.pack("!I", tsn))))[0] == tsn + 4  # an old one


def test_forward_tsn_far_ahead_costs_nothing(forger: Forger) -> None:
    tsn = forger.b.first_tsn
    forger.say(forger.data(5, b"x" * 100, flags=2))
    said = forger.say(chunk(FORWARD, struct.pack("!I", (tsn + 2**31 - 2) % 2**32)))
    assert sack_of(said)[0] == (tsn + 2**31 - 2) % 2**32
    assert forger.a.state.held_bytes == 0


def test_messages_larger_than_allowed_are_dropped_and_the_next_comes(forger: Forger) -> None:
    piece = bytes(1000)
    for offset in range(80):
        forger.say(forger.data(offset, piece, flags=6 if offset == 0 else 5 if offset == 79 else 4))
    assert forger.a.messages == []
    assert forger.a.state.held_bytes == 0
    forger.say(forger.data(80, b"next"))
    assert [message.data for message in forger.a.messages] == [b"next"]
    assert forger.a.counts.dropped_other > 0


@pytest.mark.parametrize("flags", [4, 6, 0, 2])
def test_a_peer_cannot_make_us_hold_more_than_the_window(forger: Forger, flags: int) -> None:
    # Holes everywhere: nothing of it can be handed on.
    for offset in range(1, 6000, 2):
        forger.say(forger.data(offset, bytes(1000), flags=flags, stream=offset % 4096, ssn=offset))
        assert forger.a.state.held_bytes <= WINDOW
    assert forger.a.counts.dropped_window > 0
    assert sack_of(forger.say(forger.data(1)))[1] < 3000


def test_tsns_from_nowhere_are_dropped(forger: Forger) -> None:
    for offset in (65535, 70000, 2**30, 2**31 - 1, 2**31 + 5, 2**32 - 1000):
        forger.say(forger.data(offset))
    assert forger.a.messages == []
    assert forger.a.state.held_bytes == 0


def test_streams_beyond_the_count_are_named_once(forger: Forger) -> None:
    said = forger.say(*(forger.data(offset, stream=5000) for offset in range(20)))
    assert [body for _, body in of_kind(said, ERROR)] == [struct.pack("!HHHH", 1, 8, 5000, 0)]
    assert forger.a.messages == []


def test_data_without_data_ends_it(forger: Forger) -> None:
    said = forger.say(forger.data(0, b""))
    assert [body for _, body in of_kind(said, ABORT)] == [struct.pack("!HH", 9, 4)]
    assert forger.a.closed == ["malformed"]


def test_floods_of_questions_get_bounded_answers(forger: Forger) -> None:
    question = chunk(HEARTBEAT, struct.pack("!HH", 1, 60) + bytes(56))
    for _ in range(500):
        forger.a.receive(packet_of(forger.library, forger.a.tag, *([question] * 20)), forger.now)
    answers = forger.hear()
    assert len(answers) == 1
    assert 10 < len(of_kind(answers, HEARTBEAT_ACK)) < 30


# --- data that goes ---------------------------------------------------------------------------------------------------


def test_a_message_is_cut_into_equal_packets(pair: tuple[Association, Association]) -> None:
    a, b = pair
    assert a.state.packet_bytes == 1400
    assert a.send(bytes(60000), SECOND, unordered=1)
    sizes = []
    for now in range(SECOND, SECOND + 500 * MS, MS):
        if a.next_timeout <= now:
            a.handle_timeout(now)
        for packet in list(a.packets(now)):
            sizes.append(len(packet))
            b.receive(packet, now)
        for packet in list(b.packets(now)):
            a.receive(packet, now)
    assert [len(message.data) for message in b.messages] == [60000]
    assert set(sizes[:-1]) == {1400}
    assert 0 < sizes[-1] <= 1400


def test_small_messages_share_packets(pair: tuple[Association, Association]) -> None:
    a, b = pair
    assert a.send(b"first", SECOND)
    exchange(a, b, SECOND)  # there is a round trip to go by now
    for _ in range(30):
        assert a.send(bytes(80), SECOND, unordered=1)
    packets = [chunks_of(packet) for packet in a.packets(SECOND)]
    assert [len(packet) for packet in packets][:2] == [14, 14]
    flags = [flags for packet in packets for _, flags, _ in packet]
    assert flags[-1] & 8  # the last of a burst asks for an acknowledgement
    assert not any(flag & 8 for flag in flags[:-1])


def test_what_was_never_sent_cannot_be_acknowledged(forger: Forger) -> None:
    said = forger.say(sack_chunk(forger.a.first_tsn + 5))
    assert len(of_kind(said, ABORT)) == 1
    assert forger.a.closed == ["malformed"]


def test_gaps_beyond_what_was_sent_end_it(forger: Forger) -> None:
    assert forger.a.send(b"x", forger.now)
    forger.hear()
    forger.say(sack_chunk(forger.a.first_tsn - 1, gaps=[(2, 2)]))
    assert forger.a.closed == ["malformed"]


def test_gap_blocks_that_do_not_ascend_are_not_read(forger: Forger) -> None:
    for _ in range(10):
        assert forger.a.send(bytes(1000), forger.now)
    forger.hear()
    forger.say(sack_chunk(forger.a.first_tsn - 1, gaps=[(4, 5), (2, 3), (0, 9), (9, 8)]))
    assert forger.a.state.open


def test_a_peer_that_forgets_what_it_acknowledged_gets_it_again(forger: Forger) -> None:
    for index in range(4):
        assert forger.a.send(bytes([index]) * 1300, forger.now)
    forger.hear()
    tsn = forger.a.first_tsn
    forger.now += 30 * MS
    forger.say(sack_chunk(tsn - 1, gaps=[(1, 3)]))  # TSN 0 came too, it says, and yet does not move on
    said = forger.wait(forger.now + 3 * SECOND)
    again = {struct.unpack_from("!I", body)[0] for _, body in of_kind(said, DATA)}
    assert {tsn, tsn + 1, tsn + 2} <= again


def test_a_closed_window_is_probed_and_the_association_lives(forger: Forger) -> None:
    for _ in range(4):
        assert forger.a.send(bytes(1000), forger.now)
    forger.hear()
    tsn = forger.a.first_tsn
    forger.say(sack_chunk(tsn - 1, window=0))
    probes = 0
    for _ in range(200):
        said = forger.wait(forger.now + SECOND)
        probes += len(of_kind(said, DATA))
        forger.say(sack_chunk(tsn - 1, window=0))
    assert forger.a.closed == []
    assert 20 < probes < 200  # at the pace of the largest RTO, 5 s
    said = forger.say(sack_chunk(tsn, window=WINDOW)) + forger.wait(forger.now + SECOND)
    assert {struct.unpack_from("!I", body)[0] for _, body in of_kind(said, DATA)} >= {tsn + 1, tsn + 2, tsn + 3}


def test_messages_expire_behind_a_closed_window(forger: Forger) -> None:
    forger.say(sack_chunk(forger.a.first_tsn - 1, window=0))
    for _ in range(50):
        assert forger.a.send(bytes(1000), forger.now, reliability=2, reliability_value=250)
    forger.hear()
    said = forger.wait(forger.now + 3 * SECOND)
    assert forger.a.state.unsent_bytes == 0
    assert forger.a.counts.messages_abandoned == 50
    # One message went, with the beginning of the next; of that one more TSN stands for what never went.
    assert struct.unpack("!I", of_kind(said, FORWARD)[-1][1][:4]) == (forger.a.first_tsn + 2,)


def test_room_is_never_shut_for_good(forger: Forger) -> None:
    a = forger.a
    assert a.room(forger.now) >= 2 * a.state.packet_bytes
    while (room := a.room(forger.now)) > 0:
        assert a.send(bytes(min(room, 65536)), forger.now)
    assert a.state.unsent_bytes < 300_000
    forger.hear()
    forger.wait(forger.now + SECOND)
    forger.say(sack_chunk(forger.a.first_tsn + (a.counts.messages_sent - 1)))
    assert a.closed == [] or a.room(forger.now) == 0


def test_what_cannot_be_sent_is_refused(pair: tuple[Association, Association], sctp: ctypes.CDLL) -> None:
    a, _ = pair
    assert not a.send(b"", SECOND)
    assert not a.send(b"x", SECOND, stream=4096)
    accepted = 0
    while a.send(bytes(65536), SECOND):
        accepted += 65536
    assert 3 << 20 < accepted <= 4 << 20
    with Association(sctp, 3) as closed:
        assert not closed.send(b"x", 0)


# --- resets -----------------------------------------------------------------------------------------------------------


def reset_request(sequence: int, tsn: int, *streams: int) -> bytes:
    body = struct.pack("!HHIII", 13, 16 + 2 * len(streams), sequence % 2**32, 0, tsn % 2**32)
    return chunk(RECONFIG, body + struct.pack(f"!{len(streams)}H", *streams))


def results_of(said: list[list[tuple[int, int, bytes]]]) -> list[tuple[int, int]]:
    return [struct.unpack_from("!II", body, 4) for _, body in of_kind(said, RECONFIG) if body[1] == 16]


def test_a_reset_waits_for_the_data_before_it(forger: Forger) -> None:
    first = forger.b.first_tsn
    forger.say(forger.data(0, b"0", stream=3, ssn=0, flags=BEGIN_END))
    assert results_of(forger.say(reset_request(first, first + 1, 3))) == [(first, 6)]
    assert forger.a.resets == []
    assert results_of(forger.say(reset_request(first, first + 1, 3))) == [(first, 6)]  # asked again
    assert results_of(forger.say(forger.data(1, b"1", stream=3, ssn=1, flags=BEGIN_END))) == [(first, 1)]
    assert forger.a.resets == [(True, True, [3])]
    assert results_of(forger.say(reset_request(first, first + 1, 3))) == [(first, 1)]
    assert forger.a.resets == [(True, True, [3])]  # done once
    forger.say(forger.data(2, b"new", stream=3, ssn=0, flags=BEGIN_END))
    assert [message.data for message in forger.a.messages] == [b"0", b"1", b"new"]


def test_a_reset_asked_for_under_a_new_number_is_granted_once(forger: Forger) -> None:
    # What dcSCTP does when told "in progress".
    first = forger.b.first_tsn
    assert results_of(forger.say(reset_request(first, first, 3))) == [(first, 6)]
    assert results_of(forger.say(forger.data(0, stream=3, flags=BEGIN_END))) == [(first, 1)]
    assert results_of(forger.say(reset_request(first + 1, first, 3))) == [(first + 1, 0)]
    assert forger.a.resets == [(True, True, [3])]
    # And if the number changes before the data came:
    assert results_of(forger.say(reset_request(first + 2, first + 1, 3))) == [(first + 2, 6)]
    assert results_of(forger.say(reset_request(first + 3, first + 1, 3))) == [(first + 3, 6)]
    assert results_of(forger.say(forger.data(1, stream=3, flags=BEGIN_END))) == [(first + 3, 1)]
    assert forger.a.resets == [(True, True, [3])] * 2


def test_streams_are_reset_again_though_nothing_was_sent_on_them(forger: Forger) -> None:
    # A channel that the peer refuses, opened and refused again: not a word of the peer's lies between its resets.
    first = forger.b.first_tsn
    forger.say(forger.data(0, stream=3, flags=BEGIN_END))
    assert results_of(forger.say(reset_request(first, first, 3))) == [(first, 1)]
    assert results_of(forger.say(reset_request(first, first, 3))) == [(first, 1)]  # asked again
    assert forger.a.resets == [(True, True, [3])]
    assert results_of(forger.say(reset_request(first + 1, first, 3))) == [(first + 1, 1)]
    assert forger.a.resets == [(True, True, [3])] * 2


def test_requests_out_of_turn_are_refused(forger: Forger) -> None:
    first = forger.b.first_tsn
    assert results_of(forger.say(reset_request(first + 5, first - 1, 3))) == [(first + 5, 5)]
    assert results_of(forger.say(reset_request(first, first - 1, 4096))) == [(first, 3)]
    for kind in (14, 15, 18):
        first += 1
        assert results_of(forger.say(chunk(RECONFIG, struct.pack("!HHII", kind, 12, first, 0)))) == [(first, 2)]
    assert forger.a.resets == []


def test_a_reset_that_is_not_answered_is_asked_again(forger: Forger) -> None:
    assert forger.a.reset_streams([7], forger.now)
    said = forger.hear() + forger.wait(forger.now + 2 * SECOND)
    asked = [body for _, body in of_kind(said, RECONFIG)]
    assert 3 <= len(asked) <= 6
    assert len(set(asked)) == 1
    assert not forger.a.send(b"x", forger.now, stream=7)
    sequence = struct.unpack_from("!I", asked[0], 4)[0]
    forger.say(chunk(RECONFIG, struct.pack("!HHII", 16, 12, sequence, 2)))
    assert forger.a.resets == [(False, False, [7])]
    assert forger.a.send(b"x", forger.now, stream=7)


def test_resets_of_every_stream(pair: tuple[Association, Association]) -> None:
    a, b = pair
    now = SECOND
    assert a.reset_streams(list(range(4096)), now)
    run_until(a, b, now, 3 * SECOND)
    assert sorted(stream for _, _, streams in a.resets for stream in streams) == list(range(4096))
    assert sorted(stream for _, _, streams in b.resets for stream in streams) == list(range(4096))
    assert not a.reset_streams([4096], now)


# --- silence and goodbye ----------------------------------------------------------------------------------------------


def test_a_silent_peer_is_asked_and_then_given_up(forger: Forger) -> None:
    said = forger.wait(forger.now + 40 * SECOND)
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


def test_reflected_aborts_end_it(sctp: ctypes.CDLL, forger: Forger) -> None:
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
