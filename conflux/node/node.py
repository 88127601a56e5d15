"""The node: joins the machines and the datapath's tables.  Sans-IO: the daemon, the simulator and the tests run this.

    receive(), packet(), frame(), carrier_event(), ... ──►  one input, then everything settles  ──►  next_transmit(),
    handle_timeout()                                                                                next_command(), ...

What it decides is which machine hears of what: a packet without a home starts a search, a handshake and a dial; when
stream, link and route are there the packets flow; when they stop, all of it goes again.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from random import Random
from typing import Any

from conflux.carrier.interface import CarrierEvent, Command, TetherDown, TetherUp
from conflux.control.channel import Arrival, Handoff, Kind
from conflux.control.event import CardChanged, CardFound, Heard, Message, RequestFailed, Transmit, WhoFailed
from conflux.control.event import Event as PlaneEvent
from conflux.control.plane import ControlPlane
from conflux.control.question import Who
from conflux.datapath.interface import (
    Entry,
    Feedback,
    Miss,
    ReceiverIdle,
    ReceiverVerified,
    RekeyDue,
    SenderIdle,
    Suspect,
    Tables,
    Upcall,
)
from conflux.errors import ConfigError, RemoteProtocolError
from conflux.events import Event
from conflux.ids import BootId, LinkId, NodeId, format_node_id, parse_node_id
from conflux.link.interface import DialFailed, LinkDown, LinkMessage, LinkUp, Signal
from conflux.link.links import LinkEvent, Links
from conflux.node.destinations import Destinations
from conflux.node.relaying import Relaying, may_relay
from conflux.realm.card import Card
from conflux.realm.member import Member
from conflux.realm.name import parse_name
from conflux.route import machine as route
from conflux.search.interface import Search
from conflux.stream import machine as stream
from conflux.stream.handshake import VANTAGE_COUNT_MAX, Vantage

PAUSE_COUNT_MAX = 4096  # destinations and addresses remembered as not there; the oldest goes first
VANTAGE_ASK_S = 900.0  # a card names a key that serves for 15 minutes more, at the least
EVENT_COUNT_MAX = 1024  # a reader that stops reading loses the oldest


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """aead: what this processor opens fastest (conflux.anchor.speed.best_aead()).  relaying: pass others' routes on."""

    aead: int
    relaying: bool = True


