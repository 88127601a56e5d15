"""What was tried for each node of late, and what came of it: for a person who asks why a node is not reached.

It follows the node's own events and decides nothing.  What a peer said is kept as a quotation, cut short.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from conflux.ids import NodeId
from conflux.node.event import Event, EventKind, Reason

NODE_COUNT_MAX = 1024  # as many as cards are kept; the node that nothing was heard or tried of for longest goes first
PATH_COUNT_MAX = 8  # of one node: a search offers six at once; the one that was tried longest ago goes first
QUOTE_CHARS_MAX = 64  # of a peer's words: a reason is a slug


class Outcome(StrEnum):
    """What came of a path."""

    TRYING = "trying"  # it was begun; no end is known
    CARRIED = "carried"  # it carried packets, and nothing ill was seen of it since
    FAILED = "failed"
    LOST = "lost"  # it carried packets, and was lost
    UNANSWERED = "unanswered"  # nothing came of it before the last packet was through, or too old
    LEFT = "left"  # likewise, and another path carried


class Tried(NamedTuple):
    """The latest try of one path.

    at: monotonic seconds; with TRYING its begin, else its end.  reason: with FAILED and LOST; with TRYING why the try
    before came to nothing.  waited_s: with UNANSWERED.
    """

    hops: tuple[NodeId, ...]
    outcome: Outcome
    at: float
    reason: Reason | None = None
    waited_s: float | None = None


class Found(NamedTuple):
    """A reason, and when it was found; monotonic seconds."""

    reason: Reason
    at: float


class Trail(NamedTuple):
    """What is remembered of one node.  Times are monotonic seconds; None: never, as far as is remembered.

    is_neighbour, neighbour_at: whether a control channel is connected to it, and when that changed last.  heard_at,
    heard_via: its last verified message, and the neighbour that brought it.  handshake: why no stream was agreed the
    last time.  given_up: since when, and why, packets for it are refused; None: they are not.
    """

    is_neighbour: bool = False
    neighbour_at: float | None = None
    heard_at: float | None = None
    heard_via: NodeId | None = None
    restarted_at: float | None = None
    handshake: Found | None = None
    given_up: Found | None = None
    revoked: Found | None = None
    tried: tuple[Tried, ...] = ()  # the oldest first


@dataclass(slots=True)
class _Entry:
    facts: Trail = field(default_factory=Trail)
    tried: dict[tuple[NodeId, ...], Tried] = field(default_factory=dict)
    carrying: tuple[NodeId, ...] | None = None


class Trails:
    """The trail of every node, within bounds."""

    def __init__(self) -> None:
        self._entries: OrderedDict[NodeId, _Entry] = OrderedDict()
        self._revoked: OrderedDict[str, NodeId] = OrderedDict()  # by the name it had

    def __len__(self) -> int:
        return len(self._entries)

    def of(self, node: NodeId) -> Trail:
        """Return what is remembered of a node."""
        entry = self._entries.get(node)
        return Trail() if entry is None else entry.facts._replace(tried=tuple(entry.tried.values()))

    def all(self) -> dict[NodeId, Trail]:
        """Return what is remembered of every node, without what was tried."""
        return {node: entry.facts for node, entry in self._entries.items()}

    def revoked(self, name: str) -> NodeId | None:
        """Return the node that had this name when it was revoked, while this process ran."""
        return self._revoked.get(name)

    # ── learning ──

    def neighbour_changed(self, node: NodeId, up: bool, now: float) -> None:
        """Take note that a control channel gained or lost a connection to a node."""
        self._change(node, is_neighbour=up, neighbour_at=now)

    def heard(self, node: NodeId, via: NodeId | None, now: float) -> None:
        """Take note of a verified message of a node.  via: the neighbour that brought it; None: a broker."""
        self._change(node, heard_at=now, heard_via=via)

    def note(self, event: Event, now: float) -> None:
        """Take note of an event of the node that this belongs to."""
        node, reason = event.node, _capped(event.reason)
        if node is None:
            return
        match event.kind:
            case EventKind.DIAL:
                self._begin(node, event.path, now)
            case EventKind.FRAMES | EventKind.MOVED:
                self._try(node, event.path, Outcome.CARRIED, now)
                self._change(node, given_up=None)
                self._entry(node).carrying = event.path
            case EventKind.FAILED if event.path:
                self._try(node, event.path, Outcome.FAILED, now, reason)
            case EventKind.FAILED if reason is not None:
                self._change(node, handshake=Found(reason, now))
            case EventKind.SUSPECT if event.path:
                self._try(node, event.path, Outcome.LOST, now, reason)
                self._entry(node).carrying = None
            case EventKind.IDLE:
                self._end_tries(node, now)
            case EventKind.HANDSHAKE:
                self._change(node, handshake=None)
            case EventKind.UNREACHABLE if reason is not None:
                self._end_tries(node, now)
                self._change(node, given_up=Found(reason, now))
            case EventKind.RESTARTED:
                self._change(node, restarted_at=now, handshake=None, given_up=None)
            case EventKind.REVOKED if reason is not None:
                self._change(node, revoked=Found(reason, now))
                self._remember_name(event.asked.name if event.asked is not None else None, node)
            case _:
                pass

    def _remember_name(self, name: str | None, node: NodeId) -> None:
        if name is None:
            return
        self._revoked.pop(name, None)
        self._revoked[name] = node
        if len(self._revoked) > NODE_COUNT_MAX:
            self._revoked.popitem(last=False)

    def _begin(self, node: NodeId, hops: tuple[NodeId, ...], now: float) -> None:
        """Take note of a try; one that follows on others without an end began with the first of them."""
        before = self._entry(node).tried.get(hops)
        if before is None or before.outcome in (Outcome.CARRIED, Outcome.UNANSWERED, Outcome.LEFT):
            self._try(node, hops, Outcome.TRYING, now)
        else:
            began_at = before.at if before.outcome is Outcome.TRYING else now
            self._try(node, hops, Outcome.TRYING, began_at, before.reason)

    def _try(
        self, node: NodeId, hops: tuple[NodeId, ...], outcome: Outcome, now: float, reason: Reason | None = None
    ) -> None:
        tried = self._entry(node).tried
        tried.pop(hops, None)
        tried[hops] = Tried(hops, outcome, now, reason)
        if len(tried) > PATH_COUNT_MAX:
            del tried[next(iter(tried))]

    def _end_tries(self, node: NodeId, now: float) -> None:
        """Say what became of the tries under way: the stream that they were for is over."""
        entry = self._entry(node)
        for each in entry.tried.values():
            if each.outcome is Outcome.TRYING and entry.carrying is not None:
                entry.tried[each.hops] = Tried(each.hops, Outcome.LEFT, now)
            elif each.outcome is Outcome.TRYING:
                entry.tried[each.hops] = Tried(each.hops, Outcome.UNANSWERED, now, waited_s=now - each.at)
        entry.carrying = None

    def _change(self, node: NodeId, **facts: Any) -> None:
        entry = self._entry(node)
        entry.facts = entry.facts._replace(**facts)

    def _entry(self, node: NodeId) -> _Entry:
        entry = self._entries.get(node)
        if entry is None:
            entry = self._entries[node] = _Entry()
            if len(self._entries) > NODE_COUNT_MAX:
                self._entries.popitem(last=False)
        else:
            self._entries.move_to_end(node)
        return entry


def _capped(reason: Reason | None) -> Reason | None:
    """Return a reason whose quotation is short and printable."""
    if reason is None or not reason.said:
        return reason
    said = "".join(char if char.isascii() and char.isprintable() else "?" for char in reason.said[:QUOTE_CHARS_MAX])
    return reason._replace(said=said)
