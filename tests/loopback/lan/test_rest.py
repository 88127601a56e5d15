"""What two neighbours say to each other at rest: counted from one ping and one presence, and their periods."""

from __future__ import annotations

import asyncio

from kit.ear import WAIT_S, envelope
from kit.figures import note
from kit.lan import LanNode, lan
from kit.wire import Wire, wire_of

from conflux.control.lan.config import PING_LATER_S, PING_S
from conflux.control.lan.connection import Connection
from conflux.control.lan.frame import FrameType
from conflux.control.presence import NEAR_PERIOD_S

PING_COUNT = 8
PRESENCE_BYTES = 100  # of its payload; its envelope has 160 bytes at most
KB_PER_MIN_MAX = 0.8  # of both boards together


def connection_of(node: LanNode) -> Connection:
    (connection,) = node.channel._connections
    return connection


def wire(node: LanNode) -> Wire:
    transport = connection_of(node)._transport
    assert transport is not None
    return wire_of(transport.get_extra_info("socket"))


async def until_acknowledged(node: LanNode, count: int, since: Wire) -> Wire:
    """Return what went since then, once there are so many segments of both ends and nothing follows any more."""
    async with asyncio.timeout(WAIT_S):
        while True:
            before = wire(node)
            await asyncio.sleep(0.1)  # longer than acknowledgements are held back
            if (now := wire(node)) == before and now.since(since).segments >= count:
                return now.since(since)


async def test_two_boards_at_rest_cost_a_lan_little() -> None:
    async with lan("alice", "bob") as (alice, bob):
        began = await until_acknowledged(bob, 1, Wire(0, 0))
        for _ in range(PING_COUNT):  # an answer each
            connection_of(bob).send(FrameType.PING)
            await asyncio.sleep(0.02)
        pings = await until_acknowledged(bob, 2 * PING_COUNT, began)
        since = wire(bob)
        bob.send(envelope(None, bytes(PRESENCE_BYTES)))
        await alice.ear.until(lambda: bool(alice.ear.arrivals))
        presence = await until_acknowledged(bob, 1, since)
    assert PING_S < PING_LATER_S, "one end pings, and the other one hears it before its own is due"
    kb_per_min = 60 / 1000 * (pings.bytes / PING_COUNT / PING_S + 2 * presence.bytes / NEAR_PERIOD_S)
    note("idle_kb_per_min_lan", kb_per_min)
    assert 0.2 < kb_per_min < KB_PER_MIN_MAX
