"""The mover of the reference datapath: carries its packets and frames in Python.

    tun ──packet──► node's      ──delivery──► tun (or a waiting ping)
    carrier ─frame─► datapath   ──feedback──► carrier
                                ──frames────► one "egress NAME" task per destination ──► carrier

The native datapath needs none of this: its engine moves them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from conflux.carrier.interface import Hop, OutFrame
from conflux.datapath.interface import Datapath, EchoListener
from conflux.ids import LinkId, NodeId, TetherId
from conflux.shell import mover
from conflux.shell.mover import DeviceCounts
from conflux.shell.pump import Pump


class Carrier(mover.Carrier, Protocol):
    """What the shuttle needs of a carrier besides."""

    def write(self, frame: OutFrame) -> None:
        """Queue one frame.  A frame for a link or tether that is gone is dropped and counted."""

    async def drain(self, link: LinkId, tether: TetherId) -> None:
        """Wait until the tether has room for the next frame, or is gone."""

    def has_room(self, link: LinkId) -> bool:
        """Return whether drain_link() would return at once."""

    async def drain_link(self, link: LinkId) -> None:
        """Wait until all tethers of the link together have little waiting, or the link is gone."""


class Device(Protocol):
    """What the shuttle needs of the TUN device."""

    read_count: int
    written_count: int

    def start(self, deliver: Callable[[bytes], None], lost: Callable[[str], None]) -> None:
        """Hand every packet of this host to deliver from now on; lost(why) is called once if the device goes."""

    def write(self, packet: bytes) -> object:
        """Give the kernel one IP packet."""


class Shuttle:
    """See mover.Mover.  device_lost: called once, with the reason, if the TUN device was taken away."""

    def __init__(
        self,
        pump: Pump,
        datapath: Datapath,
        carrier: Carrier,
        device: Device,
        *,
        device_lost: Callable[[str], None],
        echo: EchoListener,
    ) -> None:
        self.carrier = carrier
        self._pump = pump
        self._datapath = datapath
        self._device = device
        self._device_lost = device_lost
        self._echo = echo
        self._egress: dict[NodeId, _Egress] = {}
        self._relaying: dict[LinkId, asyncio.Task[None]] = {}

    def start(self) -> None:
        """See Mover."""
        self._device.start(self._pump.packet, self._device_lost)

    def device_counts(self) -> DeviceCounts:
        """See Mover."""
        return DeviceCounts(self._device.read_count, self._device.written_count)

    def drain(self, wanted: tuple[NodeId, ...], *, now: float) -> None:
        """Send and deliver what is due, and wake the tasks that have something to send."""
        datapath = self._datapath
        while (frame := datapath.next_feedback(now=now)) is not None:
            self.carrier.write(frame)
        while (packet := datapath.next_delivery()) is not None:
            if not self._echo.take(packet, now=now):
                self._device.write(packet)
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
        """Send what is queued for one destination, while its stream has a route; the body of its task.

        While one frame goes into the tether, packets gather, and the next frame carries them.  A tether that takes
        nothing stops only this task.
        """
        datapath, carrier, destination = self._datapath, self.carrier, egress.destination
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
        """Pass frames on over a link that had no room for them; the body of a task that ends when none wait."""
        try:
            await self.carrier.drain_link(link)
            while not self._pass_on(link):
                await self.carrier.drain_link(link)
        finally:
            del self._relaying[link]

    def _pass_on(self, link: LinkId) -> bool:
        """Pass on the frames that wait for a link, as far as it has room; return False if some still wait.

        Room is that of the whole link, not of one tether: the datapath decides which route has its turn, so no queue
        may form after it.
        """
        datapath, carrier = self._datapath, self.carrier
        while carrier.has_room(link):
            frame = datapath.next_relayed(link, now=time.monotonic())
            if frame is None:
                return True
            carrier.write(frame)
        return False

    def stop(self) -> None:
        """See Mover.  Nothing is left to stop: close() ended the tasks."""

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
        self.destination = destination
        self.wake = asyncio.Event()
        self.draining: tuple[LinkId, TetherId] | None = None  # the tether it waits for
        self._name = f"egress {pump.node.name_of(destination)}"
        self._shuttle = shuttle
        self._pump = pump
        self._start()

    def _start(self) -> None:
        self.draining = None
        self.wake.set()
        self.task = self._pump.start(self._shuttle.send_frames(self), self._name)

    def go_on(self, hop: Hop | None) -> None:
        """Stop waiting for a tether that the stream has left: if its peer is silent, it never has room again."""
        if self.draining is not None and hop is not None and self.draining != (hop.link, hop.tether):
            self.task.cancel()  # the task is in drain(), so it holds no frame
            self._start()
