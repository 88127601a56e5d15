"""Folders that a test begins with, made once in a process and then copied: to found a realm takes five signatures."""

from __future__ import annotations

import atexit
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from kit.builders import NOW_UNIX

from conflux.state.directory import StateDir
from conflux.state.founding import found_realm

_made: dict[str, Path] = {}


def copy_of(name: str, make: Callable[[Path], object], to: Path) -> None:
    """Fill a folder with what make() puts into one, called for the first of this name alone."""
    if name not in _made:
        above = Path(tempfile.mkdtemp(prefix="conflux-"))
        atexit.register(shutil.rmtree, above, ignore_errors=True)
        place = above / "made"
        place.mkdir(mode=0o700)
        make(place)
        _made[name] = place
    shutil.copytree(_made[name], to, dirs_exist_ok=True)


def _found(path: Path) -> None:
    found_realm(StateDir.open(path), "home", "gate", now_unix=NOW_UNIX, entropy=random.Random(6).randbytes)


def gate_in(path: Path) -> StateDir:
    """Return the state directory `path` of gate, the first node of realm home, founded at NOW_UNIX."""
    copy_of("gate", _found, path)
    return StateDir.open(path)
