"""Measures how long processes take to start, and the memory they hold then.

Their files are in the page cache; a board that has just booted also reads 40 MB from its disk.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from conflux.bench import child
from conflux.bench.figure import LESS, Figure, PartFailed, Plan, Recorder
from conflux.host.memory import MIB

START_S_MAX = 120.0

_DAEMON = """\
import json
from dataclasses import asdict
import conflux.daemon.run
from conflux.carrier.native.carrier import NativeCarrier
NativeCarrier.prepare()
from conflux.host.memory import memory
print(json.dumps(memory()._asdict()))
"""


def starts(plan: Plan, recorder: Recorder) -> None:
    """Measure how long Python, the command line and a daemon's imports take, and the memory of those imports."""
    _started("python", "the Python interpreter", [sys.executable, "-I", "-S", "-c", "pass"], plan, recorder)
    _started("command", "the command line (conflux --version)", child.command("conflux", "--version"), plan, recorder)
    said = _started("daemon", "all that a daemon imports", [sys.executable, "-P", "-c", _DAEMON], plan, recorder)
    held: dict[str, Any] = json.loads(said)
    for kind, title in (("pss", "proportional share"), ("rss", "resident")):
        if (size := held[f"{kind}_bytes"]) is not None:  # the kernel may not say
            words = f"what a daemon imports: {title}"
            recorder.figure(Figure("memory", f"memory_daemon_{kind}", words, "MB", LESS, (size / MIB,)))


def _started(name: str, title: str, words: Sequence[str], plan: Plan, recorder: Recorder) -> str:
    """Start a program again and again, as long as the plan allows; return its last output."""
    recorder.step("start", title)
    rounds: list[float] = []
    began = time.perf_counter()
    said = ""
    while not rounds or (len(rounds) <= plan.round_count and time.perf_counter() - began < plan.starts_s_max):
        start = time.perf_counter()
        said = _start(words)
        rounds.append((time.perf_counter() - start) * 1e3)
    if len(rounds) > 1:
        del rounds[0]  # the first start read the files into the page cache
    recorder.figure(Figure("start", f"start_{name}", title, "ms", LESS, tuple(rounds)))
    return said


def _start(words: Sequence[str]) -> str:
    try:
        done = subprocess.run(  # noqa: S603  # our own interpreter
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=child.environment(),
            timeout=START_S_MAX,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise PartFailed(f"a process took more than {START_S_MAX:.0f} s to start") from None
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise PartFailed(f"a process did not start: {last[0]}")
    return done.stdout
