"""The node: joins the machines and the datapath's tables.  Sans-IO: the daemon, the simulator and the tests run this.

    receive(), packet(), frame(), carrier_event(), ... ──►  one input, then everything settles  ──►  next_transmit(),
    handle_timeout()                                                                                next_command(), ...

It decides which machine hears of what.  A packet for an address without a queue starts a search, a handshake and a
dial; when stream, link and route are there, packets flow; when they stop, all of it ends again.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from ipaddress import ip_network
from random import Random
from typing import Any, NamedTuple

from conflux.carrier.interface import CarrierEvent, Command
from conflux.control.channel import Arrival
from conflux.control.choice import Handed
from conflux.control.envelope import Kind
from conflux.control.event import Learnt, Message, Transmit
from conflux.control.plane import ControlPlane
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
from conflux.errors import RemoteProtocolError
from conflux.ids import BootId, IPAddress, LinkId, NodeId
from conflux.link.links import Links
from conflux.node.destinations import Destinations
from conflux.node.event import Event, EventKind, Reason
from conflux.node.hearing import Hearing
from conflux.node.naming import node_name, who_of
from conflux.node.neighbours import Neighbours
from conflux.node.patience import Bounds, Patience
from conflux.node.policing import Policing
from conflux.node.precedence import Precedence
from conflux.node.refusals import Refusals
from conflux.node.relaying import Relaying
from conflux.node.requests import Requests
from conflux.node.resuming import Resuming
from conflux.node.revoking import Revoking
from conflux.node.status import NodeStatus, Outlook
from conflux.node.trail import Trails
from conflux.node.vantage import Vantages
from conflux.realm.card import Card
from conflux.realm.credential import RELAY
from conflux.realm.lists import SignedList
from conflux.realm.member import Member
from conflux.realm.policy import SignedPolicy
from conflux.route import event as route
from conflux.route.routes import Routes
from conflux.search.interface import Search
from conflux.stream import event as stream
from conflux.stream.event import ReceiverEnd
from conflux.stream.resuming import Resumption
from conflux.stream.streams import Streams

EVENT_COUNT_MAX = 1024  # a reader that stops reading loses the oldest


class NodeConfig(NamedTuple):
    """The node's settings.

    aead: the cipher this processor opens fastest (conflux.anchor.speed.best_aead()).  relaying: pass on the routes of
    other nodes, if the credential allows it.  early: send packets by a direct route before it is confirmed, to nodes
    that are no neighbours; the datapath keeps them until the route's tether is whole.  The first of them may overtake
    each other at the far end, and a neighbour's confirmation comes in a millisecond.  patience: within what bounds idle
    timeouts are chosen; None: that of the datapath holds.  resumption: open streams by a secret of the last.
    keyed_links: the carrier takes a link's keys in the place of a DTLS handshake.
    """

    aead: int
    relaying: bool = True
    early: bool = False
    patience: Bounds | None = None
    resumption: Resumption = Resumption.OFF
    keyed_links: bool = False


class Node:
    """One Conflux node: every machine, and the datapath's tables."""

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
        own: tuple[IPAddress, ...] | None = None,
    ) -> None:
        """own: the addresses that the TUN device has; None: all of the member's.  Packets for others are not ours."""
        self.member = member
        self._config = config
        self.own = member.addresses if own is None else own
        self.datapath = datapath
        self.plane = plane
        self.links = links
        self.search = search
        self.trails = Trails()
        self._refused = Refusals()
        self._vantage = Vantages(plane, search)
        self.streams = Streams(
            member,
            boot=boot,
            aead=config.aead,
            entropy=entropy,
            offload_kinds=datapath.offload_kinds,
            vantage=self._vantage.of,
            lists=lambda: plane.lists.digest,
            lists_told=self._hear_lists,
            resumption=config.resumption,
            keyed_links=config.keyed_links,
            holds=lambda peer: not plane.is_expired and plane.card(peer) is not None,
        )
        links.compare_lists(lambda: plane.lists.digest, self._hear_lists)
        self.routes = Routes(
            member.anchor.realm_id,
            entropy=entropy,
            unseal_slot=self._unseal_slot,
            accepts=lambda id_: self.streams.receives(id_) is not None,
            seal_confirmation=datapath.seal_feedback,
            unseal_confirmation=datapath.unseal_confirmation,
            relaying=self._relays(member),
            awaits_stream=self.streams.resuming.awaits_answer,
        )
        datapath.configure(self.own, (member.anchor.ipv6_prefix, member.anchor.ipv4_prefix))
        self.policing = Policing(datapath, plane, lambda: self.member, lambda: self.own)
        self._to = Destinations(
            datapath=datapath,
            plane=plane,
            streams=self.streams,
            routes=self.routes,
            links=links,
            search=search,
            rng=rng,
            early=lambda node: config.early and node not in self._reached,
            patience=None if config.patience is None else Patience(config.patience),
        )
        # When the first of them wants to be woken.  To say so each looks through all it holds, but most packets and
        # frames change nothing there.  So they are asked again only after a settling, which follows every change.
        self._wake_at: float | None = None
        self._wake_known = False
        open_links: dict[LinkId, NodeId] = {}  # the node at the other end of each; Neighbours keeps it
        self._relaying = Relaying(
            self.routes.relays, datapath=datapath, plane=plane, links=links, neighbour=open_links.get
        )
        self._reached: set[NodeId | str] = set()  # the neighbours of the control channels
        self._requests = Requests(plane, self.streams, links)
        self._precedence = Precedence(links)
        self._revoking = Revoking(
            plane=plane,
            links=links,
            streams=self.streams,
            destinations=self._to,
            relaying=self._relaying,
            search=search,
            open=lambda message, now: self._hearing.open_held(message, now),
            tell=self._tell,
        )
        self._hearing = Hearing(
            plane=plane,
            links=links,
            streams=self.streams,
            search=search,
            destinations=self._to,
            relaying=self._relaying,
            revoking=self._revoking,
            requests=self._requests,
            precedence=self._precedence,
            vantages=self._vantage,
            trails=self.trails,
            tell=self._tell,
            counting_drops=self._refused.counting,
            settle_links=self._settle_links,
        )
        self._resuming = Resuming(plane, self.streams, self._refused.counting, self._hearing.paired)
        self._neighbours = Neighbours(
            open_links,
            datapath=datapath,
            links=links,
            streams=self.streams,
            routes=self.routes,
            destinations=self._to,
            relaying=self._relaying,
            tell=self._tell,
            counting_drops=self._refused.counting,
        )
        machines = (plane, links, self.streams, self.routes, self._to, self._revoking, self._precedence)
        self._machines = (*machines, self.policing)
        self._commands: deque[Command] = deque()
        self._fresh: deque[Event] = deque()  # of the settling under way
        self._events: deque[Event] = deque(maxlen=EVENT_COUNT_MAX)

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
        """Take the upcalls of a datapath with a thread of its own."""
        self.datapath.collect(now=now)
        self._drain_upcalls(now)

    def receive(self, arrival: Arrival, *, now: float) -> None:
        """Take one envelope from a control channel."""
        self.plane.receive_untrusted(arrival, now=now)
        self._settle(now)

    def handoff(self, token: int, result: Handed, *, now: float) -> None:
        """Take the outcome of a transmit."""
        self.plane.handoff(token, result, now=now)
        self._settle(now)

    def absent(self, peer: NodeId, channel: str, *, now: float) -> None:
        """Take note that nobody took what a channel had accepted for a peer."""
        self.plane.absent(peer, channel, now=now)
        self._settle(now)

    def channel_turned(self, channel: str, up: bool, *, now: float) -> None:
        """Take note that a control channel without neighbours came up, or went down."""
        self._note_reached(channel, up)
        if up:
            self.plane.channel_up(now=now)
        self._settle(now)

    def _note_reached(self, what: NodeId | str, up: bool) -> None:
        """Know which neighbours and channels lead to others; without any, this node is alone."""
        (self._reached.add if up else self._reached.discard)(what)
        if not self._reached:
            self.plane.lists.alone()

    def channel_changed(self, peer: NodeId, up: bool, *, now: float, is_there: bool = False) -> None:
        """Take note that a control channel gained or lost a neighbour.  is_there: the node is there still."""
        self.search.neighbour_changed(peer, up)
        self.trails.neighbour_changed(peer, up, now)
        self._note_reached(peer, up)
        if up:
            self.plane.peer_returned(peer, now=now)
            self.links.peer_returned(peer, now=now)
            self._to.channel_up(peer, now)
        else:
            self.plane.near.left(peer)
            if not is_there:  # else no stream to it is in doubt
                self._to.channel_down(peer, now)
        self._settle(now)

    def neighbour_says(self, peer: NodeId, features: frozenset[str], knows: bytes, *, now: float) -> None:
        """Take note of what a neighbour's build can do, and of the digest of the chain of ours that it has."""
        self.plane.near.says(peer, features, knows)
        self._settle(now)

    def bridge_changed(self, peer: NodeId, up: bool, *, now: float) -> None:
        """Take note that a neighbour began or stopped to pass control messages on to other LANs."""
        self.search.bridge_changed(peer, up)
        if up:
            self.plane.bridge_up()
            self._vantage.know(peer, now)
            self._to.bridge_up(peer, now)
        self._settle(now)

    def carrier_event(self, event: CarrierEvent, *, now: float) -> None:
        """Take one event of the carrier, in order."""
        self.links.carrier_event(event, now=now)
        self._settle(now)

    def handle_timeout(self, *, now: float) -> None:
        """Let every machine do what is due."""
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
        datapath_at = self.datapath.next_timeout()  # cheap, and it changes with every frame
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

        None: it was asked for; the event FOUND or NOT_FOUND with who_of(target) follows.  Raises ConfigError for a word
        that no node can be called by.
        """
        query = who_of(target)
        card = self.plane.card_of(query)
        if card is None:
            self.plane.who(query, now=now)
            self._settle(now)
            card = self.plane.card_of(query)
        return card

    def request(self, peer: NodeId, kind: Kind, body: bytes, *, now: float) -> int:
        """Send a peer a request of another part of the program (credential renewal); next_message() has the answer.

        Returns its token: the answer's re.
        """
        token = self.plane.request(peer, kind, body, now=now)
        self._settle(now)
        return token

    def seek(self, node: NodeId, arrival: Arrival, *, now: float) -> None:
        """Ask for a node's card, within a small budget: an envelope of another node is on its way to it."""
        self.plane.seek(node, arrival, now=now)
        self._settle(now)

    def reply(self, to: Message, kind: Kind, body: bytes, *, now: float) -> None:
        """Answer a message from next_message()."""
        self.plane.reply(to, kind, body, now=now)
        self._settle(now)

    def adopt(self, member: Member, *, now: float) -> None:
        """Go on with another credential of this node: its keys and addresses stay, and so do its streams."""
        self.member = member
        self.routes.relaying = self._relays(member)
        self.streams.adopt(member)
        self.plane.adopt(member, now=now)
        self.policing.adopt()
        self._settle(now)

    def set_patience(self, bounds: Bounds) -> None:
        """Choose idle timeouts within other bounds from now on."""
        self._to.set_patience(bounds)

    def set_relaying(self, relaying: bool, features: tuple[str, ...], *, now: float) -> None:
        """Pass new routes of other nodes on, or no longer; those that pass stay.  features: for the card."""
        self._config = self._config._replace(relaying=relaying)
        self.routes.relaying = self._relays(self.member)
        self.plane.describe(features, now=now)
        self._settle(now)

    def publish(self, signed: SignedList | SignedPolicy, *, now: float) -> None:
        """Send what was signed here to everybody, and hold to it.  Raises RemoteProtocolError."""
        self.plane.publish(signed, now=now)
        self._settle(now)

    def told_untrusted(self, data: bytes, *, now: float) -> None:
        """Take a signed list from a node that did not let this one in."""
        self.plane.told_untrusted(data, now=now)
        self._settle(now)

    def _relays(self, member: Member) -> bool:
        return self._config.relaying and RELAY in member.chain.credential.capabilities

    def close_all(self, *, now: float) -> None:
        """End every stream that this node sends; its links close with them."""
        self._to.close_all(now)
        self._settle(now)

    def status(self, *, now: float) -> NodeStatus:
        """Return everything `conflux status` shows; never a key."""
        drops: Counter[str] = Counter(self._refused)
        drops.update(self.datapath.drop_counts())
        drops.update(self.plane.drops)
        drops.update(self.links.drop_counts)
        return NodeStatus(
            node=self.member.node_id,
            name=self.member.name,
            addresses=self.own,
            realm=self.member.anchor.realm_id,
            realm_name=self.member.anchor.name,
            datapath=self.datapath.status(),
            destinations=self._to.status(now),
            links=self.links.status(),
            routes=self.routes.status(),
            relays=self.routes.relays.status(),
            plane=self.plane.status(),
            drops=dict(sorted(drops.items())),
            trails=self.trails.all(),
            cards=self.plane.cards(),
        )

    def name_of(self, node: NodeId) -> str:
        """Return what a person calls a node: its card's name, or its id."""
        return node_name(node, self.plane)

    def outlook(self, node: NodeId, *, now: float) -> Outlook:
        """Return what carries packets to a node, what is tried, and what comes next."""
        return self._to.outlook(node, now)

    def path(self, node: NodeId) -> tuple[NodeId, ...] | None:
        """Return the hops that carry packets to a node now; None: they wait, or there are none."""
        return self._to.path(node)

    def destinations(self) -> tuple[NodeId, ...]:
        """Return every node that has a queue here now."""
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
        """Return one control message for another part of the program (credential renewal), or None."""
        return self._hearing.next_message()

    def next_path(self) -> Learnt | None:
        """Return the path of a broker by which a node was heard, for ControlChannel.learn(), or None."""
        return self.plane.next_path()

    def next_exclusion(self) -> frozenset[NodeId] | None:
        """Return nodes that are members no more, whose control connections end now, or None."""
        return self._revoking.next_exclusion()

    def _tell(self, event: Event) -> None:
        self._collect_events()
        self._fresh.append(event)

    def _collect_events(self) -> None:
        """Take the events of the destinations, so that all are in the order in which they happened."""
        while (event := self._to.next_event()) is not None:
            self._fresh.append(event)

    def _hand_out_events(self, now: float) -> None:
        self._collect_events()
        while self._fresh:
            event = self._fresh.popleft()
            self.trails.note(event, now)
            self._events.append(event)

    # ── settling: every machine's outputs go where they belong until there are none ──────────────────────────────────

    def _drain_upcalls(self, now: float) -> None:
        upcall = self.datapath.next_upcall()
        if upcall is None:
            return  # the usual case: a packet or a frame changes nothing for the machines
        while upcall is not None:
            self._on_upcall(upcall, now)
            upcall = self.datapath.next_upcall()
        self._settle(now)

    def _settle(self, now: float) -> None:
        self._wake_known = False

        def lets(peer: NodeId) -> bool:
            return self._precedence.lets(peer, now)

        handlers: tuple[tuple[Callable[[], Any], Callable[[Any, float], None]], ...] = (
            (self.datapath.next_upcall, self._on_upcall),
            (self.plane.next_event, self._hearing.on_event),
            (self.plane.pairs.next_message, self._resuming.receive),
            (self._resuming.next_held, self._resuming.receive),
            (lambda: self._precedence.next_message(now), self._hearing.open_held),
            (lambda: self.streams.next_transmit(lets), self._requests.transmit),
            (self.streams.next_event, self._on_stream_event),
            (self.routes.next_event, self._neighbours.on_route_event),
            (self.routes.relays.next_event, self._relaying.on_event),
            (self.links.next_event, self._neighbours.on_link_event),
            (self.links.next_signal, self._requests.signal),  # ahead of the links' commands: see answered_by_secret()
            # A teardown must leave before its tether closes.  A relay that saw the channels close first would tear the
            # route down itself, and the stream's last frame, which the teardown carries, would be lost.
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
        self._hand_out_events(now)

    def _settle_links(self, now: float) -> None:
        while (ended := self.links.next_event()) is not None:
            self._neighbours.on_link_event(ended, now)
        while (lost := self.routes.next_event()) is not None:
            self._neighbours.on_route_event(lost, now)

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
                self.streams.close_receiver(id_, ReceiverEnd.IDLE)
            case ReceiverVerified(id_):
                self.streams.receiver_verified(id_)
                if (peer := self.streams.receives(id_)) is not None:
                    self._tell(Event(EventKind.RECEIVING, peer))
            case Suspect(id_):
                self._to.suspect(id_, now)
            case Feedback():
                self._to.feedback(upcall, now)
            case RekeyDue(id_):
                self.streams.rekey(id_, now=now)
            case Entry(id_, kind, body, epoch):
                with self._refused.counting():
                    self.streams.receive_entry(id_, kind, body, epoch=epoch, now=now)

    def _hear_lists(self, peer: NodeId, digest: bytes, now: float) -> None:
        self.plane.hear_lists(peer, digest, now=now)

    def _unseal_slot(self, key_id: bytes, slot: bytes, info: bytes) -> bytes:
        key = self.plane.hop_key(key_id)
        if key is None:
            raise RemoteProtocolError("stale-key", "a slot sealed to a hop key that turned, or to none of this node")
        return key.unseal(slot, info)

    # ── streams ──

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
                if card is None:  # its credential expired just now
                    self.streams.close_receiver(id_, ReceiverEnd.EXPIRED)
                    return
                sources = tuple(ip_network(address) for address in card.addresses)
                self.datapath.add_receiver(id_, peer, sources, data, feedback, offload_kinds=offload_kinds, now=now)
                self.routes.stream_opened(id_, now=now)
                self._to.opened_to_us(card, now)
            case stream.ReceiverRekeyed(id_, data, feedback):
                self.datapath.rekey_receiver(id_, data, feedback, now=now)
            case stream.ReceiverGone(id_, peer, end):
                self.routes.drop_receiver(id_)
                self.datapath.remove_receiver(id_)
                if end is not ReceiverEnd.UNUSED:
                    self._tell(Event(EventKind.ENDED, peer, reason=Reason(end)))
            case stream.SendEntry(id_, kind, body):
                self.datapath.queue_entry(id_, kind, body)
            case stream.CardOutdated(peer):
                self.plane.refresh(peer, now=now)
            case stream.Rode():
                with self._refused.counting():
                    self._requests.rode(event, now)
            case stream.RideEnded():
                self._requests.ride_ended(event, now)
            case stream.SignedAnew(peer):
                self.links.peer_signed(peer, now=now)
            case stream.Conflict(peer, seen_here):
                self.links.peer_lost(peer, now=now)
                if seen_here:
                    self.plane.notify(peer, Kind.RESUME_CONFLICT, b"", now=now)
