"""The carrier on loopback: two RtcCarriers in one process, real sockets, ICE, DTLS and SCTP."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import uvloop

from conflux.carrier.interface import (
    CarrierEvent,
    Closed,
    CloseTether,
    Connect,
    ControlArrived,
    Describe,
    Described,
    Description,
    Disconnect,
    Opened,
    OpenTether,
    SendControl,
    TetherDown,
    TetherUp,
)
from conflux.carrier.rtc import DRAINED_BYTES, RtcCarrier
from conflux.datapath.interface import OutFrame
from conflux.errors import LocalProtocolError
from conflux.ids import LinkId, TetherId

LEFT, RIGHT = LinkId(1), LinkId(2)
TETHER = TetherId(b"\x01\x23\x45\x67\x89\xab\xcd\xef")
PATIENCE_S = 10


class Side:
    """A carrier and everything it reported."""

    def __init__(self, **settings: Any) -> None:
        self.events: list[CarrierEvent] = []
        self.frames: list[bytes] = []
        self._changed = asyncio.Event()
        settings.setdefault("addresses", lambda: ["127.0.0.1"])
        self.carrier = RtcCarrier(on_event=self._event, on_frame=self._frame, **settings)

    def _event(self, event: CarrierEvent) -> None:
        self.events.append(event)
        self._changed.set()

    def _frame(self, link: LinkId, data: bytes, channel: int) -> None:
        self.frames.append(data)
        self._changed.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not holds():
                self._changed.clear()
                await self._changed.wait()

    async def event(self, kind: type[Any]) -> Any:
        await self.until(lambda: any(isinstance(event, kind) for event in self.events))
        return next(event for event in self.events if isinstance(event, kind))


def sockets() -> int:
    """How many sockets this process has open."""
    descriptors = Path("/proc/self/fd")
    return sum(os.readlink(entry).startswith("socket:") for entry in descriptors.iterdir() if entry.is_symlink())


async def describe(left: Side, right: Side) -> tuple[Description, Description]:
    left.carrier.perform(Describe(LEFT, initiator=True))
    right.carrier.perform(Describe(RIGHT, initiator=False))
    return (await left.event(Described)).local, (await right.event(Described)).local


async def open_link(left: Side, right: Side) -> None:
    ours, theirs = await describe(left, right)
    right.carrier.perform(Connect(RIGHT, ours))
    left.carrier.perform(Connect(LEFT, theirs))
    await left.event(Opened)
    await right.event(Opened)


async def open_tether(left: Side, right: Side, channel_count: int = 4) -> None:
    left.carrier.perform(OpenTether(LEFT, TETHER, channel_count))
    await left.event(TetherUp)
    await right.event(TetherUp)


def on_loopback(test: Callable[[Side, Side], Awaitable[None]]) -> Callable[[], None]:
    """Run test with two carriers, close them, and see that no socket and no task of theirs is left."""

    async def run() -> None:
        RtcCarrier.prepare()
        before = sockets()
        left, right = Side(), Side()
        try:
            await test(left, right)
        finally:
            await left.carrier.close()
            await right.carrier.close()
        assert (left.carrier.socket_count(), right.carrier.socket_count()) == (0, 0)
        assert sockets() == before
        others = [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        assert others == []

    def wrapped() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # the daemon's loop
            runner.run(run())

    wrapped.__name__ = getattr(test, "__name__", "wrapped")
    wrapped.__doc__ = test.__doc__
    return wrapped


@on_loopback
async def test_link_opens_and_carries_control_messages_both_ways(left: Side, right: Side) -> None:
    await open_link(left, right)
    left.carrier.perform(SendControl(LEFT, b"to the right"))
    right.carrier.perform(SendControl(RIGHT, b"to the left"))
    assert (await right.event(ControlArrived)).data == b"to the right"
    assert (await left.event(ControlArrived)).data == b"to the left"


@on_loopback
async def test_tether_opens_with_every_channel_and_carries_frames_both_ways(left: Side, right: Side) -> None:
    await open_link(left, right)
    await open_tether(left, right)
    for channel, size in enumerate((1, 1200, 16384, 65536)):
        data = bytes([channel]) * size
        left.carrier.write(OutFrame(LEFT, TETHER, channel, data))
        await right.until(lambda data=data: data in right.frames)
        right.carrier.write(OutFrame(RIGHT, TETHER, channel, data))
        await left.until(lambda data=data: data in left.frames)


@on_loopback
async def test_disconnect_is_seen_by_the_far_side_at_once(left: Side, right: Side) -> None:
    await open_link(left, right)
    left.carrier.perform(Disconnect(LEFT))
    assert (await left.event(Closed)).reason == "asked"
    assert (await right.event(Closed)).reason == "peer"
    assert left.events[-1] == Closed(LEFT, "asked")
    assert right.events[-1] == Closed(RIGHT, "peer")


@on_loopback
async def test_closed_tether_goes_down_on_the_far_side_only(left: Side, right: Side) -> None:
    await open_link(left, right)
    await open_tether(left, right)
    left.carrier.perform(CloseTether(LEFT, TETHER))
    await right.event(TetherDown)
    assert not [event for event in left.events if isinstance(event, TetherDown)]
    left.carrier.write(OutFrame(LEFT, TETHER, 0, b"late"))
    assert left.carrier.drop_counts["no-tether"] == 1


@on_loopback
async def test_many_tethers_open_and_close_one_after_the_other(left: Side, right: Side) -> None:
    await open_link(left, right)
    for number in range(20):
        tether = TetherId(bytes([number]) * 8)
        left.carrier.perform(OpenTether(LEFT, tether, 2))
        await right.until(lambda tether=tether: TetherUp(RIGHT, tether) in right.events)
        await left.until(lambda tether=tether: TetherUp(LEFT, tether) in left.events)
        left.carrier.perform(CloseTether(LEFT, tether))
        await right.until(lambda tether=tether: TetherDown(RIGHT, tether) in right.events)


@on_loopback
async def test_drain_waits_until_little_is_left(left: Side, right: Side) -> None:
    await open_link(left, right)
    await open_tether(left, right, 2)
    for number in range(40):
        left.carrier.write(OutFrame(LEFT, TETHER, number % 2, bytes(16384)))
    assert left.carrier.buffered(LEFT, TETHER) > 300_000
    await left.carrier.drain(LEFT, TETHER)
    assert left.carrier.buffered(LEFT, TETHER) <= 131072
    assert right.frames


@on_loopback
async def test_drain_of_a_link_waits_for_all_its_tethers_together(left: Side, right: Side) -> None:
    await open_link(left, right)
    tethers = [TetherId(bytes([number]) * 8) for number in range(3)]
    for tether in tethers:
        left.carrier.perform(OpenTether(LEFT, tether, 2))
    for side in (left, right):
        await side.until(lambda side=side: sum(isinstance(event, TetherUp) for event in side.events) == len(tethers))
    for number in range(60):
        left.carrier.write(OutFrame(LEFT, tethers[number % 3], number % 2, bytes(16384)))
        await left.carrier.drain_link(LEFT)
        assert sum(left.carrier.buffered(LEFT, tether) for tether in tethers) <= DRAINED_BYTES
    await right.until(lambda: len(right.frames) == 60)


@on_loopback
async def test_drain_returns_when_the_link_goes_down(left: Side, right: Side) -> None:
    await open_link(left, right)
    await open_tether(left, right, 2)
    for number in range(40):
        left.carrier.write(OutFrame(LEFT, TETHER, number % 2, bytes(16384)))
    draining = asyncio.create_task(left.carrier.drain(LEFT, TETHER))
    left.carrier.perform(Disconnect(LEFT))
    async with asyncio.timeout(PATIENCE_S):
        await draining


@on_loopback
async def test_certificate_other_than_described_opens_nothing(left: Side, right: Side) -> None:
    ours, theirs = await describe(left, right)
    right.carrier.perform(Connect(RIGHT, ours))
    left.carrier.perform(Connect(LEFT, replace(theirs, dtls_sha256=bytes(32))))
    assert (await left.event(Closed)).reason == "dtls"
    await right.event(Closed)
    assert not [event for event in left.events + right.events if isinstance(event, Opened)]


@on_loopback
async def test_malformed_ice_credentials_close_the_link(left: Side, right: Side) -> None:
    ours, theirs = await describe(left, right)
    left.carrier.perform(Connect(LEFT, replace(theirs, ice_ufrag="a b\r\nc")))
    assert (await left.event(Closed)).reason == "malformed"
    right.carrier.perform(Connect(RIGHT, ours))


@on_loopback
async def test_unusable_candidates_are_counted_and_the_rest_is_tried(left: Side, right: Side) -> None:
    ours, theirs = await describe(left, right)
    bad = (
        "nonsense",
        "1 1 tcp 1 127.0.0.1 9 typ host",
        "1 2 udp 1 127.0.0.1 9 typ host",
        "1 1 udp 1 224.0.0.1 9 typ host",
        "1 1 udp 1 0.0.0.0 9 typ host",
        "1 1 udp 1 127.0.0.1 99999 typ host",
        "1 1 udp 1 hidden.local 9 typ host",
    )
    right.carrier.perform(Connect(RIGHT, ours))
    left.carrier.perform(Connect(LEFT, replace(theirs, candidates=bad + theirs.candidates)))
    await left.event(Opened)
    assert left.carrier.drop_counts["candidate-refused"] == len(bad)


@on_loopback
async def test_disconnect_in_any_state_closes_every_socket(left: Side, right: Side) -> None:
    left.carrier.perform(Describe(LEFT, initiator=True))
    left.carrier.perform(Disconnect(LEFT))
    assert (await left.event(Closed)).reason == "asked"
    left.events.clear()
    _, theirs = await describe(left, right)
    left.carrier.perform(Connect(LEFT, theirs))
    left.carrier.perform(Disconnect(LEFT))
    assert (await left.event(Closed)).reason == "asked"
    assert left.carrier.socket_count() == 0
    assert right.carrier.socket_count() == 1


@on_loopback
async def test_a_library_that_fails_in_the_end_keeps_no_socket_and_no_closed_back(left: Side, right: Side) -> None:
    async def fail() -> None:
        raise RuntimeError("a bug of aiortc")

    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context["exception"]))
    await open_link(left, right)
    left.carrier._links[LEFT]._sctp.stop = fail
    left.carrier.perform(Disconnect(LEFT))
    await left.event(Closed)
    assert left.carrier.socket_count() == 0
    await right.event(Closed)
    assert [str(error) for error in told] == ["a bug of aiortc"]


@on_loopback
async def test_without_descriptors_a_link_closes_and_nothing_is_raised(left: Side, right: Side) -> None:
    def none_left() -> list[str]:
        raise OSError(24, "Too many open files")

    poor = Side(addresses=none_left)
    poor.carrier.perform(Describe(LEFT, initiator=True))
    assert poor.events == []
    assert (await poor.event(Closed)).reason == "failed: OSError"
    assert poor.carrier.socket_count() == 0


@on_loopback
async def test_disconnect_while_sockets_are_being_made_leaves_none(left: Side, right: Side) -> None:
    before = sockets()
    for turn_count in range(12):
        left.carrier.perform(Describe(LEFT, initiator=True))
        for _ in range(turn_count):
            await asyncio.sleep(0)
        left.carrier.perform(Disconnect(LEFT))
        await left.event(Closed)
        left.events.clear()
        assert sockets() == before, f"after {turn_count} turns of the loop"


@on_loopback
async def test_tether_beyond_the_bounds_goes_down_at_once(left: Side, right: Side) -> None:
    await open_link(left, right)
    left.carrier.perform(OpenTether(LEFT, TETHER, 99))
    assert await left.event(TetherDown) == TetherDown(LEFT, TETHER)
    assert left.carrier.drop_counts["tether-unopenable"] == 1


@on_loopback
async def test_commands_for_a_link_long_gone_are_counted_and_nothing_else(left: Side, right: Side) -> None:
    left.carrier.perform(Disconnect(LEFT))
    left.carrier.perform(SendControl(LEFT, b"x"))
    left.carrier.write(OutFrame(LEFT, TETHER, 0, b"x"))
    await left.carrier.drain(LEFT, TETHER)
    assert left.carrier.drop_counts == {"command-without-link": 2, "no-tether": 1}
    assert left.events == []


@on_loopback
async def test_link_described_twice_is_a_bug_of_the_caller(left: Side, right: Side) -> None:
    left.carrier.perform(Describe(LEFT, initiator=True))
    with pytest.raises(LocalProtocolError):
        left.carrier.perform(Describe(LEFT, initiator=True))


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(main)


def test_addresses_of_excluded_networks_are_no_candidates() -> None:
    async def main() -> None:
        side = Side(addresses=None, excluded=(ip_network("0.0.0.0/0"), ip_network("::/0")))
        side.carrier.perform(Describe(LEFT, initiator=True))
        assert (await side.event(Described)).local.candidates == ()
        assert side.carrier.socket_count() == 0
        await side.carrier.close()

    run(main())


def test_remote_candidates_inside_the_overlay_are_refused() -> None:
    async def main() -> None:
        left, right = Side(excluded=(ip_network("127.0.0.0/8"),)), Side()
        _, theirs = await describe(left, right)
        left.carrier.perform(Connect(LEFT, theirs))
        await left.carrier.close()
        await right.carrier.close()
        assert left.carrier.drop_counts["candidate-refused"] == 1

    run(main())
