"""A few control planes on a simulated control network, in virtual time."""

from __future__ import annotations

import random
from collections import deque

from kit.builders import NOW_UNIX, make_member, make_realm

from conflux.control.channel import Arrival
from conflux.control.choice import Handed
from conflux.control.envelope import Envelope
from conflux.control.event import CardChanged, CardFound, Event, Message, RequestFailed, WhoFailed
from conflux.control.plane import ControlPlane
from conflux.ids import BootId, NodeId
from conflux.realm.member import Member
from conflux.sim.flights import Weather
from conflux.sim.hub import ONE_LAN, Delivery, Hub


def boot_id(number: int) -> BootId:
    """Return a boot id; a larger number is a later boot."""
    return BootId(number.to_bytes(5, "big") + b"abc")


class Station:
    """One plane, with its events and the envelopes that it sent."""

    def __init__(self, world: World, member: Member, boot: BootId, features: tuple[str, ...] = ()) -> None:
        self.world = world
        self.member = member
        self.node: NodeId = member.node_id
        self.clock_unix = NOW_UNIX
        self.seen: list[Event] = []
        self.sent: list[Envelope] = []
        self.sent_replies: list[int] = []
        self.plane = ControlPlane(
            member,
            boot=boot,
            entropy=world.rng.randbytes,
            rng=world.rng,
            clock=lambda: self.clock_unix,
            observe=self.observe,
            now=world.now,
            features=features,
        )

    def observe(self, date_unix: int) -> None:
        """Let the clock catch up with a date that the realm has signed."""
        self.clock_unix = max(self.clock_unix, date_unix)

    def messages(self) -> list[Message]:
        """Return the messages that came."""
        return [event for event in self.seen if isinstance(event, Message)]

    def failures(self) -> list[RequestFailed]:
        """Return the requests that failed."""
        return [event for event in self.seen if isinstance(event, RequestFailed)]

    def found(self) -> list[CardFound]:
        """Return the questions that were answered."""
        return [event for event in self.seen if isinstance(event, CardFound)]

    def not_found(self) -> list[WhoFailed]:
        """Return the questions that failed."""
        return [event for event in self.seen if isinstance(event, WhoFailed)]

    def changed(self) -> list[CardChanged]:
        """Return the peers that were seen to have restarted."""
        return [event for event in self.seen if isinstance(event, CardChanged)]


class World:
    """Stations and the hub between them.  lans: by name; a station without is on the one LAN of all such stations."""

    def __init__(
        self,
        *names: str,
        seed: int = 1,
        weather: Weather | None = None,
        realm: str = "home",
        lans: dict[str, tuple[str, ...]] | None = None,
    ) -> None:
        self.rng = random.Random(seed)
        self.now = 1000.0
        self.hub = Hub(rng=self.rng, weather=weather or Weather(jitter_s=0.0))
        self.lans = lans or {}
        self.stations: dict[NodeId, Station] = {}
        self.by_name: dict[str, Station] = {}
        self.traffic: list[Delivery] = []
        self.lose: deque[NodeId] = deque()  # the next delivery to each of these is lost
        for name in names:
            self.start(name, realm=realm)

    def __getitem__(self, name: str) -> Station:
        return self.by_name[name]

    def start(
        self,
        name: str,
        *,
        boot: int = 1,
        realm: str = "home",
        member: Member | None = None,
        features: tuple[str, ...] = (),
    ) -> Station:
        """Start a node, or start it again."""
        member = member or make_member(make_realm(realm), name)
        self.hub.detach(member.node_id)
        station = Station(self, member, boot_id(boot), features)
        self.stations[station.node] = self.by_name[name] = station
        self.hub.attach(station.node, self.lans.get(name, ONE_LAN))
        return station

    def inject(self, to: Station, envelope: Envelope, via: NodeId | None = None) -> None:
        """Hand a station an envelope, as an engine does."""
        to.plane.receive_untrusted(Arrival(envelope, via, "sim"), now=self.now)
        self.drain()

    def drain(self) -> None:
        """Carry the planes' envelopes to the hub, and note their events."""
        for station in self.stations.values():
            while (event := station.plane.next_event()) is not None:
                station.seen.append(event)
            while (transmit := station.plane.next_transmit()) is not None:
                station.sent.append(transmit.envelope)
                handoff = self.hub.send(station.node, transmit.envelope, now=self.now)
                station.plane.handoff(transmit.token, Handed(handoff), now=self.now)
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
                    station.plane.handle_timeout(now=self.now)
