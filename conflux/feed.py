"""Events for whoever watches: each watcher has its own bounded buffer, so a slow one loses events and nobody waits."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping

BUFFER_COUNT_MAX = 1024  # events per watcher, a few hundred bytes each: minutes of a busy node

Event = Mapping[str, object]  # "event": its name, "at": Unix seconds, then what it is about


class Feed:
    """Where events go in; any number of watchers take them out."""

    def __init__(self) -> None:
        self._buffers: set[_Buffer] = set()

    def publish(self, event: Event) -> None:
        """Show event to everybody who watches now."""
        for buffer in self._buffers:
            buffer.add(event)

    async def watch(self) -> AsyncIterator[Event]:
        """Yield every event from now on.  What did not fit the buffer is told as one "events-lost" with a count."""
        buffer = _Buffer()
        self._buffers.add(buffer)
        try:
            while True:
                yield await buffer.take()
        finally:
            self._buffers.discard(buffer)

    @property
    def watcher_count(self) -> int:
        return len(self._buffers)


class _Buffer:
    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._lost_count = 0
        self._filled = asyncio.Event()

    def add(self, event: Event) -> None:
        if len(self._events) >= BUFFER_COUNT_MAX:
            self._lost_count += 1
            return
        self._events.append(event)
        self._filled.set()

    async def take(self) -> Event:
        await self._filled.wait()
        event = self._events.popleft()
        if not self._events:
            if self._lost_count:
                self._events.append({"event": "events-lost", "count": self._lost_count})
                self._lost_count = 0
            else:
                self._filled.clear()
        return event
