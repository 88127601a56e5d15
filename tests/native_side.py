"""A native carrier over an engine without a TUN device, and everything it reported, for tests of links."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from conflux.carrier.interface import CarrierEvent
from conflux.carrier.native import NativeCarrier
from conflux.carrier.wire import WireMessage, WireUpcall
from conflux.datapath.interface import Hop
from conflux.datapath.native import NativeDatapath
from conflux.ids import LinkId, TetherId


class NativeSide:
    """One node's carrier and engine; made and closed inside a running loop."""

    def __init__(self, **settings: Any) -> None:
        self.events: list[CarrierEvent] = []
        self.upcalls: list[WireUpcall] = []
        self._changed = asyncio.Event()
        self.datapath = NativeDatapath()
        self.wire = self.datapath.wire
        self.carrier = NativeCarrier(wire=self.wire, on_event=self._event, **settings)
        self.datapath.attach(self._upcall)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self.datapath.fd, self._collect)

    async def close(self) -> None:
        """Close the carrier, then stop the engine."""
        await self.carrier.close()
        self._loop.remove_reader(self.datapath.fd)
        self.datapath.stop()

    def send_frame(self, link: LinkId, tether: TetherId, channel: int, data: bytes) -> bool:
        """Send one frame as the engine sends frames: unordered, for its lifetime."""
        return self.datapath._engine.send_frame(Hop(link, tether, 8, 0, 0), channel, data)

    def messages(self, stream: int) -> list[bytes]:
        """Return what came up on a stream."""
        return [one.data for one in self.upcalls if isinstance(one, WireMessage) and one.stream == stream]

    def drops(self, reason: str) -> int:
        """Return how often the carrier and the engine dropped something for a reason."""
        return self.carrier.drop_counts[reason] + self.datapath.drop_counts().get(reason, 0)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for something that comes with an event or an upcall."""
        while not holds():
            self._changed.clear()
            await self._changed.wait()

    async def event(self, kind: type[Any]) -> Any:
        """Wait for the first event of a kind."""
        await self.until(lambda: any(isinstance(event, kind) for event in self.events))
        return next(event for event in self.events if isinstance(event, kind))

    def _collect(self) -> None:
        self.datapath.collect(now=time.monotonic())
        self._changed.set()

    def _event(self, event: CarrierEvent) -> None:
        self.events.append(event)
        self._changed.set()

    def _upcall(self, upcall: WireUpcall) -> None:
        self.upcalls.append(upcall)
        self.carrier.wire_upcall(upcall)
