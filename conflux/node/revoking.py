"""What a node does when a member is revoked, and the OPENs that wait until others were asked who is.

LIST ─► plane ─► ListLearnt ─► everything that was agreed with those nodes ends: streams, links, routes, waiting packets
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from conflux.control.event import ListLearnt, Message
from conflux.control.plane import ControlPlane
from conflux.control.who import Who
from conflux.ids import NodeId
from conflux.link.links import Links
from conflux.node.destinations import Destinations
from conflux.node.event import Event, EventKind, NodeEnd, Reason
from conflux.node.relaying import Relaying
from conflux.search.interface import Search
from conflux.stream.streams import Streams

HELD_COUNT_MAX = 64  # OPENs that wait, 4 kB each; the oldest is dropped, and its sender tries again


class Revoking:
    """Ends what a revoked node had here.

    open: takes an OPEN that waited.  tell: takes what a person may want to see.
    """

    def __init__(
        self,
        *,
        plane: ControlPlane,
        links: Links,
        streams: Streams,
        destinations: Destinations,
        relaying: Relaying,
        search: Search,
        open: Callable[[Message, float], None],
        tell: Callable[[Event], None],
    ) -> None:
        self._plane = plane
        self._links = links
        self._streams = streams
        self._destinations = destinations
        self._relaying = relaying
        self._search = search
        self._open = open
        self._tell = tell
        self._held: deque[tuple[float, Message]] = deque(maxlen=HELD_COUNT_MAX)
        self._excluded: deque[frozenset[NodeId]] = deque()

    def learnt(self, event: ListLearnt, now: float) -> None:
        """End everything with the nodes that are members no more."""
        ended = dict(event.revoked)
        if event.voided:  # of the nodes without a card here nobody knows who issued it
            there = (*self._links.peers(), *sorted(self._streams.peers()), *self._destinations.nodes())
            ended = {node: "" for node in there if self._plane.card(node) is None} | ended
        for node, name in ended.items():
            asked = Who(name=name) if name else None
            self._tell(Event(EventKind.REVOKED, node, asked, reason=Reason(NodeEnd.REVOKED, self._why(node))))
            if node != self._plane.me:
                self._end(node, now)
        if self._plane.me in ended:
            self._destinations.close_all(now)
            for node in dict.fromkeys((*self._links.peers(), *sorted(self._streams.peers()))):
                self._end(node, now)
        if ended:
            self._excluded.append(frozenset(ended))

    def _why(self, node: NodeId) -> str:
        own = [each.denial.reason for each in self._plane.lists.book.denials_of(node)]
        return own[0] if own else "its issuer is revoked"

    def _end(self, node: NodeId, now: float) -> None:
        self._search.revoked(node)
        self._destinations.revoked(node, now)
        self._streams.peer_revoked(node)
        self._relaying.dial_failed(node)
        self._links.peer_revoked(node, now=now)

    def next_exclusion(self) -> frozenset[NodeId] | None:
        """Return nodes whose control connections end now, or None."""
        return self._excluded.popleft() if self._excluded else None

    # ── OPENs that wait ───────────────────────────────────────────────────────────────────────────────────────────────

    def holds(self, message: Message, now: float) -> bool:
        """Keep an OPEN for later if this node has not asked the others yet; False: take it now."""
        until = self._plane.lists.settles_at(now)
        if until is not None:
            self._held.append((until, message))
        return until is not None

    def next_timeout(self) -> float | None:
        """When handle_timeout() wants to be called, or None."""
        return self._held[0][0] if self._held else None

    def handle_timeout(self, *, now: float) -> None:
        """Take the OPENs that have waited long enough."""
        while self._held and self._held[0][0] <= now:
            _, message = self._held.popleft()
            if not self.holds(message, now):
                self._open(message, now)
