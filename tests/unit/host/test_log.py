"""The log: how many lines of one place pass."""

from __future__ import annotations

import logging

from conflux.host.log import LINE_COUNT_MAX, LINE_WINDOW_S, LineRation


def line(number: int, level: int = logging.INFO) -> logging.LogRecord:
    return logging.LogRecord("conflux.x", level, "x.py", number, "%s is not a neighbour", ("mallory",), None)


def test_lines_that_a_peer_can_cause_are_rationed_by_their_place_in_the_code() -> None:
    now = 0.0
    ration = LineRation(lambda: now)
    assert [ration.filter(line(1)) for _ in range(1000)].count(True) == LINE_COUNT_MAX
    assert ration.filter(line(2))  # another place has its own
    now += LINE_WINDOW_S
    first, second = line(1), line(1)
    assert ration.filter(first)
    assert ration.filter(second)
    assert first.getMessage() == "mallory is not a neighbour (and 970 such lines before it)"
    assert second.getMessage() == "mallory is not a neighbour"


def test_debug_lines_are_what_a_person_asked_for() -> None:
    ration = LineRation(lambda: 0.0)
    assert all(ration.filter(line(1, logging.DEBUG)) for _ in range(1000))
