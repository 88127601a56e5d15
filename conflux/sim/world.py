"""A simulated world: whole nodes in one thread and virtual time, by seed.

    host ─packet─► node ─envelope─► hub, broker ─► node ─► ...        delay, loss, repeats, partition: by seed
                     └──command───► carrier ═frames══► node ─packet─► host

The nodes are real ones with the reference datapath.  The hub stands in for the LANs, the broker for one of NATS
servers, the carrier for WebRTC and the host for the kernel.  A run is repeated by its seed.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from ipaddress import IPv6Address

from conflux.anchor.frame import CHACHA20_POLY1305
from conflux.carrier.interface import CarrierEvent, OutFrame
from conflux.control.channel import Arrival
from conflux.control.choice import hand_over
from conflux.control.crossing import Crossing, may_cross
from conflux.control.event import Transmit
from conflux.control.plane import ControlPlane
from conflux.datapath.config import DatapathConfig
from conflux.datapath.reference.datapath import ReferenceDatapath
from conflux.ids import BootId, LinkId, NodeId
from conflux.link.links import Links
from conflux.node import Node, NodeConfig
from conflux.node.event import Event
from conflux.node.relaying import FEATURE, PUBLIC
from conflux.realm.listbook import ListBook
from conflux.realm.lists import ListKey, SignedList
from conflux.realm.member import Member
from conflux.realm.policy import Rank, SignedPolicy
from conflux.realm.policybook import PolicyBook
from conflux.search.first import FirstSearch
from conflux.sim.broker import Broker, Missed
from conflux.sim.carrier import OPEN_S, Carrier, Endpoint, Secured
from conflux.sim.channels import BrokerPort, LanPort, own_buckets, user_key
from conflux.sim.flights import Weather
from conflux.sim.hub import ONE_LAN, Change, Delivery, Hub
from conflux.stream.resuming import Resumption

CLOSE_S = 0.05  # a control connection that is closed delivers for so long
STARTS_AT_S = 1000.0  # on the world's monotonic clock
PORTS = (40000, 40001)  # of a request; its answer has them the other way round
_IPV6_HEADER_BYTES = 40
_UDP_HEADER_BYTES = 8


class World:
    """Time, the networks and the hosts.

    members: returns the member of a name.  now_unix: the date of the world, which stands still.
    """

    def __init__(
        self, seed: int, weather: Weather | None = None, *, members: Callable[[str], Member], now_unix: int
    ) -> None:
        self.seed = seed
        self.rng = random.Random(seed)  # noqa: S311  # a run is repeated by its seed; nothing here is secret
        self.now = STARTS_AT_S
        self.now_unix = now_unix
        self.resumption = Resumption.AUTO  # of nodes that start from now on
        self.secured: Counter[Secured] = Counter()  # how many links, by what secures them
        self.hub = Hub(rng=self.rng, weather=weather)
        self.broker = Broker(rng=self.rng, weather=weather)
        self.hosts: dict[NodeId, Host] = {}
        self.endpoints: dict[str, Endpoint] = {}  # of all links, by token
        self._members = members
        self._partitions: set[frozenset[NodeId]] = set()
        self._open_s: dict[frozenset[NodeId], float] = {}
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._ticket = itertools.count()
        self._watch_at: float | None = None  # when the networks are looked at next

    def __repr__(self) -> str:
        return f"World(seed={self.seed}, now={self.now:.3f})"

    @property
    def weather(self) -> Weather:
        """What the networks do to messages."""
        return self.hub.weather

    @weather.setter
    def weather(self, weather: Weather) -> None:
        self.hub.weather = self.broker.weather = weather

    # ── time ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    def at(self, delay_s: float, act: Callable[[], None]) -> None:
        """Do something later."""
        heapq.heappush(self._queue, (self.now + delay_s, next(self._ticket), act))

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Let time pass until the condition holds, at most for that long; say whether it holds."""
        end = self.now + seconds
        while not until():
            if not self._queue or self._queue[0][0] > end:
                self.now = end
                return until()
            at, _, act = heapq.heappop(self._queue)
            self.now = max(self.now, at)
            act()
        return True

    # ── hosts and networks ────────────────────────────────────────────────────────────────────────────────────────────

    def host(self, name: str, *lans: str, broker: bool = False, public: bool = False, **config: float) -> Host:
        """Add a host and power it on.

        lans: the LANs it is on; none named: the one that all such hosts are on.  broker: it is at the broker, and on no
        LAN if none is named; hosts at the broker also reach each other's packets.  public: it relays for any two.
        """
        where = lans if lans or broker else ONE_LAN
        host = Host(self, self._members(name), where, DatapathConfig(**config), broker=broker, public=public)  # type: ignore[arg-type]
        self.hosts[host.node_id] = host
        host.power_on()
        return host

    def member(self, node: NodeId) -> Member:
        """Return the member whose node that is."""
        return self.hosts[node].member

    def passes(self, a: NodeId, b: NodeId) -> bool:
        """Say whether packets get from one host to the other without a bridge or a relay."""
        far = self.hosts[a].at_broker and self.hosts[b].at_broker and frozenset((a, b)) not in self._partitions
        return far or self.hub.passes(a, b)

    def open_s(self, a: NodeId, b: NodeId) -> float:
        """Return what a link between two hosts takes to open, beyond two round trips."""
        return self._open_s.get(frozenset((a, b)), OPEN_S)

    def slow_down(self, a: Host, b: Host, open_s: float) -> None:
        """Let links between two hosts take so long to open from now on."""
        self._open_s[frozenset((a.node_id, b.node_id))] = open_s

    def partition(self, a: Host, b: Host, *, heal: bool = False) -> None:
        """Let nothing pass between two hosts any more, or again.  Their carriers notice when consent runs out."""
        pair = frozenset((a.node_id, b.node_id))
        if heal:
            self._partitions.discard(pair)
            self.hub.mend(a.node_id, b.node_id)
        else:
            self._partitions.add(pair)
            self.hub.cut(a.node_id, b.node_id)
            a.carrier.cut(b.node_id)
            b.carrier.cut(a.node_id)
        self.watch()

    def exclude(self, by: NodeId, nodes: frozenset[NodeId]) -> None:
        """Let a host have no control connection with those nodes any more; what was sent before still arrives."""

        def close() -> None:
            for node in nodes - {by}:
                self.hub.cut(by, node)
            self.watch()

        self.at(CLOSE_S, close)

    def watch(self) -> None:
        """Pass on what the networks have to say, now and when it is due.  Call it when something went into one."""
        while (change := self.hub.next_change()) is not None:
            self.at(0.0, partial(self.hosts[change.observer].neighbour, change))
        while (turn := self.broker.next_turn()) is not None:
            self.at(0.0, partial(self.hosts[turn.observer].turned, turn.up))
        dues = [due for due in (self.hub.next_timeout(), self.broker.next_timeout()) if due is not None]
        if dues and (self._watch_at is None or min(dues) < self._watch_at):
            self._watch_at = min(dues)
            heapq.heappush(self._queue, (min(dues), next(self._ticket), self._deliver))

    def _deliver(self) -> None:
        self._watch_at = None
        while (delivery := self.hub.next_delivery(self.now)) is not None:
            self.hosts[delivery.to].arrive(delivery)
        while (item := self.broker.next_delivery(self.now)) is not None:
            if isinstance(item, Missed):
                self.hosts[item.observer].missed(item)
            else:
                self.hosts[item.to].arrive(item)
        self.watch()


