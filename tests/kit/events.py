"""What a part reports while a test runs, and waiting for it without sleeping."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

E = TypeVar("E")
Kind = TypeVar("Kind")

PATIENCE_S = 20.0  # of one wait; a busy machine takes a tenth of it


class Awaited:
    """Something that changes while a test waits.  Made inside a running loop."""

    def __init__(self, *, patience_s: float = PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """Have until() look again."""
        self._changed.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until holds() is true; it is asked after each change.  Raises TimeoutError."""
        async with asyncio.timeout(self._patience_s):
            while not holds():
                self._changed.clear()
                await self._changed.wait()


class Events(Awaited, Generic[E]):
    """Every event that was reported, in order."""

    def __init__(self, *, patience_s: float = PATIENCE_S) -> None:
        super().__init__(patience_s=patience_s)
        self.events: list[E] = []

    def report(self, event: E) -> None:
        """Take one event."""
        self.events.append(event)
        self.changed()

    async def event(self, kind: type[Kind]) -> Kind:
        """Wait for the first event of a kind and return it.  Raises TimeoutError."""
        await self.until(lambda: any(isinstance(event, kind) for event in self.events))
        return next(event for event in self.events if isinstance(event, kind))
