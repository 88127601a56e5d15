"""`conflux ping`: each line says which way, a set-up is no round trip, and the last line says why it failed."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterator

import pytest

from conflux.api.ping import PingEnd
from conflux.cli import context, ping

TARGET = {"name": "sensor", "node": "s" * 26, "address": "fd00::2", "resolve_ms": 0.1}
OPTIONS = {"name": "sensor", "count": 2, "interval": 1.0, "size": 56, "timeout": 12.0, "family": 0}
WHY = {
    "asked": "sensor",
    "name": "sensor",
    "verdict": "retrying",
    "left_at": None,
    "handshake": None,
    "path": None,
    "tried": [
        {
            "path": ["shed", "sensor"],
            "outcome": "failed",
            "failure": {"step": "hop", "reason": "no-relay", "said": "no-relay", "who": "shed"},
        }
    ],
}


class Daemon:
    """A daemon that gives some items, is interrupted if it was told so, and then says why."""

    def __init__(self, *items: object, interrupted: bool = False) -> None:
        self.asked: list[tuple[str, dict[str, object]]] = []
        self._items, self._interrupted = items, interrupted

    def call(self, do: str, **arguments: object) -> object:
        self.asked.append((do, arguments))
        return WHY

    def stream(self, do: str, **arguments: object) -> Iterator[object]:
        self.asked.append((do, arguments))
        yield from self._items
        if self._interrupted:
            raise KeyboardInterrupt


def reply(
    sequence: int, rtt_ms: float | None, *path: str, is_open: bool = True, steps: object = ()
) -> dict[str, object]:
    return {
        "sequence": sequence,
        "rtt_ms": rtt_ms,
        "open": is_open,
        "path": list(path) or None,
        "steps": list(steps),
    }


def step(phase: str, event: str, after_ms: float, *path: str, reason: str | None = None) -> dict[str, object]:
    return {"phase": phase, "event": event, "after_ms": after_ms, "path": list(path) or None, "reason": reason}


@pytest.fixture
def run(monkeypatch, capsys):
    """Return a function that pings by a daemon, and returns the exit code and what was printed."""

    def run(daemon: Daemon, *, json: bool = False) -> tuple[int, str, str]:
        monkeypatch.setattr(context, "daemon", lambda options: daemon)
        code = ping.ping(Namespace(json=json, **OPTIONS))
        return code, *capsys.readouterr()

    return run


def test_every_line_says_by_which_relay_or_direct_and_a_set_up_is_no_round_trip(run):
    steps = (step("set-up", "dial", 11, "shed", "sensor"), step("set-up", "frames", 44, "shed", "sensor"))
    beside = (step("search", "dial", 303, "sensor"), step("search", "failed", 900, "sensor", reason="dial: timeout"))
    daemon = Daemon(
        TARGET,
        reply(1, 50.0, "shed", "sensor", is_open=False, steps=steps),
        reply(2, 3.0, "shed", "sensor", steps=beside),
        reply(3, 1.0, "sensor"),
        reply(4, 2.0),
    )
    code, out, err = run(daemon)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "sensor at fd00::2, 56 bytes",
        "   1  50 ms  by shed, with the set-up",
        "      set-up: dial by shed 11 ms, frames by shed 44 ms",
        "   2  3.00 ms  by shed",
        "      another path: dial 303 ms, failed (dial: timeout) 900 ms",
        "   3  1.00 ms  direct",
        "   4  2.00 ms",
        "4 sent, 4 answered, 0 % lost",
        "with the set-up 50 ms; open way: least 1.00 ms, mean 2.00 ms, most 3.00 ms",
    ]
    assert daemon.asked == [("ping", OPTIONS)], "nothing failed, so nothing is asked"


def test_the_last_line_of_a_failure_is_the_reason(run):
    daemon = Daemon(TARGET, reply(1, None, is_open=False), reply(2, None, is_open=False))
    code, out, err = run(daemon)
    assert code == 1
    assert out.endswith("   2  no answer\n2 sent, 0 answered, 100 % lost\n")
    assert err == "conflux: sensor: shed does not relay (no-relay)\n"
    assert daemon.asked[-1] == ("why", {"name": "sensor"})


def test_a_ping_whose_last_request_is_lost_says_why_though_others_were_answered(run):
    code, _, err = run(Daemon(TARGET, reply(1, 1.0, "sensor"), reply(2, None)))
    assert code == 0
    assert "does not relay" in err
    code, _, err = run(Daemon(TARGET, reply(1, None), reply(2, 1.0, "sensor")))
    assert (code, err) == (0, "")


def test_an_interrupted_ping_still_prints_its_summary(run):
    code, out, err = run(Daemon(TARGET, reply(1, 3.0, "sensor"), interrupted=True))
    assert (code, err) == (0, "")
    assert out.endswith("\n\n1 sent, 1 answered, 0 % lost\nopen way: least 3.00 ms, mean 3.00 ms, most 3.00 ms\n")


def test_a_ping_that_is_interrupted_before_its_first_request_prints_no_summary(run):
    assert run(Daemon(TARGET, interrupted=True)) == (1, "sensor at fd00::2, 56 bytes\n\n", "")


def test_json_is_an_object_a_line_and_the_last_one_a_summary(run):
    items = (TARGET, reply(1, 50.0, "sensor", is_open=False), reply(2, 2.0, "sensor"), reply(3, None))
    code, out, err = run(Daemon(*items), json=True)
    assert (code, err) == (0, "")
    *lines, last = [json.loads(line) for line in out.splitlines()]
    assert tuple(lines) == tuple({"scheme": 1, **item} for item in items)
    assert last == {
        "scheme": 1,
        "requests": 3,
        "answers": 2,
        "set_up_ms": 50.0,
        "least_ms": 2.0,
        "mean_ms": 2.0,
        "most_ms": 2.0,
        "why": WHY,
    }
    assert list(last) == ["scheme", *PingEnd._fields]
    _, out, _ = run(Daemon(TARGET, reply(1, 1.0, "sensor")), json=True)
    assert json.loads(out.splitlines()[-1])["why"] is None


@pytest.mark.parametrize(("resolve_ms", "found"), [(0.02, ""), (4.1, ", found in 4.10 ms")])
def test_finding_a_node_is_told_if_it_took_asking(resolve_ms, found):
    assert ping.describe_target(TARGET | {"resolve_ms": resolve_ms}, 56) == f"sensor at fd00::2{found}, 56 bytes"


def test_many_steps_fit_eighty_columns_and_none_is_cut_in_two():
    steps = [step("set-up", "failed", 100.0 * number, "shed", "sensor", reason="dial: absent") for number in range(8)]
    first, *lines = ping.describe_reply(reply(1, None, is_open=False, steps=steps)).splitlines()
    assert first == "   1  no answer"
    assert lines[0].startswith("      set-up: failed by shed (dial: absent) 0.00 ms,")
    assert all(line.startswith("              failed by shed") for line in lines[1:])
    assert max(map(len, lines)) <= 80
    assert " ".join(" ".join(lines).split()).count("failed by shed (dial: absent) ") == 8
