"""A link's description goes before the handshake of a stream to the same node.

    dial, offer ──► description made ─── AHEAD_S ───► OPEN made, sent; an OPEN that came is answered

The link takes a first packet more round trips than the handshake, and both are the work of one thread.  An OPEN is two
slow signatures and 5 kB: made first, it held the offer back, and its answer came before the answer to the offer.
"""

from __future__ import annotations

from collections import deque

from conflux.control.event import Message
from conflux.ids import NodeId
from conflux.link.links import Links

AHEAD_S = 0.002  # for the carrier's first checks, which follow the description
HELD_COUNT_MAX = 64  # OPENs of peers that wait, 5 kB each; those above it are answered at once


class Precedence:
    """Says which nodes' handshakes wait, and keeps the OPENs of peers meanwhile."""

    def __init__(self, links: Links) -> None:
        self._links = links
        self._refused: set[NodeId] = set()  # lets() was False for them
        self._held: deque[Message] = deque()

    def lets(self, peer: NodeId, now: float) -> bool:
        """Say whether a stream's handshake with peer may go on now; if not, handle_timeout() comes when it may."""
        due_at = self._due_at(peer)
        if due_at is None or due_at <= now:
            return True
        self._refused.add(peer)
        return False

    def holds(self, message: Message, now: float) -> bool:
        """Keep an OPEN that has to wait; next_message() returns it.  False: it need not wait."""
        if len(self._held) >= HELD_COUNT_MAX or self.lets(message.peer, now):
            return False
        self._held.append(message)
        return True

    def next_message(self, now: float) -> Message | None:
        """Return an OPEN that has waited, or None."""
        found = next((message for message in self._held if self.lets(message.peer, now)), None)
        if found is not None:
            self._held.remove(found)
        return found

    def next_timeout(self) -> float | None:
        """When handle_timeout() wants to be called, or None."""
        due_ats = (self._due_at(peer) for peer in self._refused)
        return min((0.0 if at is None else at for at in due_ats if at != float("inf")), default=None)

    def handle_timeout(self, *, now: float) -> None:
        """Forget who waited: the node asks again after every input."""
        self._refused.clear()

    def _due_at(self, peer: NodeId) -> float | None:
        described_at = self._links.described_at(peer)
        return None if described_at is None else described_at + AHEAD_S
