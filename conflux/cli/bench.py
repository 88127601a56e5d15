"""`conflux bench`: measure this board and write a report, or compare two reports."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from itertools import groupby
from pathlib import Path

from conflux.bench import report as reports
from conflux.bench.figure import PARTS, Plan
from conflux.bench.report import Ratio, Report, digits, facts, warnings
from conflux.cli import context, show
from conflux.cli.entry import lives_long
from conflux.cli.observe import print_blocks, print_json
from conflux.errors import UsageError, UserError


def bench(options: argparse.Namespace) -> int:
    """Measure, print, and write the report; or compare two."""
    if options.compare:
        if options.quick or options.out or options.force:
            raise UsageError("--compare measures nothing: leave --quick, --out and --force out")
        return _compare(*options.compare, as_json=options.json)
    directory = options.out or Path()
    for name in (reports.JSON_NAME, reports.PAGE_NAME):
        context.require_new(directory / name, force=options.force)
    return _measure(directory, quick=options.quick, as_json=options.json)


def _measure(directory: Path, *, quick: bool, as_json: bool) -> int:
    if os.environ.get("CONFLUX_PURE") == "1":
        raise UserError("CONFLUX_PURE=1 is set: what would be measured is not what moves packets")
    _check_writable(directory)
    lives_long()
    from conflux.bench.page import page
    from conflux.bench.run import run  # loads WebRTC, which comparing does not need

    began = time.monotonic()

    def say(line: str) -> None:
        sys.stderr.write(f"{time.monotonic() - began:4.0f} s  {line}\n")
        sys.stderr.flush()

    report = run(Plan.of(quick=quick), say)
    plain = reports.encode(report)
    if as_json:
        print_json(plain)
    else:
        print_blocks(*describe(report))
    for name, text in (
        (reports.JSON_NAME, json.dumps(plain, indent=1, ensure_ascii=False) + "\n"),
        (reports.PAGE_NAME, page(report)),
    ):
        context.write_file(directory / name, text.encode())
    sys.stderr.write(f"written to {directory / reports.JSON_NAME} and {directory / reports.PAGE_NAME}\n")
    return 1 if report.failed else 0


def _check_writable(directory: Path) -> None:
    """Raise UserError if the report cannot be written: before a minute of measuring, not after it."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except FileExistsError:
        raise UserError(f"cannot write to {directory}: it is not a directory") from None
    except OSError as error:
        raise UserError(f"cannot write to {directory}: {error.strerror}") from None


def describe(report: Report) -> list[str]:
    """Return a report's blocks for a terminal."""
    blocks = [show.fields(facts(report))]
    for part, figures in groupby(report.figures, key=lambda figure: figure.part):
        rows = [
            (figure.title, digits(figure.median), digits(figure.least), digits(figure.most), figure.unit)
            for figure in figures
        ]
        blocks.append(f"{PARTS[part]}\n" + show.table(("", "median", "least", "most", ""), rows, indent="  "))
    remarks = [f"{part.part}: {part.how}: {part.why}" for part in report.missing]
    remarks += [f"warning: {text}" for text in warnings(report)]
    return [*blocks, "\n".join(remarks)]


# ── comparing ──


def _compare(first_path: Path, second_path: Path, *, as_json: bool) -> int:
    first, second = (
        reports.decode_untrusted(context.read_file(path, reports.BYTES_MAX), str(path))
        for path in (first_path, second_path)
    )
    rows = list(reports.compare(first, second))
    if as_json:
        return print_json({"figures": {row.figure.name: _plain(row) for row in rows}})
    blocks = [_printable(block) for block in describe_comparison(first, second, rows)]
    return print_blocks(*blocks)


def _plain(row: Ratio) -> dict[str, object]:
    times = None if row.times is None else round(row.times, 3)
    return {
        "unit": row.figure.unit,
        "a": row.first,
        "b": row.second,
        "b_times_as_good": times,
        "within_spread": row.within_spread,
        "regimes_differ": row.regimes_differ,
    }


def describe_comparison(first: Report, second: Report, rows: list[Ratio]) -> list[str]:
    """Return the blocks of two reports side by side."""
    ours, theirs = dict(facts(first)), dict(facts(second))
    differ = [name for name in dict.fromkeys([*ours, *theirs]) if ours.get(name) != theirs.get(name)]
    same = show.fields((name, ours[name]) for name in ours if name not in differ) if len(differ) < len(ours) else ""
    apart = [f"{name}\n  A  {ours.get(name, '-')}\n  B  {theirs.get(name, '-')}" for name in differ]
    blocks = [same, "\n".join(apart)]
    for part, group in groupby(rows, key=lambda row: row.figure.part):
        table = [
            (
                row.figure.title,
                _value(row.first),
                _value(row.second),
                row.figure.unit,
                None if row.times is None else f"{digits(row.times)} x",
                "~" if row.within_spread else "!" if row.regimes_differ else " ",  # an empty cell; None shows as a dash
            )
            for row in group
        ]
        lines = show.table(("", "A", "B", "", "B is as good", ""), table, indent="  ")
        blocks.append(f"{PARTS.get(part, part)}\n{lines}")
    blocks.append(
        "B is as good: how many times; above 1 B is the better one, whichever way a unit counts.\n"
        "~: the rounds of A and B overlap, so no difference was shown.\n"
        "!: more went together in one of them (see packets/frame, kB/super-packet): two regimes, no faster machine."
    )
    notes = [
        f"{name}: {part.part}: {part.how}: {part.why}"
        for name, each in (("A", first), ("B", second))
        for part in each.missing
    ]
    notes += [f"{name}: warning: {text}" for name, each in (("A", first), ("B", second)) for text in warnings(each)]
    return [*blocks, "\n".join(notes)]


def _value(value: float | None) -> str | None:
    return None if value is None else digits(value)


def _printable(block: str) -> str:
    """Return the block without characters that control a terminal: a report may come from another person."""
    return "".join(char if char.isprintable() or char == "\n" else "?" for char in block)
