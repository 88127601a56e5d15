"""A few control planes on a memory hub, in virtual time."""

from __future__ import annotations

import random
from collections import deque

from builders import NOW_UNIX, make_member, make_realm

from conflux.control.channel import Arrival
from conflux.control.event import CardChanged, CardFound, Message, RequestFailed, WhoFailed
from conflux.control.memory import Delivery, MemoryHub, Weather
from conflux.control.plane import ControlPlane, Event
from conflux.ids import BootId, NodeId
from conflux.realm.member import Member


def boot_id(number: int) -> BootId:
    return BootId(number.to_bytes(5, "big") + b"abc")


class Station:
    """One plane and all it said."""

    def __init__(self, world: World, member: Member, boot: BootId) -> None:
        self.world = world
        self.member = member
        self.node: NodeId = member.node_id
        self.clock_unix = NOW_UNIX
        self.seen: list[Event] = []
        self.sent: list[bytes] = []
        self.sent_replies: list[int] = []
        self.plane = ControlPlane(
            member,
            boot=boot,
            entropy=world.rng.randbytes,
            rng=world.rng,
            clock=lambda: self.clock_unix,
            observe=self.observe,
            now=world.now,
        )

    def observe(self, date_unix: int) -> None:
        self.clock_unix = max(self.clock_unix, date_unix)

    def messages(self) -> list[Message]:
        return [event for event in self.seen if isinstance(event, Message)]

    def failures(self) -> list[RequestFailed]:
        return [event for event in self.seen if isinstance(event, RequestFailed)]

    def found(self) -> list[CardFound]:
        return [event for event in self.seen if isinstance(event, CardFound)]

    def not_found(self) -> list[WhoFailed]:
        return [event for event in self.seen if isinstance(event, WhoFailed)]

    def changed(self) -> list[CardChanged]:
        return [event for event in self.seen if isinstance(event, CardChanged)]


class World:
    """Stations and the hub between them.  intercept: may take a delivery away by returning None."""

    def __init__(self, *names: str, seed: int = 1, weather: Weather | None = None, realm: str = "home") -> None:
        self.rng = random.Random(seed)
        self.now = 1000.0
        self.hub = MemoryHub(rng=self.rng, weather=weather or Weather(delay_s_min=0.001, delay_s_max=0.001))
        self.stations: dict[NodeId, Station] = {}
        self.by_name: dict[str, Station] = {}
        self.traffic: list[Delivery] = []
        self.lose: deque[NodeId] = deque()  # the next delivery to each of these is lost
        for name in names:
            self.start(name, realm=realm)

    def __getitem__(self, name: str) -> Station:
        return self.by_name[name]

    def start(self, name: str, *, boot: int = 1, realm: str = "home", member: Member | None = None) -> Station:
        """Start a node, or start it again."""
        member = member or make_member(make_realm(realm), name)
        self.hub.detach(member.node_id)
        station = Station(self, member, boot_id(boot))
        self.stations[station.node] = self.by_name[name] = station
        self.hub.attach(station.node)
        return station

    def inject(self, to: Station, envelope: bytes, via: NodeId | None = None) -> None:
        """Put bytes on a station's doorstep."""
        to.plane.receive_untrusted(Arrival(envelope, via, "memory"), now=self.now)
        self.drain()

    def drain(self) -> None:
        """Carry what planes want sent to the hub, and note their events."""
        for station in self.stations.values():
            while (event := station.plane.next_event()) is not None:
                station.seen.append(event)
            while (transmit := station.plane.next_transmit()) is not None:
                station.sent.append(transmit.envelope)
                if transmit.to is None:
                    handoff = self.hub.announce(station.node, transmit.envelope, now=self.now)
                else:
                    handoff = self.hub.send(station.node, transmit.to, transmit.envelope, now=self.now)
                station.plane.handoff(transmit.token, handoff, now=self.now)
            while (event := station.plane.next_event()) is not None:
                station.seen.append(event)

    def run(self, seconds: float) -> None:
        """Let virtual time pass."""
        ends_at = self.now + seconds
        while True:
            self.drain()
            wakes = [station.plane.next_timeout() for station in self.stations.values()]
            hub_at = self.hub.next_timeout()
            wake_at = min([*wakes, *([] if hub_at is None else [hub_at])])
            if wake_at > ends_at:
                self.now = ends_at
                return
            self.now = max(self.now, wake_at)
            while (delivery := self.hub.next_delivery(self.now)) is not None:
                if delivery.to in self.lose:
                    self.lose.remove(delivery.to)
                    continue
                self.traffic.append(delivery)
                self.stations[delivery.to].plane.receive_untrusted(delivery.arrival, now=self.now)
                self.drain()
            for station in self.stations.values():
                if station.plane.next_timeout() <= self.now:
                    station.plane.handle_timeout(self.now)
