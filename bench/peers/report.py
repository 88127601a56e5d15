"""What a run found: medians, spread and ratios, as JSON for programs and as a table for people.

The keys of the JSON are flat: path, condition and figure, as in direct_tcp1_mbit, relay_lossy_tcp1_mbit; under each,
the median of every program.  "runs" has every single number.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from fairness import Shares
from measure import FIGURES, Figure
from wire import Condition

OURS = "conflux"
RELAY_COLUMN = "conflux relayed"


@dataclass(frozen=True, slots=True)
class Run:
    """One number: of one program, by one path, under one condition, in one round."""

    round: int
    program: str
    path: str
    condition: str
    figure: str
    value: float

    @property
    def key(self) -> str:
        return "_".join(filter(None, (self.path, self.condition, self.figure)))


@dataclass(slots=True)
class Findings:
    """All that a session has measured so far."""

    conditions: tuple[Condition, ...]
    about: dict[str, Any]  # machine, versions, settings
    runs: list[Run] = field(default_factory=list)
    shares: dict[tuple[str, str], list[Shares]] = field(default_factory=lambda: defaultdict(list))
    failures: list[str] = field(default_factory=list)

    def values(self) -> dict[str, dict[str, list[float]]]:
        """Key, program, and what it reached in every round."""
        found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for run in self.runs:
            found[run.key][run.program].append(run.value)
        return found

    def medians(self) -> dict[str, dict[str, float]]:
        return {
            key: {program: statistics.median(values) for program, values in programs.items()}
            for key, programs in self.values().items()
        }

    def as_json(self) -> dict[str, Any]:
        medians = self.medians()
        return {
            **self.about,
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

    # --- for people ---

    def table(self) -> str:
        """One block per condition: a line per figure, a column per program."""
        medians = self.medians()
        columns = list(dict.fromkeys(column(run.program, run.path) for run in self.runs))
        width = max((len(figure.text) for figure in FIGURES.values()), default=0) + 2
        widths = [max(len(name), 9) + 2 for name in columns]
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
                lines += [f"{condition!s:<{width + 12}}{head}", *rows, ""]
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
    return program if path == "direct" else RELAY_COLUMN


def best_of(cells: dict[str, float], figure: Figure) -> str:
    """Return the column that does best, bare wires aside."""
    overlays = {name: value for name, value in cells.items() if name != "bare"}
    if len(overlays) < 2:
        return ""
    choose = max if figure.more_is_better else min
    return choose(overlays, key=lambda name: overlays[name])


def ratios(programs: dict[str, float]) -> dict[str, float]:
    """How many times what each of the others has, Conflux has."""
    ours = programs[OURS]
    return {name: ours / value for name, value in programs.items() if name != OURS and value}


def rounded(programs: dict[str, float]) -> dict[str, float]:
    return {name: significant(value) for name, value in programs.items()}


def significant(value: float) -> float:
    """Keep four figures: nothing here is known better."""
    return float(f"{value:.4g}")


def cell(value: float | None, *, starred: bool) -> str:
    if value is None:
        return "-"
    shown = f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
    return f"*{shown}" if starred else shown
