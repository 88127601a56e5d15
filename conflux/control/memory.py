"""A control channel without a network: for tests and the simulator.

MemoryHub is sans-IO: envelopes go in by send() with the time, and come out by next_delivery() when they are due, lost,
doubled, delayed and reordered as told, by an injected random.Random.  MemoryChannel is the thin asyncio side of it.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from conflux.control.channel import ENVELOPE_BYTES_MAX, Arrival, ChannelState, Handoff
from conflux.errors import LocalProtocolError
from conflux.ids import NodeId


@dataclass(frozen=True, slots=True)
class Weather:
    """What the hub does to envelopes.  Different delays reorder."""

    loss: float = 0.0
    duplicate: float = 0.0
    delay_s_min: float = 0.0
    delay_s_max: float = 0.0


@dataclass(frozen=True, slots=True)
class Delivery:
    """An envelope that is there."""

    to: NodeId
    arrival: Arrival


@dataclass(frozen=True, slots=True)
class Change:
    """observer sees node come or go."""

    observer: NodeId
    node: NodeId
    up: bool


class MemoryHub:
    """One LAN's worth of nodes, all neighbours of one another unless cut."""

    def __init__(self, *, rng: random.Random, weather: Weather | None = None, name: str = "memory") -> None:
        self.name = name
        self.weather = weather or Weather()
        self._rng = rng
        self._nodes: dict[NodeId, None] = {}  # in order of arrival: sets of bytes iterate differently in every process
        self._cuts: dict[frozenset[NodeId], bool] = {}  # pair → silent
        self._flying: list[tuple[float, int, Delivery]] = []
        self._count = 0
        self._changes: deque[Change] = deque()

    # ── the world ────────────────────────────────────────────────────────────────────────────────────────────────────

    def attach(self, node: NodeId) -> None:
        """A node comes up; those that can reach it see it, and it them."""
        if node in self._nodes:
            raise LocalProtocolError("the node is on the hub already")
        for other in self._nodes:
            if not self._cut(node, other):
                self._change(node, other, True)
        self._nodes[node] = None

    def detach(self, node: NodeId) -> None:
        """A node goes down, or its process is killed; what flies to it is lost."""
        if node not in self._nodes:
            return
        del self._nodes[node]
        for other in self._nodes:
            if not self._cut(node, other):
                self._changes.append(Change(other, node, False))
        self._changes = deque(change for change in self._changes if change.observer != node)

    def cut(self, a: NodeId, b: NodeId, *, silent: bool = False) -> None:
        """Let nothing pass between two nodes.  silent: the engine does not notice, envelopes vanish."""
        pair = frozenset((a, b))
        noticed_already = self._cuts.get(pair) is False
        self._cuts[pair] = silent
        if not silent and not noticed_already and a in self._nodes and b in self._nodes:
            self._change(a, b, False)

    def mend(self, a: NodeId, b: NodeId) -> None:
        """Undo cut()."""
        silent = self._cuts.pop(frozenset((a, b)), True)
        if not silent and a in self._nodes and b in self._nodes:
            self._change(a, b, True)

    def partition(self, *groups: list[NodeId], silent: bool = False) -> None:
        """Cut every pair of nodes of different groups."""
        for index, group in enumerate(groups):
            for other in groups[index + 1 :]:
                for a in group:
                    for b in other:
                        self.cut(a, b, silent=silent)

    # ── envelopes ────────────────────────────────────────────────────────────────────────────────────────────────────

    def send(self, src: NodeId, to: NodeId, envelope: bytes, *, now: float) -> Handoff:
        """Take an envelope for one node."""
        if src not in self._nodes:
            return Handoff.DOWN
        if len(envelope) > ENVELOPE_BYTES_MAX:
            return Handoff.REFUSED
        silent = self._cuts.get(frozenset((src, to)))
        if to not in self._nodes or to == src or silent is False:
            return Handoff.ABSENT
        if silent is None:
            self._fly(src, to, envelope, now)
        return Handoff.ACCEPTED

    def announce(self, src: NodeId, envelope: bytes, *, now: float) -> Handoff:
        """Take an envelope for all."""
        if src not in self._nodes:
            return Handoff.DOWN
        if len(envelope) > ENVELOPE_BYTES_MAX:
            return Handoff.REFUSED
        handoffs = [self.send(src, to, envelope, now=now) for to in self._nodes if to != src]
        return Handoff.ACCEPTED if Handoff.ACCEPTED in handoffs else Handoff.ABSENT

    def next_delivery(self, now: float) -> Delivery | None:
        """Return the next envelope that is due."""
        while self._flying and self._flying[0][0] <= now:
            delivery = heapq.heappop(self._flying)[2]
            via = delivery.arrival.via
            if delivery.to in self._nodes and (via is None or not self._cut(via, delivery.to)):
                return delivery
        return None

    def next_change(self) -> Change | None:
        """Return the next coming or going."""
        return self._changes.popleft() if self._changes else None

    def next_timeout(self) -> float | None:
        """Return when next_delivery() has something."""
        return self._flying[0][0] if self._flying else None

    def neighbours(self, node: NodeId) -> list[NodeId]:
        """Return whom a node can reach."""
        return [other for other in self._nodes if other != node and not self._cut(node, other)]

    def __contains__(self, node: NodeId) -> bool:
        return node in self._nodes

    def _fly(self, src: NodeId, to: NodeId, envelope: bytes, now: float) -> None:
        weather, rng = self.weather, self._rng
        copies = 1
        if weather.loss and rng.random() < weather.loss:
            copies = 0
        elif weather.duplicate and rng.random() < weather.duplicate:
            copies = 2
        for _ in range(copies):
            at = now + rng.uniform(weather.delay_s_min, weather.delay_s_max)
            self._count += 1
            heapq.heappush(self._flying, (at, self._count, Delivery(to, Arrival(envelope, src, self.name))))

    def _cut(self, a: NodeId, b: NodeId) -> bool:
        return frozenset((a, b)) in self._cuts

    def _change(self, a: NodeId, b: NodeId, up: bool) -> None:
        self._changes.append(Change(a, b, up))
        self._changes.append(Change(b, a, up))


