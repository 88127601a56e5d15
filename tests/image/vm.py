"""A board in an emulator: its power, its serial console, and a shell by ssh over its cable.

      Machine ── QEMU: the firmware (U-Boot, UEFI) finds what it boots on the disk, as on a desk
        │ console: a file per time that the power is on; expect() reads on from where it was
        │ cut_power(): SIGKILL.  What the board had not flushed is lost: QEMU holds it as a disk's cache would
        └ cables: ports of switches; no other network, and no way out of this machine

Runs inside what tests/lab/rig/enter.py opens: however a test ends, the kernel ends QEMU.
"""

from __future__ import annotations

import itertools
import json
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from image.disk import BUILT, Disk
from image.switch import Switch
from rig.topology import Host, LabFailure

MEMORY_MB = 512  # as a Raspberry Pi Zero 2 W has
LINES_SHOWN = 40
POLL_S = 0.25
_TERMINAL = re.compile(r"\x1b\[[0-9;?!]*[A-Za-z]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[=>78c]|\r")


class Cable(NamedTuple):
    """A port of a switch that a board is plugged into."""

    switch: Switch
    port: str


def uboot() -> Path:
    """Return U-Boot for QEMU's board: that of the image's Debian, which `make image` unpacked, else this host's."""
    place = Path("usr/lib/u-boot/qemu_arm64/u-boot.bin")
    found = [root / place for root in (BUILT / "tools", Path("/")) if (root / place).exists()]
    if not found:
        raise LabFailure("there is no U-Boot for QEMU: apt-get install u-boot-qemu")
    return found[0]


def uefi() -> Path:
    """Return UEFI firmware for QEMU's board."""
    return Path("/usr/share/qemu-efi-aarch64/QEMU_EFI.fd")


