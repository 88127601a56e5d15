"""`conflux ping NAME`: echo requests through the overlay; each line says which way, and the last one why it failed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from conflux.cli import context, entry, show
from conflux.cli.observe import print_json_line
from conflux.cli.why import describe_reason
from conflux.shell.words import way

Item = dict[str, Any]

ASKED_MS_MIN = 1.0  # a card that is here already is found faster

INDENT = " " * 6  # below the time of an answer
WIDTH = 80

_PHASES = {"set-up": "set-up", "search": "another path"}


def ping(options: argparse.Namespace) -> int:
    """Send echo requests; the exit code is 0 if any was answered."""
    daemon, tally = context.daemon(options), Tally()
    names = ("name", "count", "interval", "size", "timeout", "family")
    arguments = {name: getattr(options, name) for name in names}
    write = print_json_line if options.json else _writer(options.size)
    try:
        for item in daemon.stream("ping", **arguments):
            assert isinstance(item, dict)
            if "address" not in item:
                tally.add(item)
            write(item)
    except KeyboardInterrupt:
        if not options.json:
            sys.stdout.write("\n")
    why = None
    if tally.sent and not tally.is_answered_last:
        got = daemon.call("why", name=options.name)
        why = got if isinstance(got, dict) else None
    if options.json:
        print_json_line(tally.end(why))
    elif tally.sent:
        sys.stdout.write(tally.text() + "\n")
    if why is not None and not options.json:
        sys.stdout.flush()  # the reason is the last line, and stands on standard error
        entry.complain(describe_reason(why))
    return 0 if tally.answered else 1


def _writer(size: int) -> Callable[[Item], None]:
    """Return what writes items for a person."""

    def write(item: Item) -> None:
        sys.stdout.write((describe_target(item, size) if "address" in item else describe_reply(item)) + "\n")
        sys.stdout.flush()

    return write


def describe_target(item: Item, size: int) -> str:
    """Return which node is pinged, and how long it took to find it if its card had to be asked for."""
    found = f", found in {show.milliseconds(item['resolve_ms'])}" if item["resolve_ms"] >= ASKED_MS_MIN else ""
    return f"{item['name']} at {item['address']}{found}, {size} bytes"


def describe_reply(item: Item) -> str:
    """Return one request as a line, answered or not and by which way, and below it the steps to a way."""
    if item["rtt_ms"] is None:
        line = f"{item['sequence']:>4}  no answer"
    else:
        took = show.milliseconds(item["rtt_ms"])
        set_up = "" if item["open"] else ", with the set-up"
        by = "" if item["path"] is None else f"  {way(item['path'])}"
        line = f"{item['sequence']:>4}  {took}{by}{set_up}"
    for phase, title in _PHASES.items():
        steps = [_step(step) for step in item["steps"] if step["phase"] == phase]
        if steps:
            line += "\n" + _wrapped(f"{title}: ", steps)
    return line


def _wrapped(title: str, steps: list[str]) -> str:
    """Return steps behind a title, in lines of 80 characters; none is cut in two."""
    lines, line = [], INDENT + title
    for number, step in enumerate(steps):
        text = step + ("," if number + 1 < len(steps) else "")
        if len(line) + len(text) > WIDTH and line.strip() != title.strip():
            lines.append(line.rstrip())
            line = " " * len(INDENT + title)
        line += text + " "
    return "\n".join((*lines, line.rstrip()))


def _step(step: Item) -> str:
    """Return "dial by shed 41 ms" or "failed by shed (no-relay) 41 ms"; the direct path needs no word."""
    words = [step["event"]]
    if step["path"] is not None and len(step["path"]) > 1:
        words.append(way(step["path"]))
    if step["reason"] is not None:
        words.append(f"({step['reason']})")
    return " ".join((*words, str(show.milliseconds(step["after_ms"]))))


@dataclass(slots=True)
class Tally:
    """What became of all requests so far.  Round trips are those over an open way; a set-up is no round trip."""

    sent: int = 0
    answered: int = 0
    set_up_ms: float | None = None  # of the first answer that waited for a way
    open_count: int = 0
    least_ms: float = float("inf")
    most_ms: float = 0.0
    total_ms: float = 0.0
    is_answered_last: bool = False

    def add(self, item: Item) -> None:
        """Count one request."""
        self.sent += 1
        rtt_ms = item["rtt_ms"]
        self.is_answered_last = rtt_ms is not None
        if rtt_ms is None:
            return
        self.answered += 1
        if item["open"]:
            self.open_count += 1
            self.total_ms += rtt_ms
            self.least_ms, self.most_ms = min(self.least_ms, rtt_ms), max(self.most_ms, rtt_ms)
        elif self.set_up_ms is None:
            self.set_up_ms = rtt_ms

    def end(self, why: Item | None) -> Item:
        """Return it for programs, as api/ping.py's PingEnd.  why: the answer of the daemon."""
        count = self.open_count
        return {
            "requests": self.sent,
            "answers": self.answered,
            "set_up_ms": self.set_up_ms,
            "least_ms": round(self.least_ms, 3) if count else None,
            "mean_ms": round(self.total_ms / count, 3) if count else None,
            "most_ms": round(self.most_ms, 3) if count else None,
            "why": why,
        }

    def text(self) -> str:
        """Return it as a line, and the times as another."""
        lost = 100 * (self.sent - self.answered) / self.sent
        text = f"{self.sent} sent, {self.answered} answered, {lost:.0f} % lost"
        times = [] if self.set_up_ms is None else [f"with the set-up {show.milliseconds(self.set_up_ms)}"]
        if self.open_count:
            least, mean, most = self.least_ms, self.total_ms / self.open_count, self.most_ms
            named = (("least", least), ("mean", mean), ("most", most))
            times.append("open way: " + ", ".join(f"{name} {show.milliseconds(value)}" for name, value in named))
        return "\n".join((text, "; ".join(times))) if times else text
