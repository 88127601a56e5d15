"""What the association makes of data that comes and of data that goes, packet by packet."""

from __future__ import annotations

import ctypes
import random
import struct

import pytest
from kit.forger import (
    ABORT,
    BEGIN_END,
    DATA,
    ERROR,
    FORWARD,
    HEARTBEAT,
    HEARTBEAT_ACK,
    SACK,
    UNORDERED,
    WINDOW,
    Forger,
    of_kind,
    sack_of,
)
from kit.sctp import (
    MS,
    PACKET_BYTES_MIN,
    SECOND,
    Association,
    chunk,
    chunks_of,
    exchange,
    opened_pair,
    packet_of,
    run_until,
    sack_chunk,
)

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
    assert len(of_kind(forger.say(forger.data(2, flags=UNORDERED | 8)), SACK)) == 1  # the peer asks for a SACK at once


def test_a_batch_gets_one_acknowledgement(sctp: ctypes.CDLL, forger: Forger) -> None:
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
    # Holes everywhere: no message can be handed on.
    for offset in range(1, 6000, 2):
        forger.say(forger.data(offset, bytes(1000), flags=flags, stream=offset % 4096, ssn=offset))
        assert forger.a.state.held_bytes <= WINDOW
    assert forger.a.counts.dropped_window > 0
    assert sack_of(forger.say(forger.data(1)))[1] < 3000


def test_tsns_far_outside_the_span_are_dropped(forger: Forger) -> None:
    for offset in (65535, 70000, 2**30, 2**31 - 1, 2**31 + 5, 2**32 - 1000):
        forger.say(forger.data(offset))
    assert forger.a.messages == []
    assert forger.a.state.held_bytes == 0


def test_streams_beyond_the_count_are_named_once(forger: Forger) -> None:
    said = forger.say(*(forger.data(offset, stream=5000) for offset in range(20)))
    assert [body for _, body in of_kind(said, ERROR)] == [struct.pack("!HHHH", 1, 8, 5000, 0)]
    assert forger.a.messages == []


def test_a_data_chunk_without_data_ends_the_association(forger: Forger) -> None:
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


def grown(pair: tuple[Association, Association]) -> tuple[Association, Association]:
    """Have the first send so much that it finds how large packets may be."""
    a, b = pair
    assert a.send(bytes(20_000), 100 * MS, unordered=1)
    run_until(a, b, 100 * MS, 300 * MS)
    assert a.state.packet_bytes == 1400
    b.messages.clear()
    return a, b


def test_no_packet_is_probed_for_by_those_who_send_little(pair: tuple[Association, Association]) -> None:
    a, b = pair
    for number in range(200):
        assert a.send(bytes(500), (100 + number) * MS, unordered=1)
        run_until(a, b, (100 + number) * MS, (101 + number) * MS)
    assert a.state.packet_bytes == b.state.packet_bytes == PACKET_BYTES_MIN
    grown(pair)
    assert b.state.packet_bytes == PACKET_BYTES_MIN, "who only receives needs no larger packets"


def test_a_message_is_cut_into_equal_packets(pair: tuple[Association, Association]) -> None:
    a, b = grown(pair)
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
    a, b = grown(pair)
    assert a.send(b"first", SECOND)
    exchange(a, b, SECOND)  # now a round trip is measured
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


def test_gap_blocks_beyond_what_was_sent_end_the_association(forger: Forger) -> None:
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
    forger.say(sack_chunk(tsn - 1, gaps=[(1, 3)]))  # it says that TSN 0 came, but does not move on
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
    # One message was sent, as one packet holds no more; behind a closed window it is the only one.
    assert struct.unpack("!I", of_kind(said, FORWARD)[-1][1][:4]) == (forger.a.first_tsn,)


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
