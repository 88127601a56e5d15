"""One bench from beginning to end: every part in turn.  A part that cannot be measured does not stop the others."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from conflux.bench import calls, child, machine, process
from conflux.bench.figure import PARTS, Figure, PartSkipped, Plan, Recorder
from conflux.bench.report import FAILED, SKIPPED, Missing, Report
from conflux.errors import ConfluxError

Measure = Callable[[Plan, Recorder], None]


class Rounds:
    """A Recorder that puts the rounds of several processes together: one of each in a round."""

    def __init__(self, recorder: Recorder, count: int) -> None:
        self._recorder = recorder
        self._count = count
        self._figures: dict[str, Figure] = {}
        self.number = 0  # of the process that is running

    def step(self, part: str, what: str) -> None:
        """See Recorder."""
        self._recorder.step(part, f"{what}, round {self.number} of {self._count}")

    def figure(self, figure: Figure) -> None:
        """See Recorder."""
        before = self._figures.get(figure.name)
        rounds = () if before is None else before.rounds
        self._figures[figure.name] = replace(figure, rounds=rounds + figure.rounds)

    def setting(self, name: str, value: object) -> None:
        """See Recorder."""
        self._recorder.setting(name, value)

    def finish(self) -> None:
        """Pass the figures on."""
        for figure in self._figures.values():
            self._recorder.figure(figure)


def apart(words: list[str]) -> Measure:
    """Return what measures each round in a process of its own.

    Where threads happen to run, and whether one keeps another busy, differs between processes more than within one.
    """

    def measure(plan: Plan, recorder: Recorder) -> None:
        rounds = Rounds(recorder, plan.round_count)
        try:
            for number in range(plan.round_count):
                rounds.number = number + 1
                child.run(words, plan, rounds)
        finally:
            rounds.finish()

    return measure


# "memory" is missing here: the parts that start processes measure it.
MEASURES: Final[dict[str, Measure]] = {
    "ciphers": calls.ciphers,
    "codec": calls.frames,
    "handshake": calls.handshake,
    "start": process.starts,
    "link": apart(child.command("conflux.bench.link")),
    "tunnel": apart(child.command("conflux.bench.tunnel")),
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
