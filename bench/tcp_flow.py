"""One TCP flow through a realm of two, for bench/compare.py: prints its figures as one line of JSON.

      alpha --- br0 --- bravo        network namespaces, a real daemon in each

Run inside what tests/lab/rig/enter.py opens.  Argument: the `conflux` program to run.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

from rig import gauge
from rig.topology import Lab, LabFailure

WARM_UP_S = 1  # the link comes up, and its rate is found
IPERF3_S = 5
PING_COUNT = 50


def main(program: Path) -> int:
    """Measure once."""
    lab = Lab(program=program)
    lan = lab.lan()
    alpha, bravo = lab.host("alpha", lan), lab.host("bravo", lan)
    try:
        realm = lab.realm(alpha, bravo)
        address = bravo.overlay_addresses()[1]
        first = alpha.ping(address, "-c", "1")
        alpha.iperf3(bravo, address, seconds=WARM_UP_S)
        cpu_s = -sum(gauge.cpu_s(daemon.pid) for daemon in realm.daemons.values())
        mbit = alpha.iperf3(bravo, address, seconds=IPERF3_S)
        cpu_s += sum(gauge.cpu_s(daemon.pid) for daemon in realm.daemons.values())
        ping = alpha.ping(address, "-c", str(PING_COUNT), "-i", "0.02")
        memory_mb = statistics.mean(gauge.memory(daemon.pid).pss_mb for daemon in realm.daemons.values())
    except LabFailure as failure:
        print(failure, file=sys.stderr)
        return 1
    figures = {
        "TCP, one flow (Mbit/s)": mbit,
        "processor (s per Gbit)": cpu_s / (mbit * IPERF3_S / 1000),
        "ping, first (ms)": first.median_ms,
        "ping, warm (ms)": ping.median_ms,
        "memory, own share (MB)": memory_mb,
    }
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
