"""The report: figures and the machine they belong to.  Kept as JSON, checked when read, compared.

    {"schema": "conflux-bench", "version": 1, "quick": false, "seconds": 71.2,
     "machine": {...}, "before": {...}, "after": {...},
     "settings": {"aead": "AES-256-GCM", ...},
     "figures": {"tunnel_tcp": {"part": "tunnel", "title": "TCP, one flow", "unit": "Gbit/s", "better": "more",
                                "median": 1.8, "least": 1.7, "most": 2.0, "rounds": [...]}, ...},
     "missing": [{"part": "tunnel", "how": "skipped", "why": "..."}]}

A name keeps its meaning and unit in every version of the program: a figure whose meaning changes gets another name.
The version counts up when a reader of the old one could not read the new.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from conflux.bench.figure import LESS, MORE, PARTS, Figure
from conflux.errors import UserError

SCHEMA: Final = "conflux-bench"
VERSION: Final = 1
JSON_NAME: Final = "conflux-bench.json"
PAGE_NAME: Final = "conflux-bench.html"
BYTES_MAX: Final = 1 << 20  # of a report that is read; one has 15 kB
SKIPPED: Final = "skipped"
FAILED: Final = "failed"

_DIGITS: Final = 5  # kept of a value; rounds differ in the third


@dataclass(frozen=True, slots=True)
class Missing:
    """A part without figures."""

    part: str
    how: str  # SKIPPED or FAILED
    why: str


@dataclass(frozen=True, slots=True)
class Report:
    """What a bench found."""

    quick: bool
    seconds: float
    machine: Mapping[str, Any]
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    settings: Mapping[str, Any]
    figures: tuple[Figure, ...]
    missing: tuple[Missing, ...]

    def of(self, part: str) -> list[Figure]:
        """Return the figures of a part."""
        return [figure for figure in self.figures if figure.part == part]

    def find(self, name: str) -> Figure | None:
        """Return the figure of that name, or None."""
        return next((figure for figure in self.figures if figure.name == name), None)

    @property
    def failed(self) -> bool:
        """Whether a part failed."""
        return any(part.how == FAILED for part in self.missing)


def encode(report: Report) -> dict[str, Any]:
    """Return the report as plain values."""
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "quick": report.quick,
        "seconds": round(report.seconds, 1),
        "machine": dict(report.machine),
        "before": dict(report.before),
        "after": dict(report.after),
        "settings": dict(report.settings),
        "figures": {
            figure.name: {
                "part": figure.part,
                "title": figure.title,
                "unit": figure.unit,
                "better": figure.better,
                "median": _rounded(figure.median),
                "least": _rounded(figure.least),
                "most": _rounded(figure.most),
                "rounds": [_rounded(value) for value in figure.rounds],
            }
            for figure in report.figures
        },
        "missing": [{"part": part.part, "how": part.how, "why": part.why} for part in report.missing],
    }


def decode_untrusted(data: bytes, name: str) -> Report:
    """Return the report that a file holds.  Raises UserError saying what is wrong with it.  name: the file's."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise UserError(f"{name}: not JSON") from None
    if not isinstance(value, dict) or value.get("schema") != SCHEMA:
        raise UserError(f"{name}: not a report of `conflux bench` (its {JSON_NAME} is wanted)")
    if value.get("version") != VERSION:
        raise UserError(f"{name}: a report of version {value.get('version')!r}; this program reads version {VERSION}")
    try:
        report = Report(
            quick=_typed(value["quick"], bool),
            seconds=_number(value["seconds"]),
            machine=_typed(value["machine"], dict),
            before=_typed(value["before"], dict),
            after=_typed(value["after"], dict),
            settings=_typed(value["settings"], dict),
            figures=tuple(
                _figure(_typed(key, str), _typed(fields, dict))
                for key, fields in _typed(value["figures"], dict).items()
            ),
            missing=tuple(
                Missing(*(_typed(each[field], str) for field in ("part", "how", "why"))) for each in value["missing"]
            ),
        )
        facts(report)  # machine and conditions have many shapes; a shape that cannot be shown is refused here
        warnings(report)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{name}: a damaged report ({type(error).__name__}: {error})") from None
    return report


def _figure(name: str, fields: dict[str, Any]) -> Figure:
    part, title, unit, better = (_typed(fields[field], str) for field in ("part", "title", "unit", "better"))
    rounds = tuple(_number(value) for value in _typed(fields["rounds"], list))
    if better not in (MORE, LESS) or not rounds or min(rounds) < 0:
        raise ValueError(f"figure {name}")
    return Figure(part, name, title, unit, better, rounds)


