"""`conflux top`: the node as it is now, drawn into the terminal again and again; into a pipe, once."""

from __future__ import annotations

import argparse
import os
import select
import shutil
import sys
import termios
import time
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from conflux.api.drops import DropKind, drop_rows
from conflux.cli import context, show
from conflux.cli.nodes import heard, reached
from conflux.cli.observe import Answer, answered
from conflux.errors import UserError
from conflux.web.source import device_bytes

NARROW = 72  # columns; in fewer, a line has half of its cells
COLUMNS_PIPED = 80
TRAFFIC_COUNT_MAX = 512  # samples: as many as a terminal has columns
BARS = "▁▂▃▄▅▆▇█"
DASH = "-"

ENTER, LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"  # another screen without a cursor, and back
HOME, CLEAR_LINE, CLEAR_REST = "\x1b[H", "\x1b[K", "\x1b[J"


class Traffic(NamedTuple):
    """Mbit/s between two looks; None: not known.  received: out of the overlay."""

    received_mbit: float | None
    sent_mbit: float | None


class _Counted(NamedTuple):
    at: float  # monotonic seconds
    received: int
    sent: int


class Meter:
    """Makes rates of what the TUN device has counted."""

    def __init__(self) -> None:
        self.past: list[Traffic] = []  # the oldest first
        self._before: _Counted | None = None

    def look(self, device: str, *, now: float) -> None:
        """Take note of what the device has carried until now."""
        counts = device_bytes(device)
        counted = None if counts is None else _Counted(now, *counts)
        before, self._before = self._before, counted
        if before is not None and counted is not None and now > before.at:
            seconds = now - before.at
            rates = (_mbit(counted.received - before.received, seconds), _mbit(counted.sent - before.sent, seconds))
            self.past = [*self.past, Traffic(*rates)][-TRAFFIC_COUNT_MAX:]


def _mbit(count: int, seconds: float) -> float | None:
    return None if count < 0 else count * 8e-6 / seconds  # less than before: the device was made anew


def top(options: argparse.Namespace) -> int:
    """Draw the node until q or Ctrl-C; print it once if standard output is no terminal."""
    daemon = context.daemon(options)
    got = answered(daemon.look("status"))  # without a daemon, this is one line
    meter = Meter()
    meter.look(got["device"]["name"], now=time.monotonic())
    if not (sys.stdout.isatty() and sys.stdin.isatty()):
        columns = int(os.environ.get("COLUMNS") or COLUMNS_PIPED)
        sys.stdout.write("\n".join(frame(got, meter.past, columns=columns, bars=_bars())) + "\n")
        return 0
    with _screen():
        while True:
            size = shutil.get_terminal_size()
            lines = frame(got, meter.past, columns=size.columns, bars=_bars())
            _draw([*_fitted(lines, size.lines - 1), "q ends"])
            if _asked_to_end(options.interval):
                return 0
            try:
                got = answered(daemon.look("status"))
                meter.look(got["device"]["name"], now=time.monotonic())
            except UserError as error:
                got = {**got, "warnings": [f"as it was: {error}"]}


def frame(got: Answer, past: Sequence[Traffic], *, columns: int, bars: str) -> list[str]:
    """Return the lines of one picture, none longer than columns.  bars: signs of growing height, or ""."""
    node, device = got["node"], got["device"]
    narrow = columns < NARROW
    lines = [
        f"{node['name']} in realm {got['realm']['name']}, up {show.duration(got['uptime_s'])}",
        *(f"! {warning}" for warning in got["warnings"]),
    ]
    if not device["up"]:
        lines.append(f"! {device['name']} is DOWN: packets do not pass")
    lines += ["", *_traffic(past, columns, bars), ""]
    lines += [*_nodes(got["nodes"], narrow), "", *_streams(got["streams"], narrow), "", *_links(got["links"], narrow)]
    if alarming := [row for row in drop_rows(got["drops"]) if row.kind is DropKind.ALARMING]:
        lines += ["", *_table(("dropped, and worth a look", "count"), [(row.reason, row.times) for row in alarming])]
    return [_cut(line, columns) for line in lines]


