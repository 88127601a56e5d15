"""Judges an update after the restart into it: `python -m conflux.board.judge`, run by conflux-judge.service.

It marks the slot good, or restarts the board into the one before.  If it cannot even run, conflux-give-up.service
restarts the board, and after three tries the boot loader falls back.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from conflux.api.client import ApiClient
from conflux.board import overlay
from conflux.board.goodness import Goodness, Seen, Verdict
from conflux.board.rauc import Rauc
from conflux.board.running import Running, Units, reboot, running, units
from conflux.board.trial import NO_START, Boot, Result, Trial, meaning
from conflux.board.update_files import UpdateFiles
from conflux.config import settings
from conflux.config.settings import Config
from conflux.errors import ConfigError, UserError

LOOK_S: Final = 3.0
CONSOLE: Final = Path("/dev/console")


class Judge:
    """Judges the update of one board.  sleep, clock: seconds; restart: the board."""

    def __init__(
        self,
        now: Running,
        rauc: Rauc,
        files: UpdateFiles,
        client: ApiClient,
        *,
        units: Callable[[], Units] = units,
        restart: Callable[[], None] = reboot,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._now = now
        self._rauc = rauc
        self._files = files
        self._client = client
        self._units = units
        self._restart = restart
        self._sleep = sleep
        self._clock = clock

    def run(self) -> int:
        """Do what this boot asks for.  Return the exit code of the unit."""
        trial = self._files.trial()
        match meaning(trial, self._now.slot, self._now.boot):
            case Boot.TRIAL:
                assert trial is not None
                verdict = self._judge(trial)
                if verdict is not None and verdict.good:
                    verdict = self._accept(trial)
                if verdict is not None and not verdict.good:
                    self._give_up(trial, verdict.why)
            case Boot.FELL_BACK:
                assert trial is not None
                self._note_fallback(trial)
            case _:
                if self._files.is_damaged():  # it would keep the slot from its tries at every boot
                    self._keep_unjudged()
                self._files.publish()
        return 0

    def _judge(self, trial: Trial) -> Verdict | None:
        """Return the verdict; None if a person gives it meanwhile, with `conflux update mark-good`."""
        goodness, answered = Goodness(trial, now=self._clock()), False
        while self._files.trial() == trial:
            daemon, found = overlay.look(self._client), self._units()
            if goodness.asks_peers and not answered:
                answered = bool(overlay.answering(self._client, trial.peers))
            seen = Seen(daemon.runs, daemon.lacks, found.settled, found.failed, answered)
            verdict = goodness.look(seen, now=self._clock())
            if verdict is not None:
                return verdict
            self._files.waits_for(goodness.waits_for)
            self._sleep(LOOK_S)
        return None

    def _accept(self, trial: Trial) -> Verdict:
        try:
            self._rauc.mark("good", "booted")
        except UserError as error:
            return Verdict(False, str(error))
        self._end(self._result(trial, True, ""))
        say(f"update: {trial.version} is good")
        return Verdict(True, "")

    def _give_up(self, trial: Trial, why: str) -> None:
        """Restart the board into the other slot."""
        say(f"fault: update: {trial.version} is not taken: {why}; going back to {trial.former_version}")
        try:
            self._files.propose(self._result(trial, False, why))
        except UserError as error:  # then the other slot does not know why
            say(f"fault: update: {error}")
        try:
            self._rauc.mark("bad", "booted")
        except UserError as error:  # then the boot loader counts
            say(f"fault: update: {error}")
        self._restart()

    def _note_fallback(self, trial: Trial) -> None:
        """Keep why the board runs what it ran before."""
        said = self._files.result()
        why = said.why if said is not None and not said.good and said.version == trial.version else NO_START
        for what, slot in (("good", "booted"), ("bad", "other")):
            try:
                self._rauc.mark(what, slot)
            except UserError as error:
                say(f"fault: update: {error}")
        self._end(self._result(trial, False, why))
        say(f"fault: update: {trial.version} was not taken: {why}")

    def _keep_unjudged(self) -> None:
        """Keep what runs, as the record does not say which update is to be judged."""
        say("fault: update: the record of an update is damaged: it is removed, and nothing is judged")
        self._files.keep()
        if self._files.is_damaged():  # a disk that is only read: boot-count will give no try back
            try:
                self._rauc.mark("good", "booted")
            except UserError as error:
                say(f"fault: update: {error}")

    def _end(self, result: Result) -> None:
        """Keep a verdict.  A disk that does not take it is no reason to restart: what runs was marked good."""
        try:
            self._files.end(result)
        except UserError as error:
            say(f"fault: update: {error}")

    def _result(self, trial: Trial, good: bool, why: str) -> Result:
        return Result(trial.version, trial.slot, trial.former_version, good, why, max(0, int(time.time())))


def say(text: str) -> None:
    """Say a line in the journal and on the console."""
    line = f"conflux-board: {text}\n"
    sys.stdout.write(line)
    sys.stdout.flush()
    try:
        with CONSOLE.open("w") as console:
            console.write(line)
    except OSError:  # there is none
        pass


def main() -> int:
    """Judge the update of this board."""
    try:
        socket = settings.load(None).socket
    except ConfigError:  # the daemon says what is wrong with it
        socket = Config().socket
    return Judge(running(), Rauc(), UpdateFiles(), ApiClient(socket)).run()


if __name__ == "__main__":
    sys.exit(main())
