"""The findings of a run: medians, spread and ratios, as JSON for programs and as a table for people.

The keys of the JSON are flat: path, condition and figure, as in direct_tcp1_mbit, relay_lossy_tcp1_mbit; under each,
the median of every program.  "runs" has every single number.
"""

from __future__ import annotations

import re
import statistics
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from overlays.fairness import Shares
from overlays.measure import FIGURES, Figure
from overlays.wire import Condition

OURS = "conflux"
RELAY_COLUMN = f"{OURS} relayed"


@dataclass(frozen=True, slots=True)
class Run:
    """One value of one program, by one path, under one condition, in one round."""

    round: int
    program: str
    path: str
    condition: str
    figure: str
    value: float

    @property
    def key(self) -> str:
        """The key under which the JSON has this figure."""
        return "_".join(filter(None, (self.path, self.condition, self.figure)))


@dataclass(slots=True)
class Findings:
    """All figures of a run so far."""

    conditions: tuple[Condition, ...]
    about: dict[str, Any]  # machine, versions, settings
    runs: list[Run] = field(default_factory=list)
    shares: dict[tuple[str, str], list[Shares]] = field(default_factory=lambda: defaultdict(list))
    failures: list[str] = field(default_factory=list)

    def values(self) -> dict[str, dict[str, list[float]]]:
        """Return the values of every round, by key and program."""
        found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for run in self.runs:
            found[run.key][run.program].append(run.value)
        return found

    def medians(self) -> dict[str, dict[str, float]]:
        """Return the median of every program, by key."""
        return {
            key: {program: statistics.median(values) for program, values in programs.items()}
            for key, programs in self.values().items()
        }

    def as_json(self) -> dict[str, Any]:
        """Return everything, as plain values."""
        medians = self.medians()
        return {
            **self.about,
            "heads": self.heads(),
            **{key: rounded(programs) for key, programs in medians.items()},
            **self._fairness(),
            "conflux_to_others": {
                key: rounded(ratios(programs))
                for key, programs in medians.items()
                if OURS in programs and len(programs) > 1
            },
            "relay_to_direct": {
                figure: significant(programs[OURS] / medians[f"direct_{figure}"][OURS])
                for key, programs in medians.items()
                if (figure := key.removeprefix("relay_")) != key and medians.get(f"direct_{figure}", {}).get(OURS)
            },
            "spread": {
                key: {program: [significant(min(values)), significant(max(values))] for program, values in of.items()}
                for key, of in self.values().items()
            },
            "failures": self.failures,
            "runs": [
                {"round": run.round, "program": run.program, "figure": run.key, "value": significant(run.value)}
                for run in self.runs
            ],
            "fairness_runs": [
                {"condition": condition, "flows": flows, "mbit": [round(s.first, 2), round(s.second, 2)]}
                for (condition, flows), of in self.shares.items()
                for s in of
            ],
        }

    def _fairness(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for (condition, flows), of in self.shares.items():
            jain = found.setdefault(f"fairness_{condition}_jain", {})
            mbit = found.setdefault(f"fairness_{condition}_mbit", {})
            jain[flows] = round(statistics.median(s.jain for s in of), 3)
            mbit[flows] = [
                round(statistics.median(s.first for s in of), 2),
                round(statistics.median(s.second for s in of), 2),
            ]
        return found

    def heads(self) -> dict[str, str]:
        """Return every column of the table and the short version of what was measured in it."""
        versions = self.about.get("versions", {})
        return {column(run.program, run.path): short(versions.get(run.program, "")) for run in self.runs}

    # --- for people ---

    def table(self) -> str:
        """Return one block per condition: a line per figure, a column per program."""
        medians = self.medians()
        heads = self.heads()
        columns = list(heads)
        width = max((len(figure.text) for figure in FIGURES.values()), default=0) + 2
        widths = [max(len(name), len(heads[name]), 9) + 2 for name in columns]
        versions = "".join(f"{heads[name]:>{size}}" for name, size in zip(columns, widths, strict=True))
        lines = []
        for condition in self.conditions:
            rows = []
            for figure in FIGURES.values():
                cells = self._cells(medians, condition, figure)
                if cells:
                    best = best_of(cells, figure)
                    shown = "".join(
                        f"{cell(cells.get(name), starred=name == best):>{size}}"
                        for name, size in zip(columns, widths, strict=True)
                    )
                    rows.append(f"  {figure.text:<{width}}{figure.unit:>10}{shown}")
            if rows:
                head = "".join(f"{name:>{size}}" for name, size in zip(columns, widths, strict=True))
                lines.append(f"{condition!s:<{width + 12}}{head}")
                if versions.strip():
                    lines.append(f"{'':<{width + 12}}{versions}")
                lines += [*rows, ""]
        return "\n".join(lines + self._shares_table())

    def _cells(self, medians: dict[str, dict[str, float]], condition: Condition, figure: Figure) -> dict[str, float]:
        cells = {}
        for path in ("direct", "relay"):
            key = "_".join(filter(None, (path, condition.name, figure.name)))
            cells.update({column(program, path): value for program, value in medians.get(key, {}).items()})
        return cells

    def _shares_table(self) -> list[str]:
        lines = []
        fairness = self._fairness()
        for condition in dict.fromkeys(condition for condition, _ in self.shares):
            named = next(str(known) for known in self.conditions if known.name == condition)
            lines.append(f"two flows on one wire, {named}")
            for flows, (first, second) in fairness[f"fairness_{condition}_mbit"].items():
                jain = fairness[f"fairness_{condition}_jain"][flows]
                lines.append(f"  {flows:<18}{first:8.1f} + {second:4.1f} Mbit/s   Jain's index {jain:.3f}")
            lines.append("")
        return lines


def column(program: str, path: str) -> str:
    """Return the column of a program in the table."""
    return program if path == "direct" else f"{program} relayed"


def short(version: str) -> str:
    """Return the number or the day of a version, without the name before it and what a distribution adds."""
    found = re.search(r"\d{4}-\d\d-\d\d|\d+(?:\.\d+)+", version)
    return found[0] if found else ""


def best_of(cells: dict[str, float], figure: Figure) -> str:
    """Return the best column; the bare wire does not count."""
    overlays = {name: value for name, value in cells.items() if name != "bare"}
    if len(overlays) < 2:
        return ""
    choose = max if figure.more_is_better else min
    return choose(overlays, key=lambda name: overlays[name])


def ratios(programs: dict[str, float]) -> dict[str, float]:
    """Return Conflux's value divided by that of each other program."""
    ours = programs[OURS]
    return {name: ours / value for name, value in programs.items() if name != OURS and value}


def rounded(programs: dict[str, float]) -> dict[str, float]:
    """Return every value with four digits."""
    return {name: significant(value) for name, value in programs.items()}


def significant(value: float) -> float:
    """Return a value with four digits; none is known better."""
    return float(f"{value:.4g}")


def cell(value: float | None, *, starred: bool) -> str:
    """Return a value as the table shows it; "-" for none."""
    if value is None:
        return "-"
    shown = f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
    return f"*{shown}" if starred else shown