class Machine:
    """A board.  Its disk and its addresses stay when its power goes."""

    _numbers = itertools.count(1)

    def __init__(
        self,
        name: str,
        disk: Disk,
        *cables: Cable,
        folder: Path,
        firmware: Path | None = None,
        memory_mb: int = MEMORY_MB,
        options: Sequence[str] = (),
    ) -> None:
        """folder: for its consoles; firmware: U-Boot unless given; options: more words for QEMU."""
        self.name = name
        self.disk = disk
        self.cables = cables
        self.folder = folder
        self.firmware = firmware or uboot()
        self.memory_mb = memory_mb
        self.options = list(options)
        number = next(Machine._numbers)
        self.addresses = [f"52:54:00:00:{number:02x}:{1 + each:02x}" for each in range(len(cables))]
        self.log = folder / f"{name}.console"
        self._times_on = 0
        self._seen = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._on_since = 0.0

    def _command(self) -> list[str]:
        words = ["qemu-system-aarch64", "-name", f"{self.name},debug-threads=on"]
        words += ["-M", "virt", "-cpu", "cortex-a72", "-smp", "2"]
        words += ["-accel", "tcg,thread=multi", "-m", str(self.memory_mb), "-bios", str(self.firmware)]
        words += ["-nodefaults", "-display", "none", "-monitor", "none", "-serial", "stdio"]
        words += ["-drive", f"if=none,id=disk,format=qcow2,file={self.disk.path}"]
        words += ["-device", "virtio-blk-pci,drive=disk,bootindex=0", "-device", "virtio-rng-pci"]
        for number, (cable, address) in enumerate(zip(self.cables, self.addresses, strict=True)):
            words += ["-netdev", cable.switch.netdev(cable.port, f"net{number}")]
            words += ["-device", f"virtio-net-pci,netdev=net{number},mac={address},romfile="]
        return words + self.options

    def power_on(self) -> None:
        """Switch it on; what it says from here on is a console of its own."""
        if self._process is not None:
            raise LabFailure(f"{self.name} is on already")
        self._times_on += 1
        self._seen = 0
        self.log = self.folder / f"{self.name}.{self._times_on}.console"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(self._command(), stdin=subprocess.PIPE, stdout=log, stderr=log)
        self._on_since = time.monotonic()

    def cut_power(self) -> None:
        """Pull its plug."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process = None

    @property
    def is_on(self) -> bool:
        """Whether it has power and has not switched itself off."""
        return self._process is not None and self._process.poll() is None

    def on_for(self) -> float:
        """Return for how many seconds it has been on."""
        return time.monotonic() - self._on_since

    def waited(self) -> float:
        """Return for how many of these seconds its processors had to wait for one of this machine's, on average."""
        assert self._process is not None
        threads = list(Path(f"/proc/{self._process.pid}/task").iterdir())
        emulated = [each for each in threads if (each / "comm").read_text().startswith("CPU ")]
        waits = [int((each / "schedstat").read_text().split()[1]) / 1e9 for each in emulated]
        return sum(waits) / len(waits)

    def wait_off(self, within_s: float) -> None:
        """Wait until it has switched itself off.  Raises LabFailure."""
        wait_slowly(lambda: not self.is_on, f"{self.name}: power off", within_s=within_s, log=self.tail)
        self.cut_power()

    def console(self) -> str:
        """Return what it has said since it was switched on, without what only moves a cursor."""
        return _TERMINAL.sub("", self.log.read_text(errors="replace")) if self.log.exists() else ""

    def expect(self, pattern: str, *, within_s: float, never: str | None = None) -> re.Match[str]:
        """Wait until it says something that it has not said before an earlier match; return the match.

        never: what must not be said before.  Raises LabFailure with the end of the console.
        """

        def found() -> re.Match[str] | None:
            is_on, text = self.is_on, self.console()
            match = re.compile(pattern).search(text, self._seen)
            until = match.start() if match else len(text)
            if never and (wrong := re.compile(never).search(text, self._seen, until)):
                raise LabFailure(f"{self.name} says {wrong[0]!r} while waiting for {pattern!r}{self.tail()}")
            if match is None and not is_on:
                raise LabFailure(f"{self.name} is off while waiting for {pattern!r}{self.tail()}")
            return match

        what = f"{self.name}: {pattern!r} on its console"
        match: re.Match[str] = wait_slowly(found, what, within_s=within_s, log=self.tail)
        self._seen = match.end()
        return match

    def send(self, text: str) -> None:
        """Type on its console."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode())
        self._process.stdin.flush()

    def tail(self) -> str:
        """Return the end of its console with a heading, to stand under an error."""
        lines = self.console().splitlines()[-LINES_SHOWN:]
        return f"\n--- {self.name}: end of {self.log.name}\n" + "\n".join(f"    {line}" for line in lines)


def wait_slowly(fact: Callable[[], Any], what: str, *, within_s: float, log: Callable[[], str] = str) -> Any:
    """Return fact()'s first true value; look rarely, since the emulator wants the processor.

    Raises LabFailure naming what, with the log.
    """
    deadline = time.monotonic() + within_s
    while not (value := fact()):
        if time.monotonic() > deadline:
            raise LabFailure(f"not within {within_s:g} s: {what}{log()}")
        time.sleep(POLL_S)
    return value


def link_local(address: str) -> str:
    """Return the link-local address that the kernel derives from an Ethernet address (RFC 4291, appendix A)."""
    octets = [int(each, 16) for each in address.split(":")]
    octets[0] ^= 2
    octets[3:3] = [0xFF, 0xFE]
    groups = (f"{high << 8 | low:x}" for high, low in zip(octets[::2], octets[1::2], strict=True))
    return "fe80::" + ":".join(groups)


class Shell:
    """Root's shell of a board, by ssh from a host of the lab on its LAN.  The board's host key must never change."""

    def __init__(self, machine: Machine, host: Host, key: Path, *, device: str = "eth0", cable: int = 0) -> None:
        self.machine = machine
        self._host = host
        self._where = f"root@{link_local(machine.addresses[cable])}%{device}"
        folder = machine.folder
        self._options = {
            "BatchMode": "yes",
            "ConnectTimeout": "20",
            "ControlMaster": "auto",
            "ControlPath": str(folder / f"{machine.name}.ssh"),
            "ControlPersist": "600",
            "IdentitiesOnly": "yes",
            "IdentityFile": str(key),
            "LogLevel": "ERROR",
            "ServerAliveCountMax": "3",
            "ServerAliveInterval": "10",
            "StrictHostKeyChecking": "accept-new",
            "UserKnownHostsFile": str(folder / f"{machine.name}.known_hosts"),
        }

    def run(self, *words: str, within_s: float = 120, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a program on the board to its end.  Raises LabFailure with its output if check and it fails."""
        options = [f"-o{name}={value}" for name, value in self._options.items()]
        done = self._host.run("ssh", *options, self._where, shlex.join(words), within_s=within_s, check=False)
        if check and done.returncode:
            said = (done.stdout + done.stderr).strip()
            raise LabFailure(f"{self.machine.name}: {shlex.join(words)}: exit {done.returncode}\n{said}")
        return done

    def json(self, *words: str, within_s: float = 120) -> Any:
        """Run a program on the board and return the JSON that it prints."""
        return json.loads(self.run(*words, within_s=within_s).stdout)

    def put(self, file: Path, target: str, within_s: float = 600) -> None:
        """Copy a file onto the board.  Raises LabFailure."""
        options = [f"-o{name}={value}" for name, value in self._options.items()]
        words = ["sh", "-c", f'exec ssh "$@" <{shlex.quote(str(file))}', "sh", *options, self._where]
        self._host.run(*words, f"cat >{shlex.quote(target)} && sync", within_s=within_s)

    def try_until(self, *words: str, within_s: float) -> str:
        """Run a program again and again until it succeeds; return what it printed.  Raises LabFailure."""
        said = ""

        def succeeded() -> subprocess.CompletedProcess[str] | None:
            nonlocal said
            done = self.run(*words, check=False)
            said = (done.stdout + done.stderr).strip()
            return None if done.returncode else done

        what = f"{self.machine.name}: {shlex.join(words)}"
        done: subprocess.CompletedProcess[str] = wait_slowly(
            succeeded, what, within_s=within_s, log=lambda: f": {said}{self.machine.tail()}"
        )
        return done.stdout

    def hang_up(self) -> None:
        """Forget the connection: the board loses its power, or boots again."""
        options = [f"-o{name}={value}" for name, value in self._options.items()]
        self._host.run("ssh", *options, "-O", "exit", self._where, check=False)
