"""A peer that is authenticated and hostile, against the association under the address sanitizer."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.driven import Driven, build
from kit.sctp import SOURCES, chunk, chunks_of, data_chunk, sack_chunk

DATA, RECONFIG, FORWARD = 0, 130, 192
BEGIN, END, UNORDERED = 2, 1, 4
WINDOW = 1 << 20
FORWARD_MESSAGES_MAX = 512  # cext/sctp/forward.c


@pytest.fixture(scope="module")
def program() -> Path:
    return build("sctp/sctp_hostile.c", *SOURCES, libraries=("crypto",))


class Hostile:
    """An open association; the test speaks for its peer."""

    def __init__(self, driven: Driven) -> None:
        self._driven = driven
        first_a, first_b, is_open = map(int, driven.ask("open").split())
        assert is_open
        self.sent, self.first = first_a, first_b  # the first TSNs of the association's and of ours

    def say(self, *chunks: bytes) -> None:
        self._driven.ask(f"say {b''.join(chunks).hex()}")

    def data(self, offset: int, data: bytes = b"x", **how: int) -> bytes:
        return data_chunk(self.first + offset, data, **how)

    def hear(self) -> list[tuple[int, int, bytes]]:
        """Return every chunk that it sends now."""
        packets = self._driven.ask("hear").split(",")[:-1]
        return [each for packet in packets for each in chunks_of(bytes.fromhex(packet))]

    def data_heard(self) -> list[int]:
        """Return which TSNs it sends now, counted from its first."""
        return [struct.unpack_from("!I", body)[0] - self.sent for kind, _, body in self.hear() if kind == DATA]

    def forward_heard(self) -> list[int]:
        """Return the TSNs up to which its FORWARD-TSNs now skip, counted from its first."""
        return [struct.unpack_from("!I", body)[0] - self.sent for kind, _, body in self.hear() if kind == FORWARD]

    def send(self, size: int, lifetime_ms: int) -> None:
        assert self._driven.ask(f"send {size} {lifetime_ms}") == "1"

    def later(self, ms: int) -> None:
        self._driven.ask(f"later {ms}")

    def handle_timeout(self) -> None:
        """Let it handle the timers that are due."""
        self._driven.ask("timers")

    @property
    def state(self) -> tuple[int, int, int, int]:
        """Messages, largest room left in one, resets told, bytes held."""
        messages, excess, resets, held = map(int, self._driven.ask("state").split())
        return messages, excess, resets, held

    def close(self) -> None:
        self._driven.ask("close")


@pytest.fixture
def driven(program: Path) -> Iterator[Driven]:
    with Driven(program) as driven:
        yield driven


def test_a_message_cut_off_by_an_unknown_stream_is_given_up(driven: Driven) -> None:
    hostile = Hostile(driven)
    hostile.say(hostile.data(0, bytes(1000), flags=BEGIN | UNORDERED))
    hostile.say(hostile.data(1, stream=5000))  # it takes the TSN where the message goes on
    assert hostile.state[3] == 0
    for offset in range(2, 256):  # once around the ring of TSNs
        hostile.say(hostile.data(offset))
    hostile.say(hostile.data(256, bytes(1000), flags=BEGIN | UNORDERED))
    hostile.say(hostile.data(257, flags=END | UNORDERED))
    assert hostile.state[::3] == (255, 0)
    hostile.close()  # the driver's end reports leaks


def test_acknowledgements_race_messages_given_up_at_any_fill_of_the_ring(driven: Driven) -> None:
    # The newest chunk is acknowledged, its message has expired with a part unsent, and one more TSN is needed when the
    # ring is full: at one of these counts all of that happens together.
    for count in range(240, 256):
        hostile = Hostile(driven)
        for _ in range(count):
            hostile.send(80, 60_000)
        newest = 0
        while newest < count - 1:  # all but the first are acknowledged, so the ring begins with the first
            newest = max(newest, *hostile.data_heard())
            hostile.later(5)
            hostile.say(sack_chunk(hostile.sent - 1, WINDOW, [(2, newest + 1)]))
        hostile.hear()
        hostile.send(65536, 60)
        heard = hostile.data_heard()
        while len(heard) < 5:
            hostile.later(2)
            heard += hostile.data_heard()
        hostile.later(60)
        hostile.say(sack_chunk(hostile.sent - 1, WINDOW, [(max(heard) + 1, max(heard) + 1)]))
        hostile.hear()
        hostile.close()


def test_of_several_acknowledgements_in_a_packet_the_first_counts(driven: Driven) -> None:
    for first, second, is_acknowledged in ((1, 0, True), (0, 1, False)):
        hostile = Hostile(driven)
        hostile.send(80, 60_000)
        assert hostile.data_heard() == [0]
        hostile.say(*(sack_chunk(hostile.sent - 1 + count, WINDOW, []) for count in (first, second)))
        hostile.later(10_000)
        hostile.handle_timeout()
        assert hostile.data_heard() == ([] if is_acknowledged else [0])
        hostile.close()


def test_many_messages_given_up_are_told_in_parts_one_after_the_other(driven: Driven) -> None:
    hostile = Hostile(driven)
    newest = 0
    while newest < 3 * FORWARD_MESSAGES_MAX:  # every second one is acknowledged, and none cumulatively
        for _ in range(10):
            hostile.send(80, 50)
        newest = max(newest, *hostile.data_heard(), 0)
        gaps = [(at, at) for at in range(2, newest + 2, 2)]
        hostile.say(sack_chunk(hostile.sent - 1, WINDOW, gaps[-50:]))
        hostile.later(5)
        hostile.handle_timeout()
    hostile.later(100)
    hostile.handle_timeout()
    first = 2 * FORWARD_MESSAGES_MAX - 1  # behind each is an acknowledged one
    hostile.say(sack_chunk(hostile.sent - 1, WINDOW))
    assert set(hostile.forward_heard()) == {first}
    hostile.say(sack_chunk(hostile.sent + first, WINDOW))
    (second,) = hostile.forward_heard()
    assert first < second < newest
    hostile.close()


def test_small_messages_cut_in_two_keep_no_room_for_large_ones(driven: Driven) -> None:
    hostile = Hostile(driven)
    for offset in range(0, 2000, 2):  # the one with SSN 0 is missing: all wait
        how = {"stream": 1, "ssn": 1 + offset // 2}
        hostile.say(hostile.data(offset, flags=BEGIN, **how), hostile.data(offset + 1, flags=END, **how))
    assert hostile.state[0] == 0
    hostile.say(hostile.data(2000, stream=1, ssn=0, flags=BEGIN | END))
    messages, excess, _, held = hostile.state
    assert (messages, held) == (1001, 0)
    assert excess <= 2
    hostile.close()


def test_a_packet_full_of_reset_requests_resets_once(driven: Driven) -> None:
    hostile = Hostile(driven)
    hostile.say(
        *(
            chunk(RECONFIG, struct.pack("!HHIII", 13, 16, (hostile.first + index) % 2**32, 0, hostile.first - 1))
            for index in range(500)
        )
    )
    assert hostile.state[2] == 1
    results = [struct.unpack_from("!I", body, 8)[0] for kind, _, body in hostile.hear() if kind == RECONFIG]
    assert results.count(1) == 1  # performed
    assert len(results) < 100
    hostile.say(chunk(RECONFIG, struct.pack("!HHIII", 13, 16, hostile.first + 1, 0, hostile.first - 1)))
    assert hostile.state[2] == 2  # after the answer the next request is granted
    hostile.close()
