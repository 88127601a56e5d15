"""A board: a host of a lab with a whole Debian of its own, booted by its systemd.

      Host (network namespace: eth0 on a LAN)
        └── unshare: mount, pid, uts, ipc, cgroup      root/    an overlay: the fresh Debian below, what changes above
              └── PID 1 = /sbin/init of the Debian      /dev     null, zero, random, tty, net/tun; /sys/fs/cgroup is v2
                    └── units, journald, conflux.service with all of its hardening

A board is switched off like a machine whose plug is pulled, and boots again with what was on its disk.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from rig import cgroup
from rig.enter import STATE, TREE
from rig.topology import Host, LabFailure, Process, wait_for

import conflux

# What a fresh Debian or Raspberry Pi OS has, as far as it matters here; curl fetches what a page tells to.
DEBIAN = "apt,ca-certificates,curl,iproute2,iputils-ping,nftables,python3,systemd-sysv"
PLACE = TREE / "build" / "boards"
DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "net/tun")
BOOT_S, HALT_S = 60, 10

# $1: the root.  Run as PID 1 of the board; the last line becomes systemd, which takes this for a container: what such a
# manager does is done here, as that mounts made for a unit (its credentials) reach it.
BOOT = f"""
set -e
cd "$1"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/pts dev/net dev/shm
for device in {" ".join(DEVICES)}; do
    touch "dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mkdir -p .before
pivot_root . .before
umount -l /.before
rmdir /.before
mount --make-rshared /
exec env -i container=lab PATH=/usr/sbin:/usr/bin /sbin/init
"""


def suite() -> str:
    """Return this machine's Debian by name: packages are built for it."""
    release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    return release.get("VERSION_CODENAME", "").strip('"')


def package(revision: str = "") -> Path:
    """Return this machine's package in build/package.  revision: as packaging/deb got it.  Raises LabFailure."""
    release = {"bookworm": "deb12", "trixie": "deb13"}.get(suite(), suite())
    machine = subprocess.run(
        ["dpkg", "--print-architecture"], capture_output=True, text=True, check=True
    ).stdout.strip()
    part = f"+{revision}" if revision else ""
    file = TREE / "build" / "package" / f"conflux_{conflux.__version__}{part}~{release}_{machine.strip()}.deb"
    if not file.exists():
        raise LabFailure(f"there is no {file.relative_to(TREE)}: make deb{f' REVISION={revision}' if revision else ''}")
    return file


def archive() -> Path:
    """Return where the archive of a fresh Debian is kept: the name says what is in it."""
    return PLACE / f"{suite()}-{hashlib.sha256(DEBIAN.encode()).hexdigest()[:12]}.tar"


def fetch() -> None:
    """Make the archive of a fresh Debian, if there is none.  Raises SystemExit with what mmdebstrap said."""
    kept = archive()
    if kept.exists():
        return
    PLACE.mkdir(parents=True, exist_ok=True)
    part = kept.with_suffix(".part.tar")
    command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={DEBIAN}", suite(), str(part)]
    try:
        made = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise SystemExit("boards: mmdebstrap is missing: apt-get install mmdebstrap") from None
    if made.returncode:
        said = "\n".join(made.stderr.splitlines()[-10:])
        raise SystemExit(f"boards: no fresh Debian {suite()}: is its mirror in reach?  mmdebstrap said:\n{said}")
    part.replace(kept)


def unpacked() -> Path:
    """Return the folder of the fresh Debian, unpacked once for all boards of this lab's machine."""
    root = STATE / "debian"
    if not root.exists():
        root.mkdir()
        done = subprocess.run(["tar", "-x", "-C", root, "-f", archive()], capture_output=True, text=True, check=False)
        if done.returncode:
            raise LabFailure(f"the fresh Debian does not unpack; it needs root: sudo make ...\n{done.stderr[-500:]}")
    return root


