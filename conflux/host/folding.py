"""Lines of the log about what goes back and forth: the first few at once, the others folded into one an hour.

A neighbour on a weak Wi-Fi comes and goes every minute; its lines would push everything else out of a small log.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final

from conflux.budget import TokenBucket

LINE_COUNT: Final = 4  # of one thing at once: it came, it went, and once more
LINE_S: Final = 3600.0  # between two lines of a thing that goes on
ROUNDING_S: Final = 1.0  # so that the line finds its token in the bucket
THING_COUNT_MAX: Final = 512  # remembered; the one not heard of for longest is forgotten

Later = Callable[[float, Callable[[], None]], object]


def _call_later(delay_s: float, call: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_later(delay_s, call)


class _Thing:
    __slots__ = ("bucket", "folded_count", "last")

    def __init__(self, count: int) -> None:
        self.bucket = TokenBucket(1 / LINE_S, count)
        self.folded_count = 0  # lines that were not written
        self.last = ""  # the newest of them


class Folded:
    """Writes lines at "info" through one logger.

    count: lines of one thing that are written at once.  now: monotonic seconds.  later(delay_s, call): a timer, by
    which the last of the folded lines is written in the end, so that the log never ends with what is no longer so.
    """

    def __init__(
        self,
        log: logging.Logger,
        *,
        count: int = LINE_COUNT,
        now: Callable[[], float] = time.monotonic,
        later: Later = _call_later,
    ) -> None:
        self._log = log
        self._count = count
        self._now = now
        self._later = later
        self._things: OrderedDict[Hashable, _Thing] = OrderedDict()

    def say(self, thing: Hashable, text: str) -> None:
        """Write a line about a thing, now or folded with others."""
        known = self._things.pop(thing, None) or _Thing(self._count)
        self._things[thing] = known
        while len(self._things) > THING_COUNT_MAX:
            self._things.popitem(last=False)
        now = self._now()
        if not known.folded_count and known.bucket.take(now):
            self._log.info("%s", text, stacklevel=2)
            return
        self._log.debug("%s", text, stacklevel=2)
        known.folded_count, known.last = known.folded_count + 1, text
        if known.folded_count == 1:
            self._later(known.bucket.wait_s(now) + ROUNDING_S, lambda: self._unfold(known))

    def _unfold(self, known: _Thing) -> None:
        known.bucket.take(self._now())
        more = known.folded_count - 1
        self._log.info("%s%s", known.last, f" (and {more} such lines in the last hour)" if more else "")
        known.folded_count = 0
