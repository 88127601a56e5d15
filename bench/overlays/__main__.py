"""Conflux beside other overlays, on one machine, in one session: `make bench-peers`.

      for every round                               everything runs in network namespaces
        for every overlay, the order turning        that end with this program: see ground.py, wire.py
          new hosts, its daemons ----> clean LAN ----> the wire narrow ----> long and lossy ----> all of it
        two flows on one narrow wire

Leaves build/bench-peers.json and build/bench-peers.svg, and prints a table.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

from overlays import wire
from overlays.chart import chart
from overlays.fairness import PAIRS, SETTLE_S, Fairness, Shares
from overlays.measure import Measuring, Plan, machine
from overlays.overlays import ALL, Overlay, Programs
from overlays.report import Findings, Run
from overlays.wire import Condition
from rig.enter import deliver
from rig.topology import LabFailure

RATE_MBIT = 50.0
RTT_MS = 50.0
LOSS_PERCENT = 1.0
QUEUE_BYTES = int(RATE_MBIT * 1e6 / 8 * RTT_MS / 1e3)  # one bandwidth-delay product, as access links have
SEED = 1

CLEAN = Condition("")
RATE = Condition("rate", rate_mbit=RATE_MBIT, queue_bytes=QUEUE_BYTES)
LOSSY = Condition("lossy", rtt_ms=RTT_MS, loss_percent=LOSS_PERCENT)
LOSSY_RATE = Condition(
    "lossy_rate", rtt_ms=RTT_MS, loss_percent=LOSS_PERCENT, rate_mbit=RATE_MBIT, queue_bytes=QUEUE_BYTES
)
LONG_RATE = Condition("long_rate", rtt_ms=RTT_MS, rate_mbit=RATE_MBIT, queue_bytes=QUEUE_BYTES)
SHARED = (RATE, LONG_RATE)  # two flows compete on these


ERASE = "\r\033[K"  # removes the progress line


class Progress:
    """One line that shows how far the run is; without a terminal, one line per overlay."""

    def __init__(self, steps: int) -> None:
        self._steps, self._done = steps, 0
        self._started = time.monotonic()
        self._place = ""
        self._live = sys.stdout.isatty()

    def at(self, place: str) -> None:
        """Note which overlay is measured now."""
        self._place = place
        if not self._live:
            print(f"bench-peers: {self._ahead()}  {place}", flush=True)

    def step(self, what: str) -> None:
        """Note that the next figure is measured now."""
        if self._live:
            print(f"{ERASE}bench-peers: {self._ahead()}  {self._place}: {what}", end="", flush=True)
        self._done += 1

    def say(self, text: str) -> None:
        """Print a line above the progress line."""
        print(f"{ERASE if self._live else ''}bench-peers: {text}", flush=True)

    def end(self) -> None:
        """Remove the progress line."""
        if self._live:
            print(ERASE, end="", flush=True)

    def _ahead(self) -> str:
        share = min(self._done / self._steps, 1.0)
        if share < 0.03:
            return f"{share:4.0%}"
        left_s = (time.monotonic() - self._started) * (1 - share) / share
        return f"{share:4.0%}, {left_s / 60:.0f} min left" if left_s > 90 else f"{share:4.0%}, {left_s:.0f} s left"


def main() -> int:
    """Measure every overlay in every round; return 1 if Conflux or the fairness part failed."""
    options = arguments()
    programs = Programs(options.overlays)
    chosen, absent = choose(options.only, programs)
    conditions: tuple[Condition, ...] = (CLEAN, RATE, LOSSY, LOSSY_RATE)
    fair = options.only is None or "fairness" in options.only
    if lacking := wire.missing():
        print(f"bench-peers: {lacking}: clean wires only, no delay, loss, rate or fairness")
        conditions, fair = (CLEAN,), False
    plan = Plan(clean_s=options.seconds, bad_s=2 * options.seconds, four_flows_s=options.seconds, conditions=conditions)
    rounds = 1 if options.quick else options.rounds
    if options.only is None:
        absent = {**programs.absent(), **absent}
    for name, reason in absent.items():
        print(f"bench-peers: without {name}: {reason}")

    findings = Findings(
        (*conditions, LONG_RATE) if fair else conditions,
        {
            "machine": machine(),
            "versions": {kind.name: kind.version(programs) for kind in chosen},
            "absent": absent,
            "settings": {
                "rounds": rounds,
                "seconds": {"clean": plan.clean_s, "impaired": plan.bad_s},
                "conditions": {str(known): known.name or "(no prefix)" for known in (*conditions, LONG_RATE)},
                "queue_bytes": QUEUE_BYTES,
                "seed": SEED,
            },
        },
    )
    progress = Progress(rounds * (len(chosen) * plan.step_count() + fair * len(SHARED) * len(PAIRS)))
    started = time.monotonic()
    for number in range(rounds):
        turned = chosen[number % len(chosen) :] + chosen[: number % len(chosen)] if chosen else []
        for kind in turned:
            progress.at(f"round {number + 1} of {rounds}, {kind.name}{' over a relay' * (kind.path == 'relay')}")
            measure(kind, programs, plan, number, findings, progress)
        if fair:
            progress.at(f"round {number + 1} of {rounds}, fairness")
            share(2 * options.seconds, number, findings, progress)
        findings.about["settings"]["took_s"] = round(time.monotonic() - started)
        findings.about["machine"]["load_after"] = os.getloadavg()[0]
        deliver("bench-peers.json", json.dumps(findings.as_json(), indent=1) + "\n")
    progress.end()
    deliver("bench-peers.svg", chart(findings))
    told = findings.about["machine"]
    print(f"\n{told['processor']}, {told['cores']} cores, Linux {told['kernel']}; medians of {rounds}; * the best\n")
    print(findings.table())
    if findings.failures:
        print("what failed, and stands as '-' or with fewer runs above:")
        print("\n".join(f"  {gist(failure)}" for failure in findings.failures))
    print("build/bench-peers.json has all of it, build/bench-peers.svg the picture.")
    return int(any(failure.startswith(f"{kind} ") for failure in findings.failures for kind in ("conflux", "fairness")))


def gist(failure: str) -> str:
    """Return the first line of a failure and the last line of its log; the JSON has all of it."""
    lines = [line.strip() for line in failure.splitlines() if line.strip()]
    return " … ".join(dict.fromkeys((lines[0], lines[-1])))


def measure(
    kind: type[Overlay], programs: Programs, plan: Plan, number: int, findings: Findings, progress: Progress
) -> None:
    """Take all figures of one overlay once."""

    def note(condition: Condition, figure: str, value: float) -> None:
        findings.runs.append(Run(number + 1, kind.name, kind.path, condition.name, figure, value))

    def fail(what: str) -> None:
        findings.failures.append(f"{kind.name} ({kind.path}), round {number + 1}, {what}")
        progress.say(f"{kind.name}, {gist(what)}")

    progress.step("starting")
    try:
        overlay = kind(programs, seed=SEED + number)
    except LabFailure as failure:
        fail(f"start: {failure}")
        return
    try:
        overlay.start()
        if details := overlay.details():
            findings.about.setdefault("details", {})[f"{kind.name}-{kind.path}"] = details
        Measuring(overlay, plan, note, progress.step, fail).run()
    except LabFailure as failure:
        fail(f"start: {failure}")
    finally:
        overlay.close()


def share(seconds: int, number: int, findings: Findings, progress: Progress) -> None:
    """Let every pair of flows compete once."""
    try:
        fairness = Fairness(seed=SEED + number)
    except LabFailure as failure:
        findings.failures.append(f"fairness (start), round {number + 1}: {failure}")
        return
    try:
        for condition in SHARED:

            def note(flows: str, shares: Shares, name: str = condition.name) -> None:
                progress.step(flows)
                findings.shares[name, flows].append(shares)

            fairness.compete(condition, seconds + SETTLE_S, note)
    except LabFailure as failure:
        findings.failures.append(f"fairness (flows), round {number + 1}: {failure}")
    finally:
        fairness.close()


def choose(only: list[str] | None, programs: Programs) -> tuple[list[type[Overlay]], dict[str, str]]:
    """Return the overlays that can run here, and why the others cannot."""
    chosen, absent = [], {}
    for kind in ALL:
        if only is not None and kind.name not in only and f"{kind.name}-{kind.path}" not in only:
            continue
        if reason := kind.missing(programs):
            absent[kind.name] = reason
        else:
            chosen.append(kind)
    return chosen, absent


def arguments() -> argparse.Namespace:
    """Read the command line."""
    by_path = (f"{kind.name}-{path}" for kind in ALL if kind.path == "relay" for path in ("direct", "relay"))
    names = [*dict.fromkeys(kind.name for kind in ALL), *by_path, "fairness"]
    parser = argparse.ArgumentParser(prog="bench-peers", description="Conflux beside other overlays.")
    parser.add_argument("--rounds", type=int, default=5, help="how often everything is measured (default 5)")
    parser.add_argument("--quick", action="store_true", help="once")
    parser.add_argument("--seconds", type=int, default=4, help="of a flow on a clean wire; twice that on a bad one")
    parser.add_argument("--only", type=lambda text: text.split(","), metavar="NAME,…", help=f"of {', '.join(names)}")
    parser.add_argument(
        "--overlays", type=Path, action="append", default=[], metavar="DIR", help="other rivals than build/rivals has"
    )
    options = parser.parse_args()
    if unknown := set(options.only or ()) - set(names):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(names)}")
    if options.rounds < 1 or options.seconds < 2:
        parser.error("at least one round, and two seconds")
    return options


if __name__ == "__main__":
    raise SystemExit(main())
