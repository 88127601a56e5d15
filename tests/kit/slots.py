"""A board with two slots and a RAUC that writes into a folder: updates of it are installed, started and judged."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from conflux.api.client import ApiClient, HangsError, NotRunning
from conflux.board.judge import Judge
from conflux.board.rauc import Rauc
from conflux.board.release import Image
from conflux.board.running import Running, Units
from conflux.board.trial import Boot, meaning
from conflux.board.update import Board
from conflux.board.update_files import UpdateFiles
from conflux.errors import UserError

# Does what RAUC 1.8 does, as far as it is seen: state.json has what its boot loader would.
PROGRAM = """\
#!{python}
import json, os, sys
from pathlib import Path
place = Path({state!r})
state = json.loads(place.read_text())
words = [word for word in sys.argv[1:] if not word.startswith("--")]
other = "A" if state["booted"] == "B" else "B"
state["asked"].append(" ".join(words) + (" with trial" if Path({trial!r}).exists() else ""))
code = 0
if words[0] == "info":
    bundle = json.loads(Path(words[1]).read_text())
    print("Compatible: \\t'%s'\\nVersion: \\t'%s'" % (bundle["compatible"], bundle["version"]))
    print("  Verity Salt: \\t'%s'\\n  Verity Hash: \\t'%s'\\n  Verity Size: \\t4096" % ("0" * 64, "0" * 64))
elif words[0] == "install":
    print("installing\\n  0% Installing\\n 40% Copying image to boot.1\\n100% Installing done.")
    if state["fails"]:
        print("LastError: Installation error: " + state["fails"])
        code = 1
    else:
        state["versions"][other] = state["writes"] or json.loads(Path(words[1]).read_text())["version"]
elif words[:2] in (["status", "mark-good"], ["status", "mark-bad"], ["status", "mark-active"]):
    slot = state["booted"] if words[2] == "booted" else other
    if state["fails"]:
        sys.stderr.write("Failed marking slot: " + state["fails"] + "\\n")
        code = 1
    elif words[1] == "mark-active":
        state["order"] = [slot, *(each for each in "AB" if each != slot)]
        state["left"][slot] = 3
    else:
        state["left"][slot] = 3 if words[1] == "mark-good" else 0
elif words == ["status"]:
    slots = []
    for number, slot in enumerate("AB"):
        version = state["versions"].get(slot)
        booted = "booted" if slot == state["booted"] else "inactive"
        status = {{}} if version is None else {{"bundle": {{"version": version}}}}
        good = "good" if state["left"][slot] else "bad"
        slots.append({{"boot.%d" % number: {{"bootname": slot, "state": booted, "boot_status": good}}}})
        row = {{"bootname": None, "parent": "boot.%d" % number, "slot_status": status}}
        slots.append({{"system.%d" % number: row}})
    first = next((slot for slot in state["order"] if state["left"][slot]), None)
    print(json.dumps({{"slots": slots, "boot_primary": None if first is None else "boot.%d" % "AB".index(first)}}))
place.write_text(json.dumps(state))
sys.exit(code)
"""

STATUS: dict[str, Any] = {
    "device": {"name": "conflux0", "up": True},
    "control": [{"name": "lan", "up": True, "detail": ""}],
    "nodes": [],
}


class Daemon(ApiClient):
    """A daemon that answers as it is told.  reached: names of nodes; silent: those that do not answer."""

    def __init__(self) -> None:
        super().__init__(Path("/nowhere"))
        self.runs = True
        self.up = True
        self.hangs = False
        self.wakes_at = 0  # the look at which it reaches whom it reaches
        self.looks = 0
        self.reached: list[str] = []
        self.silent: set[str] = set()

    def look(self, do: str, **arguments: object) -> object:
        if not self.runs:
            raise NotRunning("no daemon listens")
        if self.hangs:
            raise HangsError("the daemon has not answered for 5 seconds")
        self.looks += 1
        reached = self.reached if self.looks >= self.wakes_at else []
        rows = [{"node": f"id-{name}", "name": name, "reach": "lan", "heard_at": 1.0} for name in reached]
        lan = {"name": "lan", "up": self.up, "detail": "no interface"}
        return STATUS | {
            "nodes": [*rows, {"node": "id-x", "name": "x", "reach": None, "heard_at": None}],
            "control": [lan],
        }

    def stream(self, do: str, **arguments: object) -> Iterator[object]:
        name = str(arguments["name"]).removeprefix("id-")
        if not self.runs or name not in self.reached:
            raise UserError("no node of this realm answers to it")
        yield {"name": name, "address": "fd00::1", "resolve_ms": 0.1}
        yield {"sequence": 1, "rtt_ms": None if name in self.silent else 1.5}


class Slotted:
    """One board: flashed with 0.1.0 in slot A."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state.json"
        self.daemon = Daemon()
        self.units = Units(True, ())
        self.files = UpdateFiles(folder / "data", folder / "run" / "notices")
        self.boot = 1
        self.restarts = 0
        self.clock = 0.0
        self.set(booted="A", order=["A", "B"], left={"A": 3, "B": 3}, versions={}, fails="", writes="", asked=[])
        (folder / "bin").mkdir()
        program = folder / "bin" / "rauc"
        program.write_text(
            PROGRAM.format(python=sys.executable, state=str(self.state), trial=str(folder / "data" / "trial.json"))
        )
        program.chmod(0o755)
        self.path = f"{folder / 'bin'}:{os.environ['PATH']}"

    def set(self, **changed: object) -> None:
        known = json.loads(self.state.read_text()) if self.state.exists() else {}
        self.state.write_text(json.dumps(known | changed))

    def get(self, name: str) -> Any:
        return json.loads(self.state.read_text())[name]

    def running(self) -> Running:
        version = self.get("versions").get(self.get("booted"), "0.1.0")
        return Running(Image("rpi4", version, "conflux-rpi4", "0.1.0"), self.get("booted"), f"boot-{self.boot}")

    def board(self) -> Board:
        return Board(self.running(), Rauc(), self.files, self.daemon, lambda: self.units)

    def stage(self) -> Boot:
        now = self.running()
        return meaning(self.files.trial(), now.slot, now.boot)

    def restart(self) -> str:
        """Restart as U-Boot's script does; return the slot that starts."""
        self.boot += 1
        left = self.get("left")
        slot = next(each for each in self.get("order") if left[each] > 0)
        self.set(booted=slot, left=left | {slot: left[slot] - 1})
        return str(slot)

    def judge(self) -> int:
        """Run what the unit runs.  Seconds pass as it sleeps."""

        def restart() -> None:
            self.restarts += 1

        def sleep(seconds: float) -> None:
            self.clock += seconds

        judge = Judge(
            self.running(),
            Rauc(),
            self.files,
            self.daemon,
            units=lambda: self.units,
            restart=restart,
            sleep=sleep,
            clock=lambda: self.clock,
        )
        return judge.run()

    def notice(self) -> str:
        """Return what `conflux status` is given to show."""
        place = self.folder / "run" / "notices" / "update"
        return place.read_text() if place.exists() else ""

    def bundle(self, version: str = "0.2.0", compatible: str = "conflux-rpi4") -> Path:
        """Write a file that this RAUC takes for a bundle."""
        place = self.folder / f"{version}.raucb"
        place.write_text(json.dumps({"version": version, "compatible": compatible}))
        return place
