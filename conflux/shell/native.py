"""The mover of the native datapath: the engine moves every packet, and its upcalls wake the pump."""

from __future__ import annotations

import asyncio

from conflux.carrier.native.carrier import NativeCarrier
from conflux.datapath.native.datapath import NativeDatapath
from conflux.ids import NodeId
from conflux.shell.mover import DeviceCounts
from conflux.shell.pump import Pump


class NativeMover:
    """See Mover."""

    def __init__(self, pump: Pump, datapath: NativeDatapath, carrier: NativeCarrier) -> None:
        self.carrier = carrier
        self._pump = pump
        self._datapath = datapath
        self._loop = asyncio.get_running_loop()

    def start(self) -> None:
        """See Mover.  The engine reads the device by itself; what starts here is hearing of its upcalls."""
        self._loop.add_reader(self._datapath.fd, self._pump.upcalls)

    def drain(self, wanted: tuple[NodeId, ...], *, now: float) -> None:
        """See Mover."""
        self._datapath.drain(wanted, now=now)

    def task_names(self) -> list[str]:
        """See Mover."""
        return []

    def device_counts(self) -> DeviceCounts:
        """See Mover."""
        return DeviceCounts(*self._datapath.device_counts())

    async def close(self) -> None:
        """See Mover.  Nothing to do: the engine goes on until stop()."""

    def stop(self) -> None:
        """See Mover."""
        self._loop.remove_reader(self._datapath.fd)
        self._datapath.stop()
