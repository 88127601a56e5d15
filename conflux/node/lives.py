"""The life of each destination: it starts, its stream is agreed, it starts anew, and it ends.

destinations.py says when; racing.py and carrying.py do what there is to do in between.
"""

from __future__ import annotations

from collections import deque
from random import Random

from conflux.control.plane import ControlPlane
from conflux.datapath.interface import Tables
from conflux.ids import NodeId, StreamId, format_node_id
from conflux.node.answering import Answering
from conflux.node.destination import Destination, Sending, Try, retry_delay_s
from conflux.node.event import Event, EventKind, Reason
from conflux.node.patience import Patience
from conflux.node.pauses import Pauses
from conflux.node.racing import Races
from conflux.realm.card import PATIENT, Card
from conflux.route.onion import HopKey
from conflux.search.interface import Search
from conflux.stream.event import SenderReady
from conflux.stream.streams import Streams

IMPATIENT_S = 15.0  # for nodes whose card does not say "patient": they end what is silent for five seconds more
GIVE_UP_COUNT = 3  # failures in a row; what waited is then dropped, and nothing is tried before a pause is over


class Lives:
    """Every destination there is, by node and by stream."""

    def __init__(
        self,
        *,
        datapath: Tables,
        plane: ControlPlane,
        streams: Streams,
        search: Search,
        rng: Random,
        pauses: Pauses,
        answering: Answering,
        races: Races,
        events: deque[Event],
        patience: Patience | None,
    ) -> None:
        """patience: chooses idle timeouts; None: all are the datapath's own."""
        self._patience = patience
        self._datapath = datapath
        self._plane = plane
        self._streams = streams
        self._search = search
        self._rng = rng
        self._pauses = pauses
        self._answering = answering
        self._races = races
        self._events = events
        self._destinations: dict[NodeId, Destination] = {}
        self._by_stream: dict[StreamId, Destination] = {}

    # ── lookups ──

    def __contains__(self, node: NodeId) -> bool:
        return node in self._destinations

    def all(self) -> tuple[Destination, ...]:
        """Return every destination, as there are now."""
        return tuple(self._destinations.values())

    def find(self, node: NodeId) -> Destination | None:
        """Return the destination that is that node."""
        return self._destinations.get(node)

    def of_stream(self, stream: StreamId) -> Destination | None:
        """Return the destination that a stream leads to."""
        return self._by_stream.get(stream)

    def of_route(self, stream: StreamId, number: int) -> tuple[Destination, Sending, Try] | None:
        """Return what a route is tried for; None if that was given up."""
        destination = self._by_stream.get(stream)
        if destination is None or destination.sending is None:
            return None
        attempt = destination.sending.of_route(number)
        return None if attempt is None else (destination, destination.sending, attempt)

    def through(self, node: NodeId) -> list[Destination]:
        """Return the destinations for which a path by way of a node is tried."""
        return [
            destination
            for destination in self._destinations.values()
            if any(node in attempt.path.hops for attempt in destination.tries)
        ]

    # ── starting ──

    def wake(self, card: Card, now: float) -> None:
        """Packets wait for the card's node: give it its queue and start, unless it has both."""
        if card.node_id in self._destinations:
            self._datapath.add_egress(card.node_id, card.addresses, now=now)
            return
        self._events.append(Event(EventKind.QUEUE, card.node_id))
        if self._patience is not None:
            self._patience.active(card.node_id, now=now)
        self.prepare(card, now)

    def prepare(self, card: Card, now: float, *, early: bool = False) -> None:
        """Give a node its queue, and start."""
        destination = self._destinations[card.node_id] = Destination(card, early=early)
        self._datapath.add_egress(card.node_id, card.addresses, now=now)
        self.start(destination, now)

    def start(self, destination: Destination, now: float) -> None:
        """Handshake and dial at once; the one that ends last starts the route."""
        destination.retry_at = None
        destination.card = self._plane.card(destination.node) or destination.card
        begun = self._answering.take(destination.node)
        stream, agreed = begun or (self._streams.open(destination.card, now=now), None)
        destination.sending = Sending(stream, began_at=now)
        self._by_stream[stream] = destination
        if agreed is not None:
            self.agree(destination, agreed, now)
        else:
            self._races.try_next(destination, now)
            self.end_lost(destination, now)

    def agree(self, destination: Destination, event: SenderReady, now: float) -> None:
        """Take note that the stream of a destination is agreed."""
        sending = destination.sending
        assert sending is not None
        sending.agreed = True
        self._datapath.add_sender(
            event.peer, event.stream, event.data, event.feedback, offload_kinds=event.offload_kinds, now=now
        )
        self.choose_timeout(destination)
        self._events.append(Event(EventKind.HANDSHAKE, destination.node, took_s=now - sending.began_at))
        sending.vantage = {
            NodeId(entry.node): HopKey(NodeId(entry.node), entry.hop_key_id, entry.hop_public)
            for entry in event.vantage
            if not self._plane.denies(NodeId(entry.node))  # the destination need not know yet
        }
        self._search.vantage_of(event.peer, tuple(sending.vantage))
        self._races.agreed(destination, now)
        self.end_lost(destination, now)

    def choose_timeout(self, destination: Destination) -> None:
        """Have the stream of a destination end after as long a silence as pays; no-op before it is agreed."""
        sending, patience = destination.sending, self._patience
        if patience is None or sending is None or not sending.agreed:
            return
        timeout_s = patience.timeout_s(destination.node)
        if patience.bounds.fixed_s is None and PATIENT not in destination.card.features:
            timeout_s = min(timeout_s, IMPATIENT_S)
        self._datapath.set_idle_timeout(timeout_s, sending.stream)

    # ── ending ──

    def end_lost(self, destination: Destination, now: float) -> None:
        """End a try whose stream has no route and no path left.  Follows every step of a race."""
        reason = None if destination.sending is None else destination.sending.failure
        if reason is not None:
            self.fail(destination, reason, now)

    def start_anew(self, destination: Destination, now: float) -> None:
        """Replace the stream by a new one; the queue stays, and its packets wait for it.

        A stream that nothing was sent on, and that nothing waits for, ends: the next packet opens another.  Else two
        nodes with nothing to say would go on to open streams to each other for ever.
        """
        if destination.sending is not None and destination.sending.agreed and not self._has_packets(destination):
            self.forget(destination, "closed", now)
            return
        self._drop_stream(destination, now)
        self.start(destination, now)

    def _has_packets(self, destination: Destination) -> bool:
        """Say whether packets wait, or went by the present stream."""
        status, node = self._datapath.status(), format_node_id(destination.node)
        return any(egress.packets for egress in status.egresses if egress.destination == node) or any(
            sender.frames for sender in status.senders if sender.destination == node
        )

    def _drop_stream(self, destination: Destination, now: float) -> None:
        """Erase the stream and its routes; the queue stays."""
        sending, destination.sending = destination.sending, None
        if sending is None:
            return
        self._races.end(destination, sending, now)
        self._datapath.remove_sender(sending.stream)
        self._streams.close_sender(sending.stream)
        self._by_stream.pop(sending.stream, None)

    def close(self, destination: Destination, now: float) -> None:
        """All packets are through: the stream ends, and nothing of it stays."""
        sending = destination.sending
        if sending is not None and sending.active is not None:
            self._races.close_route(sending.active, self._datapath.last_frame(sending.stream))
        self.forget(destination, "closed", now)

    def forget(self, destination: Destination, reason: str, now: float) -> None:
        """End a destination; what waits for it is dropped, with that reason."""
        self._drop_stream(destination, now)
        self._datapath.remove_egress(destination.node, reason)
        self._destinations.pop(destination.node, None)

    def fail(self, destination: Destination, reason: Reason, now: float) -> None:
        """Every path came to nothing: try again after a pause, or give the destination up for a while."""
        if destination.early and destination.unused:
            self.forget(destination, "closed", now)  # as far as is known, no packet waits
            return
        self._drop_stream(destination, now)
        destination.failure_count += 1
        if destination.failure_count < GIVE_UP_COUNT:
            destination.retry_at = now + retry_delay_s(destination.failure_count, self._rng.random())
            self._search.returned(destination.node)  # a pause of the paths would outlast the destination's own
            return
        self._events.append(Event(EventKind.UNREACHABLE, destination.node, reason=reason))
        self.forget(destination, "unreachable", now)
        self._pauses.begin(destination.node, now)
