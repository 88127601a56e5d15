"""How the association resets streams, packet by packet."""

from __future__ import annotations

import struct

from kit.forger import (
    BEGIN_END,
    RECONFIG,
    Forger,
    of_kind,
)
from kit.sctp import (
    SECOND,
    Association,
    chunk,
    run_until,
)


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
    # A channel that the peer refuses, opened and refused again: the peer sends nothing between its resets.
    first = forger.b.first_tsn
    forger.say(forger.data(0, stream=3, flags=BEGIN_END))
    assert results_of(forger.say(reset_request(first, first, 3))) == [(first, 1)]
    assert results_of(forger.say(reset_request(first, first, 3))) == [(first, 1)]  # asked again
    assert forger.a.resets == [(True, True, [3])]
    assert results_of(forger.say(reset_request(first + 1, first, 3))) == [(first + 1, 1)]
    assert forger.a.resets == [(True, True, [3])] * 2


def test_requests_out_of_sequence_are_refused(forger: Forger) -> None:
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


def test_every_stream_can_be_reset(pair: tuple[Association, Association]) -> None:
    a, b = pair
    now = SECOND
    assert a.reset_streams(list(range(4096)), now)
    run_until(a, b, now, 3 * SECOND)
    assert sorted(stream for _, _, streams in a.resets for stream in streams) == list(range(4096))
    assert sorted(stream for _, _, streams in b.resets for stream in streams) == list(range(4096))
    assert not a.reset_streams([4096], now)
