"""Commands that ask the daemon: what they ask, what they print, and their exit codes."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterator

import pytest

from conflux.api import scheme
from conflux.cli import context, observe, route
from conflux.errors import UserError


class Daemon:
    """A daemon that gives one answer, or some items."""

    def __init__(self, answer: object = None, items: tuple[object, ...] = ()) -> None:
        self.asked: list[tuple[str, dict[str, object]]] = []
        self._answer, self._items = answer, items

    def look(self, do: str, **arguments: object) -> object:
        return self.call(do, **arguments)

    def call(self, do: str, **arguments: object) -> object:
        self.asked.append((do, arguments))
        return self._answer

    def stream(self, do: str, **arguments: object) -> Iterator[object]:
        self.asked.append((do, arguments))
        yield from self._items


@pytest.fixture
def run(monkeypatch, capsys):
    """Return a function that runs a command against a daemon, and returns its exit code and output."""

    def run(command, daemon: Daemon, **options: object) -> tuple[int, str]:
        monkeypatch.setattr(context, "daemon", lambda options: daemon)
        code = command(Namespace(**({"json": False} | options)))
        return code, capsys.readouterr().out

    return run


@pytest.mark.parametrize(
    ("command", "answer", "text"),
    [
        (observe.streams, {"streams": []}, "streams: none, nothing is being sent or received\n"),
        (observe.links, {"links": []}, "links: none, no data-plane socket is open\n"),
        (observe.paths, {"routes": [], "relays": [], "paths": []}, "routes: none\n"),
    ],
)
def test_a_question_is_printed_for_people_or_for_programs(run, command, answer, text):
    daemon = Daemon(answer)
    assert run(command, daemon) == (0, text)
    code, out = run(command, daemon, json=True)
    assert (code, json.loads(out)) == (0, scheme.answer(answer))
    assert daemon.asked == [(command.__name__, {})] * 2


@pytest.mark.parametrize("answer", [None, [], "yes", 7])
@pytest.mark.parametrize("command", [observe.status, observe.streams, observe.links, observe.paths])
def test_an_answer_of_another_shape_is_refused(run, command, answer):
    with pytest.raises(UserError, match="makes no sense: is it of another version"):
        run(command, Daemon(answer))


def test_events_are_printed_as_they_come(run):
    event = {"event": "frames", "at": 0.25, "name": "sensor", "text": "", "took_ms": None, "node": None}
    daemon = Daemon(items=(event, {"event": "events-lost", "lost_events": 17}))
    code, out = run(observe.watch, daemon)
    first, second = out.splitlines()
    assert code == 0
    assert first.endswith(".250  frames       sensor")
    assert second.endswith("17 events were lost: this reader is too slow")
    queue = event | {"event": "queue", "text": "packets wait for sensor"}
    assert run(observe.watch, Daemon(items=(queue,)))[1].endswith("  queue        packets wait for sensor\n")
    code, out = run(observe.watch, Daemon(items=(event,)), json=True)
    assert (code, json.loads(out)) == (0, scheme.answer(event))


def test_a_route_is_asked_for_by_name(run):
    answer = {"name": "sensor", "node": "s" * 26, "state": None, "path": None, "paths": []}
    daemon = Daemon(answer)
    assert run(route.explain, daemon, name="sensor") == (
        0,
        "sensor: no stream goes there now\n\nno path to it is known\n",
    )
    code, out = run(route.explain, daemon, name="sensor", json=True)
    assert (code, json.loads(out)) == (0, scheme.answer(answer))
    assert daemon.asked == [("route", {"name": "sensor"})] * 2


def test_a_move_is_asked_for_with_its_path(run):
    answer = {"name": "sensor", "before": ["sensor"], "after": ["gate", "sensor"], "took_ms": 43.6}
    daemon = Daemon(answer)
    asked = {"name": "sensor", "via": "gate", "direct": False}
    assert run(route.move, daemon, **asked) == (0, "sensor moved in 44 ms\n  before  direct\n  now     gate\n")
    code, out = run(route.move, daemon, json=True, **asked)
    assert (code, json.loads(out)) == (0, scheme.answer(answer))
    assert daemon.asked == [("move", asked)] * 2
