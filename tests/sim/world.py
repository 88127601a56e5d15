"""A seeded world of whole nodes in one thread and virtual time.

    host ─packet─► node ─envelope─► control network ─► node ─► ...        delay, loss, repeats, partition: by seed
                     └──command───► carrier ═frames══► node ─packet─► host

Nodes are the real ones, with the reference datapath; only the LAN, the WebRTC stack and the kernel are stood in for.
A failing run is repeated by its seed.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv6Address

from builders import NOW_UNIX, make_credential, make_realm, node_keys

from conflux.anchor.frame import CHACHA20_POLY1305
from conflux.carrier.interface import (
    CarrierEvent,
    Closed,
    CloseTether,
    Command,
    Connect,
    ControlArrived,
    Describe,
    Described,
    Description,
    Disconnect,
    Opened,
    OpenTether,
    SendControl,
    TetherDown,
    TetherUp,
)
from conflux.control.channel import Arrival, Handoff
from conflux.control.plane import ControlPlane
from conflux.datapath.config import DatapathConfig
from conflux.datapath.interface import OutFrame
from conflux.datapath.reference import ReferenceDatapath
from conflux.events import Event
from conflux.ids import BootId, LinkId, NodeId, TetherId
from conflux.link.links import Links
from conflux.node import Node, NodeConfig
from conflux.node.relaying import FEATURE
from conflux.realm.credential import RELAY, Chain
from conflux.realm.member import Member
from conflux.search.first import FirstSearch

DESCRIBE_S = 0.005  # what a real carrier takes to gather candidates
OPEN_S = 0.040  # ICE, DTLS and SCTP, beyond two round trips
CONSENT_S = 30.0  # after which a real carrier finds out that nobody is there


@dataclass
class Weather:
    """What the world does to messages.  Times in seconds, chances from 0 to 1."""

    delay_s: float = 0.001
    jitter_s: float = 0.0005
    control_loss: float = 0.0
    control_repeat: float = 0.0
    frame_loss: float = 0.0
    frame_repeat: float = 0.0


@dataclass
class Endpoint:
    """One side of a link, in a host's carrier."""

    host: Host
    link: LinkId
    token: str
    far_token: str | None = None
    open: bool = False
    tethers: set[TetherId] = field(default_factory=set)
    arrives_at: float = 0.0  # of the newest reliable message: it stays in order


class World:
    """Time, the network, and everybody in it."""

    def __init__(self, seed: int, weather: Weather | None = None) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.weather = weather or Weather()
        self.now = 1000.0
        self.realm = make_realm("sim")
        self.hosts: dict[NodeId, Host] = {}
        self.endpoints: dict[str, Endpoint] = {}
        self.cut: set[frozenset[NodeId]] = set()  # pairs between which nothing passes
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._ticket = itertools.count()

    def __repr__(self) -> str:
        return f"World(seed={self.seed}, now={self.now:.3f})"

    def host(self, name: str, *lans: str, **config: float) -> Host:
        """Add a host and power it on.  lans: the LANs it is on; none named: the one everybody is on."""
        host = Host(self, name, set(lans) or {"lan"}, DatapathConfig(**config))
        self.hosts[host.node_id] = host
        host.power_on()
        return host

    def at(self, delay_s: float, act: Callable[[], None]) -> None:
        """Do something later."""
        heapq.heappush(self._queue, (self.now + delay_s, next(self._ticket), act))

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Let time pass, until the condition holds; say whether it does."""
        end = self.now + seconds
        while not until():
            if not self._queue or self._queue[0][0] > end:
                self.now = end
                return until()
            at, _, act = heapq.heappop(self._queue)
            self.now = max(self.now, at)
            act()
        return True

    def latency_s(self) -> float:
        return self.weather.delay_s + self.rng.random() * self.weather.jitter_s

    def passes(self, a: NodeId, b: NodeId) -> bool:
        """Say whether packets get from one host to the other without anybody's help."""
        return bool(self.hosts[a].lans & self.hosts[b].lans) and frozenset((a, b)) not in self.cut

    def way(self, a: Host, b: Host) -> list[Host] | None:
        """Return who hands a control message on from a to b, b last; None if nobody can."""
        ways, seen = [[a]], {a.node_id}
        while ways:
            so_far = ways.pop(0)
            for host in self.hosts.values():
                if host.node_id in seen or host.node is None or not self.passes(so_far[-1].node_id, host.node_id):
                    continue
                if host is b:
                    return [*so_far[1:], b]
                seen.add(host.node_id)
                if len(host.lans) > 1:
                    ways.append([*so_far, host])
        return None

    def partition(self, a: Host, b: Host, *, heal: bool = False) -> None:
        pair = frozenset((a.node_id, b.node_id))
        (self.cut.discard if heal else self.cut.add)(pair)
        for here, there in ((a, b), (b, a)):
            self.at(0.0, lambda here=here, there=there: here.neighbour(there.node_id, heal))
            for endpoint in list(here.endpoints.values()):
                far = self.endpoints.get(endpoint.far_token or "")
                if not heal and far is not None and far.host is there:
                    self.at(CONSENT_S, lambda endpoint=endpoint, far=far: self._check_consent(endpoint, far))

    def _check_consent(self, endpoint: Endpoint, far: Endpoint) -> None:
        if not self.passes(endpoint.host.node_id, far.host.node_id):
            endpoint.host.consent_lost(endpoint)


