"""Control groups of a lab: one for each board or container, as two of them must not share any.

They are the one thing that outlives a lab's machine: empty ones, if it was killed.  The next lab removes those.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
PREFIX = "conflux-lab-"
STALE_S = 3600


def new(name: str) -> Path:
    """Make a group and return its folder.  Everything in this lab's machine sees version 2 of control groups."""
    if not (ROOT / "cgroup.procs").exists():
        subprocess.run(["mount", "-t", "cgroup2", "cgroup2", ROOT], check=True)
    for left in ROOT.glob(f"{PREFIX}*"):
        if time.time() - left.stat().st_mtime > STALE_S:
            remove(left)
    group = ROOT / f"{PREFIX}{os.urandom(6).hex()}-{name}"
    group.mkdir()
    return group


def remove(group: Path) -> None:
    """Remove a group and those below, if nothing runs in them."""
    for folder, _, _ in os.walk(group, topdown=False):
        with contextlib.suppress(OSError):
            Path(folder).rmdir()
