"""Who stands beside whom on one LAN."""

from __future__ import annotations

import random

from conflux.control.lan.circle import (
    CHORD_COUNT,
    DEAD_S,
    DEAD_S_MIN,
    DECLINED_RING_S,
    GUEST_COUNT_MAX,
    KNOWN_COUNT_MAX,
    LARGE_S,
    RING_FROM,
    RING_UNTIL,
    SEEK_COUNT,
    SIDE_COUNT,
    Circle,
    Role,
)

ME = b"\x80" + bytes(7)


def name(number: int) -> bytes:
    """Return the instance of that number, in order."""
    return bytes((number,)) + bytes(7)


def circle(*numbers: int, proved: bool = True, seed: int = 1) -> Circle:
    made = Circle(ME, random.Random(seed))
    for number in numbers:
        (made.met if proved else made.alive)(name(number))
    made.plan(0.0)
    return made


def test_on_a_small_lan_everybody_is_a_neighbour() -> None:
    small = circle(*range(RING_FROM - 2))
    assert not small.is_ring
    assert all(small.role(name(number)) is Role.RING for number in range(RING_FROM - 2))


def test_from_eleven_on_there_is_a_ring_with_two_each_way_and_two_chords() -> None:
    large = circle(*range(0, 250, 2))
    assert large.is_ring
    assert large.ring == {name(0x7C), name(0x7E), name(0x82), name(0x84)} - {ME} or len(large.ring) == 2 * SIDE_COUNT
    assert len(large.chords) == CHORD_COUNT
    assert large.ring.isdisjoint(large.chords)


def test_the_ring_goes_round_the_end_of_the_numbers() -> None:
    last = Circle(name(255), random.Random(1))
    for number in range(20):
        last.met(name(number))
    last.plan(0.0)
    assert last.ring == {name(0), name(1), name(18), name(19)}


def test_the_border_does_not_flap() -> None:
    lan = circle(*range(RING_FROM - 1))
    assert lan.is_ring
    for number in range(RING_FROM - 2, RING_UNTIL - 2, -1):
        lan.gone(name(number))
        lan.plan(1.0)
        assert lan.is_ring is (number > RING_UNTIL - 1)


def test_a_neighbours_word_that_the_lan_is_large_counts_for_a_minute() -> None:
    lan = circle(1, 2, 3)
    lan.hear_large(10.0)
    lan.plan(10.0)
    assert lan.is_ring
    lan.plan(10.0 + LARGE_S)
    assert not lan.is_ring


def test_nobody_that_proved_itself_gives_way_to_one_that_has_not() -> None:
    lan = circle(*range(120))
    proved = lan.ring
    for number in range(0x81, 0xFF):
        lan.alive(name(number))  # anybody can announce these
    lan.plan(1.0)
    assert proved <= lan.ring
    assert len(lan.ring - proved) <= 2 * SIDE_COUNT, "a few of them are looked at"
    lan.met(name(0x81))
    lan.plan(2.0)
    assert name(0x81) in lan.ring


def test_what_cannot_be_dialled_makes_room_and_a_sign_of_life_brings_it_back() -> None:
    lan = circle(*range(0x70, 0x80), *range(0x81, 0x91))
    assert name(0x81) in lan.ring
    lan.failed(name(0x81), 5.0)
    lan.plan(5.0)
    assert name(0x81) not in lan.ring
    assert name(0x83) in lan.ring
    lan.alive(name(0x81))
    lan.plan(6.0)
    assert name(0x81) in lan.ring


def test_the_dead_are_left_alone_longer_each_time_and_ten_minutes_at_most() -> None:
    lan = circle(*range(0x70, 0x80), *range(0x81, 0x91))
    now, rests = 5.0, []
    for _ in range(12):
        lan.failed(name(0x81), now)
        lan.plan(now)
        assert name(0x81) not in lan.ring
        began = now
        while name(0x81) not in lan.ring:
            now += 1.0
            lan.plan(now)
        rests.append(now - began)
    assert rests[:3] == [DEAD_S_MIN, 2 * DEAD_S_MIN, 4 * DEAD_S_MIN]
    assert rests[-1] == DEAD_S
    assert name(0x83) in lan.ring, "who proved itself stays until the other has"


