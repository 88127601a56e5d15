"""The node's events in words, for the log and for watchers.

Each watcher has a bounded buffer of its own: a slow watcher loses events, and delays no other.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from conflux.ids import NodeId, format_node_id
from conflux.node.event import Event, EventKind
from conflux.node.naming import who_text
from conflux.shell.words import GIVEN_UP, phrase, way

BUFFER_COUNT_MAX = 1024  # events per watcher, a few hundred bytes each: minutes of a busy node

NameOf = Callable[[NodeId], str]  # what a person calls a node


class EventRow(NamedTuple):
    """An event as `conflux watch` shows it.  at: Unix seconds.  name: its subject.  reason, said: see node/event.py."""

    event: EventKind
    at: float
    name: str
    text: str
    node: str | None
    path: tuple[str, ...]
    reason: str | None
    said: str | None
    took_ms: float | None


@dataclass(frozen=True, slots=True)
class EventsLost:
    """So many events did not fit the buffer of a watcher."""

    event: str = field(default="events-lost", init=False)
    lost_events: int


Row = EventRow | EventsLost


def event_row(event: Event, name_of: NameOf, at: float) -> EventRow:
    """Return an event in words.  at: Unix seconds."""
    return EventRow(
        event=event.kind,
        at=at,
        name=event_subject(event, name_of),
        text=event_text(event, name_of),
        node=None if event.node is None else format_node_id(event.node),
        path=tuple(format_node_id(hop) for hop in event.path),
        reason=None if event.reason is None else event.reason.end.value,
        said=None if event.reason is None else event.reason.said,
        took_ms=None if event.took_s is None else round(event.took_s * 1e3, 3),
    )


def event_subject(event: Event, name_of: NameOf) -> str:
    """Return the subject of an event, as a person calls it: a node, or the name or address that was asked for."""
    if event.asked is not None:
        return who_text(event.asked) if event.asked.node is None else name_of(event.asked.node)
    return "" if event.node is None else name_of(event.node)


def event_text(event: Event, name_of: NameOf) -> str:
    """Return what a person reads of an event besides its kind, its subject and its duration."""
    reason = "" if event.reason is None else str(event.reason)
    path = way([name_of(hop) for hop in event.path]) if event.path else ""
    match event.kind:
        case EventKind.QUEUE:
            return ("a packet waits for " if event.node is None else "packets wait for ") + event_subject(
                event, name_of
            )
        case EventKind.WHO:
            return f"asked who owns {event_subject(event, name_of)}"
        case EventKind.DIAL:
            return path if len(event.path) > 1 else ""
        case EventKind.REKEY:
            return f"epoch {event.epoch}"
        case EventKind.SUSPECT:
            return f"route lost: {_explained(event, name_of)}" if reason else "no feedback"
        case EventKind.FAILED:
            return f"{path or 'no stream'}: {_explained(event, name_of)}"
        case EventKind.UNREACHABLE:
            return GIVEN_UP + _explained(event, name_of)
        case EventKind.NOT_FOUND:
            return _explained(event, name_of)
        case _:
            return path or reason


def _explained(event: Event, name_of: NameOf) -> str:
    """Return why something ended, in words that say which node."""
    reason = event.reason
    if reason is None:
        return ""
    who = reason.by or (event.path[0] if event.path else event.node)
    return phrase(reason.step, reason.end.value, reason.said, "the node" if who is None else name_of(who))


class Feed:
    """Hands every event to all watchers."""

    def __init__(self) -> None:
        self._buffers: set[_Buffer] = set()

    def publish(self, event: EventRow) -> None:
        """Put an event into the buffer of every watcher."""
        for buffer in self._buffers:
            buffer.add(event)

    async def watch(self) -> AsyncIterator[Row]:
        """Yield every event from now on, and EventsLost in the place of events that did not fit the buffer."""
        buffer = _Buffer()
        self._buffers.add(buffer)
        try:
            while True:
                yield await buffer.take()
        finally:
            self._buffers.discard(buffer)

    @property
    def watcher_count(self) -> int:
        """How many watch now."""
        return len(self._buffers)


class _Buffer:
    def __init__(self) -> None:
        self._events: deque[Row] = deque()
        self._lost_count = 0
        self._filled = asyncio.Event()

    def add(self, event: Row) -> None:
        if len(self._events) >= BUFFER_COUNT_MAX:
            self._lost_count += 1
            return
        self._events.append(event)
        self._filled.set()

    async def take(self) -> Row:
        await self._filled.wait()
        event = self._events.popleft()
        if not self._events:
            if self._lost_count:
                self._events.append(EventsLost(self._lost_count))
                self._lost_count = 0
            else:
                self._filled.clear()
        return event
