"""Pauses of what was given up: they double, end, and are bounded."""

from __future__ import annotations

from kit.nodes import id_of

from conflux.node import pauses
from conflux.node.pauses import PAUSE_S_MAX, PAUSE_S_MIN, Pauses

BRAVO, CAROL = id_of("bravo"), id_of("carol")


def test_pause_doubles_up_to_its_limit():
    held, now, lengths = Pauses(), 0.0, []
    for _ in range(7):
        held.begin(BRAVO, now)
        length = next(step for step in (1, 2, 4, 8, 16, 30, 60) if not held.holds(BRAVO, now + step))
        assert held.holds(BRAVO, now + length - 0.001)
        lengths.append(length)
        now += length
    assert lengths == [1, 2, 4, 8, 16, 30, 30]
    assert (lengths[0], lengths[-1]) == (PAUSE_S_MIN, PAUSE_S_MAX)


def test_ended_pause_begins_anew():
    held = Pauses()
    for _ in range(3):
        held.begin(BRAVO, 0.0)
    held.end(BRAVO)
    assert not held.holds(BRAVO, 0.0)
    held.begin(BRAVO, 0.0)
    assert not held.holds(BRAVO, PAUSE_S_MIN)


def test_count_of_pauses_is_bounded_and_the_oldest_goes_first(monkeypatch):
    monkeypatch.setattr(pauses, "PAUSE_COUNT_MAX", 1)
    held = Pauses()
    held.begin(BRAVO, 0.0)
    held.begin(CAROL, 0.0)
    assert not held.holds(BRAVO, 0.0)
    assert held.holds(CAROL, 0.0)


def test_pause_that_is_cut_short_ends_and_the_next_is_as_long_as_if_it_had_not_been():
    held = Pauses()
    for node in (BRAVO, CAROL):
        held.begin(node, 0.0)
    held.cut_short(lambda who: who == BRAVO, 0.0)
    assert (held.holds(BRAVO, 0.0), held.holds(CAROL, 0.0)) == (False, True)
    held.begin(BRAVO, 0.0)
    assert held.holds(BRAVO, PAUSE_S_MIN)
