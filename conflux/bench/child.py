"""Measures a part in a process of its own, which reports by lines of JSON.

    parent: run(command("…bench.link")) ──starts──► child: serve(measure)
            recorder.figure(...)  ◄────────── {"figure": ...} ── measure(plan, Lines())

The child and the processes it starts are a session of their own.  The parent kills all of it at the end, also after an
error.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Any, Final

from conflux.bench.figure import Figure, PartFailed, PartSkipped, Plan, Recorder
from conflux.errors import ConfluxError

PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
WAIT_S: Final = 60.0  # for the next line: the longest measurement takes 10 s, a cold board's imports as much again

_PACKAGE: Final = Path(__file__).resolve().parents[2]
_READ_BYTES: Final = 65536


def command(module: str, *arguments: str) -> list[str]:
    """Return the command that starts one of our modules."""
    return [sys.executable, "-P", "-m", module, *arguments]  # -P: no module is imported from the current directory


def environment() -> dict[str, str]:
    """Return the child's environment, without what could change the figures."""
    return {"PYTHONPATH": str(_PACKAGE), "PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"}


def die_with_parent() -> None:
    """Have the kernel end this process when the one that started it ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


# ── parent ──


def run(words: list[str], plan: Plan, recorder: Recorder) -> None:
    """Run a program that ends in serve(), and pass on what it reports.

    Raises PartSkipped and PartFailed as the program did; PartFailed also if it ends otherwise or stays silent.
    """
    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen(  # noqa: S603  # our own interpreter
            [*words, *(["--quick"] if plan.quick else [])],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=said,
            env=environment(),
            start_new_session=True,
        )
        assert child.stdout is not None
        try:
            for line in _lines(child.stdout):
                if _pass_on(line, recorder):
                    return
            code = child.wait()  # its output is closed, so it is ending
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            child.stdout.close()
        said.seek(0)
        last = said.read().decode(errors="replace").strip().splitlines()[-1:] or [f"exit code {code}"]
        raise PartFailed(f"its process ended: {last[0]}")


def _lines(pipe: IO[bytes]) -> Iterator[bytes]:
    """Yield lines until the end.  Raises PartFailed if the next one takes longer than WAIT_S."""
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while True:
            if not selector.select(WAIT_S):
                raise PartFailed(f"nothing was heard of it for {WAIT_S:.0f} s")
            data = os.read(pipe.fileno(), _READ_BYTES)
            if not data:
                return
            *whole, rest = (rest + data).split(b"\n")
            yield from whole


def _pass_on(line: bytes, recorder: Recorder) -> bool:
    """Record what one line reports; return True for the last."""
    said: dict[str, Any] = json.loads(line)
    match said["say"]:
        case "step":
            recorder.step(said["part"], said["what"])
        case "figure":
            fields = said["figure"]
            recorder.figure(Figure(**{**fields, "rounds": tuple(fields["rounds"])}))
        case "setting":
            recorder.setting(said["name"], said["value"])
        case "skipped":
            raise PartSkipped(said["why"])
        case "failed":
            raise PartFailed(said["why"])
    return bool(said["say"] == "done")


# ── child ──


class Lines:
    """A Recorder that writes to the parent."""

    def step(self, part: str, what: str) -> None:
        """See Recorder."""
        _say("step", part=part, what=what)

    def figure(self, figure: Figure) -> None:
        """See Recorder."""
        _say("figure", figure=asdict(figure))

    def setting(self, name: str, value: object) -> None:
        """See Recorder."""
        _say("setting", name=name, value=value)


def _say(kind: str, **fields: object) -> None:
    sys.stdout.write(json.dumps({"say": kind, **fields}) + "\n")
    sys.stdout.flush()


def serve(measure: Callable[[Plan, Recorder], None]) -> None:
    """Be the child: measure one round, and report the outcome."""
    die_with_parent()
    options = argparse.ArgumentParser()
    options.add_argument("--quick", action="store_true")
    plan = replace(Plan.of(quick=options.parse_args().quick), round_count=1)
    try:
        measure(plan, Lines())
    except PartSkipped as skipped:
        _say("skipped", why=str(skipped))
    except (ConfluxError, OSError) as error:
        _say("failed", why=str(error))
    else:
        _say("done")


def until(done: Callable[[], bool], what: str, *, within_s: float, pause_s: float) -> None:
    """Wait until done() is true.  Raises PartFailed naming what, after within_s."""
    deadline = time.monotonic() + within_s
    while not done():
        if time.monotonic() > deadline:
            raise PartFailed(f"{what} did not come within {within_s:g} s")
        time.sleep(pause_s)
