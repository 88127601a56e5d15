"""Lines about what goes back and forth: a few at once, then one an hour that says how many there were."""

from __future__ import annotations

import logging
from collections.abc import Callable

from conflux.host.folding import LINE_COUNT, LINE_S, ROUNDING_S, THING_COUNT_MAX, Folded


class Desk:
    """A log, a clock and its timers."""

    def __init__(self, count: int = LINE_COUNT) -> None:
        self.now = 0.0
        self.lines: list[str] = []
        self._timers: list[tuple[float, Callable[[], None]]] = []
        log = logging.Logger("desk", logging.INFO)
        log.handle = lambda record: self.lines.append(record.getMessage())
        self.folded = Folded(log, count=count, now=lambda: self.now, later=self._later)

    def _later(self, delay_s: float, call: Callable[[], None]) -> None:
        self._timers.append((self.now + delay_s, call))

    def go_on(self, seconds: float) -> None:
        """Let time pass, and the timers that are due in it fire."""
        end = self.now + seconds
        while due := [timer for timer in self._timers if timer[0] <= end]:
            first = min(due, key=lambda timer: timer[0])
            self._timers.remove(first)
            self.now = first[0]
            first[1]()
        self.now = end


def test_the_first_lines_of_each_thing_are_written_at_once():
    desk = Desk()
    for thing in ("shed", "barn"):
        for number in range(LINE_COUNT):
            desk.folded.say(thing, f"{thing} {number}")
    assert len(desk.lines) == 2 * LINE_COUNT


def test_a_neighbour_that_flaps_for_a_day_makes_28_lines_and_the_last_is_how_it_is():
    desk = Desk()
    for minute in range(24 * 60):
        desk.folded.say("shed", f"shed {'lost' if minute % 2 else 'came'}")
        desk.go_on(60.0)
    desk.go_on(LINE_S)
    assert len(desk.lines) <= LINE_COUNT + 24
    assert desk.lines[-1].startswith("shed lost (and ")
    folded = sum(int(line.partition("(and ")[2].partition(" ")[0]) + 1 for line in desk.lines[LINE_COUNT:])
    assert LINE_COUNT + folded == 24 * 60


def test_one_line_that_was_folded_alone_is_written_as_it_is():
    desk = Desk(count=1)
    desk.folded.say("shed", "came")
    desk.folded.say("shed", "went")
    assert desk.lines == ["came"]
    desk.go_on(LINE_S + ROUNDING_S)
    assert desk.lines == ["came", "went"]


def test_what_was_quiet_for_hours_is_written_at_once_again():
    desk = Desk()
    for _ in range(LINE_COUNT):
        desk.folded.say("shed", "came")
    desk.go_on(LINE_COUNT * LINE_S)
    for _ in range(LINE_COUNT):
        desk.folded.say("shed", "came")
    assert len(desk.lines) == 2 * LINE_COUNT


def test_things_are_remembered_up_to_the_bound():
    desk = Desk(count=1)
    for thing in range(THING_COUNT_MAX + 1):
        desk.folded.say(thing, str(thing))
    desk.folded.say(THING_COUNT_MAX, "again")  # remembered, so it is folded
    desk.folded.say(0, "new")  # forgotten, so it is new
    assert desk.lines[-1] == "new"
    assert len(desk.lines) == THING_COUNT_MAX + 2
