"""The simulated broker: every node has an inbox, listens to buckets of questions, and knows no neighbours.  Sans-IO.

    alpha ═══╗                     by its key    cx.u in the real one
             broker ═══ bravo      by bucket     cx.w
    rod   ═══╝                     all           cx.p

It says so if nobody listens to an inbox, a moment after it took the envelope.  It vouches for the key of whoever hands
an envelope over.  A node may lose its connection, and two nodes may be at servers that do not see each other.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass

from conflux.control.channel import Arrival, Handoff
from conflux.control.envelope import Envelope
from conflux.errors import LocalProtocolError
from conflux.ids import NodeId
from conflux.realm.broker.subjects import bucket_of
from conflux.sim.flights import Flights, Weather
from conflux.sim.hub import Delivery

HOP_COUNT = 2  # to the server, and from it


@dataclass(frozen=True, slots=True)
class Missed:
    """Nobody took what observer sent to a node, at the inbox of a key."""

    observer: NodeId
    node: NodeId
    key: bytes


@dataclass(frozen=True, slots=True)
class Turn:
    """A node's connection came up or went down, and it notices."""

    observer: NodeId
    up: bool


@dataclass(slots=True)
class Seat:
    """What the broker knows of a node.  crossing: buckets that it listens to for others; None: it crosses nothing."""

    key: bytes
    buckets: frozenset[int]
    up: bool = True
    noticed: bool = True  # that it is up, or not
    crossing: frozenset[int] | None = None


class Broker:
    """A broker of one realm."""

    def __init__(self, *, rng: random.Random, weather: Weather | None = None, name: str = "broker") -> None:
        self.name = name
        self.weather = weather or Weather()
        self.sent_count = 0
        self._seats: dict[NodeId, Seat] = {}
        self._splits: set[frozenset[NodeId]] = set()
        self._flights: Flights[Delivery | Missed] = Flights(rng)
        self._turns: deque[Turn] = deque()

    # ── the world ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def attach(self, node: NodeId, key: bytes, buckets: frozenset[int]) -> None:
        """Connect a node, whose Ed25519 key is its user key, and who is asked for in these buckets."""
        if node in self._seats:
            raise LocalProtocolError("the node is at the broker already")
        self._seats[node] = Seat(key, buckets)
        self._turns.append(Turn(node, True))

    def detach(self, node: NodeId) -> None:
        """Disconnect a node; the others do not notice."""
        self._seats.pop(node, None)
        self._turns = deque(turn for turn in self._turns if turn.observer != node)

    def lose(self, node: NodeId, *, silent: bool = False) -> None:
        """Break a node's connection, if it has one.  silent: it does not notice, and what it sends vanishes."""
        seat = self._seats[node]
        if not seat.up:
            return
        seat.up, seat.noticed = False, not silent
        if not silent:
            self._turns.append(Turn(node, False))

    def restore(self, node: NodeId) -> None:
        """Undo lose()."""
        seat = self._seats[node]
        if seat.noticed and not seat.up:
            self._turns.append(Turn(node, True))
        seat.up = seat.noticed = True

    def split(self, a: NodeId, b: NodeId, *, heal: bool = False) -> None:
        """Let two nodes be at servers that do not see each other, or see each other again."""
        (self._splits.discard if heal else self._splits.add)(frozenset((a, b)))

    def is_up(self, node: NodeId) -> bool:
        """Say whether a node believes that it is connected."""
        seat = self._seats.get(node)
        return seat is not None and (seat.up or not seat.noticed)

    def __contains__(self, node: NodeId) -> bool:
        return node in self._seats

    # ── envelopes ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def cross(self, node: NodeId, buckets: frozenset[int] | None) -> None:
        """Let a node listen to buckets for others, and take what it passes on."""
        self._seats[node].crossing = buckets

    def send(self, src: NodeId, envelope: Envelope, key: bytes | None = None, *, now: float) -> Handoff:
        """Take an envelope of src: for the inbox of a key, for a bucket or for all.

        A plain one for a node goes to the bucket of its id if no key is given.
        """
        if not self.is_up(src):
            return Handoff.DOWN
        envelope.encode()  # raises LocalProtocolError for an envelope that no engine could carry
        to_bucket = envelope.to is not None and key is None
        if to_bucket and envelope.key_id is not None:
            return Handoff.ABSENT
        self.sent_count += 1
        seat = self._seats[src]
        if not seat.up:
            return Handoff.ACCEPTED
        takers = [node for node in self._seats if node != src and self._listens(src, node, envelope, key)]
        for node in takers:
            arrival = Arrival(envelope, None, self.name, seat.key)
            transit = envelope.to not in (None, node)
            if not transit or self._seats[node].crossing is not None:
                self._launch(Delivery(node, arrival, transit), now)
            if envelope.to is None and self._seats[node].crossing is not None:
                self._launch(Delivery(node, arrival, True), now)
        if envelope.to is not None and key is not None and not takers:
            self._launch(Missed(src, envelope.to, key), now)
        return Handoff.FORWARDED if to_bucket else Handoff.ACCEPTED

    def _listens(self, src: NodeId, node: NodeId, envelope: Envelope, key: bytes | None) -> bool:
        seat = self._seats[node]
        if not seat.up or frozenset((src, node)) in self._splits:
            return False
        bucket = envelope.bucket
        if envelope.to is not None:
            if key is not None:
                return seat.key == key
            bucket = bucket_of(envelope.to)  # plain, and its sender does not know the receiver's key
        return bucket is None or bucket in seat.buckets | (seat.crossing or frozenset())

    def _launch(self, item: Delivery | Missed, now: float) -> None:
        self._flights.launch(item, HOP_COUNT, self.weather, now=now)

    # ── doors of a machine ────────────────────────────────────────────────────────────────────────────────────────────

    def next_delivery(self, now: float) -> Delivery | Missed | None:
        """Return the next envelope that is due, or the next word that nobody took one."""
        while (item := self._flights.land(now)) is not None:
            to = item.to if isinstance(item, Delivery) else item.observer
            if to in self._seats and self._seats[to].up:
                return item
        return None

    def next_turn(self) -> Turn | None:
        """Return the next connection that came up or went down."""
        return self._turns.popleft() if self._turns else None

    def next_timeout(self) -> float | None:
        """Return when next_delivery() has something to return; None: nothing is on its way."""
        return self._flights.next_timeout()
