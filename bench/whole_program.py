"""Measures the whole program in a lab, from outside the daemons.

      alpha --- br0 --- bravo        network namespaces, a real daemon in each

Run by `make bench`; leaves build/whole_program.json, which bench/report.py shows.
"""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import sys
import time
from typing import Any

from rig import gauge
from rig.enter import deliver
from rig.topology import Host, Lab, LabFailure

IDLE_TIMEOUT_S = 2.0  # by default 15; shorter, so that cold rounds do not take minutes
COLD_ROUNDS = 9
IPERF3_S = 5
REST_S = 30  # of watching the control channel at rest
PARTS_SHOWN = 12


class Bench:
    """Two hosts, and the figures between them."""

    def __init__(self) -> None:
        self.figures: dict[str, Any] = {}
        lab = Lab({"stream": {"idle_timeout": IDLE_TIMEOUT_S}, "link": {"linger": 0.5}})
        lan = lab.lan()
        self.alpha, self.bravo = lab.host("alpha", lan), lab.host("bravo", lan)
        self.alpha.count_data_plane()
        say("bare wire")
        self.figures["bare_wire_mbit"] = self.alpha.iperf3(self.bravo, self.bravo.addresses[1], seconds=2)
        say("a realm of two")
        self.realm = lab.realm(self.alpha, self.bravo)
        self.address = self.bravo.overlay_addresses()[1]
        self.figures["ready_s"] = max(daemon.ready_s for daemon in self.realm.daemons.values())

    def await_idle(self) -> None:
        """Wait until no daemon has a data-plane socket.  Raises LabFailure."""
        self.realm.await_idle(within_s=IDLE_TIMEOUT_S + 5)

    def memory(self, moment: str) -> None:
        """Note the memory of a daemon at a moment."""
        daemon = self.realm.daemons["alpha"]
        memory = daemon.memory()
        self.figures[f"rss_{moment}_mb"], self.figures[f"pss_{moment}_mb"] = memory.rss_mb, memory.pss_mb
        parts = list(gauge.memory_parts(daemon.pid).items())
        shown = dict(parts[:PARTS_SHOWN])
        shown["all else"] = sum(size for _, size in parts[PARTS_SHOWN:])
        self.figures[f"memory_parts_{moment}_mb"] = shown

    def rest(self) -> None:
        """Measure the control channel at rest."""
        say(f"at rest, {REST_S} s")
        daemon = self.realm.daemons["alpha"]
        before, cpu_before = self.alpha.wire(), gauge.cpu_s(daemon.pid)
        time.sleep(REST_S)
        passed = self.alpha.wire().since(before)
        self.figures["rest_bytes_per_min"] = (passed.rx_bytes + passed.tx_bytes) * 60 / REST_S
        self.figures["rest_cpu_percent"] = (gauge.cpu_s(daemon.pid) - cpu_before) * 100 / REST_S

    def cold(self) -> None:
        """Ping without a link, and count every byte until the link is gone again."""
        say(f"cold pings, {COLD_ROUNDS} rounds")
        times_ms: list[float] = []
        wire: list[int] = []
        data_plane: list[int] = []
        for _ in range(COLD_ROUNDS):
            self.await_idle()
            before, data_before = self.alpha.wire(), self.alpha.data_plane()
            times_ms.append(self.alpha.first_answer_ms(self.address))
            self.await_idle()
            passed = self.alpha.wire().since(before)
            wire.append(passed.rx_bytes + passed.tx_bytes)
            data_plane.append(self.alpha.data_plane().bytes - data_before.bytes)
        self.figures |= {
            "cold_ms": statistics.median(times_ms),
            "cold_ms_min": min(times_ms),
            "cold_ms_max": max(times_ms),
            "cold_exchange_bytes": statistics.median(wire),
            "cold_exchange_data_plane_bytes": statistics.median(data_plane),
        }

    def throughput(self) -> None:
        """Measure TCP and warm pings."""
        for name, options in (("tcp", ()), ("tcp_reverse", ("--reverse",)), ("tcp_4_flows", ("--parallel", "4"))):
            say(f"iperf3 {name}")
            cpu_before = self.cpu_s()
            mbit = self.alpha.iperf3(self.bravo, self.address, *options, seconds=IPERF3_S)
            self.figures[f"{name}_mbit"] = mbit
            self.figures[f"{name}_cpu_s_per_gbit"] = (self.cpu_s() - cpu_before) / (mbit * IPERF3_S / 1000)
        say("warm pings")
        self.figures["warm_ms"] = self.alpha.ping(self.address, "-c", "100", "-i", "0.02").median_ms

    def cpu_s(self) -> float:
        """Return the processor time of both daemons so far."""
        return sum(gauge.cpu_s(daemon.pid) for daemon in self.realm.daemons.values())


def import_times_ms(host: Host) -> dict[str, float]:
    """Return the time of the daemon's imports in all, and of the packages that take most of it."""
    # Everything a running daemon has loaded, with the two modules that it imports late.
    done = host.run(
        sys.executable,
        "-X",
        "importtime",
        "-c",
        "import conflux.daemon.run, conflux.carrier.rtc.link, conflux.control.lan.discovery",
    )
    packages: dict[str, float] = {}
    for own_us, name in re.findall(r"^import time: +(\d+) \| +\d+ \| +(\S+)$", done.stderr, re.MULTILINE):
        package = name.split(".")[0]
        packages[package] = packages.get(package, 0.0) + int(own_us) / 1000
    most = dict(sorted(packages.items(), key=lambda item: -item[1])[:PARTS_SHOWN])
    return {"all": sum(packages.values()), **most}


def say(text: str) -> None:
    """Print a line of progress."""
    print(f"bench: {text}", flush=True)


def main() -> int:
    """Measure everything and deliver the figures; return 1 after a failure."""
    try:
        bench = Bench()
        bench.await_idle()
        bench.memory("before_the_first_link")
        bench.cold()
        bench.memory("idle")
        bench.rest()
        bench.throughput()
        bench.await_idle()
        bench.memory("idle_after_load")
        bench.figures["import_ms"] = import_times_ms(bench.alpha)
    except LabFailure as failure:
        print(f"bench: failed: {failure}", flush=True)
        return 1
    bench.figures["machine"] = {
        "processor": gauge.processor(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
    deliver("whole_program.json", json.dumps(bench.figures, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
