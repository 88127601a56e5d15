"""Spells: what passes alpha's eth0 between two moments, to the byte.

A moment is one at which the capture has all that the kernel counted: the two then stand still for a while.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from rig import gauge
from rig.ledger.capture import packets
from rig.ledger.keys import Keys
from rig.ledger.rows import Row, rows
from rig.topology import CONFLUX, Host, Lab, LabFailure, Lan, Realm, port_name, wait_for

from conflux.ids import LAN_PORT

_HERE: Final = Path(__file__).resolve().parent
_STILL_S: Final = 0.1  # capture and counters stand still for so long at a moment
_MOMENT_WITHIN_S: Final = 10.0


class Moment(NamedTuple):
    """size: of the capture, in bytes.  traffic: what the kernel has counted.  cpu_s: of each daemon, by host."""

    size: int
    traffic: gauge.Traffic
    cpu_s: dict[str, float]


class Spell(NamedTuple):
    """What passed between two moments.  counted_bytes: by the kernel, both directions.  cpu_ms: by host."""

    title: str
    rows: list[Row]
    counted_bytes: int
    seconds: float
    cpu_ms: dict[str, float]

    @property
    def ledger_bytes(self) -> float:
        """The sum of the rows, which has to be counted_bytes."""
        return sum(row.wire_bytes for row in self.rows)

    @property
    def kb(self) -> float:
        """Kilobytes, both directions."""
        return self.counted_bytes / 1e3


class Watched:
    """A LAN whose first host is watched.  settings: of every conflux.toml."""

    def __init__(self, lab: Lab, *names: str) -> None:
        self.lab = lab
        self.lan: Lan = lab.lan()
        self.hosts = [lab.host(name, self.lan) for name in names]
        for host in self.hosts:
            host.run(sys.executable, str(_HERE / "capture.py"), "--plain", "eth0")
            self._plain_port(host)
        self._file = lab.state / "wire"
        self.alpha = self.hosts[0]
        self._eye = self.alpha.spawn("eye", sys.executable, str(_HERE / "capture.py"), str(self._file))
        wait_for(self._file.exists, "the capture", within_s=5, logs=(self._eye,))
        lab.program = self._program()
        self.realm: Realm = lab.realm(*self.hosts)
        self._spells: list[tuple[str, Moment, Moment, float]] = []

    def cut_control(self) -> None:
        """End the control connections of the first host, as if the network between had forgotten them."""
        ours = f"( sport = :{LAN_PORT} or dport = :{LAN_PORT} )"
        self.alpha.run("ss", "-K", "state", "established", ours, check=False)

    def _plain_port(self, host: Host) -> None:
        command = [*self.lan.enter, sys.executable, str(_HERE / "capture.py"), "--plain", port_name(host)]
        subprocess.run(command, check=True)

    def _program(self) -> Path:
        """Return a command that is `conflux`, and has daemons tell the ledger their keys."""
        program = self.lab.state / "conflux-told"
        program.write_text(
            "#!/bin/sh\n"
            "for word; do last=$word; done  # the configuration, whose directory is the host's\n"
            "CONFLUX_LEDGER=${last%/*}/state\n"
            '[ "$1" = up ] && mkdir -p "$CONFLUX_LEDGER" && export CONFLUX_LEDGER\n'
            f"export PYTHONPATH={_HERE / 'hook'}\n"
            f'exec {CONFLUX} "$@"\n'
        )
        program.chmod(0o755)
        return program

    def moment(self) -> Moment:
        """Return a moment.  Raises LabFailure if the wire is never still."""
        deadline = time.monotonic() + _MOMENT_WITHIN_S
        while time.monotonic() < deadline:
            running = {name: each for name, each in self.realm.daemons.items() if each.exit_code is None}
            cpu_s = {name: _cpu_s(daemon.pid) for name, daemon in running.items()}
            before = self._file.stat().st_size, self.alpha.wire()
            time.sleep(_STILL_S)
            if before == (self._file.stat().st_size, self.alpha.wire()):
                return Moment(*before, cpu_s)
        raise LabFailure("the wire is never still")

    def spell(self, title: str, action: Callable[[], object], *, seconds: float = 0.0) -> None:
        """Do something and note what passes until it is done, and for so many seconds from its beginning."""
        before, began = self.moment(), time.monotonic()
        action()
        time.sleep(max(0.0, began + seconds - time.monotonic()))
        self._spells.append((title, before, self.moment(), time.monotonic() - began))

    def spells(self) -> list[Spell]:
        """End the capture and return every spell."""
        self._eye.signal(signal.SIGTERM)
        self._eye.wait(5)
        data = self._file.read_bytes()
        starts: list[int] = []
        captured = list(packets(data))
        size = 0
        for packet in captured:
            starts.append(size)
            size += len(packet.data) + 13
        found = rows(captured, Keys([host.state / "state" for host in self.hosts]))
        return [
            Spell(
                title,
                [row for row in found if before.size <= starts[row.index] < after.size],
                _bytes(after.traffic.since(before.traffic)),
                seconds,
                {name: 1e3 * (after.cpu_s[name] - before.cpu_s.get(name, 0.0)) for name in after.cpu_s},
            )
            for title, before, after, seconds in self._spells
        ]


def _bytes(traffic: gauge.Traffic) -> int:
    return traffic.rx_bytes + traffic.tx_bytes


def _cpu_s(pid: int) -> float:
    """Return the processor time of a process, to the nanosecond; gauge.cpu_s() counts in ticks of 10 ms."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9
