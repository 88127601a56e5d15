"""What the whole program costs, measured in a lab from outside the daemons.

      alpha --- br0 --- bravo        network namespaces, a real daemon in each

Run by `make bench`; leaves build/whole_program.json, which bench/report.py shows.
"""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from typing import Any

import gauge
from enter import deliver
from topology import Host, Lab, LabFailure, wait_for

IDLE_TIMEOUT_S = 2.0  # shorter than the default 15, so that cold rounds do not take minutes; nothing else depends on it
COLD_ROUNDS = 9
IPERF3_S = 5
REST_S = 30  # how long the control channel is watched at rest
PARTS_SHOWN = 12


class Bench:
    """Two hosts and what was measured between them."""

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

    def await_nothing_left(self) -> None:
        wait_for(
            lambda: not any(daemon.sockets() for daemon in self.realm.daemons.values()),
            "no data-plane socket",
            within_s=IDLE_TIMEOUT_S + 5,
            logs=self.realm.logs(),
        )

    def memory(self, moment: str) -> None:
        daemon = self.realm.daemons["alpha"]
        memory = daemon.memory()
        self.figures[f"rss_{moment}_mb"], self.figures[f"pss_{moment}_mb"] = memory.rss_mb, memory.pss_mb
        parts = list(gauge.memory_parts(daemon.pid).items())
        shown = dict(parts[:PARTS_SHOWN])
        shown["all else"] = sum(size for _, size in parts[PARTS_SHOWN:])
        self.figures[f"memory_parts_{moment}_mb"] = shown

    def rest(self) -> None:
        """Watch the control channel when nothing happens."""
        say(f"at rest, {REST_S} s")
        daemon = self.realm.daemons["alpha"]
        before, cpu_before = self.alpha.wire(), gauge.cpu_s(daemon.pid)
        time.sleep(REST_S)
        passed = self.alpha.wire().since(before)
        self.figures["rest_bytes_per_min"] = (passed.rx_bytes + passed.tx_bytes) * 60 / REST_S
        self.figures["rest_cpu_percent"] = (gauge.cpu_s(daemon.pid) - cpu_before) * 100 / REST_S

    def cold(self) -> None:
        """Ping from nothing, and count every byte until there is nothing again."""
        say(f"cold pings, {COLD_ROUNDS} rounds")
        times_ms: list[float] = []
        wire: list[int] = []
        data_plane: list[int] = []
        for _ in range(COLD_ROUNDS):
            self.await_nothing_left()
            before, data_before = self.alpha.wire(), self.alpha.data_plane()
            reply = self.alpha.ping(self.address, "-c", "1", "-W", "10")
            if reply.lost:
                raise LabFailure("a cold ping had no answer" + self.realm.tails())
            times_ms += reply.times_ms
            self.await_nothing_left()
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
        for name, options in (("tcp", ()), ("tcp_reverse", ("--reverse",)), ("tcp_4_flows", ("--parallel", "4"))):
            say(f"iperf3 {name}")
            cpu_before = self.cpu_s()
            mbit = self.alpha.iperf3(self.bravo, self.address, *options, seconds=IPERF3_S)
            self.figures[f"{name}_mbit"] = mbit
            self.figures[f"{name}_cpu_s_per_gbit"] = (self.cpu_s() - cpu_before) / (mbit * IPERF3_S / 1000)
        say("warm pings")
        self.figures["warm_ms"] = self.alpha.ping(self.address, "-c", "100", "-i", "0.02").median_ms

    def cpu_s(self) -> float:
        return sum(gauge.cpu_s(daemon.pid) for daemon in self.realm.daemons.values())


def import_times_ms(host: Host) -> dict[str, float]:
    """Return what importing the daemon takes in all, and the packages that take most of it."""
    # All that a running daemon has loaded, the two that it imports late among it.
    done = host.run(
        sys.executable,
        "-X",
        "importtime",
        "-c",
        "import conflux.daemon, conflux.carrier.rtc_link, conflux.control.lan.discovery",
    )
    packages: dict[str, float] = {}
    for own_us, name in re.findall(r"^import time: +(\d+) \| +\d+ \| +(\S+)$", done.stderr, re.MULTILINE):
        package = name.split(".")[0]
        packages[package] = packages.get(package, 0.0) + int(own_us) / 1000
    most = dict(sorted(packages.items(), key=lambda item: -item[1])[:PARTS_SHOWN])
    return {"all": sum(packages.values()), **most}


def say(text: str) -> None:
    print(f"bench: {text}", flush=True)


def main() -> int:
    try:
        bench = Bench()
        bench.await_nothing_left()
        bench.memory("before_the_first_link")
        bench.cold()
        bench.memory("idle")
        bench.rest()
        bench.throughput()
        bench.await_nothing_left()
        bench.memory("idle_after_load")
        bench.figures["import_ms"] = import_times_ms(bench.alpha)
    except LabFailure as failure:
        print(f"bench: failed: {failure}", flush=True)
        return 1
    bench.figures["machine"] = {
        "processor": processor(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
    deliver("whole_program.json", json.dumps(bench.figures, indent=2) + "\n")
    return 0


def processor() -> str:
    """Return the name of the processor as people know it."""
    text = subprocess.run(["lscpu"], capture_output=True, text=True, check=True, env={"LC_ALL": "C"}).stdout
    name = re.search(r"^Model name: +(.*)$", text, re.MULTILINE)
    return name[1] if name else platform.machine()


if __name__ == "__main__":
    raise SystemExit(main())