class Host:
    """A board: a kernel that answers pings, and a node while it is powered on."""

    def __init__(
        self,
        world: World,
        member: Member,
        lans: tuple[str, ...],
        config: DatapathConfig,
        *,
        broker: bool = False,
        public: bool = False,
    ) -> None:
        self.world = world
        self.member = member
        self.name = member.name
        self.node_id = member.node_id
        self.lans = lans
        self.at_broker = broker
        self.address = next(address for address in member.addresses if isinstance(address, IPv6Address))
        self.config = config
        self.datapath = ReferenceDatapath(config)  # of the present boot
        self.relaying = True
        self.public = public  # it relays for any two that reach it
        self.kept: dict[ListKey, SignedList] = {}  # the signed lists on its disk
        self.kept_policies: dict[Rank, SignedPolicy] = {}
        self.node: Node | None = None
        self.boot_number = 0
        self.channels: list[LanPort | BrokerPort] = []  # of the present boot, the nearest first
        self.crossing: Crossing | None = None
        self.crossing_drops: Counter[str] = Counter()
        self.carrier = Carrier(world, self.node_id, self.name, event=self._event, frame=self._frame)
        self.endpoints = self.carrier.endpoints
        self.sent: list[float] = []  # times of a flow of numbered packets
        self.events: list[tuple[float, Event]] = []
        self.received: list[tuple[float, bytes]] = []  # payloads that arrived, requests and answers
        self.frame_count = 0
        self._timer_at: float | None = None

    # ── power ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def power_on(self) -> None:
        """Start a node."""
        world = self.world
        self.boot_number += 1
        boot = BootId((world.now_unix + self.boot_number).to_bytes(5, "big") + world.rng.randbytes(3))
        rng = random.Random(world.rng.random())  # noqa: S311
        book = self._book()
        plane = ControlPlane(
            self.member,
            boot=boot,
            entropy=rng.randbytes,
            rng=rng,
            clock=lambda: world.now_unix,
            now=world.now,
            features=tuple(word for word, has in ((FEATURE, self.relaying), (PUBLIC, self.public)) if has),
            book=book,
            policies=self._policy_book(book),
        )
        self.datapath = ReferenceDatapath(self.config)
        self.node = Node(
            self.member,
            boot=boot,
            config=NodeConfig(
                aead=CHACHA20_POLY1305,
                relaying=self.relaying,
                early=True,
                resumption=world.resumption,
                keyed_links=True,
            ),
            datapath=self.datapath,
            plane=plane,
            links=Links(self.node_id, rng=rng, entropy=rng.randbytes),
            search=FirstSearch(self.node_id),
            rng=rng,
            entropy=rng.randbytes,
        )
        self._connect(self.node)
        self.drain()

    def _connect(self, node: Node) -> None:
        """Come up on every network that the host is on."""
        world = self.world
        lan = LanPort(world, world.hub, self.node_id)
        broker = BrokerPort(world, world.broker, self.node_id, node.plane.card)
        self.channels = [lan, broker]
        self.crossing = Crossing(lan, broker, allowed=may_cross(self.member), seek=self._seek, drop=self._count)
        if self.lans:
            world.hub.attach(self.node_id, self.lans)
        if self.at_broker:
            world.broker.attach(self.node_id, user_key(self.member.keys.public.encode()), own_buckets(self.member))
        world.watch()

    def move(self, *lans: str, broker: bool) -> None:
        """Be on these LANs from now on, and at the broker or not."""
        world, before = self.world, (self.lans, self.at_broker)
        self.lans, self.at_broker = lans, broker
        if before[0] != lans:
            world.hub.detach(self.node_id)
            if lans:
                world.hub.attach(self.node_id, lans)
        if before[1] and not broker:
            world.broker.detach(self.node_id)
            self.turned(False)
        elif broker and not before[1]:
            world.broker.attach(self.node_id, user_key(self.member.keys.public.encode()), own_buckets(self.member))
        world.watch()

    def _book(self) -> ListBook:
        def save(signed: SignedList) -> None:
            self.kept[signed.key] = signed

        def forget(key: ListKey) -> None:
            self.kept.pop(key, None)

        book = ListBook(self.member.anchor, lambda: self.world.now_unix, save=save, forget=forget)
        book.load(tuple(self.kept.values()))
        return book

    def _policy_book(self, lists: ListBook) -> PolicyBook:
        def save(policy: SignedPolicy) -> None:
            self.kept_policies[policy.head.rank] = policy

        def forget(rank: Rank) -> None:
            self.kept_policies.pop(rank, None)

        book = PolicyBook(lists, lambda: self.world.now_unix, save=save, forget=forget)
        book.load(tuple(self.kept_policies.values()))
        return book

    def power_off(self, *, silent: bool = False) -> None:
        """Lose the process, as SIGKILL does.  silent: its neighbours do not see the control connection end."""
        self.node = None
        self.carrier.die()
        self.crossing = None
        self.world.hub.detach(self.node_id, silent=silent)
        self.world.broker.detach(self.node_id)
        self.world.watch()

    # ── the kernel ────────────────────────────────────────────────────────────────────────────────────────────────────

    def send(self, to: Host, payload: bytes) -> None:
        """Hand the node one packet for the other host."""
        self.packet(ipv6_udp(self.address, to.address, payload))

    def packet(self, packet: bytes) -> None:
        """Hand the node one packet."""
        assert self.node is not None
        self.node.packet(packet, now=self.world.now)
        self.drain()

    def deliver(self, packet: bytes) -> None:
        """Take a packet from the node; a payload that starts with "ping" is answered."""
        payload = packet[_IPV6_HEADER_BYTES + _UDP_HEADER_BYTES :]
        self.received.append((self.world.now, payload))
        if payload.startswith(b"ping"):
            ends = IPv6Address(packet[24:40]), IPv6Address(packet[8:24])
            answer = ipv6_udp(*ends, b"pong" + payload[4:], ports=PORTS[::-1])
            self.world.at(0.0, lambda: self.packet(answer) if self.node is not None else None)

    def payloads(self, prefix: bytes = b"") -> list[bytes]:
        """Return the payloads that arrived and begin so."""
        return [payload for _, payload in self.received if payload.startswith(prefix)]

    def kinds(self) -> list[str]:
        """Return the kinds of the node's events, in order."""
        return [event.kind for _, event in self.events]

    def drops(self) -> Counter[str]:
        """Return what the node dropped, by reason."""
        assert self.node is not None
        return Counter(self.node.status(now=self.world.now).drops)

    # ── the shell: what the daemon does, without sockets ──────────────────────────────────────────────────────────────

    def neighbour(self, change: Change) -> None:
        """Tell the node that a neighbour came or went, or is a bridge or none any more."""
        if self.node is None or self.crossing is None:
            return
        if change.moved:
            self.node.channel_changed(change.node, change.up, now=self.world.now)
        if change.joins or not change.moved:
            self.node.bridge_changed(change.node, change.up and change.joins, now=self.world.now)
        self.crossing.look()
        self.drain()

    def turned(self, up: bool) -> None:
        """Tell the node that its connection to the broker came up or went down."""
        if self.node is None or self.crossing is None:
            return
        self.node.channel_turned("broker", up, now=self.world.now)
        self.crossing.look()
        self.drain()

    def missed(self, missed: Missed) -> None:
        """Tell the node that nobody took what it sent to another."""
        for channel in self.channels:
            if isinstance(channel, BrokerPort) and channel.missed(missed.node, missed.key) and self.node is not None:
                self.node.absent(missed.node, channel.name, now=self.world.now)
                self.drain()

    def arrive(self, delivery: Delivery) -> None:
        """Hand the node an envelope, or the crossing one that is on its way through."""
        if self.node is None or self.crossing is None:
            return
        if delivery.transit:
            self.crossing.transit_untrusted(delivery.arrival, now=self.world.now)
        else:
            self.node.receive(delivery.arrival, now=self.world.now)
        self.drain()

    def _seek(self, node: NodeId, arrival: Arrival) -> None:
        assert self.node is not None
        self.node.seek(node, arrival, now=self.world.now)

    def _count(self, reason: str) -> None:
        self.crossing_drops[reason] += 1

    def drain(self) -> None:
        """Carry everything that comes out of the node to where it belongs."""
        node, datapath = self.node, self.datapath
        if node is None:
            return
        now = self.world.now
        while (learnt := node.next_path()) is not None:
            for channel in self.channels:
                if isinstance(channel, BrokerPort) and channel.name == learnt.channel:
                    channel.learn(learnt.node, learnt.path)
        while (transmit := node.next_transmit()) is not None:
            self._send_envelope(transmit)
        while (command := node.next_command()) is not None:
            self.carrier.perform(command)
        while (event := node.next_event()) is not None:
            self.events.append((now, event))
        while (nodes := node.next_exclusion()) is not None:
            self.world.exclude(self.node_id, nodes)
        for destination in datapath.sendable():
            while (frame := datapath.next_frame(destination, now=now)) is not None:
                self._send_frame(frame)
        for link in datapath.relayable():
            while (frame := datapath.next_relayed(link, now=now)) is not None:
                self._send_frame(frame)
        while (frame := datapath.next_feedback(now=now)) is not None:
            self._send_frame(frame)
        while (packet := datapath.next_delivery()) is not None:
            self.deliver(packet)
        self._arm()

    def _send_envelope(self, transmit: Transmit) -> None:
        assert self.node is not None
        assert self.crossing is not None
        self.crossing.sent(transmit.envelope, now=self.world.now)
        here = [channel for channel in self.channels if not channel.far or self.at_broker]
        self.node.handoff(transmit.token, hand_over(transmit, here), now=self.world.now)

    def _send_frame(self, frame: OutFrame) -> None:
        self.frame_count += 1
        self.carrier.send(frame)

    def _frame(self, link: LinkId, data: bytes, channel: int) -> None:
        if self.node is not None:
            self.node.frame(link, data, channel, now=self.world.now)
            self.drain()

    def _event(self, delay_s: float, event: CarrierEvent) -> None:
        node = self.node

        def give() -> None:
            if self.node is node and node is not None:  # not to the process that comes after it
                node.carrier_event(event, now=self.world.now)
                self.drain()

        self.world.at(delay_s, give)

    def _arm(self) -> None:
        assert self.node is not None
        at = self.node.next_timeout()
        # The node remembers its next timeout instead of asking its machines every time.
        machines = (self.node.datapath, *self.node._machines)
        assert at == min((due for each in machines if (due := each.next_timeout()) is not None), default=None)
        if at is not None and (self._timer_at is None or at < self._timer_at or self._timer_at <= self.world.now):
            self._timer_at = at
            self.world.at(max(0.0, at - self.world.now), self._tick)

    def _tick(self) -> None:
        if self.node is None:
            return
        self._timer_at = None
        at = self.node.next_timeout()
        if at is not None and at <= self.world.now:
            self.node.handle_timeout(now=self.world.now)
        self.drain()


def ipv6_udp(source: IPv6Address, destination: IPv6Address, payload: bytes, ports: tuple[int, int] = PORTS) -> bytes:
    """Return one IPv6 packet with a UDP header; its checksum is zero, as no host of this world checks it."""
    udp = ports[0].to_bytes(2) + ports[1].to_bytes(2) + (_UDP_HEADER_BYTES + len(payload)).to_bytes(2) + bytes(2)
    header = bytes([0x60, 0, 0, 0]) + (len(udp) + len(payload)).to_bytes(2) + bytes([17, 64])
    return header + source.packed + destination.packed + udp + payload
