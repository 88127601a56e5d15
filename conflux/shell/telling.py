"""The node's events in the log: at "info" what a person wants to know of weeks, at "debug" each one.

However often a healthy node sends, its streams begin and end without a line at "info".  A node that cannot be reached
makes one line, and one when it is reached again.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import Final

from conflux.host.folding import Folded
from conflux.ids import NodeId
from conflux.node.event import Event, EventKind
from conflux.realm.dates import span
from conflux.shell import words
from conflux.shell.feed import EventRow

log = logging.getLogger(__name__)

LOST_COUNT_MAX: Final = 256  # nodes that cannot be reached; the oldest is forgotten, and told again


class Telling:
    """Writes what happens."""

    def __init__(self, folded: Folded | None = None) -> None:
        self._folded = folded or Folded(log)
        self._lost: OrderedDict[NodeId, float] = OrderedDict()  # since when each cannot be reached, in Unix seconds

    def tell(self, event: Event, row: EventRow) -> None:
        """Write an event.  row: the same in words."""
        if (text := self._weeks(event, row)) is not None:
            self._folded.say((event.kind, event.node), text)
        elif log.isEnabledFor(logging.DEBUG):
            log.debug("%s", line(row))

    def _weeks(self, event: Event, row: EventRow) -> str | None:
        """Return the line at "info", or None."""
        match event.kind:
            case EventKind.UNREACHABLE if event.node is not None and event.node not in self._lost:
                self._lost[event.node] = row.at
                while len(self._lost) > LOST_COUNT_MAX:
                    self._lost.popitem(last=False)
                return f"{row.name} cannot be reached: {row.text.removeprefix(words.GIVEN_UP)}"
            case EventKind.FRAMES | EventKind.RECEIVING if event.node in self._lost:
                assert event.node is not None
                return f"{row.name} is reached again, after {span(max(0, int(row.at - self._lost.pop(event.node))))}"
            case EventKind.RESTARTED:
                return f"{row.name} was started again"
            case EventKind.REVOKED:
                return f"{row.name} is a member no more" + (f": {row.text}" if row.text else "")
            case _:
                return None


def line(row: EventRow) -> str:
    """Return an event as one line: its kind, its subject, how it was, and how long it took."""
    took = "" if row.took_ms is None else f"({_duration(row.took_ms)})"
    text = words.line(row.event.value, row.name, row.text)
    return " ".join(filter(None, (f"{row.event.value:<11}", text, took)))


def _duration(took_ms: float) -> str:
    return f"{took_ms / 1000:.1f} s" if took_ms >= 1000 else f"{took_ms:.3g} ms"
