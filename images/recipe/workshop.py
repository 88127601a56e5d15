"""Running programs: this machine's, those of the tools tree, and a board's own, emulated."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from recipe.board import RecipeError

LOG_LINES_SHOWN = 25
PROGRESS_S = 20  # between two lines of progress, of a stage that takes minutes
ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "TZ": "UTC",
    "DEBIAN_FRONTEND": "noninteractive",
    "DEBCONF_NONINTERACTIVE_SEEN": "true",
}


class Workshop:
    """A place to build in.

    tree: the sources.  place: build/image.  tools: the root of the tools tree, once there is one.
    What programs say goes to place/log/STAGE.log.
    """

    def __init__(self, tree: Path, place: Path) -> None:
        self.tree, self.place = tree, place
        self.tools = place / "tools"
        self.log = place / "log"
        self.log.mkdir(parents=True, exist_ok=True)
        self._mounted: set[Path] = set()
        self._started = time.monotonic()

    def say(self, text: str) -> None:
        """Tell the person who waits, with the seconds since the start."""
        print(f"image: {time.monotonic() - self._started:5.0f} s  {text}", flush=True)

    def host(
        self,
        command: Sequence[object],
        log: str,
        extra: Mapping[str, str] | None = None,
        counted: str | None = None,
    ) -> None:
        """Run a program of this machine.

        counted: a pattern of lines in what it says; how many there were is shown as progress.
        Raises RecipeError with the end of what it said.
        """
        path = self.log / f"{log}.log"
        environment = ENVIRONMENT | proxies() | dict(extra or {})
        with path.open("ab") as file:
            begin = file.tell()
            file.write(f"$ {' '.join(map(str, command))}\n".encode())
            file.flush()
            done = threading.Event()
            watch = threading.Thread(target=self._watch, args=(path, begin, log, counted, done), daemon=True)
            watch.start()
            try:
                code = subprocess.run(
                    list(map(str, command)),
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=file,
                    env=environment,
                    check=False,
                ).returncode
            except FileNotFoundError:
                raise RecipeError(f"{log}: {command[0]} is not on this machine: .ci/prepare image") from None
            finally:
                done.set()
                watch.join()
        if code != 0:
            said = path.read_bytes()[begin:].decode(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
            raise RecipeError("\n".join([f"{log}: {command[0]} failed ({code}); all of it is in {path}", *said]))

    def _watch(self, path: Path, begin: int, log: str, counted: str | None, done: threading.Event) -> None:
        started = time.monotonic()
        while not done.wait(PROGRESS_S):
            progress = ""
            if counted is not None:
                said = path.read_bytes()[begin:]
                found = re.findall(counted.encode(), said, re.MULTILINE)
                progress = f", {len(found)} packages" if found else ""
            self.say(f"{log}: {time.monotonic() - started:.0f} s{progress}")

    def inside(self, root: Path, command: Sequence[object], log: str, extra: Mapping[str, str] | None = None) -> None:
        """Run a program of a root tree in it, emulated if it is a board's."""
        self._mount(root)
        self.host(["chroot", root, *command], log, extra)

    def quickly(self, root: Path, command: Sequence[object], log: str, extra: Mapping[str, str] | None = None) -> None:
        """Run a program of a root tree in it; what its scripts call runs on this machine, where that is the same."""
        native = self.tree / "images/recipe/native"
        own = (root / "var/lib/dpkg/arch-native").read_text().strip()
        foreign = output_of("dpkg", "--print-architecture").strip() != own
        if foreign:
            self.host([native, "begin", root, self.tools], log)
        self.inside(root, command, log, extra)
        self.leave(root)
        if foreign:
            self.host([native, "end", root, self.tools], log)

    def tool(self, command: Sequence[object], log: str, extra: Mapping[str, str] | None = None) -> None:
        """Run a program of the tools tree; this machine's build folder is at the same path in there."""
        self._mount(self.tools, self.place)
        self.host(["chroot", self.tools, *command], log, extra)

    def _mount(self, root: Path, *shared: Path) -> None:
        """Give a root /dev and /proc, and folders of this machine.  The mounts end with this process's namespace."""
        if root in self._mounted:
            return
        for target in (root / "dev", root / "proc", *(root / str(each).lstrip("/") for each in shared)):
            target.mkdir(parents=True, exist_ok=True)
        run("mount", "--bind", "/dev", root / "dev")
        run("mount", "-t", "proc", "proc", root / "proc")
        for each in shared:
            run("mount", "--bind", each, root / str(each).lstrip("/"))
        self._mounted.add(root)

    def leave(self, root: Path) -> None:
        """Take the mounts of a root away, so that it can be packed or moved."""
        if root in self._mounted:
            run("umount", root / "proc")
            run("umount", root / "dev")
            self._mounted.remove(root)


def proxies() -> dict[str, str]:
    """Return what of the caller's environment says how the network is reached."""
    return {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}


def run(*command: str | Path) -> None:
    """Run a short program; raises RecipeError with what it said."""
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    if done.returncode != 0:
        raise RecipeError(f"{' '.join(map(str, command))}: {done.stderr.strip() or done.returncode}")


def output_of(*command: str | Path) -> str:
    """Return what a short program prints; raises RecipeError."""
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    if done.returncode != 0:
        raise RecipeError(f"{' '.join(map(str, command))}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def in_own_mounts() -> None:
    """Start this program again in a mount namespace of its own: what is mounted here ends with it."""
    if os.environ.get("CONFLUX_IMAGE_MOUNTS") != "1":
        os.environ["CONFLUX_IMAGE_MOUNTS"] = "1"
        os.execvp("unshare", ["unshare", "--mount", "--propagation", "private", sys.executable, *sys.argv])


Say = Callable[[str], None]
