"""The neighbours of a node's destinations: fakes that remember what they were told, and cards of other nodes.

A fake has the part of the real thing that conflux/node calls, under the same names.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from random import Random
from types import SimpleNamespace
from typing import Any

from kit.builders import FIRST_BOOT, hop_key, make_credential, make_realm, node_keys

from conflux.anchor.frame import CHACHA20_POLY1305
from conflux.anchor.key import EpochKey
from conflux.carrier.interface import Hop
from conflux.control.who import Who
from conflux.datapath.interface import Feedback
from conflux.ids import IPAddress, LinkId, NodeId, StreamId, TetherId, format_node_id
from conflux.node.destination import Destination, Sending, Try
from conflux.node.destinations import Destinations
from conflux.node.event import Event, EventKind
from conflux.node.patience import Patience
from conflux.node.relaying import FEATURE, PUBLIC
from conflux.realm.card import PATIENT, Card
from conflux.realm.credential import RELAY, Chain
from conflux.route.event import RouteAsked, RouteEnd, RouteFailed, RouteLost, RouteReady
from conflux.route.message import Refusal, RefusalWord
from conflux.route.onion import HopKey
from conflux.search.interface import Candidate, Measured, Path
from conflux.stream.event import SenderEnd, SenderFailed, SenderReady
from conflux.stream.handshake import Vantage

REALM = make_realm("nodes")
CHANNEL_COUNT = 4


@functools.cache
def card_of(name: str, *, relays: bool = True, may: bool = True, public: bool = False, patient: bool = False) -> Card:
    """Return a node's card.

    relays: it offers to relay.  may: its credential allows it.  public: for any two.  patient: as PATIENT says.
    """
    chain = Chain(make_credential(REALM, name, capabilities=(RELAY,) if may else ()), None)
    features = (*((FEATURE,) if relays else ()), *((PUBLIC,) if public else ()), *((PATIENT,) if patient else ()))
    hop_public = hop_key(name).public
    return Card.build(node_keys(name), chain, boot=FIRST_BOOT, hop_public=hop_public, serial=1, features=features)


def id_of(name: str) -> NodeId:
    """Return the id of the node with a name."""
    return card_of(name).node_id


def path_of(*names: str) -> Path:
    """Return the path over nodes of these names, the destination last."""
    return Path(tuple(id_of(name) for name in names))


@dataclass
class FakeDatapath:
    """The tables, as far as destinations write them."""

    egresses: dict[NodeId, tuple[IPAddress, ...]] = field(default_factory=dict)
    senders: list[StreamId] = field(default_factory=list)
    routes: dict[StreamId, Hop | None] = field(default_factory=dict)
    refused: list[tuple[IPAddress, str]] = field(default_factory=list)
    removed: list[tuple[NodeId, str]] = field(default_factory=list)
    timeouts: dict[StreamId | None, float] = field(default_factory=dict)
    relays: dict[tuple[LinkId, int], Hop] = field(default_factory=dict)
    waiting: int = 1  # packets, in each queue

    def status(self) -> SimpleNamespace:
        queues = [SimpleNamespace(destination=format_node_id(node), packets=self.waiting) for node in self.egresses]
        return SimpleNamespace(egresses=queues, senders=())

    def set_idle_timeout(self, timeout_s: float, stream: StreamId | None = None) -> None:
        self.timeouts[stream] = timeout_s

    def add_egress(self, destination: NodeId, addresses: tuple[IPAddress, ...], *, now: float) -> None:
        self.egresses[destination] = addresses

    def remove_egress(self, destination: NodeId, reason: str) -> None:
        del self.egresses[destination]
        self.removed.append((destination, reason))

    def refuse(self, address: IPAddress, reason: str) -> None:
        self.refused.append((address, reason))

    def add_sender(self, peer: NodeId, stream: StreamId, *keys: EpochKey, **settings: Any) -> None:
        self.senders.append(stream)
        self.routes[stream] = None

    def rekey_sender(self, stream: StreamId, *keys: EpochKey, now: float) -> None:
        assert stream in self.senders

    def remove_sender(self, stream: StreamId) -> None:
        if stream in self.senders:
            self.senders.remove(stream)
            del self.routes[stream]

    def set_route(self, stream: StreamId, hop: Hop | None, *, now: float) -> None:
        assert stream in self.senders
        self.routes[stream] = hop

    def last_frame(self, stream: StreamId) -> bytes:
        return b"last of " + stream

    def remove_feedback_label(self, link: LinkId, label: int) -> None:
        pass

    def add_relay(self, before: Hop, ahead: Hop, *, now: float) -> None:
        self.relays[before.link, before.label_in] = ahead

    def remove_relay(self, link: LinkId, label_in: int) -> None:
        del self.relays[link, label_in]


@dataclass
class FakePlane:
    """The control plane: the cards that are here, and what was asked for."""

    me: NodeId
    cards: dict[NodeId, Card] = field(default_factory=dict)
    asked: list[Who] = field(default_factory=list)
    refreshed: list[NodeId] = field(default_factory=list)
    is_revoked: bool = False
    denied: set[NodeId] = field(default_factory=set)

    def card(self, node: NodeId) -> Card | None:
        return self.cards.get(node)

    def card_of(self, query: Who) -> Card | None:
        return next((card for card in self.cards.values() if query.address in card.addresses), None)

    def who(self, who: Who, *, now: float, quiet: bool = False) -> None:
        self.asked.append(who)

    def denies(self, node: NodeId) -> bool:
        return node in self.denied

    def refresh(self, node: NodeId, *, now: float) -> None:
        self.refreshed.append(node)


@dataclass
class FakeStreams:
    """Streams that are opened and closed; the test says what becomes of each."""

    opened: list[tuple[StreamId, NodeId]] = field(default_factory=list)
    closed: list[StreamId] = field(default_factory=list)

    def open(self, card: Card, *, now: float) -> StreamId:
        stream = StreamId(b"stream %09d" % len(self.opened))
        self.opened.append((stream, card.node_id))
        return stream

    def close_sender(self, stream: StreamId) -> None:
        self.closed.append(stream)


@dataclass(frozen=True)
class Built:
    """One route that was asked for."""

    number: int
    stream: StreamId
    hops: tuple[HopKey, ...]
    link: LinkId

    @property
    def hop(self) -> Hop:
        """Return the hop by which the route leaves."""
        return Hop(self.link, TetherId(bytes(8)), CHANNEL_COUNT, 2 * self.number, 2 * self.number + 1)

    @property
    def nodes(self) -> tuple[NodeId, ...]:
        """Return the ids of its hops."""
        return tuple(hop.node for hop in self.hops)


@dataclass
class FakeRoutes:
    """Routes that are asked for and torn down; the test says what becomes of each."""

    built: list[Built] = field(default_factory=list)
    open: dict[int, Built] = field(default_factory=dict)
    last: dict[int, bytes] = field(default_factory=dict)  # what went with each teardown

    def build(self, stream: StreamId, hops: list[HopKey], link: LinkId, *, now: float) -> int:
        built = Built(len(self.built) + 1, stream, tuple(hops), link)
        self.built.append(built)
        self.open[built.number] = built
        return built.number

    def close(self, route: int, last: bytes = b"") -> Hop | None:
        built = self.open.pop(route, None)
        self.last[route] = last
        return None if built is None else built.hop


@dataclass
class FakeLinks:
    """Links that are up when the test says so, and their users."""

    up: dict[NodeId, LinkId] = field(default_factory=dict)
    users: dict[NodeId, set[Any]] = field(default_factory=dict)
    lost: list[NodeId] = field(default_factory=list)

    def link(self, peer: NodeId) -> LinkId | None:
        return self.up.get(peer)

    def acquire(self, peer: NodeId, user: Any, *, now: float) -> LinkId | None:
        self.users.setdefault(peer, set()).add(user)
        return self.up.get(peer)

    def release(self, peer: NodeId, user: Any, *, now: float) -> None:
        users = self.users.get(peer, set())
        users.discard(user)
        if not users:
            self.users.pop(peer, None)

    def peer_lost(self, peer: NodeId, *, now: float) -> None:
        self.lost.append(peer)


@dataclass
class FakeSearch:
    """A search that offers what the test lists, but no path that failed until a node of it returns."""

    offered: list[Path] = field(default_factory=list)
    patience: float = 0.05
    better: bool = False  # whether a new path is preferred to the one that carries
    learned: list[tuple[Any, ...]] = field(default_factory=list)
    named: tuple[NodeId, ...] = ()  # what vantage() says
    failing: set[Path] = field(default_factory=set)
    wants: bool = False  # whether a relay that every node can dial may help
    direct_after: float | None = None  # how long after it was asked direct_at() is

    def paths(self, destination: NodeId, *, now: float) -> tuple[Path, ...]:
        return tuple(path for path in self.offered if path.hops[-1] == destination and path not in self.failing)

    def patience_s(self, path: Path) -> float:
        return self.patience

    def direct_at(self, destination: NodeId, *, now: float) -> float | None:
        return None if self.direct_after is None else now + self.direct_after

    def prefers(self, new: Path, new_rtt_s: float, old: Path) -> bool:
        return self.better

    def vantage(self, peer: NodeId) -> tuple[NodeId, ...]:
        return self.named

    def relay_found(self, node: NodeId) -> None:
        self.learned.append(("relay", node))

    def heard(self, peer: NodeId, via: NodeId | None) -> None:
        self.learned.append(("heard", peer, via))

    def wants_relay(self, destination: NodeId) -> bool:
        return self.wants

    def explain(self, destination: NodeId, *, now: float) -> tuple[Candidate, ...]:
        return ()

    def opened(self, path: Path, took_s: float, *, now: float) -> None:
        self.learned.append(("opened", path))

    def failed(self, path: Path, reason: str, *, now: float) -> None:
        self.learned.append(("failed", path, reason))
        self.failing.add(path)

    def unanswered(self, path: Path, waited_s: float, *, now: float) -> None:
        self.learned.append(("unanswered", path, round(waited_s, 3)))

    def measured(self, path: Path, report: Measured, *, now: float) -> None:
        self.learned.append(("measured", path, report))

    def returned(self, node: NodeId) -> None:
        self.learned.append(("returned", node))
        self.failing = {path for path in self.failing if node not in path.hops}

    def vantage_of(self, destination: NodeId, nodes: tuple[NodeId, ...]) -> None:
        self.learned.append(("vantage", destination, nodes))


class Sender:
    """Destinations among fakes.  Time stands still until the test moves it."""

    def __init__(
        self,
        *paths: Path,
        known: tuple[str, ...] = ("bravo",),
        early: bool = False,
        patience: Patience | None = None,
    ) -> None:
        """paths: what the search offers.  known: nodes whose cards are here.  early, patience: of Destinations."""
        self.now = 100.0
        self.datapath = FakeDatapath()
        self.plane = FakePlane(id_of("alpha"), {id_of(name): card_of(name) for name in known})
        self.streams = FakeStreams()
        self.routes = FakeRoutes()
        self.links = FakeLinks()
        self.search = FakeSearch(list(paths))
        self.to: Destinations = Destinations(
            datapath=self.datapath,  # type: ignore[arg-type]  # each fake has the part that destinations use
            plane=self.plane,  # type: ignore[arg-type]
            streams=self.streams,  # type: ignore[arg-type]
            routes=self.routes,  # type: ignore[arg-type]
            links=self.links,  # type: ignore[arg-type]
            search=self.search,  # type: ignore[arg-type]
            rng=Random(1),
            early=lambda node: early,
            patience=patience,
        )

    # ── what happens ──

    def packet(self, name: str = "bravo") -> None:
        """A packet waits for the node's first address."""
        self.to.miss(card_of(name).addresses[0], self.now)

    def link(self, name: str) -> LinkId:
        """The link to the node opens."""
        link = self.links.up[id_of(name)] = LinkId(10 + len(self.links.up))
        self.to.link_changed(id_of(name), self.now)
        return link

    def agree(self, *vantage: str) -> StreamId:
        """The newest stream is agreed on; vantage: the relays its receiver names."""
        stream, peer = self.streams.opened[-1]
        relays = tuple(
            Vantage(card.node_id, 0, card.hop_key_id, card.hop_public) for card in (card_of(name) for name in vantage)
        )
        key = EpochKey(0, CHACHA20_POLY1305, bytes(32), bytes(4))
        self.to.sender_ready(SenderReady(stream, peer, key, key, relays, ()), self.now)
        return stream

    def disagree(self, end: SenderEnd = SenderEnd.NO_ANSWER, said: str = "absent") -> None:
        """The newest stream comes to nothing."""
        stream, peer = self.streams.opened[-1]
        self.to.sender_failed(SenderFailed(stream, peer, end, said), self.now)

    def confirm(self, *names: str, after_s: float = 0.01) -> Built:
        """The newest route over these hops is confirmed."""
        self.now += after_s
        built = self.asked(*names)
        self.to.route_ready(RouteReady(built.number, built.stream, built.hop), self.now)
        return built

    def ask(self, *names: str) -> Hop:
        """The set-up of the newest route over these hops is on its way; return the hop that it asks for."""
        built = self.asked(*names)
        self.to.route_asked(RouteAsked(built.number, built.stream, built.hop), self.now)
        return built.hop

    def refuse(self, word: RefusalWord, *names: str, hop: int = 0, of_next: bool = False) -> Built:
        """The newest route over these hops is refused by one of them, counted from 0."""
        built = self.asked(*names)
        del self.routes.open[built.number]
        refusal = Refusal(word, hop + of_next, of_next, f"next: {word}" if of_next else str(word))
        self.to.route_failed(RouteFailed(built.number, built.stream, RouteEnd.REFUSED, refusal), self.now)
        return built

    def fail(self, end: RouteEnd, *names: str) -> Built:
        """The newest route over these hops fails, as this node sees it."""
        built = self.asked(*names)
        del self.routes.open[built.number]
        self.to.route_failed(RouteFailed(built.number, built.stream, end), self.now)
        return built

    def lose(self, built: Built, end: RouteEnd = RouteEnd.TORN_DOWN) -> None:
        """A confirmed route is gone."""
        del self.routes.open[built.number]
        self.to.route_lost(RouteLost(built.number, built.stream, built.hop, end), self.now)

    def wait(self, seconds: float) -> None:
        """Time passes, and whatever is due by then is done when it is."""
        end = self.now + seconds
        while (at := self.to.next_timeout()) is not None and at <= end:
            self.now = max(self.now, at)
            self.to.handle_timeout(now=self.now)
        self.now = end

    def report(self, stream: StreamId, received: int, lost: int = 0, epoch: int = 0) -> None:
        """Feedback comes."""
        feedback = Feedback(stream, epoch, received + lost, received, lost, 0, 100 * received, None, 0.02)
        self.to.feedback(feedback, self.now)

    def flow(self, *names: str) -> Built:
        """Bring a stream up over these hops, from the first packet on; every first hop has its link."""
        self.packet(names[-1])
        self.link(names[0])
        self.agree(*names[1:-1])
        return self.confirm(*names)

    # ── what is seen ──

    def asked(self, *names: str) -> Built:
        """Return the newest route that was asked for over these hops."""
        return next(built for built in reversed(self.routes.built) if built.nodes == path_of(*names).hops)

    def destination(self, name: str = "bravo") -> Destination:
        """Return the state of a destination."""
        found = self.to._lives.find(id_of(name))
        assert found is not None
        return found

    def sending(self, name: str = "bravo") -> Sending:
        """Return the state of the stream to a destination."""
        sending = self.destination(name).sending
        assert sending is not None
        return sending

    def tries(self, name: str = "bravo") -> list[Try]:
        """Return the tries under way for a destination."""
        return self.destination(name).tries

    def tried(self, name: str = "bravo") -> list[Path]:
        """Return the paths that are being tried."""
        return [attempt.path for attempt in self.tries(name)]

    def heard(self) -> list[Event]:
        """Return the events since the last time."""
        return list(iter(self.to.next_event, None))

    def kinds(self) -> list[EventKind]:
        """Return the kinds of the events since the last time."""
        return [event.kind for event in self.heard()]

    def carried_by(self, name: str = "bravo") -> Path | None:
        """Return the path that carries the stream, or None."""
        active = self.sending(name).active
        return None if active is None else active.path