class Host:
    """A board: a kernel that answers pings, and a node when it is powered on."""

    def __init__(self, world: World, name: str, lans: set[str], config: DatapathConfig) -> None:
        self.world = world
        self.name = name
        self.lans = lans
        credential = make_credential(world.realm, name, capabilities=(RELAY,))
        self.member = Member(node_keys(name), world.realm.anchor, Chain(credential, None))
        self.node_id = self.member.node_id
        self.address = next(address for address in self.member.addresses if isinstance(address, IPv6Address))
        self.config = config
        self.relaying = True
        self.sent: list[float] = []  # times of a flow of numbered packets
        self.node: Node | None = None
        self.boot_number = 0
        self.events: list[tuple[float, Event]] = []
        self.received: list[tuple[float, bytes]] = []  # payloads that came, requests and answers
        self.endpoints: dict[LinkId, Endpoint] = {}
        self.frame_count = 0
        self._timer_at: float | None = None

    # ── power ──

    def power_on(self) -> None:
        world = self.world
        self.boot_number += 1
        boot = BootId((NOW_UNIX + self.boot_number).to_bytes(5, "big") + world.rng.randbytes(3))
        rng = random.Random(world.rng.random())
        plane = ControlPlane(
            self.member,
            boot=boot,
            entropy=rng.randbytes,
            rng=rng,
            clock=lambda: NOW_UNIX,
            now=world.now,
            features=(FEATURE,) if self.relaying else (),
        )
        self.node = Node(
            self.member,
            boot=boot,
            config=NodeConfig(aead=CHACHA20_POLY1305, relaying=self.relaying),
            datapath=ReferenceDatapath(self.config),
            plane=plane,
            links=Links(self.node_id, rng=rng, entropy=rng.randbytes),
            search=FirstSearch(self.node_id),
            rng=rng,
            entropy=rng.randbytes,
        )
        for other in world.hosts.values():
            if other is not self and other.node is not None and world.passes(self.node_id, other.node_id):
                world.at(0.0, lambda other=other: other.neighbour(self.node_id, up=True))
                world.at(0.0, lambda other=other: self.neighbour(other.node_id, up=True))
        self.drain()

    def power_off(self, *, silent: bool = False) -> None:
        """Lose the process, as SIGKILL does.  silent: neighbours do not even see the control connection end."""
        self.node = None
        for endpoint in list(self.endpoints.values()):
            self._lose(endpoint)
        self.endpoints.clear()
        if not silent:
            for other in self.world.hosts.values():
                if other is not self and other.node is not None and self.world.passes(self.node_id, other.node_id):
                    self.world.at(0.0, lambda other=other: other.neighbour(self.node_id, up=False))

    def neighbour(self, node: NodeId, up: bool) -> None:
        if self.node is not None:
            self.node.channel_changed(node, up, now=self.world.now)
            if len(self.world.hosts[node].lans) > 1:
                self.node.bridge_changed(node, up, now=self.world.now)
            self.drain()

    # ── the kernel ──

    def send(self, to: Host, payload: bytes) -> None:
        """Hand the node one packet for the other host."""
        self.packet(ipv6_udp(self.address, to.address, payload))

    def packet(self, packet: bytes) -> None:
        assert self.node is not None
        self.node.packet(packet, now=self.world.now)
        self.drain()

    def deliver(self, packet: bytes) -> None:
        payload = packet[48:]
        self.received.append((self.world.now, payload))
        if payload.startswith(b"ping"):
            answer = ipv6_udp(IPv6Address(packet[24:40]), IPv6Address(packet[8:24]), b"pong" + payload[4:])
            self.world.at(0.0, lambda: self.packet(answer) if self.node is not None else None)

    def payloads(self, prefix: bytes = b"") -> list[bytes]:
        return [payload for _, payload in self.received if payload.startswith(prefix)]

    def kinds(self) -> list[str]:
        return [event.kind for _, event in self.events]

    def drops(self) -> Counter[str]:
        assert self.node is not None
        return Counter(self.node.status(now=self.world.now)["drops"])

    # ── the shell: what the daemon does, without sockets ──

    def drain(self) -> None:
        node = self.node
        if node is None:
            return
        now = self.world.now
        while (transmit := node.next_transmit()) is not None:
            self._send_envelope(transmit.token, transmit.to, transmit.envelope)
        while (command := node.next_command()) is not None:
            self._perform(command)
        while (event := node.next_event()) is not None:
            self.events.append((now, event))
        for destination in node.datapath.sendable():
            while (frame := node.datapath.next_frame(destination, now=now)) is not None:
                self._send_frame(frame)
        for link in node.datapath.relayable():
            while (frame := node.datapath.next_relayed(link, now=now)) is not None:
                self._send_frame(frame)
        while (frame := node.datapath.next_feedback(now=now)) is not None:
            self._send_frame(frame)
        while (packet := node.datapath.next_delivery()) is not None:
            self.deliver(packet)
        self._arm()

    def _arm(self) -> None:
        assert self.node is not None
        at = self.node.next_timeout()
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

    # ── control network ──

    def _send_envelope(self, token: int, to: NodeId | None, envelope: bytes) -> None:
        world = self.world
        others = [host for host in world.hosts.values() if host is not self and to in (None, host.node_id)]
        ways = [way for host in others if (way := world.way(self, host)) is not None]
        result = Handoff.ACCEPTED if ways or to is None else Handoff.ABSENT
        for way in ways:
            via = way[-2].node_id if len(way) > 1 else self.node_id
            copies = 1 + (world.rng.random() < world.weather.control_repeat)
            for _ in range(copies):
                if world.rng.random() >= world.weather.control_loss:
                    arrival = Arrival(envelope, via, "sim")
                    delay_s = sum(world.latency_s() for _ in way)
                    world.at(delay_s, lambda host=way[-1], arrival=arrival: host._arrive(arrival))
        world.at(0.0, lambda: self._handed_off(token, result))

    def _handed_off(self, token: int, result: Handoff) -> None:
        if self.node is not None:
            self.node.handoff(token, result, now=self.world.now)
            self.drain()

    def _arrive(self, arrival: Arrival) -> None:
        if self.node is not None:
            self.node.receive(arrival, now=self.world.now)
            self.drain()

    # ── carrier ──

    def _event(self, delay_s: float, event: CarrierEvent) -> None:
        node = self.node

        def give() -> None:
            if self.node is node and node is not None:
                node.carrier_event(event, now=self.world.now)
                self.drain()

        self.world.at(delay_s, give)

    def _perform(self, command: Command) -> None:
        endpoint = self.endpoints.get(command.link)
        match command:
            case Describe(link=link):
                token = f"{self.name}.{link}.{self.world.rng.randrange(2**32)}"
                self.endpoints[link] = self.world.endpoints[token] = Endpoint(self, link, token)
                description = Description(token, "pwd", bytes(32), 5000, 65536, ())
                self._event(DESCRIBE_S, Described(link, description))
            case Connect(remote=remote) if endpoint is not None:
                endpoint.far_token = remote.ice_ufrag
                self._meet(endpoint)
            case Disconnect() if endpoint is not None:
                self._shut(endpoint)
            case SendControl(data=data):
                self._to_far(endpoint, lambda far: ControlArrived(far.link, data))
            case OpenTether(link=link, tether=tether) if endpoint is not None and endpoint.open:
                endpoint.tethers.add(tether)
                self._to_far(endpoint, lambda far: (far.tethers.add(tether), TetherUp(far.link, tether))[1])
                self._event(2 * self.world.weather.delay_s, TetherUp(link, tether))
            case CloseTether(tether=tether) if endpoint is not None:
                endpoint.tethers.discard(tether)
                self._to_far(endpoint, lambda far: (far.tethers.discard(tether), TetherDown(far.link, tether))[1])

    def _far(self, endpoint: Endpoint) -> Endpoint | None:
        far = self.world.endpoints.get(endpoint.far_token or "")
        return far if far is not None and far.far_token == endpoint.token else None

    def _meet(self, endpoint: Endpoint) -> None:
        far = self._far(endpoint)
        if far is None or not self.world.passes(self.node_id, far.host.node_id):
            return
        for side in (endpoint, far):
            side.open = True
            side.host._event(OPEN_S + 2 * self.world.weather.delay_s, Opened(side.link))

    def _shut(self, endpoint: Endpoint) -> None:
        far = self._far(endpoint)
        self.endpoints.pop(endpoint.link, None)
        self.world.endpoints.pop(endpoint.token, None)
        self._event(0.0, Closed(endpoint.link, "asked"))
        if far is not None and self.world.passes(self.node_id, far.host.node_id):
            far.host.endpoints.pop(far.link, None)
            self.world.endpoints.pop(far.token, None)
            far.host._event(self.world.latency_s(), Closed(far.link, "peer"))

    def _lose(self, endpoint: Endpoint) -> None:
        """Our process died: the far carrier finds out when its consent checks fail."""
        far = self._far(endpoint)
        self.world.endpoints.pop(endpoint.token, None)
        if far is not None:
            self.world.at(CONSENT_S, lambda: far.host.consent_lost(far))

    def consent_lost(self, endpoint: Endpoint) -> None:
        """Nobody answered the carrier's checks: it closes the link."""
        if self.endpoints.get(endpoint.link) is endpoint:
            del self.endpoints[endpoint.link]
            self.world.endpoints.pop(endpoint.token, None)
            self._event(0.0, Closed(endpoint.link, "timeout"))

    def _to_far(self, endpoint: Endpoint | None, make: Callable[[Endpoint], CarrierEvent]) -> None:
        """Reliable and in order, as long as both sides live."""
        far = self._far(endpoint) if endpoint is not None and endpoint.open else None
        if endpoint is None or far is None or not self.world.passes(self.node_id, far.host.node_id):
            return
        endpoint.arrives_at = max(endpoint.arrives_at, self.world.now + self.world.latency_s())
        far.host._event(endpoint.arrives_at - self.world.now, make(far))

    def _send_frame(self, frame: OutFrame) -> None:
        world = self.world
        endpoint = self.endpoints.get(frame.link)
        far = self._far(endpoint) if endpoint is not None else None
        self.frame_count += 1
        if far is None or not world.passes(self.node_id, far.host.node_id):
            return
        copies = 1 + (world.rng.random() < world.weather.frame_repeat)
        for _ in range(copies):
            if world.rng.random() >= world.weather.frame_loss:
                world.at(world.latency_s(), lambda: far.host._frame(far.link, frame.data, frame.channel))

    def _frame(self, link: LinkId, data: bytes, channel: int) -> None:
        if self.node is not None and link in self.endpoints:
            self.node.frame(link, data, channel, now=self.world.now)
            self.drain()


def ipv6_udp(source: IPv6Address, destination: IPv6Address, payload: bytes) -> bytes:
    """One IPv6 packet with a UDP header (no checksum: nobody here looks)."""
    udp = (40000).to_bytes(2) + (40001).to_bytes(2) + (8 + len(payload)).to_bytes(2) + bytes(2) + payload
    header = bytes([0x60, 0, 0, 0]) + len(udp).to_bytes(2) + bytes([17, 64])
    return header + source.packed + destination.packed + udp
