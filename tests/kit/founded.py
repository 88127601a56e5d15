"""A realm's first state directory, made once in a process and then copied: to found one takes five signatures."""

from __future__ import annotations

import atexit
import random
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from kit.builders import NOW_UNIX

from conflux.state.directory import StateDir
from conflux.state.founding import found_realm


@cache
def template(name: str, make: Callable[[Path], object]) -> Path:
    """Return a directory that make() filled, the same for all tests of the process."""
    above = Path(tempfile.mkdtemp(prefix="conflux-"))
    atexit.register(shutil.rmtree, above, ignore_errors=True)
    make(above / name)
    return above / name


def _found(path: Path) -> None:
    found_realm(StateDir.open(path, create=True), "home", "gate", now_unix=NOW_UNIX, entropy=random.Random(6).randbytes)


def gate_in(path: Path) -> StateDir:
    """Return the state directory `path` of gate, the first node of realm home, founded at NOW_UNIX."""
    shutil.copytree(template("gate", _found), path, dirs_exist_ok=True)
    return StateDir.open(path)