def test_many_that_cannot_be_reached_for_now_make_no_small_lan() -> None:
    lan = circle(*range(0x70, 0x80), *range(0x81, 0x91))
    for each in lan.nodes():
        lan.failed(each, 1.0)
    lan.plan(1.0)
    assert lan.is_ring


def test_once_a_minute_one_of_the_dead_is_tried_and_no_more_often() -> None:
    lan = circle(*range(0x70, 0x80), *range(0x81, 0x91))
    dead = [name(number) for number in (0x73, 0x74, 0x8C)]
    for each in dead:
        for _ in range(10):
            lan.failed(each, 5.0)
    tries = 0
    for second in range(5, 305):
        lan.plan(float(second))
        tried = [each for each in dead if lan.wants(each)]
        assert len(tried) <= 1
        for each in tried:
            tries += 1
            lan.failed(each, float(second))
    assert 4 <= tries <= 7


def test_who_declined_is_left_alone_for_a_while() -> None:
    lan = circle(*range(120))
    (chord, *_) = lan.chords
    lan.declined(chord, 1.0)
    lan.plan(1.0)
    assert chord not in lan.chords
    assert len(lan.chords) == CHORD_COUNT
    lan.declined(name(119), 1.0)
    lan.plan(1.0)
    assert name(119) not in lan.ring
    assert chord not in lan.chords
    lan.plan(1.0 + DECLINED_RING_S)
    assert name(119) in lan.ring


def test_whom_a_person_named_is_always_a_neighbour() -> None:
    lan = circle(*range(120))
    far = next(each for each in map(name, range(120)) if lan.role(each) is Role.ERRAND)
    lan.pin(far)
    lan.plan(1.0)
    assert lan.wants(far)


def test_a_board_that_proved_nobody_yet_tries_many_at_once_when_dials_fail() -> None:
    lan = circle(*range(120), proved=False)
    assert len(lan.chords) == CHORD_COUNT
    lan.failed(next(iter(lan.ring)), 1.0)
    lan.plan(1.0)
    assert len(lan.chords) == SEEK_COUNT
    proved = sorted(lan.chords)[:3]
    for each in proved:
        lan.met(each)
    lan.plan(2.0, proved)
    assert len(lan.chords) <= CHORD_COUNT
    assert set(proved) <= lan.ring | lan.chords


def test_of_the_chords_one_at_most_has_not_proved_itself() -> None:
    lan = circle(*range(40))
    for number in range(2000):
        lan.alive(b"fake" + number.to_bytes(4, "big"))
    for each in lan.chords:
        lan.declined(each, 1.0)
    lan.plan(1.0)
    assert len([each for each in lan.chords if each.startswith(b"fake")]) <= 1


def test_two_are_distrusted_at_once_and_no_more() -> None:
    lan = circle(*range(120))
    for each in sorted(lan.ring):
        lan.distrust(each, 1.0)
    assert [lan.trusts(each) for each in sorted(lan.ring)] == [False, False, True, True]


def test_only_so_many_others_may_stand_beside_a_node() -> None:
    lan = circle(*range(120))
    stranger = next(each for each in map(name, range(120)) if lan.role(each) is Role.ERRAND)
    assert lan.takes(stranger, GUEST_COUNT_MAX - 1)
    assert not lan.takes(stranger, GUEST_COUNT_MAX)
    assert lan.takes(name(119), GUEST_COUNT_MAX), "of the ring: always"
    lan.failed(stranger, 1.0)
    assert not lan.takes(stranger, 0)


def test_announcements_without_end_take_bounded_room_and_push_out_none_that_proved_itself() -> None:
    lan = circle(*range(1, 60))
    for number in range(3 * KNOWN_COUNT_MAX):
        lan.alive(number.to_bytes(8, "big"))
    assert len(lan) <= KNOWN_COUNT_MAX
    assert all(name(number) in lan for number in range(1, 60))