class Board:
    """A host's Debian, booted."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.name = host.name
        self._layer = host.state / "disk"
        self.root = self._layer / "root"
        for name in ("root", "changed", "work"):
            (self._layer / name).mkdir(parents=True)
        layers = f"lowerdir={unpacked()},upperdir={self._layer / 'changed'},workdir={self._layer / 'work'}"
        subprocess.run(["mount", "-t", "overlay", "-o", layers, "overlay", self.root], check=True)
        (self.root / "etc/hostname").write_text(f"{host.name}\n")
        (self.root / "etc/machine-id").write_text("")  # systemd makes one, as at a first boot
        self._init: Process
        self._pid = 0
        self.boot()

    def boot(self) -> None:
        """Switch it on; return when its units are started."""
        self._group = cgroup.new(self.name)
        spaces = "--mount --pid --uts --ipc --cgroup --fork --kill-child"
        start = f'echo $$ >"$1/cgroup.procs"; exec unshare {spaces} sh -c "$3" sh "$2"'
        self._init = self.host.spawn("init", "sh", "-c", start, "sh", self._group, self.root, BOOT)
        children = Path(f"/proc/{self._init.pid}/task/{self._init.pid}/children")
        self._pid = int(wait_for(children.read_text, f"{self.name}: PID 1", within_s=BOOT_S, logs=(self._init,)))
        comm = Path(f"/proc/{self._pid}/comm")
        wait_for(lambda: comm.read_text() == "systemd\n", f"{self.name}: systemd", within_s=BOOT_S, logs=(self._init,))
        done = "running degraded"  # no console, no modules: some unit of a real machine always fails here
        state = ("systemctl", "is-system-running")
        wait_for(
            lambda: (said := self.run(*state, check=False).stdout.strip()) and said in done,
            f"{self.name}: booted",
            within_s=BOOT_S,
            logs=(self._init,),
        )

    def cut_power(self) -> None:
        """End all that runs on it, at once; boot() switches it on again."""
        os.kill(self._pid, signal.SIGKILL)
        self._init.wait(HALT_S)
        cgroup.remove(self._group)

    def run(
        self, *command: str | Path, within_s: float = 60, check: bool = True, given: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end as root's shell there would.  given: its standard input.

        Raises LabFailure with its output if check and it fails.
        """
        words = ["nsenter", f"--target={self._pid}", "--all", "env", "-i", "HOME=/root", "LANG=C.UTF-8", "TERM=dumb"]
        words += ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", *map(str, command)]
        try:
            done = subprocess.run(words, input=given, capture_output=True, text=True, timeout=within_s, check=False)
        except subprocess.TimeoutExpired:
            raise LabFailure(f"{self.name}: {' '.join(map(str, command))}: no end after {within_s:g} s") from None
        if check and done.returncode:
            output = (done.stdout + done.stderr).strip()
            raise LabFailure(
                f"{self.name}: {' '.join(map(str, command))}: exit {done.returncode}\n{output}\n{self.journal()}"
            )
        return done

    def timed(self, *command: str | Path, within_s: float = 60) -> tuple[str, float]:
        """Run a program to its end; return what it printed, and the seconds it took."""
        started = time.monotonic()
        done = self.run(*command, within_s=within_s)
        return done.stdout, time.monotonic() - started

    def journal(self) -> str:
        """Return the end of what the daemon logged."""
        return self.run("journalctl", "--unit=conflux", "--no-pager", "--lines=25", check=False).stdout

    def put(self, file: Path, folder: str = "/root") -> str:
        """Copy a file onto it, as from a stick; return its path there."""
        target = self.root / folder.lstrip("/") / file.name
        target.write_bytes(file.read_bytes())
        return f"{folder}/{file.name}"

    def files(self) -> set[str]:
        """Return what its disk has that the fresh Debian has not, as paths; what was made and removed is not there."""
        changed = self._layer / "changed"
        below = unpacked()
        return {
            f"/{path.relative_to(changed)}"
            for path in changed.rglob("*")
            if os.path.lexists(self.root / path.relative_to(changed))
            and not os.path.lexists(below / path.relative_to(changed))
        }


def bytes_on_disk(paths: Sequence[Path]) -> int:
    """Return what files take in blocks of 4 KiB, as a file system counts them; links and folders count one."""
    return sum(max(1, -(-path.lstat().st_size // 4096)) * 4096 for path in paths)


if __name__ == "__main__":
    fetch()
