"""RAUC, by its command: it checks and writes bundles, and tells the boot loader which slot is next."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from conflux.board import rauc_words
from conflux.board.rauc_words import Bundle, Slots
from conflux.errors import UserError

PROGRAM: Final = "rauc"
ANSWER_S: Final = 120.0  # a slow card; an installation takes longer, and is not bounded
OUTPUT_CHARS_MAX: Final = 1 << 18
# OpenSSL's and RAUC's words are read, so they have to be English.
ENVIRONMENT: Final = {"LC_ALL": "C.UTF-8"}


class Refused(UserError):
    """RAUC did not do it; the text says why, for a person."""


class Rauc:
    """Runs rauc.  conf: another system.conf than RAUC's own, as tests have it."""

    def __init__(self, conf: Path | None = None) -> None:
        self._command = [PROGRAM] if conf is None else [PROGRAM, f"--conf={conf}"]

    def info(self, file: Path) -> Bundle:
        """Return a bundle whose signature this board trusts.  Raises Refused."""
        done = self._run("info", str(file))
        if done.returncode != 0:
            raise Refused(rauc_words.reason(done.stderr))
        try:
            return rauc_words.bundle(done.stdout)
        except ValueError as error:
            raise Refused(str(error)) from None

    def slots(self) -> Slots:
        """Return both slots.  Raises Refused."""
        done = self._run("status", "--detailed", "--output-format=json")
        if done.returncode != 0:
            raise Refused(rauc_words.reason(done.stderr))
        try:
            return rauc_words.slots(done.stdout)
        except ValueError as error:
            raise Refused(str(error)) from None

    def mark(self, what: str, slot: str) -> None:
        """Mark a slot.  what: "good", "bad", "active".  slot: "booted", "other".  Raises Refused."""
        done = self._run("status", f"mark-{what}", slot)
        if done.returncode != 0:
            raise Refused(f"the {slot} slot could not be marked {what}: {rauc_words.reason(done.stderr)}")

    def install(self, file: Path, tell: Callable[[int, str], None]) -> None:
        """Write a bundle into the slot that is not booted, and have it be the next.  tell: takes percent and words.

        Raises Refused; what is booted is untouched then, and stays the next.
        """
        said: list[str] = []
        try:
            with subprocess.Popen(  # noqa: S603  # a program of the system
                [*self._command, "install", str(file)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                env=os.environ | ENVIRONMENT,
            ) as running:
                assert running.stdout is not None
                for line in running.stdout:
                    if (at := rauc_words.progress(line)) is not None:
                        tell(*at)
                    elif sum(map(len, said)) < OUTPUT_CHARS_MAX:
                        said.append(line)
        except FileNotFoundError:
            raise missing() from None
        if running.returncode != 0:
            raise Refused(rauc_words.reason("".join(said)))

    def _run(self, *words: str) -> subprocess.CompletedProcess[str]:
        command: Sequence[str] = [*self._command, *words]
        try:
            return subprocess.run(  # noqa: S603  # a program of the system
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=ANSWER_S,
                check=False,
                env=os.environ | ENVIRONMENT,
            )
        except FileNotFoundError:
            raise missing() from None
        except subprocess.TimeoutExpired:
            raise Refused(f"rauc {words[0]} has not answered for {ANSWER_S:.0f} s: systemctl status rauc") from None


def missing() -> UserError:
    """Return what is said where there is no RAUC."""
    return UserError(
        "this is no board image: RAUC, which updates those, is not installed here; "
        "a package is updated by the system's package manager"
    )
