"""A part measured in a process of its own: what it tells comes back as lines of JSON.

    parent: run(command("…bench.link")) ──starts──► child: serve(measure)
            tell.figure(...)  ◄────────── {"figure": ...} ── measure(plan, Lines())

The child is its own session with all it starts, and is killed whole when the parent is done with it, however that ends.
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
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, Final

from conflux.bench.figure import Figure, PartFailed, PartSkipped, Plan, Tell
from conflux.errors import ConfluxError

PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
WAIT_S: Final = 60.0  # for the next line: the longest measurement takes 10 s, a cold board's imports as much again

_PACKAGE: Final = Path(__file__).resolve().parents[2]
_READ_BYTES: Final = 65536


def command(module: str, *arguments: str) -> list[str]:
    """Return how one of our modules is started."""
    return [sys.executable, "-P", "-m", module, *arguments]  # -P: nothing comes from the directory we were started in


def environment() -> dict[str, str]:
    """Return what it is given of the environment: nothing that could change what is measured."""
    return {"PYTHONPATH": str(_PACKAGE), "PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"}


def die_with_parent() -> None:
    """Have the kernel end this process when the one that started it ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


# ── parent ──


def run(words: list[str], plan: Plan, tell: Tell) -> None:
    """Have a program measure that ends in serve().

    Raises PartSkipped and PartFailed as it did, PartFailed also if it ends otherwise or is not heard of.
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
                if _pass_on(line, tell):
                    return
            code = child.wait()  # it has closed its output: it is ending
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            child.stdout.close()
        said.seek(0)
        last = said.read().decode(errors="replace").strip().splitlines()[-1:] or [f"exit code {code}"]
        raise PartFailed(f"its process ended: {last[0]}")


def _lines(pipe: IO[bytes]) -> Iterator[bytes]:
    """Yield lines until the end.  Raises PartFailed when the next one is too long in coming."""
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


def _pass_on(line: bytes, tell: Tell) -> bool:
    """Tell what one line says; True if it is the last."""
    said: dict[str, Any] = json.loads(line)
    match said["say"]:
        case "step":
            tell.step(said["part"], said["what"])
        case "figure":
            fields = said["figure"]
            tell.figure(Figure(**{**fields, "rounds": tuple(fields["rounds"])}))
        case "setting":
            tell.setting(said["name"], said["value"])
        case "skipped":
            raise PartSkipped(said["why"])
        case "failed":
            raise PartFailed(said["why"])
    return bool(said["say"] == "done")


# ── child ──


class Lines:
    """A Tell that writes to the parent."""

    def step(self, part: str, what: str) -> None:
        _say("step", part=part, what=what)

    def figure(self, figure: Figure) -> None:
        _say("figure", figure=asdict(figure))

    def setting(self, name: str, value: object) -> None:
        _say("setting", name=name, value=value)


def _say(kind: str, **fields: object) -> None:
    sys.stdout.write(json.dumps({"say": kind, **fields}) + "\n")
    sys.stdout.flush()


def serve(measure: Callable[[Plan, Tell], None]) -> None:
    """Be the child: measure, and say how it went."""
    die_with_parent()
    options = argparse.ArgumentParser()
    options.add_argument("--quick", action="store_true")
    plan = Plan.of(quick=options.parse_args().quick)
    try:
        measure(plan, Lines())
    except PartSkipped as skipped:
        _say("skipped", why=str(skipped))
    except (ConfluxError, OSError) as error:
        _say("failed", why=str(error))
    else:
        _say("done")


def until(done: Callable[[], bool], what: str, *, within_s: float, pause_s: float) -> None:
    """Wait until done() says so.  Raises PartFailed naming what it was when that takes too long."""
    deadline = time.monotonic() + within_s
    while not done():
        if time.monotonic() > deadline:
            raise PartFailed(f"{what} did not come within {within_s:g} s")
        time.sleep(pause_s)
