"""Weeks that pass in a moment, by the realm's own clock.

That clock is never earlier than the newest date that the realm signed, and a board keeps that date.
"""

from __future__ import annotations

import sys

from rig.topology import Host

# Run on a board whose daemon is down: let it have seen a date of so many days from now.
_LATER = """
import sys, time
from pathlib import Path
from conflux.state.directory import StateDir
state = StateDir.open(Path(sys.argv[1]))
state.save_floor(max(state.floor_unix(), int(time.time())) + int(sys.argv[2]) * 86400)
"""


def pass_days(days: int, *hosts: Host) -> None:
    """Let days pass on hosts whose daemons are down."""
    for host in hosts:
        host.run(sys.executable, "-c", _LATER, host.state / "state", str(days))
