"""Which connections stand, and which are for an errand."""

from __future__ import annotations

import random

from conflux.control.lan.circle import GUEST_COUNT_MAX, Role
from conflux.control.lan.standing import GRACE_S, IDLE_S, WORD_S, Act, Close, Say, Standing, Stands

ME = b"\x80" + bytes(7)


def name(number: int) -> bytes:
    return bytes((number,)) + bytes(7)


def acts(machine: Standing) -> list[Act]:
    found: list[Act] = []
    while (act := machine.next_act()) is not None:
        found.append(act)
    return found


def large(count: int = 100) -> Standing:
    """Return the connections of a node on a large LAN; none is open."""
    machine = Standing(ME, random.Random(1))
    for number in range(count):
        machine.circle.met(name(number))
    machine.tend(0.0)
    return machine


def errand(machine: Standing) -> bytes:
    return next(each for each in machine.circle.nodes() if machine.circle.role(each) is Role.ERRAND)


def test_on_a_small_lan_nothing_is_said_and_everything_stands() -> None:
    machine = Standing(ME, random.Random(1))
    for number in range(9):
        machine.opened(name(number), dialled=number % 2 == 0, spreads=True, now=0.0)
    machine.tend(100.0)
    assert acts(machine) == [Stands(name(number), True) for number in range(9)]
    assert len(machine.standing) == 9


def test_a_neighbour_stands_once_both_want_it_to() -> None:
    machine = large()
    neighbour = min(machine.circle.ring)
    machine.opened(neighbour, dialled=True, spreads=True, now=0.0)
    assert acts(machine) == [Say(neighbour, Role.RING)]
    assert not machine.stands(neighbour)
    machine.near(neighbour, Role.RING, 0.01)
    assert acts(machine) == [Stands(neighbour, True)]
    assert neighbour in machine.spreading


def test_an_errand_is_said_to_be_one_and_closed_when_idle() -> None:
    machine = large()
    other = errand(machine)
    machine.opened(other, dialled=True, spreads=True, now=0.0)
    assert acts(machine) == [Say(other, Role.ERRAND)]
    machine.used(other, 3.0)
    machine.tend(2.9 + IDLE_S)
    assert acts(machine) == []
    machine.tend(3.0 + IDLE_S)
    assert acts(machine) == [Close(other)]


def test_whoever_picks_this_node_is_taken_as_a_guest_until_there_are_enough() -> None:
    machine = large()
    others = [each for each in machine.circle.nodes() if machine.circle.role(each) is Role.ERRAND]
    said: list[Act] = []
    for other in others[: GUEST_COUNT_MAX + 2]:
        machine.opened(other, dialled=False, spreads=True, now=0.0)
        assert acts(machine) == [], "the dialler speaks first"
        machine.near(other, Role.CHORD, 0.01)
        said += acts(machine)
    answers = [act.role for act in said if isinstance(act, Say)]
    assert answers == [Role.GUEST] * GUEST_COUNT_MAX + [Role.ERRAND] * 2
    assert len(machine.standing) == GUEST_COUNT_MAX


def test_of_two_on_the_ring_the_smaller_instance_dials_and_the_other_only_if_it_does_not() -> None:
    machine = large(250)
    before, after = [[each for each in machine.circle.ring if (each > ME) is later] for later in (False, True)]
    assert set(machine.wanted(10.0)) == {*after, *machine.circle.chords}
    assert set(machine.wanted(10.0 + GRACE_S)) == {*before, *after, *machine.circle.chords}


def test_whoever_declines_is_replaced_by_another() -> None:
    machine = large()
    chord = min(machine.circle.chords)
    machine.opened(chord, dialled=True, spreads=True, now=0.0)
    machine.near(chord, Role.ERRAND, 0.01)
    assert chord not in machine.circle.chords
    assert len(machine.circle.chords) == 2
    assert chord not in machine.wanted(0.02)


def test_two_guests_of_each_other_part() -> None:
    machine = large()
    other = errand(machine)
    machine.opened(other, dialled=False, spreads=True, now=0.0)
    machine.near(other, Role.CHORD, 0.01)
    assert machine.stands(other)
    acts(machine)
    machine.near(other, Role.GUEST, 1.0)
    assert acts(machine) == [Say(other, Role.ERRAND), Stands(other, False)]


def test_who_is_told_of_an_errand_on_a_small_lan_knows_that_it_is_large() -> None:
    machine = Standing(ME, random.Random(1))
    for number in range(9):
        machine.opened(name(number), dialled=False, spreads=True, now=0.0)
    acts(machine)
    machine.near(name(3), Role.ERRAND, 1.0)
    assert machine.circle.is_ring
    assert not machine.stands(name(3))
    assert len(machine.standing) >= 4, "the others stood, and their word is taken for granted"


def test_who_dials_and_says_nothing_sees_a_small_lan_and_is_taken_for_a_guest() -> None:
    machine = large()
    other = errand(machine)
    machine.opened(other, dialled=False, spreads=True, now=0.0)
    machine.tend(WORD_S)
    assert acts(machine) == [Say(other, Role.GUEST), Stands(other, True)]


def test_node_of_an_earlier_build_stands_and_is_told_nothing() -> None:
    machine = large()
    for number, other in enumerate(machine.circle.nodes()[:20]):
        machine.opened(other, dialled=number % 2 == 0, spreads=False, now=0.0)
    machine.tend(60.0)
    assert acts(machine) == [Stands(each, True) for each in machine.circle.nodes()[:20]]
    assert not machine.spreading.tree


def test_a_silent_node_is_dead_and_a_closed_one_is_not() -> None:
    machine = large()
    one, other = sorted(machine.circle.ring)[:2]
    for each in (one, other):
        machine.opened(each, dialled=True, spreads=True, now=0.0)
        machine.near(each, Role.RING, 0.0)
    machine.closed(one, 1.0, dead=True)
    machine.closed(other, 1.0)
    assert not machine.circle.wants(one)
    assert machine.circle.wants(other)
    assert one not in machine.spreading
    machine.circle.alive(one)
    machine.tend(2.0)
    assert machine.circle.wants(one)


def test_mdns_cannot_take_away_who_is_connected() -> None:
    machine = large()
    one, other = sorted(machine.circle.ring)[:2]
    machine.opened(one, dialled=True, spreads=True, now=0.0)
    machine.gone(one, 1.0)
    machine.gone(other, 1.0)
    assert one in machine.circle
    assert other not in machine.circle
