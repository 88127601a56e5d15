"""The check of the log: whether the journal is flooded, and its end, for a report."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from conflux.doctor.finding import AS_ROOT, Check, Finding, bad, good, unseen
from conflux.doctor.firewall import PROGRAMS

UNIT = "conflux"
LINES_HOUR_MAX = 600  # ten a minute; a healthy board writes a few an hour at the level of info
READ_S = 10.0
SYSTEMD = Path("/run/systemd/system")


class Journal(NamedTuple):
    """lines: of the last hour, LINES_HOUR_MAX + 1 at the most; None if they cannot be read, with the reason."""

    lines: int | None
    why_not: str
    level: str


def look(level: str) -> Journal:
    """Count the lines of the last hour.  level: the configured one."""
    found, why_not = tail("1 hour ago", LINES_HOUR_MAX + 1)
    return Journal(None if found is None else len(found), why_not, level)


def judge(seen: Journal) -> Iterator[Finding]:
    """Judge how much the log says."""
    if seen.lines is None:
        yield unseen(Check.LOG, seen.why_not, AS_ROOT if "root" in seen.why_not else "")
    elif seen.lines > LINES_HOUR_MAX and seen.level != "debug":
        said = f"more than {LINES_HOUR_MAX} lines in the last hour"
        yield bad(Check.LOG, said, f"journalctl -u {UNIT} -n 50    # what repeats?")
    else:
        yield good(Check.LOG, f"{seen.lines} lines in the last hour, at the level {seen.level}")


def tail(since: str, count: int) -> tuple[list[str] | None, str]:
    """Return the last lines of the journal of our unit, or None and why not."""
    program = shutil.which("journalctl", path=PROGRAMS)
    if program is None or not SYSTEMD.exists():
        return None, "systemd does not run here, so the log is where the daemon was started"
    words = [program, "-q", "--no-pager", "-o", "short-iso", "-u", UNIT, "--since", since, "-n", str(count)]
    try:
        done = subprocess.run(  # noqa: S603  # a program of the system
            words, capture_output=True, timeout=READ_S, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, f"journalctl fails: {error}"
    if done.returncode:
        return None, "only root and the group systemd-journal may read the log"
    return done.stdout.decode(errors="replace").splitlines(), ""
