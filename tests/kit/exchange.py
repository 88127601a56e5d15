"""Control channels of one event loop, over the simulator's hub instead of a network."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

from conflux.control.channel import ChannelInputs, ChannelState, Departed, Handoff, NeighbourStatus
from conflux.control.envelope import Envelope
from conflux.ids import NodeId
from conflux.realm.member import Member
from conflux.sim.flights import Weather
from conflux.sim.hub import Hub


class Exchange:
    """Runs a hub in an event loop."""

    def __init__(self) -> None:
        self.hub = Hub(rng=random.Random(1), weather=Weather(delay_s=0.0, jitter_s=0.0))
        self.inputs: dict[NodeId, ChannelInputs] = {}
        self._timer: asyncio.TimerHandle | None = None

    def run_soon(self) -> None:
        """Pass on what the hub has to say, but not inside the caller: no channel delivers from within send()."""
        loop = asyncio.get_running_loop()
        self._run_at(loop.time())

    def _run_at(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(at, self._run)

    def _run(self) -> None:
        while (change := self.hub.next_change()) is not None:
            if change.observer in self.inputs and change.moved:
                self.inputs[change.observer].changed(change.node, change.up)
        while (delivery := self.hub.next_delivery(asyncio.get_running_loop().time())) is not None:
            if delivery.to in self.inputs:
                self.inputs[delivery.to].deliver(delivery.arrival)
        wake_at = self.hub.next_timeout()
        if wake_at is not None:
            self._run_at(wake_at)


class HubChannel:
    """One node's control channel on an exchange.  It has one LAN, so nothing crosses, and no credential matters."""

    far = False

    def __init__(self, exchange: Exchange, node: NodeId) -> None:
        self.name = exchange.hub.name
        self.drops: Counter[str] = Counter()
        self._exchange = exchange
        self._node = node

    async def start(self, inputs: ChannelInputs) -> None:
        """Come up.  bridges is never called: the hub of an exchange has one LAN."""
        self._exchange.hub.attach(self._node)
        self._exchange.inputs[self._node] = inputs
        self._exchange.run_soon()

    async def stop(self) -> None:
        """Go down."""
        self._exchange.hub.detach(self._node)
        self._exchange.inputs.pop(self._node, None)
        self._exchange.run_soon()

    def send(self, envelope: Envelope, *, again: bool = False) -> Handoff:
        """Hand an envelope to the hub."""
        handoff = self._exchange.hub.send(self._node, envelope, now=asyncio.get_running_loop().time())
        self._exchange.run_soon()
        return handoff

    def adopt(self, member: Member) -> None:
        """No-op."""

    def exclude(self, nodes: frozenset[NodeId]) -> None:
        """Be cut off from those nodes."""
        for node in nodes - {self._node}:
            self._exchange.hub.cut(self._node, node)
        self._exchange.run_soon()

    def learn(self, node: NodeId, path: bytes) -> None:
        """No-op."""

    def cross(self, buckets: frozenset[int] | None) -> None:
        """No-op."""

    def pass_on(self, envelope: Envelope, hint: bytes | None = None) -> Handoff:
        """Send on what nobody passes on here."""
        return Handoff.REFUSED

    @property
    def buckets(self) -> frozenset[int]:
        """None are known."""
        return frozenset()

    def departed(self) -> tuple[Departed, ...]:
        """None left."""
        return ()

    def status(self) -> tuple[NeighbourStatus, ...]:
        """Return nothing."""
        return ()

    @property
    def state(self) -> ChannelState:
        """The state at this moment."""
        if self._node not in self._exchange.hub:
            return ChannelState(False, "stopped")
        count = len(self._exchange.hub.neighbours(self._node))
        return ChannelState(True, f"{count} neighbour{'' if count == 1 else 's'}")
