"""Fresh Debians, and the packages for them; `make deb-full` unpacks and builds both."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from kit.tree import TREE

import conflux

PLACE = TREE / "build" / "package"
RELEASES = {"bookworm": "deb12", "trixie": "deb13"}

# $1: the root; what follows runs inside, with a network of its own that has nothing but its loopback.
ENTER = """
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
ip link set lo up
root=$1; shift
exec chroot "$root" env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin HOME=/root LANG=C.UTF-8 \\
    DEBIAN_FRONTEND=noninteractive "$@"
"""


class Debian:
    """A Debian in a folder, whose programs run in namespaces of their own; ended with close()."""

    def __init__(self, suite: str, place: Path, *below: Path) -> None:
        """Lay it over folders, the uppermost first, which stay as they are; what changes is in place/changed."""
        self.suite = suite
        self.root, self.changed = place / "root", place / "changed"
        for folder in (self.root, self.changed, place / "work"):
            folder.mkdir(parents=True)
        layers = f"lowerdir={':'.join(map(str, below))},upperdir={self.changed},workdir={place / 'work'}"
        subprocess.run(["mount", "-t", "overlay", "-o", layers, "overlay", self.root], check=True)

    def close(self) -> None:
        """Let go of the folder."""
        subprocess.run(["umount", "--lazy", self.root], check=True)

    def run(self, *command: str | Path, code: int = 0) -> str:
        """Run a program to its end, and return what it said; code: how it has to end."""
        spaces = ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child"]
        done = subprocess.run(
            [*spaces, "sh", "-ec", ENTER, "sh", self.root, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout
        return done.stdout

    def dpkg(self, *words: str | Path, code: int = 0) -> str:
        """Run dpkg, and return what it said."""
        return self.run("dpkg", *words, code=code)

    def install(self, package: Path, code: int = 0) -> str:
        """Install a package of this machine's; return what was said."""
        (self.root / package.name).write_bytes(package.read_bytes())
        return self.dpkg("--install", f"/{package.name}", code=code)

    def file(self, path: str) -> Path:
        """Return where a file of that Debian is here."""
        return self.root / path.lstrip("/")


def package(suite: str, revision: str = "") -> Path:
    """Return the package of a suite, for this machine."""
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    version = conflux.__version__ + (revision and f"+{revision}")
    return PLACE / f"conflux_{version}~{RELEASES[suite]}_{machine}.deb"
