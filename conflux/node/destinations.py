"""What happens to destinations: search, handshake, dial, route, move, repair, idle.

A destination has its own queue in the datapath and its own state here; nothing is shared, so one that is dead or slow
holds up no other.  Here is decided what an event means to which destinations.  lives.py starts and ends them, racing.py
tries the stream's paths, carrying.py chooses the route that carries it, and answering.py agrees on the stream of an
answer beforehand.  Streams that other nodes send here are node.py's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random

from conflux.budget import BudgetTable
from conflux.control.plane import ControlPlane
from conflux.control.who import Who
from conflux.datapath.interface import Feedback, Tables
from conflux.errors import UserError
from conflux.ids import IPAddress, NodeId, StreamId
from conflux.link.event import DialFailed
from conflux.link.links import Links
from conflux.node.answering import Answering
from conflux.node.carrying import Carrying
from conflux.node.destination import Counts
from conflux.node.event import Event, EventKind, NodeEnd, Reason
from conflux.node.lives import Lives
from conflux.node.patience import Bounds, Patience
from conflux.node.pauses import Pauses
from conflux.node.racing import Races
from conflux.node.relaying import is_public_relay
from conflux.node.status import DestinationStatus, Outlook
from conflux.realm.card import Card
from conflux.route.event import RouteAsked, RouteFailed, RouteLost, RouteReady
from conflux.route.routes import Routes
from conflux.search.interface import Path, Search
from conflux.stream.event import SenderFailed, SenderReady, SenderRekeyed
from conflux.stream.streams import Streams

# How often one neighbour's word that it joins LANs ends pauses: an honest one restarts, or gains and loses a LAN, a few
# times in a row at most.
BRIDGE_RATE, BRIDGE_BURST = 0.1, 4.0
BRIDGE_COUNT_MAX = 256  # neighbours whose words are counted; the one that said nothing for longest goes first


class Destinations:
    """Every node this node sends to, or wants to."""

    def __init__(
        self,
        *,
        datapath: Tables,
        plane: ControlPlane,
        streams: Streams,
        routes: Routes,
        links: Links,
        search: Search,
        rng: Random,
        early: Callable[[NodeId], bool] = lambda node: False,
        patience: Patience | None = None,
    ) -> None:
        """early: says whether packets may go by a direct route to a node before it is confirmed.

        patience: chooses idle timeouts; None: all are the datapath's own.
        """
        self._early = early
        self._patience = patience
        self._datapath = datapath
        self._plane = plane
        self._streams = streams
        self._routes = routes
        self._search = search
        self._asked: dict[IPAddress, float] = {}  # since when an address waits for its owner's card
        self._pauses = Pauses()
        self._bridge_budget = BudgetTable(BRIDGE_RATE, BRIDGE_BURST, BRIDGE_COUNT_MAX)
        self._answering = Answering(streams)
        self._events: deque[Event] = deque()
        self._races = Races(
            datapath=datapath, plane=plane, routes=routes, links=links, search=search, events=self._events
        )
        self._carrying = Carrying(
            datapath=datapath, plane=plane, links=links, search=search, races=self._races, events=self._events
        )
        self._lives = Lives(
            datapath=datapath,
            plane=plane,
            streams=streams,
            search=search,
            rng=rng,
            pauses=self._pauses,
            answering=self._answering,
            races=self._races,
            events=self._events,
            patience=patience,
        )

    def nodes(self) -> tuple[NodeId, ...]:
        """Return every node that has a queue here now."""
        return tuple(destination.node for destination in self._lives.all())

    # ── what the datapath reports ──

    def miss(self, address: IPAddress, now: float) -> None:
        """A packet waits under an address that no queue serves yet."""
        card = self._plane.card_of(Who(address=address))
        if self._plane.is_revoked:
            self._datapath.refuse(address, "revoked")
        elif self._pauses.holds(address if card is None else card.node_id, now):
            self._datapath.refuse(address, "unknown-destination" if card is None else "unreachable")
        elif card is not None:
            self._lives.wake(card, now)
        elif address not in self._asked:
            asked = Who(address=address)
            self._asked[address] = now
            self._events.append(Event(EventKind.QUEUE, asked=asked))
            self._events.append(Event(EventKind.WHO, asked=asked))
            self._plane.who(asked, now=now)

    def reached_by(self, node: NodeId | None, neighbour: NodeId, now: float) -> None:
        """A route from the node came here by way of a neighbour: the answer needs one too, so begin with it now.

        If it waited for the answer's packet, that would be a round trip more, and a search where a relay is needed.
        """
        if node is None:
            return
        card = self._plane.card(neighbour)
        if card is not None and neighbour != node and is_public_relay(card) and self._search.wants_relay(node):
            self._search.heard(node, neighbour)
            self.relay_found(card, now)
        card = self._plane.card(node)
        if card is not None and node not in self._lives and self._answering.waits_for(node):
            self._lives.prepare(card, now, early=True)

    def sender_idle(self, id_: StreamId, now: float) -> None:
        """All packets are through: the stream ends."""
        if destination := self._lives.of_stream(id_):
            if destination.unused:
                self._answering.was_unused(destination.node)
            self._events.append(Event(EventKind.IDLE, destination.node))
            self._lives.close(destination, now)

    def suspect(self, id_: StreamId, now: float) -> None:
        """Nothing came back for the frames that were sent."""
        if destination := self._lives.of_stream(id_):
            self._events.append(Event(EventKind.SUSPECT, destination.node))
            self._carrying.doubt(destination, now)
            self._lives.end_lost(destination, now)

    def feedback(self, feedback: Feedback, now: float) -> None:
        """The far end says what it saw."""
        destination = self._lives.of_stream(feedback.stream)
        if destination is not None and destination.sending is not None:
            self._carrying.feedback(destination.sending, feedback, now)
            if self._patience is not None and self._patience.active(destination.node, now=now):
                self._lives.choose_timeout(destination)

    def set_patience(self, bounds: Bounds) -> None:
        """Choose idle timeouts within other bounds from now on; no-op if none are chosen here."""
        if self._patience is not None:
            self._patience.bounds = bounds
            for destination in self._lives.all():
                self._lives.choose_timeout(destination)

    # ── what the control plane reports ──

    def opened_to_us(self, card: Card, now: float) -> None:
        """The card's node will send here: agree on the stream for answers beforehand."""
        if card.node_id not in self._lives and not self._pauses.holds(card.node_id, now):
            self._answering.expect(card, now)

    def card_found(self, card: Card, now: float) -> None:
        """A card came: packets for its addresses may wait, and so may routes through its node."""
        waiting = [address for address in card.addresses if address in self._asked]
        for address in waiting:
            self._events.append(Event(EventKind.CARD, card.node_id, took_s=now - self._asked.pop(address)))
        self._pauses.end(card.node_id)
        if waiting:
            self._lives.wake(card, now)
        for destination in self._lives.through(card.node_id):
            self._races.advance(destination, now)
            self._lives.end_lost(destination, now)

    def relay_found(self, card: Card, now: float) -> None:
        """A node says that it relays for any two: try it for those that are not reached yet."""
        if not is_public_relay(card) or card.node_id == self._plane.me:
            return
        self._search.relay_found(card.node_id)
        self._try_by(card.node_id, now)

    def bridge_up(self, node: NodeId, now: float) -> None:
        """A neighbour says that it joins LANs: it may lead to what is not reached, and to nodes not heard of.

        Pauses are cut short for it, so it is heeded only so often.
        """
        if self._bridge_budget.take(node, now):
            self._pauses.cut_short(lambda who: not isinstance(who, bytes), now)
            self._try_by(node, now)

    def _try_by(self, node: NodeId, now: float) -> None:
        """Try the paths by way of a node that is new or came back, beside what runs, where nothing carries."""

        def leads_to(who: NodeId | IPAddress) -> bool:
            return isinstance(who, bytes) and any(node in path.relays for path in self._search.paths(who, now=now))

        self._pauses.cut_short(leads_to, now)
        for destination in self._lives.all():
            if destination.sending is None and leads_to(destination.node):
                self._lives.start(destination, now)
            self._races.try_by(destination, node, now)
            self._lives.end_lost(destination, now)

    def who_failed(self, query: Who, now: float) -> None:
        """No node answers to it: what waited for an address is dropped, and paths through the node are given up."""
        if query.address is not None:
            self._asked.pop(query.address, None)
            self._pauses.begin(query.address, now)
            self._datapath.refuse(query.address, "unknown-destination")
        elif query.node is not None:
            for destination in self._lives.through(query.node):
                self._races.relay_unknown(destination, query.node, now)
                self._lives.end_lost(destination, now)

    def channel_up(self, node: NodeId, now: float) -> None:
        """The node can be spoken to again: a destination that waits to retry need not."""
        self._pauses.end(node)
        self._search.returned(node)
        destination = self._lives.find(node)
        if destination is not None and destination.sending is None:
            self._lives.start(destination, now)
        self._try_by(node, now)

    def channel_down(self, node: NodeId, now: float) -> None:
        """The node's process may be gone: doubt the streams that begin with it."""
        for destination in self._lives.all():
            sending = destination.sending
            if sending is not None and sending.active is not None and sending.active.path.first == node:
                self._carrying.doubt(destination, now)
                self._lives.end_lost(destination, now)

    def restarted(self, card: Card, now: float) -> None:
        """The node is a new process: nothing that was agreed with the old one is valid."""
        self._pauses.end(card.node_id)
        self._search.returned(card.node_id)
        self._answering.forget(card.node_id)
        destination = self._lives.find(card.node_id)
        if destination is not None and destination.early and destination.unused:
            self._lives.forget(destination, "closed", now)  # no packet waited for it
        elif destination is not None:
            destination.card = card
            destination.failure_count = 0
            self._lives.start_anew(destination, now)
        self._try_by(card.node_id, now)

    def revoked(self, node: NodeId, now: float) -> None:
        """The node is a member no more: what waits for it is dropped, and no path leads through it."""
        self._pauses.end(node)
        self._answering.forget(node)
        destination = self._lives.find(node)
        if destination is not None:
            self._events.append(Event(EventKind.UNREACHABLE, node, reason=Reason(NodeEnd.REVOKED)))
            self._lives.forget(destination, "unreachable", now)
        for other in self._lives.all():
            self._carrying.avoid(other, node, now)
            self._lives.end_lost(other, now)

    # ── what the streams report ──

    def sender_ready(self, event: SenderReady, now: float) -> None:
        """The stream is agreed."""
        destination = self._lives.of_stream(event.stream)
        if destination is None or destination.sending is None:
            if not self._answering.sender_ready(event):  # given up meanwhile
                self._streams.close_sender(event.stream)
            return
        self._lives.agree(destination, event, now)

    def sender_failed(self, event: SenderFailed, now: float) -> None:
        """The stream was never agreed, or it flowed and its keys or its lifetime ended."""
        destination = self._lives.of_stream(event.stream)
        if destination is None or destination.sending is None:
            self._answering.sender_failed(event)
        elif destination.sending.agreed:
            self._lives.start_anew(destination, now)
        else:
            reason = Reason(event.end, event.said)
            self._events.append(Event(EventKind.FAILED, destination.node, reason=reason))
            self._lives.fail(destination, reason, now)

    def sender_rekeyed(self, event: SenderRekeyed, now: float) -> None:
        """The stream has its next keys."""
        self._datapath.rekey_sender(event.stream, event.data, event.feedback, now=now)
        destination = self._lives.of_stream(event.stream)
        if destination is not None and destination.sending is not None:
            destination.sending.epoch = event.data.epoch
            destination.sending.counts = Counts()
            self._events.append(Event(EventKind.REKEY, destination.node, epoch=event.data.epoch))

    # ── what the routes report ──

    def route_asked(self, event: RouteAsked, now: float) -> None:
        """Frames may go by a route that is not confirmed yet."""
        found = self._lives.of_route(event.stream, event.route)
        if found is not None and self._early(found[0].node):
            self._carrying.route_asked(*found, event, now)

    def route_ready(self, event: RouteReady, now: float) -> None:
        """A route is confirmed."""
        found = self._lives.of_route(event.stream, event.route)
        if found is None:
            self._routes.close(event.route)
            return
        destination, sending, attempt = found
        destination.failure_count = 0
        self._pauses.end(destination.node)
        self._carrying.route_ready(destination, sending, attempt, event, now)
        self._lives.end_lost(destination, now)

    def route_failed(self, event: RouteFailed, now: float) -> None:
        """A route that was asked for is not to be had."""
        found = self._lives.of_route(event.stream, event.route)
        if found is not None:
            destination, sending, attempt = found
            if self._carrying.route_failed(destination, sending, attempt, event, now):
                self._lives.start_anew(destination, now)
            self._lives.end_lost(destination, now)

    def route_lost(self, event: RouteLost, now: float) -> None:
        """A route that was confirmed is gone."""
        self._datapath.remove_feedback_label(event.hop.link, event.hop.label_in)
        destination = self._lives.of_stream(event.stream)
        if destination is not None and destination.sending is not None:
            self._carrying.route_lost(destination, destination.sending, event, now)
            self._lives.end_lost(destination, now)

    # ── what the links report ──

    def link_changed(self, peer: NodeId, now: float) -> None:
        """A link to peer opened or closed: go on, or say again that one is wanted."""
        for destination in self._lives.all():
            self._races.link_changed(destination, peer, now)
            self._lives.end_lost(destination, now)

    def dial_failed(self, event: DialFailed, now: float) -> None:
        """A dial came to nothing: paths that begin with it are not to be had now."""
        for destination in self._lives.all():
            self._races.dial_failed(destination, event, now)
            self._lives.end_lost(destination, now)

    # ── time, commands, outputs ──

    def next_timeout(self) -> float | None:
        """When handle_timeout() wants to be called, or None."""
        wake_ats = [at for destination in self._lives.all() for at in destination.deadlines()]
        answering_at = self._answering.next_timeout()
        return min(wake_ats if answering_at is None else [*wake_ats, answering_at], default=None)

    def handle_timeout(self, *, now: float) -> None:
        """Start the tries that are due, and end what has retired."""
        self._answering.handle_timeout(now=now)
        for destination in self._lives.all():
            if all(at > now for at in destination.deadlines()):
                continue
            if destination.retry_at is not None and destination.retry_at <= now:
                self._lives.start(destination, now)
            self._races.handle_timeout(destination, now=now)
            self._carrying.handle_timeout(destination, now=now)
            self._lives.end_lost(destination, now)

    def next_event(self) -> Event | None:
        """Return one event for people, or None."""
        return self._events.popleft() if self._events else None

    def move(self, node: NodeId, via: tuple[NodeId, ...] | None, now: float) -> Path:
        """Move the stream to the node onto another path: through via, or the best one it is not on.

        Returns the path; the event MOVED or FAILED follows.  Raises UserError if there is no stream or no such path.
        """
        destination = self._lives.find(node)
        if destination is None or destination.sending is None or destination.sending.active is None:
            raise UserError("no stream flows there: nothing to move")
        path = self._carrying.move(destination, destination.sending.active.path, via, now)
        self._lives.end_lost(destination, now)
        return path

    def close_all(self, now: float) -> None:
        """End every stream."""
        self._answering.close_all()
        for destination in self._lives.all():
            self._lives.close(destination, now)

    def status(self, now: float) -> tuple[DestinationStatus, ...]:
        """Return every destination as it is now."""
        return tuple(
            destination.status(self._search.explain(destination.node, now=now)) for destination in self._lives.all()
        )

    def outlook(self, node: NodeId, now: float) -> Outlook:
        """Return what carries packets to a node, what is tried, and what comes next."""
        destination = self._lives.find(node)
        if destination is None:
            return Outlook(refused_until=self._pauses.until(node, now))
        race = None if destination.sending is None else destination.sending.race
        return Outlook(
            state=destination.state,
            path=destination.path,
            trying=tuple(attempt.path.hops for attempt in destination.tries),
            retry_at=destination.retry_at,
            next_at=None if race is None else race.next_at,
            direct_at=None if race is None else race.direct_at,
        )

    def path(self, node: NodeId) -> tuple[NodeId, ...] | None:
        """Return the hops that carry packets to a node now, confirmed or not; None: they wait, or there are none."""
        destination = self._lives.find(node)
        return None if destination is None else destination.path
