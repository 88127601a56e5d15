"""Files of a board: whole or not at all, also if the power fails.  And the FAT partition, read-only but for moments."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from conflux.board.erase import Patch, leftovers, patches
from conflux.errors import words_of
from conflux.state import whole
from conflux.state.whole import sync_directory

log = logging.getLogger(__name__)

LOG: Final = "first-boot.log"
IDENTITY: Final = "board.txt"
RESCUE: Final = "rescue.bin"
# What a person, or a program that writes cards, may have put a token into.
CARD_FILES: Final = ("conflux.toml", "user-data", "network-config", "custom.toml", "firstrun.sh")
FILE_BYTES_MAX: Final = 65536
RUN_S: Final = 60.0


class System:
    """The programs of the system.  Tests have one of their own, which has no disks."""

    def run(
        self, words: Sequence[str | Path], *, within_s: float = RUN_S, given: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a program, and return what came of it; what it says goes to the log.

        Raises OSError, also if it takes longer than within_s.
        """
        try:
            done = subprocess.run(  # noqa: S603  # programs of the system, with words of this package
                [str(word) for word in words],
                input=given,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=within_s,
                check=False,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"},
            )
        except subprocess.TimeoutExpired:
            raise OSError(f"{words[0]} has not ended within {within_s:g} s") from None
        said = " ".join((done.stdout + done.stderr).split())
        if said:
            log.info("%s: %s", Path(str(words[0])).name, said[-400:])
        return done

    def require(self, words: Sequence[str | Path], *, within_s: float = RUN_S, given: str = "") -> None:
        """Run a program that has to succeed.  Raises OSError with the last thing that it said."""
        done = self.run(words, within_s=within_s, given=given)
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines() or ["no reason is known"]
            raise OSError(f"{Path(str(words[0])).name}: {said[-1]}")

    def is_mount(self, path: Path) -> bool:
        """Say whether something is mounted there."""
        return path.is_mount()


def read(path: Path, bytes_max: int = FILE_BYTES_MAX) -> bytes | None:
    """Return a file's content, at most bytes_max and one more; None: it is missing, or cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(bytes_max + 1)
    except OSError:
        return None


def write(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Make data the content of a file, whole or not at all, unless it is that already.  Raises OSError."""
    if read(path, len(data)) == data and path.stat().st_mode & 0o777 == mode:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    whole.write(path, data, mode, has_modes=False)


def remove(path: Path) -> None:
    """Remove a file; no-op if there is none.  Raises OSError."""
    try:
        path.unlink()
    except FileNotFoundError:
        return
    sync_directory(path.parent)


class Fat:
    """The FAT partition of the card, which a person reads and writes on any computer.

    It is mounted read-only, as a power cut while it is written may damage it; it is made writable for moments.
    """

    def __init__(self, path: Path, system: System | None = None) -> None:
        self.path = path
        self._system = system or System()

    def _remount(self, how: str) -> None:
        self._system.require(["mount", "-o", f"remount,{how}", self.path])

    @contextlib.contextmanager
    def writable(self) -> Iterator[Path]:
        """Have it writable for a moment.  Raises OSError."""
        self._remount("rw")
        try:
            yield self.path
        finally:
            with contextlib.suppress(OSError):
                sync_directory(self.path)
            try:
                self._remount("ro")
            except OSError as error:
                log.warning("the card's first partition stays writable: %s", words_of(error))

    def read(self, name: str, bytes_max: int = FILE_BYTES_MAX) -> bytes | None:
        """Return a file's content; None: it is missing, or cannot be read."""
        return read(self.path / name, bytes_max)

    def write(self, name: str, data: bytes) -> None:
        """Write a file, if that is not its content already.  Raises OSError."""
        if self.read(name, len(data)) != data:
            with self.writable() as path:
                write(path / name, data)

    def remove(self, name: str, *, secret: bool = False) -> None:
        """Remove a file; overwrite it first if it holds a secret.  Raises OSError."""
        if (self.path / name).exists():
            with self.writable() as path:
                if secret:
                    overwrite(path / name, [Patch(0, bytes((path / name).stat().st_size))])
                remove(path / name)

    def erase(self, secret: str | None) -> bool:
        """Take a secret, and what is left of one, out of every file that a person may have put it into.

        Return whether there was any.  secret: None: only what is left.  Raises OSError.
        """
        found = {}
        for name in CARD_FILES:
            data = self.read(name) or b""
            changes = patches(data, secret) if secret else []
            if changes := changes + leftovers(data):
                found[name] = changes
        if found:
            with self.writable() as path:
                for name, changes in found.items():
                    overwrite(path / name, changes)
        return bool(found)


def overwrite(path: Path, changes: Iterable[Patch]) -> None:
    """Write bytes in the place of others, and flush them to the disk.  Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        for change in changes:
            os.pwrite(fd, change.data, change.offset)
        os.fsync(fd)
    finally:
        os.close(fd)
