"""The daemon's log: lines on standard error, for a person at a terminal or for journald."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, TextIO

from conflux.errors import printable, words_of

PACKAGE = "conflux"  # a module logs through `log = logging.getLogger(__name__)`, whose name begins with this

# Only troubles of these libraries are logged: the rest is of use to their authors alone.
LIBRARIES = ("aiortc", "aioice", "asyncio", "zeroconf")

# Of one place in the code in a minute, above the level of debug.  A peer may cause most lines; an ordinary day of a
# network has fewer.
LINE_COUNT_MAX, LINE_WINDOW_S = 30, 60.0

FILE_BYTES_MAX = 1 << 20  # chosen: weeks at info; of the log of a daemon in the background, twice

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
                record.msg, record.args = f"{message_of(record)} (and {left_out} such lines before it)", None
            begun, count = now, 0
        self._counts[place] = begun, count + 1
        return count < LINE_COUNT_MAX


def message_of(record: logging.LogRecord) -> str:
    """Return the message of a record as a person reads it: one line, and no Python in it."""
    arguments = (record.args,) if isinstance(record.args, Mapping) else record.args or ()  # logging unpacks it
    text = str(record.msg)
    return printable(text % tuple(map(_plain, arguments)) if arguments else text)


def _plain(value: object) -> object:
    """Return a value as a line of the log has it; numbers stay what they are."""
    match value:
        case BaseException():
            return words_of(value)
        case Enum():
            return _plain(value.value)
        case None:
            return "nothing"
        case bytes():
            return value.hex()
        case Mapping():
            return ", ".join(f"{_plain(name)} {_plain(each)}" for name, each in value.items())
        case tuple() | list() | set() | frozenset():
            return ", ".join(str(_plain(each)) for each in value)
        case type():
            return value.__name__.lower()
        case _:
            return value


class _Plain(logging.Formatter):
    """Has what is not printable escaped, also in the words of an exception; a traceback keeps its lines."""

    def format(self, record: logging.LogRecord) -> str:
        said = logging.makeLogRecord(record.__dict__)
        said.msg, said.args = message_of(record), None
        return super().format(said)

    def formatException(self, ei: Any) -> str:  # the name is logging's
        return "\n".join(map(printable, super().formatException(ei).splitlines()))


class _Journal(_Plain):
    """Puts a priority before every line, as in sd-daemon(3); the journal adds the time itself."""

    def format(self, record: logging.LogRecord) -> str:
        priority = f"<{_PRIORITIES.get(record.levelno, 5)}>"
        return "\n".join(priority + line for line in super().format(record).splitlines() or [""])


class _Terminal(_Plain):
    """Puts the time of day, to the millisecond, before every record, and the level unless it is INFO."""

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created)) + f".{int(record.msecs):03d}"
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        return f"{clock}  {level}{super().format(record)}"


class _Dated(_Terminal):
    """Puts the date before that: a file is read days later."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{time.strftime('%Y-%m-%d', time.localtime(record.created))} {super().format(record)}"


class _Bounded(logging.StreamHandler[TextIO]):
    """Writes to a file that is standard error.  A full one becomes FILE.1, in place of the one before."""

    def __init__(self, file: Path) -> None:
        super().__init__(sys.stderr)
        self._file = file

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        with contextlib.suppress(OSError):  # the disk is full, or the file is none: the log goes on where it is
            if os.fstat(2).st_size >= FILE_BYTES_MAX:
                self._file.replace(self._file.with_name(f"{self._file.name}.1"))
                new = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
                os.dup2(new, 1)
                os.dup2(new, 2)
                os.close(new)

    def handleError(self, record: logging.LogRecord) -> None:
        """Go on without a line that the disk does not take."""


def start(level: str, file: Path | None = None) -> None:
    """Send records of this level and above to standard error.

    level: "debug", "info", "warning" or "error".  file: what standard error is, which is then bounded.
    """
    handler = logging.StreamHandler(sys.stderr) if file is None else _Bounded(file)
    handler.setFormatter(_Dated() if file else _Journal() if "JOURNAL_STREAM" in os.environ else _Terminal())
    handler.addFilter(LineRation())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    set_level(level)


def set_level(level: str) -> None:
    """Send records of this level and above from now on.  level: as for start()."""
    logging.getLogger(PACKAGE).setLevel(level.upper())
    for library in LIBRARIES:
        logging.getLogger(library).setLevel(logging.WARNING if level == "debug" else logging.ERROR)
