"""How many lines a daemon writes a day at "info", with one exchange a minute, each of which opens all anew.

A minute is compressed: streams and links end a moment after each exchange, as they do in the pause of a minute.

`python tests/lab/rig/enter.py tests/lab/rig/quiet.py` prints {"log_lines_day": N} of two nodes on a LAN, the larger.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

from rig.topology import Daemon, Host, Lab, LabFailure, wait_for

EXCHANGES_A_DAY = 24 * 60
EXCHANGE_COUNT = 20
SETTINGS: dict[str, dict[str, Any]] = {
    "node": {"log_level": "info"},
    "stream": {"idle_timeout": 1.0},
    "link": {"linger": 0.1},
}


def exchange(sender: Host, address: str, daemons: Sequence[Daemon]) -> None:
    """Ask and be answered once, and wait until nothing of it is open.  Raises LabFailure."""
    if not sender.ping(address, "-c", "1", "-W", "10").received:
        raise LabFailure(f"{sender.name}: no answer{''.join(daemon.tail() for daemon in daemons)}")
    wait_for(lambda: not any(daemon.sockets() for daemon in daemons), "an idle pair", within_s=20, logs=tuple(daemons))


def lines_a_day(
    logs: Sequence[Callable[[], str]], exchanges: Callable[[int], None], count: int = EXCHANGE_COUNT
) -> int:
    """Return the lines of a day of the daemon that writes most: of its start, and of a day's exchanges.

    logs: each returns what a daemon has written.  exchanges(n): make so many, one after another, with nothing open
    between them; count of them stand for a day's.
    """
    exchanges(2)  # the first finds the neighbour, and more
    begun = [len(log().splitlines()) for log in logs]
    exchanges(count)
    more = [len(log().splitlines()) - before for log, before in zip(logs, begun, strict=True)]
    return max(before + grown * EXCHANGES_A_DAY // count for before, grown in zip(begun, more, strict=True))


def measure() -> int:
    """Return the figure of two nodes on a LAN."""
    lab = Lab(SETTINGS)
    try:
        lan = lab.lan("home")
        alpha, bravo = lab.host("alpha", lan), lab.host("bravo", lan)
        realm = lab.realm(alpha, bravo)
        daemons = tuple(realm.daemons.values())
        address = bravo.overlay_addresses()[0]

        def exchanges(count: int) -> None:
            for _ in range(count):
                exchange(alpha, address, daemons)

        return lines_a_day([daemon.output for daemon in daemons], exchanges)
    finally:
        lab.close()


if __name__ == "__main__":
    sys.stdout.write(json.dumps({"log_lines_day": measure()}) + "\n")
