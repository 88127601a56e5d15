"""The shuttle: carries packets and frames of the reference datapath, in Python.

    tun ──packet──► node's      ──delivery──► tun (or a waiting ping)
    carrier ─frame─► datapath   ──feedback──► carrier
                                ──frames────► one "egress NAME" task per destination ──► carrier

A native datapath moves them in its engine and needs none of this.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from conflux.datapath.interface import Datapath, Hop, OutFrame
from conflux.echo import Echo
from conflux.ids import LinkId, NodeId, TetherId, format_node_id
from conflux.pump import Pump


class Carrier(Protocol):
    """What the shuttle needs of a carrier."""

    def write(self, frame: OutFrame) -> None:
        """Queue one frame.  One for a link or tether that is gone is dropped and counted."""

    async def drain(self, link: LinkId, tether: TetherId) -> None:
        """Wait until the tether has room for the next frame, or is gone."""

    def has_room(self, link: LinkId) -> bool:
        """Say whether drain_link() would return at once."""

    async def drain_link(self, link: LinkId) -> None:
        """Wait until little of all the link's tethers waits, or it is gone."""


class Shuttle:
    """Moves one node's bytes.  deliver: takes an IP packet for the TUN device."""

    def __init__(
        self, pump: Pump, datapath: Datapath, carrier: Carrier, *, deliver: Callable[[bytes], object], echo: Echo
    ) -> None:
        self._pump = pump
        self._datapath = datapath
        self._carrier = carrier
        self._deliver = deliver
        self._echo = echo
        self._egress: dict[NodeId, _Egress] = {}
        self._relaying: dict[LinkId, asyncio.Task[None]] = {}

    def drain(self, wanted: tuple[NodeId, ...], *, now: float) -> None:
        """Send and deliver what is due, and wake who has something to send."""
        datapath = self._datapath
        while (frame := datapath.next_feedback(now=now)) is not None:
            self._carrier.write(frame)
        while (packet := datapath.next_delivery()) is not None:
            if not self._echo.take(packet, now=now):
                self._deliver(packet)
        for link in datapath.relayable():
            if link not in self._relaying and not self._pass_on(link):
                self._relaying[link] = self._pump.start(self._relay_frames(link), f"relay {link}")
        for destination in datapath.sendable():
            if (egress := self._egress.get(destination)) is not None:
                egress.wake.set()
                egress.go_on(datapath.hop(destination))
        if len(wanted) == len(self._egress) and all(destination in self._egress for destination in wanted):
            return
        for destination in set(self._egress).difference(wanted):
            self._egress.pop(destination).task.cancel()
        for destination in wanted:
            if destination not in self._egress:
                self._egress[destination] = _Egress(self, self._pump, destination)

    def task_names(self) -> list[str]:
        """Return the names of the tasks that run, one per destination."""
        return sorted(egress.task.get_name() for egress in self._egress.values())

    async def send_frames(self, egress: _Egress) -> None:
        """Send what is queued for one destination whenever there is a way for it; the body of its task.

        While one frame is on its way into the tether, packets gather, and they go in the next.  A tether that takes
        nothing stops this task and no other.
        """
        datapath, carrier, destination = self._datapath, self._carrier, egress.destination
        while True:
            await egress.wake.wait()
            egress.wake.clear()
            while (frame := datapath.next_frame(destination, now=time.monotonic())) is not None:
                carrier.write(frame)
                self._pump.touch()
                egress.draining = (frame.link, frame.tether)
                await carrier.drain(frame.link, frame.tether)
                egress.draining = None

    async def _relay_frames(self, link: LinkId) -> None:
        """Send what waits to be passed on over one link that had no room for it; a task that lives while it has not."""
        try:
            await self._carrier.drain_link(link)
            while not self._pass_on(link):
                await self._carrier.drain_link(link)
        finally:
            del self._relaying[link]

    def _pass_on(self, link: LinkId) -> bool:
        """Send what waits to be passed on over a link, in this turn of the loop; False if some must wait for room.

        Room is the link's total, not one tether's: the turns are the datapath's to give, so nothing may pile up behind
        it.
        """
        datapath, carrier = self._datapath, self._carrier
        while carrier.has_room(link):
            frame = datapath.next_relayed(link, now=time.monotonic())
            if frame is None:
                return True
            carrier.write(frame)
        return False

    async def close(self) -> None:
        """Stop every task."""
        tasks = [egress.task for egress in self._egress.values()]
        tasks += self._relaying.values()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._egress.clear()


class _Egress:
    """A destination's task, and how it is woken."""

    def __init__(self, shuttle: Shuttle, pump: Pump, destination: NodeId) -> None:
        card = pump.node.plane.card(destination)
        self.destination = destination
        self.wake = asyncio.Event()
        self.draining: tuple[LinkId, TetherId] | None = None  # the tether it waits for
        self._name = f"egress {format_node_id(destination) if card is None else card.name}"
        self._shuttle = shuttle
        self._pump = pump
        self._start()

    def _start(self) -> None:
        self.draining = None
        self.wake.set()
        self.task = self._pump.start(self._shuttle.send_frames(self), self._name)

    def go_on(self, hop: Hop | None) -> None:
        """Wait no longer for a tether that the stream has left: whoever went silent never takes anything again."""
        if self.draining is not None and hop is not None and self.draining != (hop.link, hop.tether):
            self.task.cancel()  # it is in drain(): nothing is under way in its hands
            self._start()
