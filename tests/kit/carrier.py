"""Carriers in one process, and everything they reported: sides of a link, opened over loopback."""

from __future__ import annotations

import asyncio
import os
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from kit.events import Events

from conflux.carrier.interface import (
    TETHER_CHANNEL_COUNT,
    TETHER_CHANNEL_COUNT_MAX,
    CarrierEvent,
    Connect,
    Describe,
    Described,
    Description,
    Hop,
    Opened,
    OpenTether,
    TetherUp,
)
from conflux.carrier.native.carrier import NativeCarrier
from conflux.carrier.rtc.carrier import RtcCarrier
from conflux.carrier.wire import WireMessage, WireUpcall
from conflux.datapath.native.datapath import NativeDatapath
from conflux.ids import LinkId, TetherId

LEFT, RIGHT = LinkId(1), LinkId(2)
TETHER = TetherId(bytes.fromhex("0123456789abcdef"))
LOCALHOST = "127.0.0.1"

TestOfTwo = Callable[[Any, Any], Awaitable[None]]


class Side(Events[CarrierEvent], ABC):
    """One node's carrier and everything it reported; made and closed inside a running loop."""

    carrier: NativeCarrier | RtcCarrier

    @abstractmethod
    async def close(self) -> None:
        """Close the carrier, and what it runs on."""

    def drops(self, reason: str) -> int:
        """Return how often something was dropped for a reason."""
        return self.carrier.drop_counts[reason]


class RtcSide(Side):
    """A carrier over aiortc.  settings: of RtcCarrier."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.frames: list[bytes] = []
        self.carrier: RtcCarrier = RtcCarrier(on_event=self.report, on_frame=self._frame, **settings)

    async def close(self) -> None:
        """Close the carrier."""
        await self.carrier.close()

    def _frame(self, link: LinkId, data: bytes, channel: int) -> None:
        self.frames.append(data)
        self.changed()


class NativeSide(Side):
    """A native carrier over an engine without a TUN device.  settings: of NativeCarrier; resets do not wait."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        settings.setdefault("resets_wait_s", 0.0)
        self.upcalls: list[WireUpcall] = []
        self.datapath = NativeDatapath()
        self.wire = self.datapath.wire
        self.carrier: NativeCarrier = NativeCarrier(wire=self.wire, on_event=self.report, **settings)
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
        return self.datapath._engine.send_frame(Hop(link, tether, TETHER_CHANNEL_COUNT_MAX, 0, 0), channel, data)

    def messages(self, stream: int) -> list[bytes]:
        """Return the messages that came up on a stream."""
        return [one.data for one in self.upcalls if isinstance(one, WireMessage) and one.stream == stream]

    def drops(self, reason: str) -> int:
        """Return how often the carrier and the engine dropped something for a reason."""
        return super().drops(reason) + self.datapath.drop_counts().get(reason, 0)

    def _collect(self) -> None:
        self.datapath.collect(now=time.monotonic())
        self.changed()

    def _upcall(self, upcall: WireUpcall) -> None:
        self.upcalls.append(upcall)
        self.carrier.wire_upcall(upcall)


def make_side(kind: str, addresses: tuple[str, ...] = (LOCALHOST,), **settings: Any) -> Any:
    """Return a side of a kind: "rtc" or "native"."""
    make = {"rtc": RtcSide, "native": NativeSide}[kind]
    return make(addresses=lambda: list(addresses), **settings)


@asynccontextmanager
async def sides(
    left: str = "rtc", right: str = "rtc", addresses: tuple[str, ...] = (LOCALHOST,), **settings: Any
) -> AsyncIterator[tuple[Any, Any]]:
    """Make two sides and close them; afterwards no socket and no task of theirs is left."""
    RtcCarrier.prepare()
    sockets_before, tasks_before = sockets(), asyncio.all_tasks()
    both = make_side(left, addresses, **settings), make_side(right, addresses, **settings)
    try:
        yield both
    finally:
        for side in both:
            await side.close()
    assert [side.carrier.socket_count() for side in both] == [0, 0]
    assert sockets() == sockets_before
    assert [task.get_name() for task in asyncio.all_tasks() - tasks_before] == []


def between(*pairs: tuple[str, str]) -> Callable[[TestOfTwo], Callable[..., Awaitable[None]]]:
    """Run a test between two sides of each pair of kinds; see sides()."""

    def decorate(test: TestOfTwo) -> Callable[..., Awaitable[None]]:
        async def run(kinds: tuple[str, str]) -> None:
            async with sides(*kinds) as both:
                await test(*both)

        run.__doc__ = test.__doc__
        return pytest.mark.parametrize("kinds", pairs, ids="-".join)(run)

    return decorate


def sockets() -> int:
    """Return how many sockets this process has open."""
    descriptors = Path("/proc/self/fd")
    return sum(os.readlink(entry).startswith("socket:") for entry in descriptors.iterdir() if entry.is_symlink())


async def describe(left: Side, right: Side) -> tuple[Description, Description]:
    """Have both sides describe their end of a link; left makes the offer."""
    left.carrier.perform(Describe(LEFT, initiator=True))
    right.carrier.perform(Describe(RIGHT, initiator=False))
    return (await left.event(Described)).local, (await right.event(Described)).local


async def open_link(left: Side, right: Side) -> None:
    """Open a link between two sides."""
    ours, theirs = await describe(left, right)
    right.carrier.perform(Connect(RIGHT, ours))
    left.carrier.perform(Connect(LEFT, theirs))
    await left.event(Opened)
    await right.event(Opened)


async def open_tether(left: Side, right: Side, channel_count: int = TETHER_CHANNEL_COUNT) -> None:
    """Have left open a tether on the open link."""
    left.carrier.perform(OpenTether(LEFT, TETHER, channel_count))
    await left.event(TetherUp)
    await right.event(TetherUp)