class MemoryExchange:
    """Runs a hub in an event loop."""

    def __init__(self, hub: MemoryHub) -> None:
        self.hub = hub
        self.deliver: dict[NodeId, Callable[[Arrival], None]] = {}
        self.changed: dict[NodeId, Callable[[NodeId, bool], None]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def pump(self) -> None:
        """Hand out what is due, and come back for the rest."""
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while (change := self.hub.next_change()) is not None:
            if change.observer in self.changed:
                self.changed[change.observer](change.node, change.up)
        while (delivery := self.hub.next_delivery(loop.time())) is not None:
            if delivery.to in self.deliver:
                self.deliver[delivery.to](delivery.arrival)
        wake_at = self.hub.next_timeout()
        if wake_at is not None and self._timer is None:
            self._timer = loop.call_at(wake_at, self.pump)

    def pump_soon(self) -> None:
        """pump(), but not inside the caller: a channel never delivers from within send()."""
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_at(loop.time(), self.pump)


class MemoryChannel:
    """One node's control channel on an exchange."""

    name = "memory"

    def __init__(self, exchange: MemoryExchange, node: NodeId) -> None:
        self._exchange = exchange
        self._node = node

    async def start(
        self,
        deliver: Callable[[Arrival], None],
        changed: Callable[[NodeId, bool], None],
        bridges: Callable[[NodeId, bool], None] | None = None,
    ) -> None:
        """Come up.  bridges is never called: there is one hub, and nothing beyond it."""
        self._exchange.hub.attach(self._node)
        self._exchange.deliver[self._node] = deliver
        self._exchange.changed[self._node] = changed
        self._exchange.pump_soon()

    async def stop(self) -> None:
        """Go down."""
        self._exchange.hub.detach(self._node)
        self._exchange.deliver.pop(self._node, None)
        self._exchange.changed.pop(self._node, None)
        self._exchange.pump_soon()

    async def send(self, node: NodeId, envelope: bytes) -> Handoff:
        """Hand an envelope to the hub for one node."""
        handoff = self._exchange.hub.send(self._node, node, envelope, now=asyncio.get_running_loop().time())
        self._exchange.pump_soon()
        return handoff

    async def announce(self, envelope: bytes) -> Handoff:
        """Hand an envelope to the hub for all."""
        handoff = self._exchange.hub.announce(self._node, envelope, now=asyncio.get_running_loop().time())
        self._exchange.pump_soon()
        return handoff

    @property
    def state(self) -> ChannelState:
        """The truth, now."""
        if self._node not in self._exchange.hub:
            return ChannelState(False, "stopped")
        return ChannelState(True, f"{len(self._exchange.hub.neighbours(self._node))} neighbours")
