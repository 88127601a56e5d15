"""When the daemon ends, and with which exit code."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger(__name__)


EXIT_DONE = 0
EXIT_BUG = 70  # sysexits.h, EX_SOFTWARE: systemd starts us again
EXIT_DEVICE_LOST = (
    75  # EX_TEMPFAIL: the TUN device, or what it needs, was taken away, or the like; a new start mends it
)


def has_terminal() -> bool:
    """Say whether this process has a controlling terminal, whose end it is told by SIGHUP."""
    try:
        stat = Path("/proc/self/stat").read_text(encoding="ascii", errors="replace")  # the sandbox hides /dev/tty
        return stat.rpartition(")")[2].split()[4] != "0"
    except (OSError, IndexError):
        return False


def ignore_hangup() -> None:
    """Have SIGHUP, which asks for a reload where there is no terminal, do nothing to a daemon that cannot reload yet.

    Called from the main thread; it outlasts an event loop, whose end would bring the deadly default back.
    """
    if not has_terminal():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


class Ending:
    """The daemon's end: everything that ends it calls a method here, and the daemon waits for the first."""

    def __init__(self) -> None:
        self.exit_code = EXIT_DONE
        self._asked = asyncio.Event()

    async def wait(self) -> None:
        """Return once the daemon has to end."""
        await self._asked.wait()

    @property
    def asked(self) -> bool:
        """Whether the daemon has to end."""
        return self._asked.is_set()

    def stop(self) -> None:
        """End cleanly: a person or the system asked for it.  Safe to repeat."""
        if not self.asked:
            log.info("stopping")
            self._asked.set()

    def stop_on_signals(self, reload: Callable[[], None] | None = None) -> None:
        """End cleanly on SIGTERM and SIGINT, and with the terminal.  Called in the running loop, from the main thread.

        reload: called on SIGHUP where there is no terminal, in the background and under systemd; None: it is ignored.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        if not has_terminal():
            if reload is None:
                ignore_hangup()
            else:
                loop.add_signal_handler(signal.SIGHUP, reload)
        elif signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup ignores it
            loop.add_signal_handler(signal.SIGHUP, self.stop)

    def fail(self, error: BaseException) -> None:
        """End because of a bug of ours; the first one is logged and gives the exit code."""
        if self.exit_code == EXIT_DONE:
            log.critical("a bug ended the daemon", exc_info=error)
            self.exit_code = EXIT_BUG
        self._asked.set()

    def again(self, why: str) -> None:
        """End so that the daemon can be started again."""
        log.error("%s: the daemon ends, so that it can be started again", why)
        self.exit_code = EXIT_DEVICE_LOST
        self._asked.set()

    def device_lost(self, why: str) -> None:
        """End because the TUN device was taken away, or its addresses or routes."""
        log.error("%s: the daemon ends, so that it can be started with a new one", why)
        self.exit_code = EXIT_DEVICE_LOST
        self._asked.set()