class Node:
    """One Conflux node."""

    def __init__(
        self,
        member: Member,
        *,
        boot: BootId,
        config: NodeConfig,
        datapath: Tables,
        plane: ControlPlane,
        links: Links,
        search: Search,
        rng: Random,
        entropy: Callable[[int], bytes],
    ) -> None:
        self.member = member
        self.datapath = datapath
        self.plane = plane
        self.links = links
        self.search = search
        self.streams = stream.Streams(
            member,
            boot=boot,
            aead=config.aead,
            entropy=entropy,
            offload_kinds=datapath.offload_kinds,
            vantage=self._vantage,
        )
        self.routes = route.Routes(
            member.anchor.realm_id,
            entropy=entropy,
            unseal_slot=self._unseal_slot,
            accepts=lambda id_: self.streams.receives(id_) is not None,
            seal_confirmation=datapath.seal_feedback,
            unseal_confirmation=datapath.unseal_confirmation,
            relaying=config.relaying,
        )
        datapath.configure(member.addresses, (member.anchor.ipv6_prefix, member.anchor.ipv4_prefix))
        self._to = Destinations(
            datapath=datapath,
            plane=plane,
            streams=self.streams,
            routes=self.routes,
            links=links,
            search=search,
            rng=rng,
            tell=self._tell,
        )
        self._machines = (plane, links, self.streams, self.routes, self._to)
        # When the first of them wants to be woken.  Each looks through all it holds to say so, and most packets and
        # frames change nothing there: asked again only after a settling, through which every change goes.
        self._wake_at: float | None = None
        self._wake_known = False
        self._neighbours: dict[LinkId, NodeId] = {}  # who is at the other end of an open link
        self._relays_asked: dict[NodeId, float] = {}  # when a relay we name to others was last asked for its card
        self._relaying = Relaying(
            self.routes.relays, datapath=datapath, plane=plane, links=links, neighbour=self._neighbours.get
        )
        self._requests: dict[int, tuple[str, Any]] = {}  # plane token → what hangs on its answer
        self._offers: dict[tuple[NodeId, int], Message] = {}  # those not answered yet
        self._commands: deque[Command] = deque()
        self._events: deque[Event] = deque(maxlen=EVENT_COUNT_MAX)
        self._messages: deque[Message] = deque(maxlen=64)
        self._drops: Counter[str] = Counter()

    # ── inputs ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def packet(self, packet: bytes, *, now: float) -> None:
        """Take one IP packet from the TUN device."""
        self.datapath.packet(packet, now=now)
        self._drain_upcalls(now)

    def frame(self, link: LinkId, data: bytes, channel: int = 0, *, now: float) -> None:
        """Take one data-channel message of a tether; channel: the index of the channel it came on."""
        self.datapath.frame_untrusted(link, data, now=now, channel=channel)
        self._drain_upcalls(now)

    def upcalls(self, *, now: float) -> None:
        """Take what a datapath with a thread of its own has to say."""
        self.datapath.collect(now=now)
        self._drain_upcalls(now)

    def receive(self, arrival: Arrival, *, now: float) -> None:
        """Take one envelope from a control channel."""
        self.plane.receive_untrusted(arrival, now=now)
        self._settle(now)

    def handoff(self, token: int, result: Handoff, *, now: float) -> None:
        """Say what became of a transmit."""
        self.plane.handoff(token, result, now=now)
        self._settle(now)

    def channel_changed(self, peer: NodeId, up: bool, *, now: float) -> None:
        """A control channel gained or lost a neighbour."""
        self.search.neighbour_changed(peer, up)
        if up:
            self.plane.peer_returned(peer, now=now)
            self.links.peer_returned(peer, now=now)
            self._to.channel_up(peer, now)
        else:
            self._to.channel_down(peer, now)
        self._settle(now)

    def bridge_changed(self, peer: NodeId, up: bool, *, now: float) -> None:
        """A neighbour passes control messages on to other LANs, or does so no more."""
        self.search.bridge_changed(peer, up)
        if up:
            self._know(peer, now)
        self._settle(now)

    def carrier_event(self, event: CarrierEvent, *, now: float) -> None:
        """Take one event of the carrier, in order."""
        self.links.carrier_event(event, now=now)
        self._settle(now)

    def handle_timeout(self, *, now: float) -> None:
        """Do what time asks for."""
        self.datapath.handle_timeout(now=now)
        for machine in self._machines:
            machine.handle_timeout(now=now)
        self._settle(now)

    def next_timeout(self) -> float | None:
        """When handle_timeout() wants to be called, or None."""
        if not self._wake_known:
            wake_ats = (machine.next_timeout() for machine in self._machines)
            self._wake_at = min((at for at in wake_ats if at is not None), default=None)
            self._wake_known = True
        datapath_at = self.datapath.next_timeout()  # cheap, and another one after every frame
        if self._wake_at is None or datapath_at is None:
            return datapath_at if self._wake_at is None else self._wake_at
        return min(self._wake_at, datapath_at)

    def move(self, node: NodeId, via: tuple[NodeId, ...] | None, *, now: float) -> tuple[NodeId, ...]:
        """Move the stream to node onto another path and return its hops.  See Destinations.move()."""
        path = self._to.move(node, via, now)
        self._settle(now)
        return path.hops

    # ── commands ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def resolve(self, target: str, *, now: float) -> Card | None:
        """Return the card of the node a person means by name, node id or address.

        None: it was asked for; an event "found" or "not-found" with that name follows.  Raises ConfigError for what no
        node can be called.
        """
        query = _query(target)
        card = self._cached(query)
        if card is None:
            self.plane.who(query, now=now)
            self._settle(now)
            card = self._cached(query)
        return card

    def request(self, peer: NodeId, kind: Kind, body: bytes, *, now: float) -> None:
        """Ask a peer what is not the node's own business (credential renewal); next_message() has the answer."""
        self.plane.request(peer, kind, body, now=now)
        self._settle(now)

    def reply(self, to: Message, kind: Kind, body: bytes, *, now: float) -> None:
        """Answer a message that came by next_message()."""
        self.plane.reply(to, kind, body, now=now)
        self._settle(now)

    def adopt(self, member: Member, *, now: float) -> None:
        """Go on with a renewed credential: the same node, keys and addresses, other dates.  Streams live on."""
        self.member = member
        self.streams.adopt(member)
        self.plane.adopt(member, now=now)
        self._settle(now)

    def close_all(self, *, now: float) -> None:
        """End every stream we send; the links go with them."""
        self._to.close_all(now)
        self._settle(now)

    def status(self, *, now: float) -> dict[str, Any]:
        """Everything `conflux status` shows, as plain values; never a key."""
        drops = Counter(self._drops)
        drops.update(self.datapath.drop_counts())
        drops.update(self.plane.drops)
        drops.update(self.links.drop_counts)
        return {
            "node": {
                "id": format_node_id(self.member.node_id),
                "name": self.member.name,
                "addresses": [str(address) for address in self.member.addresses],
            },
            "realm": {"name": self.member.anchor.name, "id": format_node_id(self.member.anchor.realm_id)},
            "datapath": {"name": self.datapath.name, **self.datapath.status()},
            "destinations": self._to.status(now),
            "links": self.links.status(),
            "routes": self.routes.status(),
            "relays": self.routes.relays.status(),
            "plane": self.plane.status(),
            "drops": dict(sorted(drops.items())),
        }

    def destinations(self) -> tuple[NodeId, ...]:
        """Return who has a queue here now."""
        return self._to.nodes()

    # ── outputs ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def next_transmit(self) -> Transmit | None:
        """Return one envelope for the control channels, or None."""
        return self.plane.next_transmit()

    def next_command(self) -> Command | None:
        """Return one command for the carrier, or None."""
        return self._commands.popleft() if self._commands else None

    def next_event(self) -> Event | None:
        """Return one event for people, or None."""
        return self._events.popleft() if self._events else None

    def next_message(self) -> Message | None:
        """Return one control message that is not the node's own business (credential renewal), or None."""
        return self._messages.popleft() if self._messages else None

    def _tell(self, kind: str, card: Card | None, text: str = "", took_s: float | None = None, name: str = "") -> None:
        node = None if card is None else card.node_id
        self._events.append(Event(kind, node, name or (card.name if card else ""), text, took_s))

    # ── settling: every machine's outputs go where they belong until there are none ──────────────────────────────────

    def _drain_upcalls(self, now: float) -> None:
        upcall = self.datapath.next_upcall()
        if upcall is None:
            return  # the usual case for a packet or a frame: nothing to decide
        while upcall is not None:
            self._on_upcall(upcall, now)
            upcall = self.datapath.next_upcall()
        self._settle(now)

    def _settle(self, now: float) -> None:
        self._wake_known = False
        handlers: tuple[tuple[Callable[[], Any], Callable[[Any, float], None]], ...] = (
            (self.datapath.next_upcall, self._on_upcall),
            (self.plane.next_event, self._on_plane_event),
            (self.streams.next_send, self._on_stream_send),
            (self.streams.next_event, self._on_stream_event),
            (self.routes.next_event, self._on_route_event),
            (self.routes.relays.next_event, self._relaying.on_event),
            (self.links.next_event, self._on_link_event),
            (self.links.next_signal, self._on_link_signal),
            # A teardown goes before the closing of its tether: a relay that saw the channels close first would tear the
            # route down by itself, and the stream's last frame would find no route.
            (self.routes.next_transmit, self._on_route_transmit),
            (self.links.next_command, self._on_command),
            (self.routes.next_command, self._on_command),
        )
        busy = True
        while busy:
            busy = False
            for take, handle in handlers:
                while (output := take()) is not None:
                    busy = True
                    handle(output, now)

    def _on_command(self, command: Command, now: float) -> None:
        self._commands.append(command)

    def _on_route_transmit(self, transmit: route.Transmit, now: float) -> None:
        self.links.send(transmit.link, transmit.data)

    # ── upcalls of the datapath ──

    def _on_upcall(self, upcall: Upcall, now: float) -> None:
        match upcall:
            case Miss(address):
                self._to.miss(address, now)
            case SenderIdle(id_):
                self._to.sender_idle(id_, now)
            case ReceiverIdle(id_):
                self.streams.close_receiver(id_, "idle")
            case ReceiverVerified(id_):
                self.streams.receiver_verified(id_)
                if (peer := self.streams.receives(id_)) is not None:
                    self._tell("receiving", self.plane.card(peer))
            case Suspect(id_):
                self._to.suspect(id_, now)
            case Feedback():
                self._to.feedback(upcall, now)
            case RekeyDue(id_):
                self.streams.rekey(id_, now=now)
            case Entry(id_, kind, body):
                with self._counting_drops():
                    self.streams.receive_entry(id_, kind, body)

    # ── the control plane ──

    def _on_plane_event(self, event: PlaneEvent, now: float) -> None:
        match event:
            case Message():
                self._on_message(event, now)
            case RequestFailed(token=token, reason=reason):
                self._on_request_failed(token, reason, now)
            case CardFound(card=card, query=query):
                self._relaying.card_found(card.node_id, now)
                self._to.card_found(card, now)
                self._tell("found", card, name=_query_text(query))
            case WhoFailed(query=query, reason=reason):
                self._relaying.who_failed(query)
                self._to.who_failed(query, now)
                self._tell("not-found", None, reason, name=_query_text(query))
            case Heard(node=node, via=via):
                self.search.heard(node, via)
                if via != node:
                    self._know(via, now)
            case CardChanged(card=card):
                self._on_restarted(card, now)

    def _know(self, bridge: NodeId, now: float) -> None:
        """Have the card of a neighbour that joins LANs: routes begin with it, and we tell others of it."""
        if self.plane.card(bridge) is None:
            self._relays_asked[bridge] = now
            self.plane.who(Who(node=bridge), now=now)

    def _freshen(self, peer: NodeId, now: float) -> None:
        """Ask the relays we name to a peer for their cards of today, lest the peer be told "stale-key" next time."""
        for relay in self.search.vantage(peer)[:VANTAGE_COUNT_MAX]:
            if now - self._relays_asked.get(relay, float("-inf")) >= VANTAGE_ASK_S:
                self._relays_asked[relay] = now
                self.plane.refresh(relay, now=now)
        while len(self._relays_asked) > PAUSE_COUNT_MAX:
            del self._relays_asked[next(iter(self._relays_asked))]

    def _vantage(self, peer: NodeId) -> tuple[Vantage, ...]:
        cards = (self.plane.card(node) for node in self.search.vantage(peer))
        relays = [card for card in cards if card is not None and may_relay(card)]
        return tuple(Vantage(card.node_id, 0, card.hop_key_id, card.hop_public) for card in relays[:VANTAGE_COUNT_MAX])

    def _on_restarted(self, card: Card, now: float) -> None:
        """The peer is a new process: nothing agreed with the old one means anything."""
        self._tell("restarted", card)
        self.links.peer_lost(card.node_id, now=now)
        self.streams.forget_peer(card.node_id, "restarted")
        self._to.restarted(card, now)

    def _on_request_failed(self, token: int, reason: str, now: float) -> None:
        what, about = self._requests.pop(token, ("", None))
        if what == "open":
            self.streams.open_failed(about, reason)
        elif what == "signal":
            peer, attempt = about
            self.links.signal_failed(peer, attempt, reason, now=now)

    def _on_message(self, message: Message, now: float) -> None:
        nothing: tuple[str, Any] = ("", None)
        what, about = self._requests.pop(message.re, nothing) if message.re else nothing
        with self._counting_drops():
            self._dispatch(message, now)
        if what == "open":  # whatever that was, no other answer comes; no-op for a stream that is agreed now
            self.streams.open_failed(about, "bad-answer")

    def _dispatch(self, message: Message, now: float) -> None:
        match message.kind:
            case Kind.OPEN:
                card = self.plane.card(message.peer)
                if card is None:
                    raise RemoteProtocolError("no-card", "an open of a node whose card is not here")
                self.streams.receive_open(card, message.body, message, now=now)
                self._freshen(message.peer, now)
            case Kind.ACCEPT:
                self.streams.receive_accept(message.peer, message.body, now=now)
            case Kind.OPEN_REFUSED:
                self.streams.receive_refused(message.peer, message.body)
            case Kind.OFFER | Kind.ANSWER | Kind.CANDIDATES | Kind.LINK_REFUSED:
                if message.kind is Kind.OFFER:
                    self._remember_offer(message)
                self.links.receive_signal(message.peer, message.kind, message.body, message.seq, now=now)
            case Kind.RENEW | Kind.RENEWED:
                self._messages.append(message)
            case _:
                raise RemoteProtocolError("unexpected", f"message {message.kind}")

    def _unseal_slot(self, key_id: bytes, slot: bytes, info: bytes) -> bytes:
        key = self.plane.hop_key(key_id)
        if key is None:
            raise RemoteProtocolError("stale-key", "a slot sealed to a key of ours that turned, or to none")
        return key.unseal(slot, info)

    def _remember_offer(self, message: Message) -> None:
        self._offers[message.peer, message.seq] = message
        if len(self._offers) > 256:  # offers are answered within milliseconds; this many are never under way
            del self._offers[next(iter(self._offers))]

    # ── streams ──

    def _on_stream_send(self, send: stream.Send | stream.Reply, now: float) -> None:
        if isinstance(send, stream.Send):
            token = self.plane.request(send.peer, send.kind, send.body, now=now)
            self._requests[token] = ("open", send.stream)
        else:
            self.plane.reply(send.to, send.kind, send.body, now=now)

    def _on_stream_event(self, event: stream.Event, now: float) -> None:
        match event:
            case stream.SenderReady():
                self._to.sender_ready(event, now)
            case stream.SenderFailed():
                self._to.sender_failed(event, now)
            case stream.SenderRekeyed():
                self._to.sender_rekeyed(event, now)
            case stream.ReceiverReady(id_, peer, data, feedback, offload_kinds):
                card = self.plane.card(peer)
                if card is None:  # its credential ended this very second
                    self.streams.close_receiver(id_, "expired")
                    return
                sources = tuple(ip_network(address) for address in card.addresses)
                self.datapath.add_receiver(id_, peer, sources, data, feedback, offload_kinds=offload_kinds, now=now)
                self._to.opened_to_us(card, now)
            case stream.ReceiverRekeyed(id_, data, feedback):
                self.datapath.rekey_receiver(id_, data, feedback, now=now)
            case stream.ReceiverGone(id_, peer, reason):
                self.routes.drop_receiver(id_)
                self.datapath.remove_receiver(id_)
                if reason != stream.UNUSED:
                    self._tell("ended", self.plane.card(peer), reason)
            case stream.SendEntry(id_, kind, body):
                self.datapath.queue_entry(id_, kind, body)

    # ── routes ──

    def _on_route_event(self, event: route.Event, now: float) -> None:
        match event:
            case route.RouteReady():
                self._to.route_ready(event, now)
            case route.RouteFailed():
                self._to.route_failed(event, now)
            case route.RouteLost():
                self._to.route_lost(event, now)
            case route.ReceiverRoute(id_, hop):
                self.datapath.add_receiver_route(id_, hop, now=now)
                if (neighbour := self._neighbours.get(hop.link)) is not None:
                    self.links.acquire(neighbour, ("from", hop.link, hop.label_in), now=now)
            case route.ReceiverRouteGone(id_, hop, last):
                if last and self.datapath.verify_last(id_, last):
                    self.streams.close_receiver(id_, "done")
                self.datapath.remove_receiver_route(hop.link, hop.label_in)
                if (neighbour := self._neighbours.get(hop.link)) is not None:
                    self.links.release(neighbour, ("from", hop.link, hop.label_in), now=now)

    # ── links ──

    def _on_link_event(self, event: LinkEvent, now: float) -> None:
        match event:
            case LinkUp(peer=peer, link=link):
                self._neighbours[link] = peer
                self._tell("link", self.plane.card(peer), name=self._name(peer))
                self._relaying.link_up(peer, link)
                self._to.link_changed(peer, now)
            case LinkDown(peer=peer, link=link, reason=reason, let_go=let_go):
                self.routes.link_down(link, let_go=let_go)
                self._neighbours.pop(link, None)
                self._to.link_changed(peer, now)
                self._tell("closed", self.plane.card(peer), reason, name=self._name(peer))
            case LinkMessage(link=link, data=data):
                with self._counting_drops():
                    self.routes.receive_untrusted(link, data, now=now)
            case DialFailed(peer=peer, reason=reason):
                if reason != "backing-off":
                    self._relaying.dial_failed(peer)
                self._to.dial_failed(peer, reason, now)
            case TetherUp(link=link, tether=tether):
                self.routes.tether_up(link, tether)
            case TetherDown(link=link, tether=tether):
                self.routes.tether_down(link, tether)

    def _on_link_signal(self, signal: Signal, now: float) -> None:
        if signal.answered:
            token = self.plane.request(signal.peer, signal.kind, signal.body, now=now)
            self._requests[token] = ("signal", (signal.peer, signal.attempt))
            return
        if signal.kind is Kind.LINK_REFUSED:  # of an offer of ours: whoever has dropped it has no answer to repeat
            for token in [
                token for token, (_, about) in self._requests.items() if about == (signal.peer, signal.attempt)
            ]:
                self.plane.withdraw(token)
        offer = None if signal.re is None else self._offers.pop((signal.peer, signal.re), None)
        if offer is None:
            self.plane.notify(signal.peer, signal.kind, signal.body, now=now)
        else:
            self.plane.reply(offer, signal.kind, signal.body, now=now)

    def _name(self, peer: NodeId) -> str:
        card = self.plane.card(peer)
        return format_node_id(peer) if card is None else card.name

    def _cached(self, query: Who) -> Card | None:
        if query.address is not None:
            return self.plane.card_by_address(query.address)
        if query.node is not None:
            return self.plane.card(query.node)
        assert query.name is not None
        return self.plane.card_by_name(query.name)

    @contextmanager
    def _counting_drops(self) -> Iterator[None]:
        """What a peer said may be refused; it is then counted, and nothing else happens."""
        try:
            yield
        except RemoteProtocolError as error:
            self._drops[error.reason] += 1


def _query(target: str) -> Who:
    """What a person's word for a node asks for: an address, a node id or a name."""
    try:
        return Who(address=ip_address(target))
    except ValueError:
        pass
    try:
        return Who(node=parse_node_id(target))
    except ConfigError:
        return Who(name=parse_name(target, "node name"))


def _query_text(query: Who) -> str:
    if query.address is not None:
        return str(query.address)
    return format_node_id(query.node) if query.node is not None else str(query.name)
