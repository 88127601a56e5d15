"""Streams opened before a packet waits for them: to nodes that have just opened one to this node.

Most traffic is answered, and an answer would wait for a handshake of its own.  So that handshake begins when the
other's ends, while the link is still being brought up; it costs two control messages.  When the other's route comes up,
destinations.py takes the stream and sets up a route for it too.  If the stream stays unused, its node gets no other
until this node has sent to it: a node that only reports, and is never answered, costs all this once.
"""

from __future__ import annotations

from dataclasses import dataclass

from conflux.ids import NodeId, StreamId
from conflux.realm.card import Card
from conflux.stream import event as stream
from conflux.stream.streams import Streams

KEPT_S = 5.0  # of an unused stream; its receiver forgets it after stream/streams.py's HALF_OPEN_S
COUNT_MAX = 64  # at once, about 4 kB each; nodes beyond them are answered after a handshake, as usual
SILENT_COUNT_MAX = 4096  # nodes remembered as not answered, 16 bytes each; the oldest goes first


@dataclass(slots=True)
class _Stream:
    id: StreamId
    until: float
    ready: stream.SenderReady | None = None


class Answering:
    """Every stream that waits for its first packet."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._waiting: dict[NodeId, _Stream] = {}
        self._silent: dict[NodeId, None] = {}  # nodes whose stream stayed unused; oldest first

    def expect(self, card: Card, now: float) -> None:
        """Open a stream to the card's node, unless one waits or it was no use the last time."""
        if card.node_id in self._waiting or card.node_id in self._silent or len(self._waiting) >= COUNT_MAX:
            return
        self._waiting[card.node_id] = _Stream(self._streams.open(card, now=now), now + KEPT_S)

    def waits_for(self, node: NodeId) -> bool:
        """Say whether a stream to the node waits."""
        return node in self._waiting

    def was_unused(self, node: NodeId) -> None:
        """Remember that a stream to the node was of no use: expect() opens no other before one is wanted."""
        self._silent[node] = None
        if len(self._silent) > SILENT_COUNT_MAX:
            del self._silent[next(iter(self._silent))]

    def take(self, node: NodeId) -> tuple[StreamId, stream.SenderReady | None] | None:
        """Give away the node's stream for a packet that waits, with its keys if it is agreed; None: there is none."""
        self._silent.pop(node, None)
        waiting = self._waiting.pop(node, None)
        return None if waiting is None else (waiting.id, waiting.ready)

    def sender_ready(self, event: stream.SenderReady) -> bool:
        """Keep the agreed stream until it is taken; False if it is none of these."""
        waiting = self._of(event.peer, event.stream)
        if waiting is not None:
            waiting.ready = event
        return waiting is not None

    def sender_failed(self, event: stream.SenderFailed) -> None:
        """Forget the stream if it is one of these: no packet waits for it yet."""
        if self._of(event.peer, event.stream) is not None:
            del self._waiting[event.peer]

    def forget(self, node: NodeId) -> None:
        """Close the stream that waits for a node, if any."""
        waiting = self._waiting.pop(node, None)
        if waiting is not None:
            self._streams.close_sender(waiting.id)

    def close_all(self) -> None:
        """Close every stream."""
        for node in list(self._waiting):
            self.forget(node)

    def next_timeout(self) -> float | None:
        """When handle_timeout() wants to be called, or None."""
        return min((waiting.until for waiting in self._waiting.values()), default=None)

    def handle_timeout(self, *, now: float) -> None:
        """Close the streams that stayed unused, and remember their nodes."""
        for node in [node for node, waiting in self._waiting.items() if waiting.until <= now]:
            self.forget(node)
            self.was_unused(node)

    def _of(self, node: NodeId, id_: StreamId) -> _Stream | None:
        waiting = self._waiting.get(node)
        return waiting if waiting is not None and waiting.id == id_ else None
