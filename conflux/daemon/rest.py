"""What a node at rest gives back: the memory that Python's collector would come for much later."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable

from conflux.carrier.interface import CarrierEvent, Closed

REST_S = 0.1  # chosen: after the last of several links that close together


class Rest:
    """Has the collector look at everything once nothing is up.  socket_count: how many sockets are open now."""

    def __init__(self, socket_count: Callable[[], int]) -> None:
        self._socket_count = socket_count
        self._timer: asyncio.TimerHandle | None = None

    @property
    def due(self) -> bool:
        """Whether a link closed a moment ago."""
        return self._timer is not None

    def note(self, event: CarrierEvent) -> None:
        """Take note of an event of the carrier."""
        if isinstance(event, Closed) and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(REST_S, self._collect)

    def _collect(self) -> None:
        """Collect if no socket is open, so that a node at rest holds only what it has to remember.

        By itself the collector would run once in hundreds of links.  Until then it would keep objects of libraries
        that refer to one another, and up to 2000 tuples of every length, which Python keeps for reuse.  A run takes
        half a millisecond, because it does not look at the objects of the start.
        """
        self._timer = None
        if not self._socket_count():
            gc.collect()


def freeze() -> None:
    """Keep the objects that exist now from being scanned: those made at the start live as long as the process.

    The second collect() resets the count of old objects: without it the next full collection would wait until there
    are a quarter more.
    """
    gc.collect()
    gc.freeze()
    gc.collect()