def _traffic(past: Sequence[Traffic], columns: int, bars: str) -> Iterator[str]:
    for name, rates in (
        ("received", [each.received_mbit for each in past]),
        ("sent", [each.sent_mbit for each in past]),
    ):
        now = rates[-1] if rates else None
        words = f"{name:<8}  {show.rate(now) or DASH:>11}"
        yield f"{words}  {spark(rates[-(columns - len(words) - 2) :], bars)}".rstrip()


def spark(values: Sequence[float | None], bars: str) -> str:
    """Return values as a line of bars, the highest of them full; "" without signs for that."""
    most = max((value for value in values if value is not None), default=0.0)
    if not bars:
        return ""
    return "".join(
        " " if value is None else bars[min(len(bars) - 1, int(value / most * len(bars)))] if most else bars[0]
        for value in values
    )


def _nodes(nodes: Sequence[Answer], narrow: bool) -> list[str]:
    if not nodes:
        return ["nodes: no other is known yet"]
    rows = [
        (
            each["name"],
            reached(each),
            *(() if narrow else (heard(each, time.time()),)),
            show.size(each["received_bytes"]),
            show.size(each["sent_bytes"]),
        )
        for each in nodes
    ]
    return _table(("node", "reached", *(() if narrow else ("heard",)), "received", "sent"), rows)


def _streams(streams: Sequence[Answer], narrow: bool) -> list[str]:
    if not streams:
        return ["streams: none, nothing is being sent or received"]
    rows = []
    for each in streams:
        name = f"{'to' if each['direction'] == 'out' else 'from'} {each['name']}"
        path = each.get("path")
        way = None if path is None else ", ".join(path[:-1]) or "direct"
        wide = () if narrow else (way, each["packets"])
        rows.append((name, each["state"], *wide, show.milliseconds(each.get("rtt_ms"))))
    return _table(("stream", "state", *(() if narrow else ("by", "packets")), "rtt"), rows)


def _links(links: Sequence[Answer], narrow: bool) -> list[str]:
    if not links:
        return ["links: none, no data-plane socket is open"]
    rows = [
        (
            each["name"],
            each["state"],
            *(
                ()
                if narrow
                else (show.duration(each["age_s"]), show.size(each["received_bytes"]), show.size(each["sent_bytes"]))
            ),
            show.milliseconds(each["rtt_ms"]),
            show.rate(each["rate_mbit"]),
        )
        for each in links
    ]
    return _table(("link", "state", *(() if narrow else ("age", "received", "sent")), "rtt", "rate"), rows)


def _table(header: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> list[str]:
    return show.table(header, rows).split("\n")


def _cut(line: str, columns: int) -> str:
    """Return a line that the terminal shows in one; a peer's signs that steer a terminal are not among them."""
    plain = "".join(each if each.isprintable() else "?" for each in line)
    return plain if len(plain) <= columns else plain[: columns - 1] + ">"


def _fitted(lines: list[str], rows: int) -> list[str]:
    return lines if len(lines) <= rows else [*lines[: rows - 1], f"... {len(lines) - rows + 1} lines more"]


# --- the terminal ---


def _bars() -> str:
    """Return the signs of a plot if standard output can show them."""
    try:
        BARS.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return ""
    return BARS


@contextmanager
def _screen() -> Iterator[None]:
    """Have the terminal to ourselves: keys come at once and are not shown.  It is as before afterwards."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        sys.stdout.write(ENTER)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
        sys.stdout.write(LEAVE)
        sys.stdout.flush()


def _draw(lines: Sequence[str]) -> None:
    sys.stdout.write(
        HOME + "".join(f"{line}{CLEAR_LINE}\n" for line in lines[:-1]) + lines[-1] + CLEAR_LINE + CLEAR_REST
    )
    sys.stdout.flush()


def _asked_to_end(within_s: float) -> bool:
    """Wait, and say whether q was pressed or the terminal is gone."""
    ready, _, _ = select.select([sys.stdin], [], [], within_s)
    return bool(ready) and os.read(sys.stdin.fileno(), 64) in (b"", b"q", b"Q", b"\x04")
