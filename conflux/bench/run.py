"""One bench from beginning to end: every part in turn.  A part that cannot be measured does not stop the others."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from conflux.bench import calls, child, machine, process
from conflux.bench.figure import PARTS, Figure, PartSkipped, Plan, Recorder
from conflux.bench.report import FAILED, SKIPPED, Missing, Report
from conflux.errors import ConfluxError

Measure = Callable[[Plan, Recorder], None]


def _apart(module: str) -> Measure:
    def measure(plan: Plan, recorder: Recorder) -> None:
        child.run(child.command(module), plan, recorder)

    return measure


# "memory" is missing here: the parts that start processes measure it.
MEASURES: Final[dict[str, Measure]] = {
    "ciphers": calls.ciphers,
    "codec": calls.frames,
    "handshake": calls.handshake,
    "start": process.starts,
    "link": _apart("conflux.bench.link"),
    "tunnel": _apart("conflux.bench.tunnel"),
}


class Findings:
    """A Recorder that keeps figures and settings, and passes each step on as a line."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self.figures: list[Figure] = []
        self.settings: dict[str, Any] = {}

    def step(self, part: str, what: str) -> None:
        """See Recorder."""
        self._say(f"{part}: {what}")

    def figure(self, figure: Figure) -> None:
        """See Recorder."""
        self.figures.append(figure)

    def setting(self, name: str, value: object) -> None:
        """See Recorder."""
        self.settings[name] = value


def run(plan: Plan, say: Callable[[str], None], measures: dict[str, Measure] = MEASURES) -> Report:
    """Measure everything that can be measured here.  say: gets a line for every step."""
    findings = Findings(say)
    missing: list[Missing] = []
    began = time.monotonic()
    facts, before = machine.describe(), machine.condition()
    for part, measure in measures.items():
        try:
            measure(plan, findings)
        except PartSkipped as skipped:
            missing.append(Missing(part, SKIPPED, str(skipped)))
        except (ConfluxError, OSError) as error:
            missing.append(Missing(part, FAILED, str(error)))
        else:
            continue
        say(f"{part}: {missing[-1].how}: {missing[-1].why}")
    order = list(PARTS)
    return Report(
        quick=plan.quick,
        seconds=time.monotonic() - began,
        machine=facts,
        before=before,
        after=machine.condition(),
        settings=findings.settings,
        figures=tuple(sorted(findings.figures, key=lambda figure: order.index(figure.part))),
        missing=tuple(missing),
    )
