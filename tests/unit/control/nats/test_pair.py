from __future__ import annotations

import random
from typing import Any, cast

from conflux.control.nats.config import PAIR_PING_S, PING_S
from conflux.control.nats.connection import Connection
from conflux.control.nats.pair import Pair

SERVERS = (("a", 1), ("b", 1), ("c", 1))


class Line:
    """What a pair needs of a connection."""

    def __init__(self, server: tuple[str, int]) -> None:
        self.server = server
        self.up = True
        self.in_doubt = False
        self.ping_s = 0.0
        self.closed = self

    def add_done_callback(self, _call: Any) -> None:
        """Take note of whom to tell of the end; the test tells."""


async def no_connection(_server: object) -> Connection:
    raise AssertionError


class Desk:
    """A pair whose connections come and go as the test likes."""

    def __init__(self, count: int = 3) -> None:
        self.changes = 0
        self.pair = Pair(SERVERS[:count], rng=random.Random(1), connect=no_connection, changed=self.changed)
        self.lines: list[Line] = []

    def changed(self) -> None:
        self.changes += 1

    def make(self, which: int, server: int) -> Line:
        """Have one of the two supervisors connect."""
        line = Line(SERVERS[server])
        self.pair._supervisors[which].connection = cast(Connection, line)
        self.pair._made(cast(Connection, line))
        return line

    def end(self, which: int) -> None:
        connection = self.pair._supervisors[which].connection
        cast(Any, connection).up = False
        self.pair._look()
        self.pair._supervisors[which].connection = None

    def has(self) -> tuple[object, object]:
        return self.pair.main, self.pair.spare


def test_first_connection_leads_whichever_it_is_and_keeps_the_lead():
    for which in (0, 1):
        desk = Desk()
        assert desk.has() == (None, None)
        first = desk.make(which, 0)
        second = desk.make(1 - which, 1)
        assert desk.has() == (first, second)
        assert desk.changes == 2


def test_second_connection_takes_the_lead_of_one_that_ended_and_keeps_it():
    desk = Desk()
    desk.make(0, 0)
    second = desk.make(1, 1)
    desk.end(0)
    assert desk.has() == (second, None)
    again = desk.make(0, 2)
    assert desk.has() == (second, again)


def test_two_connections_are_pinged_less_often_than_one():
    desk = Desk()
    first = desk.make(0, 0)
    assert first.ping_s == PING_S
    second = desk.make(1, 1)
    assert (first.ping_s, second.ping_s) == (PAIR_PING_S, PAIR_PING_S)
    desk.end(0)
    assert second.ping_s == PING_S


def test_connections_are_pinged_more_seldom_while_bytes_are_short_those_made_later_too():
    desk = Desk()
    first = desk.make(0, 0)
    desk.pair.stretch(4.0)
    assert first.ping_s == 4 * PING_S
    second = desk.make(1, 1)
    assert (first.ping_s, second.ping_s) == (4 * PAIR_PING_S, 4 * PAIR_PING_S)
    desk.pair.stretch(1.0)
    assert (first.ping_s, second.ping_s) == (PAIR_PING_S, PAIR_PING_S)


def test_second_connection_is_used_while_the_first_is_in_doubt_alone():
    desk = Desk()
    first, second = desk.make(0, 0), desk.make(1, 1)
    assert desk.pair.best is first
    first.in_doubt = True
    assert desk.pair.best is second
    second.in_doubt = True
    assert desk.pair.best is first
    desk.end(1)
    assert desk.pair.best is first


def test_one_server_gets_one_connection():
    desk = Desk(count=1)
    first = desk.make(0, 0)
    assert desk.has() == (first, None)
    assert len(desk.pair._supervisors) == 1


def test_second_connection_goes_to_another_server_than_the_first():
    desk = Desk()
    desk.make(0, 1)
    second = desk.pair._supervisors[1]
    assert sorted(second._order()) == [SERVERS[0], SERVERS[2]]
    assert sorted(desk.pair._supervisors[0]._order()) == sorted(SERVERS)
