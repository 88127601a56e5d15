"""Every destination's life: search, handshake, dial, route, repair, idle.

A destination has its own queue in the datapath and its own state here; nothing is shared, so one that is dead or slow
holds up no other.  Decides for the sending side; what arrives from others is the node's.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

from conflux.control.plane import ControlPlane
from conflux.control.question import Who
from conflux.datapath.interface import Datapath, Feedback
from conflux.ids import IPAddress, LinkId, NodeId, StreamId, format_node_id
from conflux.link.links import Links
from conflux.realm.card import Card
from conflux.route import machine as route
from conflux.search.interface import Measured, Path, Search
from conflux.stream import machine as stream

RETRY_S_MIN = 0.5  # after the first failure; doubles
RETRY_S_MAX = 30.0
GIVE_UP_COUNT = 3  # failures in a row; what waited is then dropped, and nothing is tried before a pause is over
PAUSE_COUNT_MAX = 4096  # destinations and addresses remembered as not there; the oldest goes first


class Tell(Protocol):
    """How the node is told what a person may want to see."""

    def __call__(
        self, kind: str, card: Card | None, text: str = "", took_s: float | None = None, name: str = ""
    ) -> None: ...


@dataclass(slots=True)
class _Destination:
    """State only; the node decides.  In every state its queue is its own: nobody waits behind it."""

    card: Card
    began_at: float
    path: Path
    stream: StreamId | None = None
    stream_agreed: bool = False
    route: int | None = None  # carries the stream
    route_pending: int | None = None  # being set up
    route_began_at: float = 0.0
    dialing: bool = False
    failure_count: int = 0
    retry_at: float | None = None  # between tries; None while one is under way or the stream flows
    epoch: int = 0
    received_count: int = 0  # of the last feedback, to tell what is new
    lost_count: int = 0
    marked_count: int = 0

    @property
    def node(self) -> NodeId:
        return self.card.node_id

    @property
    def name(self) -> str:
        return self.card.name

    @property
    def state(self) -> str:
        """The word `conflux streams` shows."""
        if self.route is not None:
            return "flowing"
        if self.retry_at is not None:
            return "waiting to retry"
        if not self.stream_agreed:
            return "handshake"
        return "route" if self.route_pending is not None else "dialing"


@dataclass(slots=True)
class _Pause:
    """A destination that was given up: nothing is tried before until."""

    until: float
    pause_s: float


class Destinations:
    """Everybody this node sends to, or wants to."""

    def __init__(
        self,
        *,
        datapath: Datapath,
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
        self._destinations: dict[NodeId, _Destination] = {}
        self._by_stream: dict[StreamId, _Destination] = {}
        self._asked: dict[IPAddress, float] = {}  # since when an address waits for its owner's card
        self._pauses: dict[NodeId | IPAddress, _Pause] = {}

    def nodes(self) -> tuple[NodeId, ...]:
        """Return who has a queue here now."""
        return tuple(self._destinations)

    # ── what the datapath reports ──

    def miss(self, address: IPAddress, now: float) -> None:
        """A packet waits under an address nobody serves yet."""
        card = self._plane.card_by_address(address)
        pause = self._pauses.get(address if card is None else card.node_id)
        if pause is not None and pause.until > now:
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
        """Nothing came back for what was sent."""
        if destination := self._by_stream.get(id_):
            self._tell("suspect", destination.card, "no feedback")
            self._probe(destination, now)

    def feedback(self, feedback: Feedback, now: float) -> None:
        """The far end says what it saw: the search learns from what is new in it."""
        destination = self._by_stream.get(feedback.stream)
        if destination is None or feedback.epoch != destination.epoch:
            return  # a late report of the epoch before: its counts say nothing about this one
        counts = (feedback.received_count, feedback.lost_count, feedback.marked_count)
        before = (destination.received_count, destination.lost_count, destination.marked_count)
        new = (max(0, count - old) for count, old in zip(counts, before, strict=True))
        destination.received_count, destination.lost_count, destination.marked_count = counts
        self._search.measured(destination.path, Measured(feedback.rtt_s, *new), now=now)

    # ── what the control plane reports ──

    def card_found(self, card: Card, now: float) -> None:
        """Somebody's card came: packets for its addresses may be waiting."""
        waiting = [address for address in card.addresses if address in self._asked]
        for address in waiting:
            self._tell("card", card, took_s=now - self._asked.pop(address))
        self._pauses.pop(card.node_id, None)
        if waiting:
            self._wake(card, now)

    def who_failed(self, query: Who, now: float) -> None:
        """Nobody owns it: what waited for an address is dropped."""
        if query.address is not None:
            self._asked.pop(query.address, None)
            self._pause(query.address, now)
            self._datapath.refuse(query.address, "unknown-destination")

    def channel_up(self, node: NodeId, now: float) -> None:
        """The node can be spoken to again: whoever waits for it need not."""
        self._pauses.pop(node, None)
        destination = self._destinations.get(node)
        if destination is not None and destination.retry_at is not None:
            self._try(destination, now)

    def channel_down(self, node: NodeId, now: float) -> None:
        """Its process may be gone: ask over the link itself."""
        destination = self._destinations.get(node)
        if destination is not None and destination.route is not None:
            self._probe(destination, now)

    def restarted(self, card: Card, now: float) -> None:
        """The node is a new process: nothing agreed with the old one means anything."""
        self._pauses.pop(card.node_id, None)
        destination = self._destinations.get(card.node_id)
        if destination is not None:
            destination.card = card
            destination.failure_count = 0
            self._drop_stream(destination, now)
            self._try(destination, now)

    # ── what the streams report ──

    def sender_ready(self, event: stream.SenderReady, now: float) -> None:
        """The stream is agreed."""
        destination = self._by_stream.get(event.stream)
        if destination is None:  # given up meanwhile
            self._streams.close_sender(event.stream)
            return
        destination.stream_agreed = True
        self._datapath.add_sender(event.peer, event.stream, event.data, event.feedback, now=now)
        self._tell("handshake", destination.card, took_s=now - destination.began_at)
        self._advance(destination, now)

    def sender_failed(self, event: stream.SenderFailed, now: float) -> None:
        """The stream was never agreed, or it flowed and its keys or its lifetime ended."""
        destination = self._by_stream.get(event.stream)
        if destination is None:
            return
        if destination.stream_agreed:
            self._drop_stream(destination, now)
            self._try(destination, now)
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
        """Frames may flow over it; the one before, if any, goes."""
        destination = self._by_stream.get(event.stream)
        if destination is None or destination.route_pending != event.route:
            self._routes.close(event.route)
            return
        old, destination.route, destination.route_pending = destination.route, event.route, None
        self._datapath.set_route(event.stream, event.hop, now=now)
        destination.failure_count = 0
        self._pauses.pop(destination.node, None)
        self._search.opened(destination.path, now - destination.route_began_at, now=now)
        if old is None:
            self._tell("frames", destination.card, took_s=now - destination.began_at)
        elif (old_hop := self._routes.close(old)) is not None:
            self._datapath.remove_feedback_label(old_hop.link, old_hop.label_in)

    def _on_route_failed(self, destination: _Destination, reason: str, now: float) -> None:
        self._search.failed(destination.path, reason, now=now)
        match reason:
            case "unknown-stream":  # the far end lost or ended the stream: agree on a new one
                self._drop_stream(destination, now)
                self._try(destination, now)
            case "stale-key":  # its hop key turned: the card we hold is old
                self._plane.who(Who(node=destination.node), now=now)
                self._fail(destination, reason, now)
            case "timeout" | "link-down":  # nobody at the other end of the link
                self._links.peer_lost(destination.path.first, now=now)
                self._lose_route(destination, now)
            case _:
                self._fail(destination, f"route: {reason}", now)

    def route_failed(self, event: route.RouteFailed, now: float) -> None:
        """A route that was asked for is not to be had."""
        destination = self._by_stream.get(event.stream)
        if destination is not None and destination.route_pending == event.route:
            destination.route_pending = None
            self._on_route_failed(destination, event.reason, now)

    def route_lost(self, event: route.RouteLost, now: float) -> None:
        """The route that carried the stream is gone."""
        self._datapath.remove_feedback_label(event.hop.link, event.hop.label_in)
        destination = self._by_stream.get(event.stream)
        if destination is not None and destination.route == event.route:
            destination.route = None
            self._search.failed(destination.path, event.reason, now=now)
            self._lose_route(destination, now)

    # ── what the links report ──

    def link_up(self, peer: NodeId, now: float) -> None:
        """A link to peer is open."""
        for destination in self._via(peer):
            self._advance(destination, now)

    def link_down(self, peer: NodeId, now: float) -> None:
        """The link to peer is gone, and with it our wish for one: who still needs it says so again."""
        for destination in self._via(peer):
            destination.dialing = False
            self._advance(destination, now)

    def dial_failed(self, peer: NodeId, reason: str, now: float) -> None:
        """A dial came to nothing.  The links dial again by themselves; the streams stay, unless this goes on."""
        if reason == "backing-off":
            return
        for destination in self._via(peer):
            destination.failure_count += 1
            self._search.failed(destination.path, reason, now=now)
            self._tell("failed", destination.card, f"dial: {reason}")
            if destination.failure_count >= GIVE_UP_COUNT:
                self._give_up(destination, reason, now)

    # ── time, commands, status ──

    def next_timeout(self) -> float | None:
        """When handle_timeout() wants to be called, or None."""
        retries = (destination.retry_at for destination in self._destinations.values())
        return min((at for at in retries if at is not None), default=None)

    def handle_timeout(self, *, now: float) -> None:
        """Start the tries that are due."""
        for destination in list(self._destinations.values()):
            if destination.retry_at is not None and destination.retry_at <= now:
                self._try(destination, now)

    def close_all(self, now: float) -> None:
        """End every stream."""
        for destination in list(self._destinations.values()):
            self._close(destination, now)

    def status(self) -> list[dict[str, Any]]:
        """Every destination, as plain values."""
        return [
            {
                "node": format_node_id(destination.node),
                "name": destination.name,
                "addresses": [str(address) for address in destination.card.addresses],
                "state": destination.state,
                "stream": None if destination.stream is None else destination.stream.hex(),
                "failures": destination.failure_count,
                "paths": self._search.explain(destination.node),
            }
            for destination in self._destinations.values()
        ]

    # ── one destination ──

    def _wake(self, card: Card, now: float) -> None:
        """Packets wait for the card's node: give it its queue and start, unless it has both."""
        destination = self._destinations.get(card.node_id)
        if destination is None:
            paths = self._search.paths(card.node_id, now=now)
            if not paths:
                for address in card.addresses:
                    self._datapath.refuse(address, "no-path")
                return
            self._tell("queue", card, "packets wait")
            destination = self._destinations[card.node_id] = _Destination(card, now, paths[0])
            self._datapath.add_egress(card.node_id, card.addresses, now=now)
            self._try(destination, now)
        else:
            self._datapath.add_egress(card.node_id, card.addresses, now=now)

    def _try(self, destination: _Destination, now: float) -> None:
        """Handshake and dial at once; whichever ends last starts the route."""
        destination.retry_at = None
        destination.began_at = now
        destination.card = self._plane.card(destination.node) or destination.card
        if destination.stream is None:
            destination.stream = self._streams.open(destination.card, now=now)
            destination.stream_agreed = False
            self._by_stream[destination.stream] = destination
        self._advance(destination, now)

    def _dial(self, destination: _Destination, now: float) -> None:
        if self._links.acquire(destination.path.first, self._user(destination), now=now) is None:
            if not destination.dialing:
                self._tell("dial", destination.card)
            destination.dialing = True

    def _advance(self, destination: _Destination, now: float) -> None:
        """Set a route up once there is a stream for it and a link under it; dial when there is none any more."""
        if destination.route is not None or destination.route_pending is not None or destination.retry_at is not None:
            return
        link = self._links.link(destination.path.first)
        if link is None:
            self._dial(destination, now)
        elif destination.stream_agreed and destination.stream is not None:
            destination.dialing = False
            self._build_route(destination, link, now)

    def _build_route(self, destination: _Destination, link: LinkId, now: float) -> None:
        assert destination.stream is not None
        destination.route_began_at = now
        destination.route_pending = self._routes.build(destination.stream, destination.card, link, now=now)

    def _probe(self, destination: _Destination, now: float) -> None:
        """Ask for a second route over the same link: an answer mends it, silence says the link is dead."""
        link = self._links.link(destination.path.first)
        if destination.route is None or destination.route_pending is not None:
            return
        if link is None:
            self._lose_route(destination, now)
        else:
            self._build_route(destination, link, now)

    def _lose_route(self, destination: _Destination, now: float) -> None:
        """The stream lives on without a route: its packets wait again, and a new link is dialled."""
        self._drop_route(destination, now)
        if destination.stream is not None:
            self._datapath.set_route(destination.stream, None, now=now)
        destination.began_at = now
        self._advance(destination, now)

    def _drop_route(self, destination: _Destination, now: float, last: bytes = b"") -> None:
        for number in (destination.route, destination.route_pending):
            hop = None if number is None else self._routes.close(number, last)
            if hop is not None:
                self._datapath.remove_feedback_label(hop.link, hop.label_in)
        destination.route = destination.route_pending = None

    def _drop_stream(self, destination: _Destination, now: float) -> None:
        """Erase the stream; the queue stays, and its packets wait for the next one."""
        self._drop_route(destination, now)
        if destination.stream is not None:
            self._datapath.remove_sender(destination.stream)
            self._streams.close_sender(destination.stream)
            self._by_stream.pop(destination.stream, None)
        destination.stream = None
        destination.stream_agreed = False
        destination.epoch = 0
        destination.received_count = destination.lost_count = destination.marked_count = 0

    def _close(self, destination: _Destination, now: float) -> None:
        """All packets are through: the stream ends, and nothing of it stays."""
        last = b""
        if destination.route is not None and destination.stream is not None:
            last = self._datapath.last_frame(destination.stream)
        self._drop_route(destination, now, last)
        self._forget(destination, "closed", now)

    def _forget(self, destination: _Destination, reason: str, now: float) -> None:
        self._drop_stream(destination, now)
        self._datapath.remove_egress(destination.node, reason)
        self._links.release(destination.path.first, self._user(destination), now=now)
        self._destinations.pop(destination.node, None)

    def _fail(self, destination: _Destination, reason: str, now: float) -> None:
        """One try came to nothing: the next follows after a pause, or the destination is given up for a while."""
        if destination.retry_at is not None:
            return  # the other half of a try that failed already
        self._drop_stream(destination, now)
        destination.dialing = False
        destination.failure_count += 1
        self._search.failed(destination.path, reason, now=now)
        self._tell("failed", destination.card, reason)
        if destination.failure_count < GIVE_UP_COUNT:
            destination.retry_at = now + _retry_delay_s(destination.failure_count, self._rng.random())
            return
        self._give_up(destination, reason, now)

    def _give_up(self, destination: _Destination, reason: str, now: float) -> None:
        self._tell("unreachable", destination.card, reason)
        self._forget(destination, "unreachable", now)
        self._pause(destination.node, now)

    def _pause(self, who: NodeId | IPAddress, now: float) -> None:
        """Try nothing for it for a while, longer each time in a row."""
        old = self._pauses.pop(who, None)
        pause_s = 1.0 if old is None else min(2 * old.pause_s, RETRY_S_MAX)
        self._pauses[who] = _Pause(now + pause_s, pause_s)
        if len(self._pauses) > PAUSE_COUNT_MAX:
            del self._pauses[next(iter(self._pauses))]

    @staticmethod
    def _user(destination: _Destination) -> tuple[str, NodeId]:
        return ("to", destination.node)

    def _via(self, peer: NodeId) -> list[_Destination]:
        return [destination for destination in self._destinations.values() if destination.path.first == peer]


def _retry_delay_s(failure_count: int, jitter: float) -> float:
    """Return how long to wait after the failure_count-th failure in a row; jitter from 0 to 1 spreads it by half."""
    delay: float = min(RETRY_S_MIN * 2 ** (failure_count - 1), RETRY_S_MAX)
    return delay * (0.75 + jitter / 2)
