"""A person's desk: a laptop that founded a realm, a switch with boards on it, and the cards that go into them.

founder (host of the lab) ── br0 ── TAP "uplink" ─┐
                                                  ├ switch ─┬─ attic   (QEMU)
                                                  │         └─ cellar  (QEMU) ...
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Mapping
from typing import Any

from image.disk import Disk, Image
from image.switch import Switch
from image.vm import Cable, Machine, Shell, wait_slowly
from rig.enter import STATE
from rig.topology import Lab

UPLINK = "uplink"
READY = r"conflux-board: ready"
DEAD = r"Kernel panic|Call trace:|emergency mode"
CARD_SIZE = "2G"  # as the smallest card that docs/how-to/flash-a-card.md asks for; an update's file has room on it
FIRST_BOOT_S, BOOT_S = 600, 480  # deadlines on a machine that does other work too; tests of their own hold the reach


def toml(tables: Mapping[str, Mapping[str, Any]]) -> str:
    """Return tables as TOML.  Strings, numbers, booleans and lists are alike in JSON."""
    return "".join(
        f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items()) + "\n"
        for name, table in tables.items()
    )


class Site:
    """A switch, what is plugged into it, and the founder's realm."""

    def __init__(self, ports: Iterable[str], *, name: str = "site") -> None:
        self.folder = STATE / name
        self.folder.mkdir()
        self.lab = Lab()
        lan = self.lab.lan()
        self.founder = self.lab.host("founder", lan)
        self.switch = Switch(self.folder / "ports", ports, tap=UPLINK, enter=lan.enter)
        subprocess.run([*lan.enter, "ip", "link", "set", UPLINK, "master", "br0", "up"], check=True)
        self.realm = self.lab.realm(self.founder)
        self.key = self.folder / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "tests", "-f", self.key], check=True)
        self.public_key = self.key.with_suffix(".pub").read_text().strip()
        self.machines: dict[str, Machine] = {}

    def card(self, name: str, **values: Any) -> dict[str, dict[str, Any]]:
        """Return what a person writes onto the card of a board that is to join.  values: more of [board]."""
        return {"board": {"name": name, "token": self.realm.invite(), "ssh_key": self.public_key, **values}}

    def disk(self, image: Image, name: str, card: Mapping[str, Mapping[str, Any]] | str | None) -> Disk:
        """Flash an image.  card: conflux.toml on it, as tables or as text; None: there is none."""
        disk = Disk(image, self.folder / f"{name}.qcow2", size=CARD_SIZE)
        if card is not None:
            disk.put("conflux.toml", card if isinstance(card, str) else toml(card))
        return disk

    def machine(self, name: str, disk: Disk, *ports: str, **more: Any) -> Machine:
        """Put a disk into a board that is plugged into some ports: its own, or those given.  more: Machine's."""
        cables = [Cable(self.switch, port) for port in ports or (name,)]
        machine = self.machines[name] = Machine(name, disk, *cables, folder=self.folder, **more)
        return machine

    def shell(self, name: str, cable: int = 0) -> Shell:
        """Return root's shell of a board."""
        return Shell(self.machines[name], self.founder, self.key, cable=cable)

    def close(self) -> None:
        """Cut everybody's power."""
        for machine in self.machines.values():
            machine.cut_power()
        self.lab.close()
        self.switch.close()


def memory_mb(shell: Shell) -> float:
    """Return what everything on a board uses: MemTotal - MemAvailable, in MB of 10^6 bytes."""
    lines = shell.run("cat", "/proc/meminfo").stdout.splitlines()
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return (kib["MemTotal"] - kib["MemAvailable"]) * 1024 / 1e6


def failed_units(shell: Shell) -> list[str]:
    """Return the names of units that failed."""
    said = shell.run("systemctl", "list-units", "--failed", "--plain", "--no-legend").stdout
    return [line.split()[0] for line in said.splitlines() if line]


def links(shell: Shell) -> list[dict[str, Any]]:
    """Return the links that a board has open."""
    rows: list[dict[str, Any]] = shell.json("conflux", "links", "--json")["links"]
    return [row for row in rows if row["link"] is not None]


def wait_for_silence(*shells: Shell, within_s: float) -> None:
    """Wait until no board has a link or a socket of the data plane.  Raises LabFailure."""
    wait_slowly(
        lambda: not any(shell.json("conflux", "status", "--json")["sockets"] for shell in shells),
        "no socket of the data plane on any board",
        within_s=within_s,
    )
