"""Streams opened before a packet waits for them: to nodes that have just opened one to us.

Traffic that comes is mostly answered, and then the answer waits for a handshake of its own.  So that handshake begins
when the other's ends, while the link is still being brought up; it costs two control messages.  A node that left one
unused gets none again until we have sent to it: what only reports, and is never answered, costs them once.
"""

from __future__ import annotations

from dataclasses import dataclass

from conflux.ids import NodeId, StreamId
from conflux.node.destination import PAUSE_COUNT_MAX
from conflux.realm.card import Card
from conflux.stream import machine as stream

KEPT_S = 5.0  # a stream that nothing was sent on; its receiver forgets it after stream.HALF_OPEN_S
COUNT_MAX = 64  # at once, about 4 kB each; who comes later is answered as fast as anybody else


@dataclass(slots=True)
class _Stream:
    id: StreamId
    until: float
    ready: stream.SenderReady | None = None


class Answering:
    """Every stream that waits for its first packet."""

    def __init__(self, streams: stream.Streams) -> None:
        self._streams = streams
        self._waiting: dict[NodeId, _Stream] = {}
        self._silent: dict[NodeId, None] = {}  # left one unused; oldest first

    def expect(self, card: Card, now: float) -> None:
        """Open a stream to the card's node, unless one waits or it was no use the last time."""
        if card.node_id in self._waiting or card.node_id in self._silent or len(self._waiting) >= COUNT_MAX:
            return
        self._waiting[card.node_id] = _Stream(self._streams.open(card, now=now), now + KEPT_S)

    def take(self, node: NodeId) -> tuple[StreamId, stream.SenderReady | None] | None:
        """A packet waits for the node: give its stream away, and what is agreed on if it is; None if there is none."""
        self._silent.pop(node, None)
        waiting = self._waiting.pop(node, None)
        return None if waiting is None else (waiting.id, waiting.ready)

    def sender_ready(self, event: stream.SenderReady) -> bool:
        """Keep what is agreed on until it is taken; False if the stream is none of these."""
        waiting = self._of(event.peer, event.stream)
        if waiting is not None:
            waiting.ready = event
        return waiting is not None

    def sender_failed(self, event: stream.SenderFailed) -> None:
        """Forget the stream if it is one of these: nobody waits for it yet."""
        if self._of(event.peer, event.stream) is not None:
            del self._waiting[event.peer]

    def forget(self, node: NodeId) -> None:
        """The node is a new process, or we send nothing any more."""
        waiting = self._waiting.pop(node, None)
        if waiting is not None:
            self._streams.close_sender(waiting.id)

    def close_all(self) -> None:
        """Forget every stream."""
        for node in list(self._waiting):
            self.forget(node)

    def next_timeout(self) -> float | None:
        """When handle_timeout() wants to be called, or None."""
        return min((waiting.until for waiting in self._waiting.values()), default=None)

    def handle_timeout(self, *, now: float) -> None:
        """Forget what nothing was sent on, and remember for whom."""
        for node in [node for node, waiting in self._waiting.items() if waiting.until <= now]:
            self.forget(node)
            self._silent[node] = None
            if len(self._silent) > PAUSE_COUNT_MAX:
                del self._silent[next(iter(self._silent))]

    def _of(self, node: NodeId, id_: StreamId) -> _Stream | None:
        waiting = self._waiting.get(node)
        return waiting if waiting is not None and waiting.id == id_ else None
