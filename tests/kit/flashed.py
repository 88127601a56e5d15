"""A flashed board in a directory: its two partitions are folders, and programs of the system only write."""

from __future__ import annotations

import base64
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from kit.tree import TREE

from conflux.board.files import System
from conflux.board.places import Places

MACHINE_ID = "0123456789abcdef0123456789abcdef"
PUBLIC_KEY = "ssh-ed25519 " + base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + b"k" * 32).decode() + " me@desk"


class Programs(System):
    """Notes what is run.  codes: exit codes of programs that fail, by name."""

    def __init__(self, **codes: int) -> None:
        self.ran: list[str] = []
        self.codes = codes
        self.mounted: set[Path] = set()

    def run(
        self, words: Sequence[str | Path], *, within_s: float = 60, given: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Do what a program would leave behind."""
        said = [str(word) for word in words]
        self.ran.append(" ".join(said))
        code = self.codes.get(said[0].replace("-", "_").replace(".", "_"), 0)
        if code:
            return subprocess.CompletedProcess(said, code, "", "it failed\n")
        if said[0] == "ssh-keygen":
            Path(said[-1]).write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n")
            Path(f"{said[-1]}.pub").write_text("ssh-ed25519 AAAA\n")
        if said[0] == "mount" and "remount" not in said[-2]:
            self.mounted.add(Path(said[-1]))
        if said[0] == "mkfs.ext4":
            shutil.rmtree(Path(said[-1]).parent.parent.parent / "data", ignore_errors=True)
        return subprocess.CompletedProcess(said, 0, "", "")

    def is_mount(self, path: Path) -> bool:
        """Say whether it was mounted here."""
        return path in self.mounted


class Flashed:
    """A board below top, as the image leaves it."""

    def __init__(self, top: Path) -> None:
        self.places = Places(
            root=top,
            data=top / "data",
            fat=top / "bootconfig",
            run=top / "run",
            devices=top / "dev" / "disk",
            state_list=TREE / "firmware/tree/usr/lib/conflux-board/state.list",
            zones=top / "zoneinfo",
            leds=top / "leds",
            blocks=top / "blocks",
            console=top / "console",
        )
        for folder in ("dev/disk", "bootconfig", "data", "zoneinfo/Europe", "zoneinfo/Etc", "etc", "leds", "run"):
            (top / folder).mkdir(parents=True)
        for file in ("dev/disk/data", "dev/disk/bootconfig", "zoneinfo/Europe/Berlin", "zoneinfo/Etc/UTC"):
            (top / file).touch()
        (top / "etc/machine-id").write_text(f"{MACHINE_ID}\n")

    def card(self, text: str, name: str = "conflux.toml") -> None:
        """Put a file on the card."""
        (self.places.fat / name).write_text(text)

    def switch_off(self) -> None:
        """Lose what is in memory."""
        shutil.rmtree(self.places.run)
        self.places.run.mkdir()

    def kept(self) -> dict[str, bytes]:
        """Return what is on both partitions, by path; what a crash may leave beside it is not of interest."""
        top = self.places.root
        return {
            str(file.relative_to(top)): file.read_bytes()
            for folder in (self.places.data, self.places.fat)
            for file in sorted(folder.rglob("*"))
            if file.is_file() and not file.name.endswith((".new", ".pub")) and file.name != "first-boot.log"
        }
