"""The daemon's log: lines on standard error, for a person at a terminal or for journald."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable

PACKAGE = "conflux"  # a module logs through `log = logging.getLogger(__name__)`, whose name begins with this

# Only troubles of these libraries are logged: the rest is of use to their authors alone.
LIBRARIES = ("aiortc", "aioice", "asyncio", "zeroconf")

# Of one place in the code in a minute, above the level of debug.  A peer may cause most lines; an ordinary day of a
# network has fewer.
LINE_COUNT_MAX, LINE_WINDOW_S = 30, 60.0

_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


class LineRation(logging.Filter):
    """Lets so many lines of one place in the code pass in a minute; the next one after it says how many did not."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._counts: dict[tuple[str, int], tuple[float, int]] = {}  # since when, and how many

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether a line passes."""
        if record.levelno <= logging.DEBUG:  # a person asked for all of it
            return True
        place, now = (record.pathname, record.lineno), self._clock()
        begun, count = self._counts.get(place, (now, 0))
        if now - begun >= LINE_WINDOW_S:
            if count > LINE_COUNT_MAX:
                left_out = count - LINE_COUNT_MAX
                record.msg, record.args = f"{record.getMessage()} (and {left_out} such lines before it)", None
            begun, count = now, 0
        self._counts[place] = begun, count + 1
        return count < LINE_COUNT_MAX


class _Journal(logging.Formatter):
    """Puts a priority before every line, as in sd-daemon(3); the journal adds the time itself."""

    def format(self, record: logging.LogRecord) -> str:
        priority = f"<{_PRIORITIES.get(record.levelno, 5)}>"
        return "\n".join(priority + line for line in super().format(record).splitlines() or [""])


class _Terminal(logging.Formatter):
    """Puts the time of day, to the millisecond, before every record, and the level unless it is INFO."""

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created)) + f".{int(record.msecs):03d}"
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        return f"{clock}  {level}{super().format(record)}"


def start(level: str) -> None:
    """Send records of this level and above to standard error.  level: "debug", "info", "warning" or "error"."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Journal() if "JOURNAL_STREAM" in os.environ else _Terminal())
    handler.addFilter(LineRation())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger(PACKAGE).setLevel(level.upper())
    for library in LIBRARIES:
        logging.getLogger(library).setLevel(logging.WARNING if level == "debug" else logging.ERROR)
