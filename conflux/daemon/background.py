"""The daemon in a session of its own.  The command that starts it returns when it is ready, or says why it is not.

conflux up ──fork──► daemon, setsid, log in the state directory
    ▲                   │
    └── one line: "ready TEXT", "waiting TEXT", "failed TEXT"; its end without one is a failure too
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, NoReturn

from conflux.daemon.ending import EXIT_BUG
from conflux.errors import ConfluxError, StateError
from conflux.host.systemd import Notifier

LOG_NAME = "daemon.log"
LINE_BYTES_MAX = 4096


class How(StrEnum):
    """How a start ended."""

    READY = "ready"
    WAITING = "waiting"  # for a realm, or for who can let it in
    FAILED = "failed"


class Started(NamedTuple):
    """A daemon in the background.  text: what it says of itself."""

    pid: int
    how: How
    text: str


class Teller(Notifier):
    """Tells the command that started the daemon too, once; pipe: its end of the pipe."""

    def __init__(self, pipe: int) -> None:
        super().__init__()
        self._pipe: int | None = pipe

    def ready(self, text: str) -> None:
        """Tell that the daemon is up."""
        super().ready(text)
        self.tell(How.READY, text)

    def waiting(self, text: str) -> None:
        """Tell that the daemon waits, and for what."""
        super().waiting(text)
        self.tell(How.WAITING, text)

    def tell(self, how: How, text: str) -> None:
        """Write the line, if none was written."""
        if self._pipe is None:
            return
        with contextlib.suppress(OSError):  # the command was interrupted
            os.write(self._pipe, f"{how} {' '.join(text.split())}\n".encode()[:LINE_BYTES_MAX])
        os.close(self._pipe)
        self._pipe = None


def start(run: Callable[[Notifier], int], log: Path) -> Started:
    """Run the daemon in the background and return it when it is ready, or waits.

    run: the daemon, from its start to its end; its exit code.  log: where its standard error goes.
    Raises StateError if it ended first.
    """
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _be_daemon(run, writer, log)
    os.close(writer)
    try:
        with os.fdopen(reader, "rb") as told:
            line = told.readline(LINE_BYTES_MAX).decode(errors="replace")
    except KeyboardInterrupt:
        os.kill(pid, signal.SIGTERM)
        raise
    how, _, text = line.strip().partition(" ")
    if how in (How.READY, How.WAITING):
        return Started(pid, How(how), text)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    how_it_ended = f"with exit code {code}" if code >= 0 else f"by {signal.Signals(-code).name}"
    raise StateError(text or f"the daemon ended {how_it_ended} before it was ready; its log says why: {log}")


def _be_daemon(run: Callable[[Notifier], int], pipe: int, log: Path) -> NoReturn:
    code, teller = EXIT_BUG, Teller(pipe)
    try:
        os.setsid()
        os.chdir("/")
        os.umask(0o077)
        _redirect(log, pipe)
        code = run(teller)
    except ConfluxError as error:
        code = 1
        sys.stderr.write(f"conflux: {error}\n")
        teller.tell(How.FAILED, str(error))
    except KeyboardInterrupt:
        code = 1
    except BaseException as error:  # noqa: BLE001  # this process ends here
        teller.tell(How.FAILED, f"a bug: {type(error).__name__}: {error} (the log has more: {log})")
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stderr.flush()
        os._exit(code)


def _redirect(log: Path, pipe: int) -> None:
    """Leave the terminal and every descriptor but pipe: there is nothing to read, and what is written is the log."""
    nothing = os.open(os.devnull, os.O_RDWR)
    try:
        written = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    except OSError:  # the disk is full or read-only: a daemon without a log is better than none
        written = nothing
    os.dup2(nothing, 0)
    os.dup2(written, 1)
    os.dup2(written, 2)
    # Whoever waits for the end of a pipe of the command (`ssh board conflux up`) must not wait for the daemon's.
    for descriptor in sorted({int(name) for name in os.listdir("/proc/self/fd")} - {0, 1, 2, pipe}):
        with contextlib.suppress(OSError):  # the one that listed them
            os.close(descriptor)
