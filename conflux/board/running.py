"""What runs on this board now: the image, the slot, the boot, and what systemd has to say."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Final, NamedTuple

from conflux.board.release import IMAGE_BYTES_MAX, Image
from conflux.errors import UserError, printable, words_of

IMAGE: Final = Path("usr/lib/conflux-board/image")
FLOOR: Final = Path("usr/lib/conflux-board/floor")
COMMAND_LINE: Final = Path("proc/cmdline")
BOOT: Final = Path("proc/sys/kernel/random/boot_id")
ANSWER_S: Final = 30.0
UNITS_MAX: Final = 64

_SLOT = re.compile(r"(?:^|\s)rauc\.slot=([AB])(?:\s|$)")


class Running(NamedTuple):
    """image: what runs.  slot: "A" or "B".  boot: the kernel's id of this boot."""

    image: Image
    slot: str
    boot: str


def running(root: Path = Path("/")) -> Running:
    """Return what runs.  Raises UserError where that is no image for boards.  root: of the file system."""
    try:
        said = (root / IMAGE).read_text()[: IMAGE_BYTES_MAX + 1]
        floor = (root / FLOOR).read_text()[:IMAGE_BYTES_MAX]
    except FileNotFoundError:
        raise UserError(
            "this is no board image, which is what this updates: a package is updated by the system's package manager"
        ) from None
    except OSError as error:
        raise UserError(f"{root / IMAGE}: {words_of(error)}") from None
    try:
        image = Image.parse(said, floor)
    except ValueError as error:
        raise UserError(f"{root / IMAGE}: {error}") from None
    slot = _SLOT.search((root / COMMAND_LINE).read_text())
    if slot is None:
        raise UserError(f"{root / COMMAND_LINE}: the boot loader does not say which slot runs (rauc.slot=)")
    return Running(image, slot[1], (root / BOOT).read_text().strip())


class Units(NamedTuple):
    """settled: systemd has started what it starts.  failed: units that failed."""

    settled: bool
    failed: tuple[str, ...]


def units() -> Units:
    """Return what systemd says of its units."""
    state = _systemctl("is-system-running")
    failed = _systemctl("list-units", "--state=failed", "--plain", "--no-legend", "--full")
    names = [printable(line.split()[0])[:128] for line in failed.splitlines() if line.strip()]
    return Units(state.strip() not in ("initializing", "starting", ""), tuple(names[:UNITS_MAX]))


def reboot() -> None:
    """Restart the board.  Raises UserError."""
    try:
        done = subprocess.run(["systemctl", "reboot"], capture_output=True, text=True, check=False)  # noqa: S607
    except FileNotFoundError:
        raise UserError("there is no systemctl: restart the board by hand") from None
    if done.returncode != 0:
        raise UserError(f"systemctl reboot: {printable(done.stderr.strip())}")


def _systemctl(*words: str) -> str:
    """Return what systemctl prints, or "" if it does not answer; its exit code says the same as its words."""
    try:
        done = subprocess.run(  # noqa: S603  # a program of the system
            ["systemctl", *words],  # noqa: S607
            capture_output=True,
            text=True,
            errors="replace",
            timeout=ANSWER_S,
            check=False,
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return ""
    return done.stdout
