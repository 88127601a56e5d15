"""The folder of updates on the data partition, which both slots share; every file is complete or missing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from conflux.board.files import write
from conflux.board.trial import FILE_BYTES_MAX, Result, Trial, notice
from conflux.errors import StateError, printable, words_of
from conflux.state.whole import sync_directory

FOLDER: Final = Path("/data/update")
NOTICES: Final = Path("/run/conflux-board/notices")

TRIAL, RESULT, NOTICE = "trial.json", "result.json", "notice"
SHOWN = "update"  # among the notices
JUDGING = "judging"  # beside the folder of notices: what the judge waits for
KEPT = "kept"  # there too: what runs was found good, so nothing restarts the board, whatever the disk keeps

T = TypeVar("T")


class UpdateFiles:
    """What is kept of updates.  folder: on the data partition.  notices: what `conflux status` shows of a board."""

    def __init__(self, folder: Path = FOLDER, notices: Path = NOTICES) -> None:
        self.folder = folder
        self._notices = notices

    def trial(self) -> Trial | None:
        """Return the update that has no verdict yet; None if there is none, or the disk damaged it."""
        return self._read(TRIAL, Trial.parse)

    def result(self) -> Result | None:
        """Return the last verdict; None if there is none, or the disk damaged it."""
        return self._read(RESULT, Result.parse)

    def begin(self, trial: Trial) -> None:
        """Keep an update that is installed, and forget the verdict about the one before.  Raises StateError."""
        self._remove(self.folder / RESULT)
        self.dismiss()
        self._write(TRIAL, trial.encode())

    def is_damaged(self) -> bool:
        """Say whether a file is there of an update, and does not tell which."""
        return (self.folder / TRIAL).exists() and self.trial() is None

    def forget_trial(self) -> None:
        """Forget the update that waits, or whose file is damaged."""
        self._remove(self.folder / TRIAL)
        self._flush()

    def dismiss(self) -> None:
        """Say no more what was wrong with an update."""
        self._remove(self.folder / NOTICE)
        self._remove(self._notices / SHOWN)

    def propose(self, result: Result) -> None:
        """Keep a verdict, while the update is still under trial: the board restarts now.  Raises StateError."""
        self._write(RESULT, result.encode())

    def end(self, result: Result) -> None:
        """Keep a verdict, say what a person has to know, and end the trial.

        Raises StateError; the trial of a good one has ended even so, until the next boot at least.
        """
        try:
            self._write(RESULT, result.encode())
            text = notice(result)
            if text:
                self._write(NOTICE, text + "\n")
            else:
                self._remove(self.folder / NOTICE)
            self.publish()
        except StateError:
            if result.good:
                self.keep()
            raise
        self.forget_trial()

    def keep(self) -> None:
        """End the trial without a verdict; KEPT ends it for this boot where the disk lets nothing be removed either."""
        with contextlib.suppress(OSError):
            self._notices.parent.mkdir(parents=True, exist_ok=True)
            (self._notices.parent / KEPT).touch()
        self.forget_trial()

    def publish(self) -> None:
        """Have `conflux status`, the doctor and the page say what was wrong with the last update, if anything was."""
        try:
            text = (self.folder / NOTICE).read_text(errors="replace")[:FILE_BYTES_MAX]
        except FileNotFoundError:
            self._remove(self._notices / SHOWN)
            return
        except OSError as error:
            raise StateError(f"{self.folder / NOTICE}: {words_of(error)}") from None
        with contextlib.suppress(OSError):  # it stays for the next boot
            self._notices.mkdir(parents=True, exist_ok=True)
            place = self._notices / SHOWN
            half = place.with_name(f".{place.name}")
            half.write_text("".join(printable(line) + "\n" for line in text.splitlines() if line.strip()))
            half.chmod(0o644)
            half.replace(place)

    def waits_for(self, text: str) -> None:
        """Say what the judge waits for."""
        with contextlib.suppress(OSError):
            self._notices.parent.mkdir(parents=True, exist_ok=True)
            (self._notices.parent / JUDGING).write_text(text)

    def waited_for(self) -> str:
        """Return what the judge waits for, or ""."""
        try:
            return printable((self._notices.parent / JUDGING).read_text(errors="replace")[:FILE_BYTES_MAX])
        except OSError:
            return ""

    def _read(self, name: str, parse: Callable[[str], T]) -> T | None:
        try:
            with (self.folder / name).open(encoding="utf-8") as file:
                return parse(file.read(FILE_BYTES_MAX + 1))
        except (OSError, ValueError):
            return None

    def _write(self, name: str, text: str) -> None:
        place = self.folder / name
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write(place, text.encode(), 0o600)
        except OSError as error:
            raise StateError(f"{place}: {words_of(error)}") from None

    def _remove(self, place: Path) -> None:
        with contextlib.suppress(OSError):
            place.unlink(missing_ok=True)

    def _flush(self) -> None:
        """Have the disk know the names of the files."""
        with contextlib.suppress(OSError):
            sync_directory(self.folder)
