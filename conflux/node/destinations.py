"""Every destination's life: search, handshake, dial, route, move, repair, idle.

A destination has its own queue in the datapath and its own state here; nothing is shared, so one that is dead or slow
holds up no other.  Decides for the sending side; what arrives from others is the node's.

A stream is tried over several paths at once (racing.py): the first route confirmed carries it, a better one takes over,
and the one before stays until what is under way on it has arrived.  The stream does not notice.  The stream of an
answer is agreed on beforehand (answering.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

from conflux.control.plane import ControlPlane
from conflux.control.question import Who
from conflux.datapath.interface import Feedback, Hop, Tables
from conflux.errors import UserError
from conflux.ids import IPAddress, NodeId, StreamId, format_node_id
from conflux.link.links import Links
from conflux.node.answering import Answering
from conflux.node.destination import Destination, Pauses, Tell, Try, retry_delay_s
from conflux.node.racing import Races, path_names, path_words
from conflux.realm.card import Card
from conflux.route import machine as route
from conflux.route.onion import HopKey
from conflux.search.interface import Measured, Path, Search
from conflux.stream import machine as stream

RETIRE_S = 1.0  # a route that was left takes what is under way on it; then it is torn down
REFRESH_S = route.LIFETIME_S * 0.8  # then a new route over the same path replaces the one that would expire
RENEW_S_MIN = 10.0  # between streams opened for their vantage alone, or a relay that says "stale-key" costs us many
GIVE_UP_COUNT = 3  # failures in a row; what waited is then dropped, and nothing is tried before a pause is over


class Destinations:
    """Everybody this node sends to, or wants to."""

    def __init__(
        self,
        *,
        datapath: Tables,
        plane: ControlPlane,
        streams: stream.Streams,
        routes: route.Routes,
        links: Links,
        search: Search,
        rng: Random,
        tell: Tell,
    ) -> None:
        self._datapath = datapath
        self._plane = plane
        self._streams = streams
        self._routes = routes
        self._links = links
        self._search = search
        self._rng = rng
        self._tell = tell
        self._destinations: dict[NodeId, Destination] = {}
        self._by_stream: dict[StreamId, Destination] = {}
        self._asked: dict[IPAddress, float] = {}  # since when an address waits for its owner's card
        self._pauses = Pauses()
        self._answering = Answering(streams)
        self._races = Races(
            datapath=datapath,
            plane=plane,
            routes=routes,
            links=links,
            search=search,
            tell=tell,
            all_failed=self._fail,
        )

    def nodes(self) -> tuple[NodeId, ...]:
        """Return who has a queue here now."""
        return tuple(self._destinations)

    # ── what the datapath reports ──

    def miss(self, address: IPAddress, now: float) -> None:
        """A packet waits under an address nobody serves yet."""
        card = self._plane.card_by_address(address)
        if self._pauses.holds(address if card is None else card.node_id, now):
            self._datapath.refuse(address, "unreachable")
        elif card is not None:
            self._wake(card, now)
        elif address not in self._asked:
            self._asked[address] = now
            self._tell("queue", None, "a packet waits", name=str(address))
            self._tell("who", None, "asked who owns it", name=str(address))
            self._plane.who(Who(address=address), now=now)

    def sender_idle(self, id_: StreamId, now: float) -> None:
        """All packets are through: the stream ends."""
        if destination := self._by_stream.get(id_):
            self._tell("idle", destination.card)
            self._close(destination, now)

    def suspect(self, id_: StreamId, now: float) -> None:
        """Nothing came back for what was sent: ask for the same route again, and race every other path beside it."""
        if destination := self._by_stream.get(id_):
            self._tell("suspect", destination.card, "no feedback")
            self._doubt(destination, now)

    def feedback(self, feedback: Feedback, now: float) -> None:
        """The far end says what it saw: the search learns from what is new in it."""
        destination = self._by_stream.get(feedback.stream)
        if destination is None or destination.active is None or feedback.epoch != destination.epoch:
            return  # a late report of the epoch before: its counts say nothing about this one
        destination.suspect = False
        counts = (feedback.received_count, feedback.lost_count, feedback.marked_count)
        before = (destination.received_count, destination.lost_count, destination.marked_count)
        new = (max(0, count - old) for count, old in zip(counts, before, strict=True))
        destination.received_count, destination.lost_count, destination.marked_count = counts
        self._search.measured(destination.active.path, Measured(feedback.rtt_s, *new), now=now)

    # ── what the control plane reports ──

    def opened_to_us(self, card: Card, now: float) -> None:
        """The card's node will send to us: what answers it need not wait for a handshake then."""
        if card.node_id not in self._destinations and not self._pauses.holds(card.node_id, now):
            self._answering.expect(card, now)

    def card_found(self, card: Card, now: float) -> None:
        """Somebody's card came: packets for its addresses may wait, and so may routes that pass it."""
        waiting = [address for address in card.addresses if address in self._asked]
        for address in waiting:
            self._tell("card", card, took_s=now - self._asked.pop(address))
        self._pauses.end(card.node_id)
        if waiting:
            self._wake(card, now)
        for destination in self._through(card.node_id):
            self._races.advance(destination, now)

    def who_failed(self, query: Who, now: float) -> None:
        """Nobody owns it: what waited for an address is dropped, and paths through the node are not to be had."""
        if query.address is not None:
            self._asked.pop(query.address, None)
            self._pauses.begin(query.address, now)
            self._datapath.refuse(query.address, "unknown-destination")
        elif query.node is not None:
            for destination in self._through(query.node):
                for attempt in list(destination.tries):
                    if attempt.route is None and query.node in attempt.path.relays:
                        self._races.drop(destination, attempt, "unknown-relay", now)

    def channel_up(self, node: NodeId, now: float) -> None:
        """The node can be spoken to again: whoever waits for it need not."""
        self._pauses.end(node)
        self._search.returned(node)
        destination = self._destinations.get(node)
        if destination is not None and destination.retry_at is not None:
            self._start(destination, now)

    def channel_down(self, node: NodeId, now: float) -> None:
        """Its process may be gone: ask over the links themselves."""
        for destination in self._destinations.values():
            if destination.active is not None and destination.active.path.first == node:
                self._doubt(destination, now)

    def restarted(self, card: Card, now: float) -> None:
        """The node is a new process: nothing agreed with the old one means anything."""
        self._pauses.end(card.node_id)
        self._search.returned(card.node_id)
        self._answering.forget(card.node_id)
        destination = self._destinations.get(card.node_id)
        if destination is not None:
            destination.card = card
            destination.failure_count = 0
            self._drop_stream(destination, now)
            self._start(destination, now)

    # ── what the streams report ──

    def sender_ready(self, event: stream.SenderReady, now: float) -> None:
        """The stream is agreed."""
        destination = self._by_stream.get(event.stream)
        if destination is None:
            if not self._answering.sender_ready(event):  # given up meanwhile
                self._streams.close_sender(event.stream)
            return
        destination.stream_agreed = True
        self._datapath.add_sender(
            event.peer, event.stream, event.data, event.feedback, offload_kinds=event.offload_kinds, now=now
        )
        self._tell("handshake", destination.card, took_s=now - destination.began_at)
        destination.vantage = {
            NodeId(entry.node): HopKey(NodeId(entry.node), entry.hop_key_id, entry.hop_public)
            for entry in event.vantage
        }
        self._search.vantage_of(event.peer, tuple(destination.vantage))
        candidates = self._search.paths(destination.node, now=now)
        guesses = [attempt for attempt in destination.tries if attempt.path not in candidates]
        for attempt in guesses:
            destination.tries.remove(attempt)  # its dial may serve the next one
        self._races.advance(destination, now)
        if destination.active is None and (guesses or destination.race_at is None):
            self._races.try_next(destination, now)
        for attempt in guesses:
            self._races.release_unused(destination, attempt.path.first, now)

    def sender_failed(self, event: stream.SenderFailed, now: float) -> None:
        """The stream was never agreed, or it flowed and its keys or its lifetime ended."""
        destination = self._by_stream.get(event.stream)
        if destination is None:
            self._answering.sender_failed(event)
            return
        if destination.stream_agreed:
            self._drop_stream(destination, now)
            self._start(destination, now)
        else:
            self._fail(destination, f"handshake: {event.reason}", now)

    def sender_rekeyed(self, event: stream.SenderRekeyed, now: float) -> None:
        """The stream has its next keys."""
        self._datapath.rekey_sender(event.stream, event.data, event.feedback, now=now)
        if destination := self._by_stream.get(event.stream):
            destination.epoch = event.data.epoch
            destination.received_count = destination.lost_count = destination.marked_count = 0
            self._tell("rekey", destination.card, f"epoch {event.data.epoch}")

    # ── what the routes report ──

    def route_ready(self, event: route.RouteReady, now: float) -> None:
        """A route is confirmed: it carries the stream if none does, if it was asked for, or if it is clearly better."""
        destination = self._by_stream.get(event.stream)
        attempt = None if destination is None else destination.of_route(event.route)
        if destination is None or attempt is None:
            self._routes.close(event.route)
            return
        took_s = now - attempt.began_at
        destination.failure_count = 0
        self._pauses.end(destination.node)
        self._search.opened(attempt.path, took_s, now=now)
        if not attempt.cold:
            self._search.measured(attempt.path, Measured(took_s, 0, 0, 0), now=now)
        active = destination.active
        if active is None or attempt.wanted or destination.suspect:
            self._switch(destination, attempt, event.hop, now)
        elif attempt.path == active.path:  # a probe, and feedback has come meanwhile: nothing to put right
            destination.tries.remove(attempt)
            self._races.close_route(attempt)
        elif attempt.cold:  # its links are open now: once more, for the time it takes
            self._races.close_route(attempt)
            attempt.cold = False
            self._races.advance(destination, now)
        elif self._search.prefers(attempt.path, took_s, active.path):
            self._switch(destination, attempt, event.hop, now)
        else:
            destination.beaten.add(attempt.path)
            destination.tries.remove(attempt)
            self._races.close_route(attempt)
            self._races.release_unused(destination, attempt.path.first, now)

    def route_failed(self, event: route.RouteFailed, now: float) -> None:
        """A route that was asked for is not to be had."""
        destination = self._by_stream.get(event.stream)
        attempt = None if destination is None else destination.of_route(event.route)
        if destination is None or attempt is None:
            return
        attempt.route = None
        if event.reason == "link-closed" and not attempt.again:  # whoever closed it did not know of the set-up yet
            attempt.again, attempt.cold = True, bool(attempt.path.relays)
            self._races.advance(destination, now)
            return
        if event.reason == "unknown-stream" and event.hop == len(attempt.path.hops) - 1:
            # The far end lost or ended the stream: agree on a new one.  A relay's word for it is only a failed path.
            self._drop_stream(destination, now)
            self._start(destination, now)
            return
        hops, stale = attempt.path.hops, _stale_hop(event)
        if stale is not None and stale < len(hops):  # its hop key turned: what we hold is old
            if hops[stale] in (hops[0], hops[-1]):  # our neighbour and the destination know us, and may be asked
                self._plane.refresh(hops[stale], now=now)
            elif self._renew_vantage(destination, attempt, now):
                return
        active = destination.active
        of_active = active is not None and attempt.path == active.path
        # The path of what carries the stream is as good as its feedback says, whatever one set-up over it came to: a
        # hop may be busy for a moment.  A refresh is tried again.
        if not of_active or destination.suspect:
            if event.reason == "timeout" and not attempt.path.relays:
                self._links.peer_lost(attempt.path.first, now=now)  # nobody at the other end of the link
            if of_active:
                self._lose_active(destination, now)  # the probe of what carries the stream: it carries no more
        self._races.drop(destination, attempt, event.reason, now)

    def _renew_vantage(self, destination: Destination, attempt: Try, now: float) -> bool:
        """A relay that the destination named has another key now: have it named anew; False if that was just done.

        The relay itself is not asked: it had but to claim this to learn who uses it.
        """
        if destination.active is not None:
            if attempt.path != destination.active.path or destination.suspect:
                return False
            destination.tries.remove(attempt)  # to replace the route before it expires; until then it carries
            self._tell("failed", destination.card, f"{path_words(attempt.path, self._plane)}: stale-key")
            destination.refresh_at = float("inf")
            return True
        if now < destination.renewed_at + RENEW_S_MIN:
            return False
        destination.renewed_at = now
        self._drop_stream(destination, now)
        self._start(destination, now)
        return True

    def route_lost(self, event: route.RouteLost, now: float) -> None:
        """A route that was confirmed is gone."""
        self._datapath.remove_feedback_label(event.hop.link, event.hop.label_in)
        destination = self._by_stream.get(event.stream)
        if destination is None:
            return
        if destination.active is not None and destination.active.route == event.route:
            self._search.failed(destination.active.path, event.reason, now=now)
            self._tell("suspect", destination.card, f"route lost: {event.reason}")
            self._lose_active(destination, now)
        elif (attempt := destination.of_route(event.route)) in destination.retiring:
            destination.retiring.remove(attempt)
            self._races.release_unused(destination, attempt.path.first, now)

    # ── what the links report ──

    def link_changed(self, peer: NodeId, now: float) -> None:
        """A link to peer opened or closed: go on, or say again that one is wanted."""
        for destination in list(self._destinations.values()):
            for attempt in destination.tries:
                if attempt.path.first == peer:
                    attempt.dialing = False
            self._races.advance(destination, now)

    def dial_failed(self, peer: NodeId, reason: str, now: float) -> None:
        """A dial came to nothing: paths that begin with it are not to be had now."""
        if reason == "backing-off":
            return
        for destination in list(self._destinations.values()):
            for attempt in [entry for entry in destination.tries if entry.path.first == peer and entry.route is None]:
                self._races.drop(destination, attempt, f"dial: {reason}", now)

    # ── time, commands, status ──

    def next_timeout(self) -> float | None:
        """When handle_timeout() wants to be called, or None."""
        wake_ats = [at for at, _ in self._deadlines()]
        answering_at = self._answering.next_timeout()
        return min(wake_ats if answering_at is None else [*wake_ats, answering_at], default=None)

    def handle_timeout(self, *, now: float) -> None:
        """Start the tries that are due, and end what has retired."""
        self._answering.handle_timeout(now=now)
        for at, destination in list(self._deadlines()):
            if at > now or destination.node not in self._destinations:
                continue
            if destination.retry_at is not None and destination.retry_at <= now:
                self._start(destination, now)
            if destination.race_at is not None and destination.race_at <= now:
                self._races.try_next(destination, now)
            for attempt in [entry for entry in destination.retiring if entry.until <= now]:
                destination.retiring.remove(attempt)
                self._races.close_route(attempt)
                self._races.release_unused(destination, attempt.path.first, now)
            if destination.refresh_at <= now and destination.active is not None:
                destination.refresh_at = now + route.RELAYED_TIMEOUT_S
                self._races.try_path(destination, destination.active.path, now, wanted=True)

    def _deadlines(self) -> Iterator[tuple[float, Destination]]:
        for destination in self._destinations.values():
            for at in (destination.retry_at, destination.race_at):
                if at is not None:
                    yield at, destination
            for attempt in destination.retiring:
                yield attempt.until, destination
            if destination.active is not None:
                yield destination.refresh_at, destination

    def move(self, node: NodeId, via: tuple[NodeId, ...] | None, now: float) -> Path:
        """Move the stream to the node onto another path: through via, or the best one it is not on.

        Returns the path; the event "moved" or "failed" follows.  Raises UserError if there is nothing to move or to
        move to.
        """
        destination = self._destinations.get(node)
        if destination is None or destination.active is None:
            raise UserError("no stream flows there: nothing to move")
        current = destination.active.path
        if via is not None:
            path = Path((*via, node))
            ends = {node, self._plane.me}
            if ends & set(via) or len(set(via)) < len(via) or len(path.hops) > route.HOP_COUNT_MAX:
                raise UserError(f"a path is at most {route.HOP_COUNT_MAX} hops, each another node")
        else:
            others = [entry for entry in self._search.paths(node, now=now) if entry != current]
            if not others:
                raise UserError("no other path is known")
            path = others[0]
        self._races.try_path(destination, path, now, wanted=True)
        return path

    def close_all(self, now: float) -> None:
        """End every stream."""
        self._answering.close_all()
        for destination in list(self._destinations.values()):
            self._close(destination, now)

    def status(self, now: float) -> list[dict[str, Any]]:
        """Every destination, as plain values."""
        return [
            {
                "node": format_node_id(destination.node),
                "name": destination.name,
                "addresses": [str(address) for address in destination.card.addresses],
                "state": destination.state,
                "stream": None if destination.stream is None else destination.stream.hex(),
                "path": None if destination.active is None else path_names(destination.active.path, self._plane),
                "failures": destination.failure_count,
                "paths": self._search.explain(destination.node, now=now),
            }
            for destination in self._destinations.values()
        ]

    # ── one destination: starting ──

    def _wake(self, card: Card, now: float) -> None:
        """Packets wait for the card's node: give it its queue and start, unless it has both."""
        destination = self._destinations.get(card.node_id)
        if destination is None:
            self._tell("queue", card, "packets wait")
            destination = self._destinations[card.node_id] = Destination(card, now)
            self._datapath.add_egress(card.node_id, card.addresses, now=now)
            self._start(destination, now)
        else:
            self._datapath.add_egress(card.node_id, card.addresses, now=now)

    def _start(self, destination: Destination, now: float) -> None:
        """Handshake and dial at once; whichever ends last starts the route."""
        destination.retry_at = None
        destination.began_at = now
        destination.card = self._plane.card(destination.node) or destination.card
        if destination.stream is None:
            begun = self._answering.take(destination.node)
            destination.stream, agreed = begun or (self._streams.open(destination.card, now=now), None)
            destination.stream_agreed = False
            self._by_stream[destination.stream] = destination
            if agreed is not None:
                self.sender_ready(agreed, now)
                return
        self._races.try_next(destination, now)

    # ── one destination: changing ──

    def _switch(self, destination: Destination, attempt: Try, hop: Hop, now: float) -> None:
        """Let the route carry the stream; the one before retires when what is under way on it has arrived."""
        assert destination.stream is not None
        destination.tries.remove(attempt)
        old, destination.active = destination.active, attempt
        self._datapath.set_route(destination.stream, hop, now=now)
        destination.suspect = False
        destination.refresh_at = now + REFRESH_S
        if old is None:
            self._tell("frames", destination.card, path_words(attempt.path, self._plane), now - destination.began_at)
            return
        old.until = now + RETIRE_S
        destination.retiring.append(old)
        if old.path != attempt.path:
            destination.beaten.add(old.path)
            self._tell("moved", destination.card, path_words(attempt.path, self._plane), now - attempt.began_at)

    def _doubt(self, destination: Destination, now: float) -> None:
        if destination.active is None or destination.suspect:
            return
        destination.suspect = True
        destination.beaten.clear()
        # Not wanted: it carries the stream if the suspicion still holds when it is confirmed.
        self._races.try_path(destination, destination.active.path, now, wanted=False)
        self._races.try_next(destination, now)

    def _lose_active(self, destination: Destination, now: float) -> None:
        """The stream lives on without a route: its packets wait again, and other paths are tried."""
        lost, destination.active = destination.active, None
        if lost is not None:
            self._races.close_route(lost)
        if destination.stream is not None:
            self._datapath.set_route(destination.stream, None, now=now)
        destination.suspect = False
        destination.beaten.clear()
        destination.began_at = now
        if lost is not None:
            self._races.release_unused(destination, lost.path.first, now)
        self._races.advance(destination, now)
        self._races.try_next(destination, now)

    # ── one destination: ending ──

    def _drop_stream(self, destination: Destination, now: float) -> None:
        """Erase the stream; the queue stays, and its packets wait for the next one."""
        firsts = {attempt.path.first for attempt in destination.routed}
        for attempt in destination.routed:
            self._races.close_route(attempt)
        destination.active = None
        destination.tries.clear()
        destination.retiring.clear()
        destination.race_at = None
        destination.beaten.clear()
        destination.suspect = False
        for first in firsts:
            self._races.release_unused(destination, first, now)
        if destination.stream is not None:
            self._datapath.remove_sender(destination.stream)
            self._streams.close_sender(destination.stream)
            self._by_stream.pop(destination.stream, None)
        destination.stream = None
        destination.stream_agreed = False
        destination.epoch = 0
        destination.received_count = destination.lost_count = destination.marked_count = 0

    def _close(self, destination: Destination, now: float) -> None:
        """All packets are through: the stream ends, and nothing of it stays."""
        if destination.active is not None and destination.stream is not None:
            self._races.close_route(destination.active, self._datapath.last_frame(destination.stream))
        self._forget(destination, "closed", now)

    def _forget(self, destination: Destination, reason: str, now: float) -> None:
        self._drop_stream(destination, now)
        self._datapath.remove_egress(destination.node, reason)
        self._destinations.pop(destination.node, None)

    def _fail(self, destination: Destination, reason: str, now: float) -> None:
        """Every path came to nothing: try again after a pause, or give the destination up for a while."""
        if destination.retry_at is not None or destination.node not in self._destinations:
            return  # the other half of a try that failed already
        self._drop_stream(destination, now)
        destination.failure_count += 1
        if destination.failure_count < GIVE_UP_COUNT:
            destination.retry_at = now + retry_delay_s(destination.failure_count, self._rng.random())
            self._search.returned(destination.node)  # a pause of the paths would outlast the destination's own
            return
        self._tell("unreachable", destination.card, reason)
        self._forget(destination, "unreachable", now)
        self._pauses.begin(destination.node, now)

    # ── lookups ──

    def _through(self, node: NodeId) -> list[Destination]:
        return [
            destination
            for destination in self._destinations.values()
            if any(node in attempt.path.hops for attempt in destination.tries)
        ]


def _stale_hop(event: route.RouteFailed) -> int | None:
    """Which hop's key had turned, counted from 0: it says so itself, or the relay before it does."""
    if event.hop is None or not event.reason.endswith("stale-key"):
        return None
    return event.hop + event.reason.startswith("next:")
