"""The daemon's log: lines on standard error, for a person at a terminal or for journald."""

from __future__ import annotations

import logging
import os
import sys
import time

LOGGER = logging.getLogger("conflux")

# What libraries say of themselves is of use to their authors; only their troubles are shown.
LIBRARIES = ("aiortc", "aioice", "asyncio", "zeroconf")

_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


class _Journal(logging.Formatter):
    """A priority in front, as sd-daemon(3) has it; the journal adds the time itself."""

    def format(self, record: logging.LogRecord) -> str:
        priority = f"<{_PRIORITIES.get(record.levelno, 5)}>"
        return "\n".join(priority + line for line in super().format(record).splitlines() or [""])


class _Terminal(logging.Formatter):
    """The time of day to the millisecond, and the level where it is not the usual one."""

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created)) + f".{int(record.msecs):03d}"
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        return f"{clock}  {level}{super().format(record)}"


def start(level: str) -> None:
    """Send the log to standard error, from this level on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Journal() if "JOURNAL_STREAM" in os.environ else _Terminal())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    LOGGER.setLevel(level.upper())
    for library in LIBRARIES:
        logging.getLogger(library).setLevel(logging.WARNING if level == "debug" else logging.ERROR)
