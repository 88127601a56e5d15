"""A LAN cut in two, the halves joined by a wire with delay, loss and a bound rate.

      clean                          impaired
      alpha bravo charlie delta      alpha  delta                        bravo  charlie
        |     |      |      |          |      |                            |      |
      +-+-----+------+------+-+      +-+------+-+  near     far  +-+-------+------+-+
      |          br0          |      |   br1    |-----o wire o---|       br0        |
      +-----------------------+      +----------+                +------------------+

Addresses stay: ports move from one bridge to the other.  Many kernels have no netem, so the wire is a program, wire.c,
compiled when it is needed.  On an impaired wire the offloads of all devices are off, or loss and delay would fall on
super-packets of 64 KB.  The clean LAN keeps its offloads.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rig.enter import STATE
from rig.topology import Host, LabFailure, Lan, Process, port_name, wait_for

SOURCE = Path(__file__).with_name("wire.c")


@dataclass(frozen=True, slots=True)
class Condition:
    """What a wire does to packets."""

    name: str
    rtt_ms: float = 0.0  # half of it each way
    loss_percent: float = 0.0  # each way
    rate_mbit: float = 0.0  # each way; 0: no bound
    queue_bytes: int = 0  # that may wait for the rate

    @property
    def clean(self) -> bool:
        """Whether packets pass as they are."""
        return not (self.rtt_ms or self.loss_percent or self.rate_mbit)

    def __str__(self) -> str:
        said = [
            f"{self.rtt_ms:g} ms" if self.rtt_ms else "",
            f"{self.loss_percent:g} % loss" if self.loss_percent else "",
            f"{self.rate_mbit:g} Mbit/s" if self.rate_mbit else "",
        ]
        return ", ".join(filter(None, said)) or "clean"


def missing() -> str:
    """Return what this machine lacks to impair a wire; empty if nothing."""
    return "" if shutil.which("cc") else "no C compiler (cc)"


@cache
def compiled() -> Path:
    """Return the wire's program, compiled once.  Raises LabFailure."""
    program = STATE / "wire"
    command = ["cc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-o", str(program), str(SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabFailure(f"cc cannot compile {SOURCE.name}:\n{done.stderr}")
    return program


class Switchyard(Host):
    """The LAN's own namespace, seen as a host: programs can run in it."""

    def __init__(self, host: Host, lan: Lan) -> None:
        # No Host.__init__: the namespace exists already.
        self.lab, self.name, self.number = host.lab, f"lan{lan.number}", 0
        self.state = host.lab.state / self.name
        self.state.mkdir()
        self.enter = lan.enter
        self._processes = []


class Wire:
    """Joins the hosts near to the hosts far of a LAN."""

    def __init__(self, lan: Lan, near: Iterable[Host], far: Iterable[Host], *, seed: int) -> None:
        self.lan, self.near, self.far = lan, tuple(near), tuple(far)
        self._seed = seed
        self._yard = Switchyard(self.near[0], lan)
        self._process: Process | None = None
        self._cut = False

    def impair(self, condition: Condition) -> None:
        """Impair the wire from now on.  There is no way back: a new lab has a clean LAN."""
        if not self._cut:
            self._cut_in_two()
        self._stop()
        settings = (
            condition.rtt_ms * 500,
            condition.loss_percent * 10_000,
            condition.rate_mbit * 1e6,
            condition.queue_bytes,
            self._seed,
        )
        words = [f"{value:.0f}" for value in settings]
        process = self._process = self._yard.spawn("wire", compiled(), "near", "far", *words)
        wait_for(lambda: "ready" in process.output(), "the wire", within_s=5, logs=(process,))

    def close(self) -> None:
        """End the wire's program."""
        self._stop()

    def counts(self) -> dict[str, Any]:
        """End the wire and return what it counted.

        Raises LabFailure if it lost packets beyond the condition.
        """
        process = self._process
        if process is None:
            return {}
        self._stop()
        counts: dict[str, Any] = json.loads(process.output().splitlines()[-1])
        for way, of in counts.items():
            if of["oversize"] or of["missed"]:
                raise LabFailure(f"the wire {way}: {of['oversize']} super-packets, {of['missed']} packets missed")
        return counts

    def _stop(self) -> None:
        if self._process is not None:
            self._process.signal(signal.SIGTERM)
            self._process.wait(5)
        self._process = None

    def _cut_in_two(self) -> None:
        yard = self._yard
        yard.run("ip", "link", "add", "br1", "type", "bridge", "mcast_snooping", "0", "forward_delay", "0")
        for end, bridge in (("near", "br1"), ("far", "br0")):
            yard.run("ip", "link", "add", end, "type", "veth", "peer", "name", f"{end}-port")
            yard.run("ip", "link", "set", f"{end}-port", "master", bridge, "up")
            # The yard itself sends nothing on the wire.
            yard.run("sh", "-c", f"echo 1 >/proc/sys/net/ipv6/conf/{end}/disable_ipv6")
            yard.run("ip", "link", "set", end, "up")
        ends = ("near", "near-port", "far", "far-port")
        yard.run(compiled(), "plain", *ends, *(port_name(host) for host in (*self.near, *self.far)))
        for host in (*self.near, *self.far):
            host.run(compiled(), "plain", f"eth{host.lans.index(self.lan)}")
        for host in self.near:
            yard.run("ip", "link", "set", port_name(host), "master", "br1")
        yard.run("ip", "link", "set", "br1", "up")
        self._cut = True