def _typed(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{kind.__name__} wanted")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise TypeError("a number is wanted")
    return float(value)


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


# ── comparing ──


@dataclass(frozen=True, slots=True)
class Ratio:
    """One figure of two reports.  times: how many times as good it is in the second; None if one has none."""

    figure: Figure  # either's: title and unit
    first: float | None
    second: float | None
    times: float | None
    within_spread: bool  # the rounds of one lie among those of the other: no difference was shown
    regimes_differ: bool = False  # what went together, in a frame or a super-packet, was not the same: see REGIMES


# How much travels together decides what a packet costs: a tenth, or ten times as much.  Two figures compare only while
# these, which a kernel or a scheduler decides anew in every process, are near each other.
REGIMES: Final = {
    "link_full_small": "link_small_bundle",
    "link_full_small_cpu": "link_small_bundle",
    "tunnel_tcp": "tunnel_tcp_super",
    "tunnel_tcp_cpu": "tunnel_tcp_super",
    "tunnel_udp": "tunnel_udp_bundle",
    "tunnel_udp_cpu": "tunnel_udp_bundle",
}
_REGIME_TIMES: Final = 2.0  # chosen: rounds of one regime differ by a third


def compare(first: Report, second: Report) -> Iterator[Ratio]:
    """Yield every figure that either has, in the order of parts."""
    names = dict.fromkeys(figure.name for report in (first, second) for figure in report.figures)
    pairs = [(first.find(name), second.find(name)) for name in names]
    order = {part: index for index, part in enumerate(PARTS)}
    rows = [
        replace(_ratio(ours, theirs), regimes_differ=_regimes_differ(ours, first, second)) for ours, theirs in pairs
    ]
    yield from sorted(rows, key=lambda row: order.get(row.figure.part, len(order)))


def _regimes_differ(figure: Figure | None, first: Report, second: Report) -> bool:
    name = "" if figure is None else REGIMES.get(figure.name, "")
    ours, theirs = first.find(name), second.find(name)
    if ours is None or theirs is None:
        return False
    less, more = sorted((ours.median, theirs.median))
    return more > _REGIME_TIMES * less


def _ratio(first: Figure | None, second: Figure | None) -> Ratio:
    if first is None or second is None or first.unit != second.unit:
        figure = first or second
        assert figure is not None
        return Ratio(figure, _median(first), _median(second), None, False)
    more, less = (second, first) if first.better == MORE else (first, second)
    times = more.median / less.median if less.median else None
    overlap = first.least <= second.most and second.least <= first.most
    return Ratio(first, first.median, second.median, times, overlap)


def _median(figure: Figure | None) -> float | None:
    return None if figure is None else figure.median


# ── words ──


def digits(value: float) -> str:
    """Return three digits of a figure: "1.84", "0.0521", "12.4", "1,520"."""
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{float(f'{value:.3g}'):,.0f}"
    places = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{places}f}"


def features(machine: Mapping[str, Any]) -> str | None:
    """Return "aes, crc32c; not: sha2", or None."""
    known = machine.get("cpu_features")
    if not isinstance(known, dict):
        return None
    there = ", ".join(name for name, has in known.items() if has) or "none"
    lacking = ", ".join(name for name, has in known.items() if not has)
    return f"{there}; not: {lacking}" if lacking else there


def facts(report: Report) -> list[tuple[str, str]]:
    """Return machine and conditions for a person, as (name, words); unknown facts are left out."""
    machine, before, after = report.machine, report.before, report.after
    versions = machine.get("versions") or {}
    count, cpu = machine.get("cpu_count"), machine.get("cpu")
    rows: list[tuple[str, Any]] = [
        ("board", machine.get("board")),
        ("processor", f"{count} x {cpu}" if count and cpu else cpu),
        ("instructions", features(machine)),
        ("frequency", _frequency(machine, before, after)),
        ("memory", machine.get("memory_mb") and f"{machine['memory_mb']:,} MB, pages of {machine.get('page_bytes')} B"),
        ("kernel", " ".join(str(machine[key]) for key in ("kernel", "architecture") if machine.get(key))),
        ("system", machine.get("system")),
        ("clock source", machine.get("clock_source")),
        ("virtual machine", "yes" if machine.get("virtual") else None),
        ("conflux", versions.get("conflux")),
        ("python", versions.get("python")),
        ("libcrypto", versions.get("openssl")),
        ("cryptography", versions.get("openssl_handshake")),
        ("cipher chosen", report.settings.get("aead")),
        ("temperature", _before_after(before, after, "temperature_c", "°C")),
        ("throttling", _throttling(before, after)),
        ("load average", _before_after(before, after, "load_average", "")),
        ("measured", f"{after.get('at')}, {report.seconds:.0f} s{', quick' if report.quick else ''}"),
    ]
    return [(name, str(value)) for name, value in rows if value]


def warnings(report: Report) -> list[str]:
    """Return the conditions that make the figures less reliable, one sentence each."""
    found = []
    load, count = report.before.get("load_average"), report.machine.get("cpu_count")
    if load and count and load > 0.5 * count:
        found.append(f"the machine was busy when the bench began (load average {load:g} on {count} processors)")
    if held := report.after.get("throttling"):
        found.append(f"the processor was held back: {', '.join(held)}")
    if report.machine.get("governor") == "powersave":
        found.append("the frequency governor is powersave")
    return found


def _frequency(machine: Mapping[str, Any], before: Mapping[str, Any], after: Mapping[str, Any]) -> str | None:
    words = []
    if now := _before_after(before, after, "cpu_mhz", " MHz"):
        words.append(now)
    if machine.get("cpu_mhz_max"):
        words.append(f"{machine.get('cpu_mhz_min')} to {machine['cpu_mhz_max']} MHz possible")
    if machine.get("governor"):
        words.append(f"governor {machine['governor']}")
    return ", ".join(words) or None


def _before_after(before: Mapping[str, Any], after: Mapping[str, Any], name: str, unit: str) -> str | None:
    values = [side.get(name) for side in (before, after)]
    if any(value is None for value in values):
        return None
    first, second = values
    return f"{first:g}{unit}" if first == second else f"{first:g}{unit} before, {second:g}{unit} after"


def _throttling(before: Mapping[str, Any], after: Mapping[str, Any]) -> str | None:
    said = after.get("throttling")
    if said is None:
        return None
    new = "" if said == before.get("throttling") else " (new during this bench)"
    return ", ".join(said) + new if said else "none"
