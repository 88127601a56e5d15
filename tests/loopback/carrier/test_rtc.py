"""The carrier over aiortc on loopback: two in one process, with real sockets, ICE, DTLS and SCTP."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest
from kit.carrier import (
    LEFT,
    RIGHT,
    TETHER,
    RtcSide,
    between,
    describe,
    open_link,
    open_tether,
    sides,
    sockets,
)
from kit.events import PATIENCE_S

from conflux.carrier import link
from conflux.carrier.interface import (
    CarrierEnd,
    Closed,
    CloseTether,
    Connect,
    ControlArrived,
    Describe,
    Disconnect,
    Opened,
    OpenTether,
    OutFrame,
    SendControl,
    TetherDown,
    TetherUp,
)
from conflux.carrier.rtc.carrier import DRAINED_BYTES
from conflux.errors import LocalProtocolError
from conflux.ids import TetherId

EVERYTHING = ip_network("0.0.0.0/0"), ip_network("::/0")

over_aiortc = between(("rtc", "rtc"))


@over_aiortc
async def test_link_opens_and_carries_control_messages_both_ways(left: RtcSide, right: RtcSide) -> None:
    await open_link(left, right)
    left.carrier.perform(SendControl(LEFT, b"to the right"))
    right.carrier.perform(SendControl(RIGHT, b"to the left"))
    assert (await right.event(ControlArrived)).data == b"to the right"
    assert (await left.event(ControlArrived)).data == b"to the left"


@over_aiortc
async def test_tether_opens_with_every_channel_and_carries_frames_both_ways(left: RtcSide, right: RtcSide) -> None:
    await open_link(left, right)
    await open_tether(left, right)
    for channel, size in enumerate((1, 1200, 16384, 65536)):
        data = bytes([channel]) * size
        left.carrier.write(OutFrame(LEFT, TETHER, channel, data))
        await right.until(lambda data=data: data in right.frames)
        right.carrier.write(OutFrame(RIGHT, TETHER, channel, data))
        await left.until(lambda data=data: data in left.frames)


@over_aiortc
async def test_disconnect_is_seen_by_the_far_side_at_once(left: RtcSide, right: RtcSide) -> None:
    await open_link(left, right)
    left.carrier.perform(Disconnect(LEFT))
    assert (await left.event(Closed)).end == CarrierEnd.ASKED
    assert (await right.event(Closed)).end == CarrierEnd.PEER
    assert left.events[-1] == Closed(LEFT, CarrierEnd.ASKED)
    assert right.events[-1] == Closed(RIGHT, CarrierEnd.PEER)


@over_aiortc
async def test_closed_tether_goes_down_on_the_far_side_only(left: RtcSide, right: RtcSide) -> None:
    await open_link(left, right)
    await open_tether(left, right)
    left.carrier.perform(CloseTether(LEFT, TETHER))
    await right.event(TetherDown)
    assert not [event for event in left.events if isinstance(event, TetherDown)]
    left.carrier.write(OutFrame(LEFT, TETHER, 0, b"late"))
    assert left.carrier.drop_counts["no-tether"] == 1


@over_aiortc
async def test_many_tethers_open_and_close_one_after_another(left: RtcSide, right: RtcSide) -> None:
    await open_link(left, right)
    for number in range(20):
        tether = TetherId(bytes([number]) * 8)
        left.carrier.perform(OpenTether(LEFT, tether, 2))
        await right.until(lambda tether=tether: TetherUp(RIGHT, tether) in right.events)
        await left.until(lambda tether=tether: TetherUp(LEFT, tether) in left.events)
        left.carrier.perform(CloseTether(LEFT, tether))
        await right.until(lambda tether=tether: TetherDown(RIGHT, tether) in right.events)


@over_aiortc
async def test_drain_waits_until_little_is_left(left: RtcSide, right: RtcSide) -> None:
    await open_link(left, right)
    await open_tether(left, right, 2)
    for number in range(40):
        left.carrier.write(OutFrame(LEFT, TETHER, number % 2, bytes(16384)))
    assert left.carrier.buffered(LEFT, TETHER) > 300_000
    await left.carrier.drain(LEFT, TETHER)
    assert left.carrier.buffered(LEFT, TETHER) <= 131072
    assert right.frames


@over_aiortc
async def test_drain_of_a_link_waits_for_all_its_tethers_together(left: RtcSide, right: RtcSide) -> None:
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


@over_aiortc
async def test_drain_returns_when_the_link_goes_down(left: RtcSide, right: RtcSide) -> None:
    await open_link(left, right)
    await open_tether(left, right, 2)
    for number in range(40):
        left.carrier.write(OutFrame(LEFT, TETHER, number % 2, bytes(16384)))
    draining = asyncio.create_task(left.carrier.drain(LEFT, TETHER))
    left.carrier.perform(Disconnect(LEFT))
    async with asyncio.timeout(PATIENCE_S):
        await draining


@over_aiortc
async def test_certificate_other_than_described_opens_nothing(left: RtcSide, right: RtcSide) -> None:
    ours, theirs = await describe(left, right)
    right.carrier.perform(Connect(RIGHT, ours))
    left.carrier.perform(Connect(LEFT, replace(theirs, dtls_sha256=bytes(32))))
    assert (await left.event(Closed)).end == CarrierEnd.DTLS
    await right.event(Closed)
    assert not [event for event in left.events + right.events if isinstance(event, Opened)]


@over_aiortc
async def test_malformed_ice_credentials_close_the_link(left: RtcSide, right: RtcSide) -> None:
    ours, theirs = await describe(left, right)
    left.carrier.perform(Connect(LEFT, replace(theirs, ice_ufrag="a b\r\nc")))
    assert (await left.event(Closed)).end == CarrierEnd.MALFORMED
    right.carrier.perform(Connect(RIGHT, ours))


@over_aiortc
async def test_unusable_candidates_are_counted_and_the_rest_is_tried(left: RtcSide, right: RtcSide) -> None:
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


@over_aiortc
async def test_disconnect_in_any_state_closes_every_socket(left: RtcSide, right: RtcSide) -> None:
    left.carrier.perform(Describe(LEFT, initiator=True))
    left.carrier.perform(Disconnect(LEFT))
    assert (await left.event(Closed)).end == CarrierEnd.ASKED
    left.events.clear()
    _, theirs = await describe(left, right)
    left.carrier.perform(Connect(LEFT, theirs))
    left.carrier.perform(Disconnect(LEFT))
    assert (await left.event(Closed)).end == CarrierEnd.ASKED
    assert left.carrier.socket_count() == 0
    assert right.carrier.socket_count() == 1


@over_aiortc
async def test_library_that_fails_at_the_end_keeps_no_socket_and_hides_no_closed(left: RtcSide, right: RtcSide) -> None:
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


@over_aiortc
async def test_without_descriptors_a_link_closes_and_nothing_is_raised(left: RtcSide, right: RtcSide) -> None:
    def none_left() -> list[str]:
        raise OSError(24, "Too many open files")

    poor = RtcSide(addresses=none_left)
    poor.carrier.perform(Describe(LEFT, initiator=True))
    assert poor.events == []
    assert (await poor.event(Closed)).words == "failed: Too many open files"
    assert poor.carrier.socket_count() == 0


@over_aiortc
async def test_disconnect_while_sockets_are_being_made_leaves_none(left: RtcSide, right: RtcSide) -> None:
    before = sockets()
    for turn_count in range(12):
        left.carrier.perform(Describe(LEFT, initiator=True))
        for _ in range(turn_count):
            await asyncio.sleep(0)
        left.carrier.perform(Disconnect(LEFT))
        await left.event(Closed)
        left.events.clear()
        assert sockets() == before, f"after {turn_count} turns of the loop"


@over_aiortc
async def test_tether_beyond_the_bounds_goes_down_at_once(left: RtcSide, right: RtcSide) -> None:
    await open_link(left, right)
    left.carrier.perform(OpenTether(LEFT, TETHER, 99))
    assert await left.event(TetherDown) == TetherDown(LEFT, TETHER)
    assert left.carrier.drop_counts["tether-unopenable"] == 1


@over_aiortc
async def test_commands_for_a_link_long_gone_are_counted_and_nothing_else(left: RtcSide, right: RtcSide) -> None:
    left.carrier.perform(Disconnect(LEFT))
    left.carrier.perform(SendControl(LEFT, b"x"))
    left.carrier.write(OutFrame(LEFT, TETHER, 0, b"x"))
    await left.carrier.drain(LEFT, TETHER)
    assert left.carrier.drop_counts == {"command-without-link": 2, "no-tether": 1}
    assert left.events == []


@over_aiortc
async def test_link_described_twice_is_a_bug_of_the_caller(left: RtcSide, right: RtcSide) -> None:
    left.carrier.perform(Describe(LEFT, initiator=True))
    with pytest.raises(LocalProtocolError):
        left.carrier.perform(Describe(LEFT, initiator=True))


@pytest.mark.parametrize("kind", ["rtc", "native"])
async def test_link_ends_with_the_address_that_it_runs_from(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with sides(kind, kind) as (left, right):
        await open_link(left, right)
        left.carrier.address_changed()
        await asyncio.sleep(0)
        assert left.carrier.socket_count() > 0
        monkeypatch.setattr(link, "is_here", lambda address: False)
        left.carrier.address_changed()
        assert await left.event(Closed) == Closed(LEFT, CarrierEnd.ADDRESS_GONE)


async def test_addresses_of_excluded_networks_are_no_candidates() -> None:
    side = RtcSide(excluded=EVERYTHING)
    side.carrier.perform(Describe(LEFT, initiator=True))
    assert await side.event(Closed) == Closed(LEFT, CarrierEnd.NO_ADDRESS)
    assert side.carrier.socket_count() == 0
    await side.close()


async def test_remote_candidates_inside_the_overlay_are_refused() -> None:
    async with sides(excluded=(ip_network("127.0.0.0/8"),)) as (left, right):
        _, theirs = await describe(left, right)
        left.carrier.perform(Connect(LEFT, theirs))
        await left.close()
        assert left.drops("candidate-refused") == 1
