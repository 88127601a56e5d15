"""What a node on a broker of three servers costs in a crowd: counted, in a short form of `make control-full`."""

from __future__ import annotations

import asyncio
import random

import pytest
from kit.cluster import broker
from rig.crowd import STREAM_MESSAGES, Crowd, CrowdNode, crowd
from rig.scale import Plan, measure, percentile

from conflux.control.drop import Drop
from conflux.control.envelope import HOP_LIMIT_MAX, Envelope
from conflux.realm.broker import subjects

pytestmark = pytest.mark.alone

FLOOD_S = 4.0
FLOOD_STEP_S = 0.02
FLOOD_PER_STEP = 20  # of each sort: a thousand questions and a thousand presences a second


async def test_node_costs_the_same_among_a_hundred_as_among_ten() -> None:
    ten, hundred = [await measure(Plan(count, stream_count=40)) for count in (10, 100)]
    assert ten.streams_failed == hundred.streams_failed == 0
    assert ten.messages_per_stream == hundred.messages_per_stream == STREAM_MESSAGES
    assert 0 < hundred.idle_kb_per_min <= 1.5 * ten.idle_kb_per_min
    assert hundred.idle_kb_per_min < 0.7
    assert 0 < hundred.kb_per_stream <= 1.2 * ten.kb_per_stream


async def test_thirty_nodes_that_start_at_once_all_hear_of_each_other() -> None:
    async with broker(3) as at, crowd(at, 30) as nodes:
        await nodes.start(per_s=None)
        await nodes.all_say_presence(per_s=100.0)
        assert [node.ups for node in nodes.nodes] == [1] * 30
        assert nodes.drops()[Drop.FLOOD] == 0
        openings = await nodes.open_streams(nodes.pairs(15, random.Random(1)), per_s=30.0)
        assert [opening.failed for opening in openings] == [""] * 15


async def flood(sender: CrowdNode, victims: list[CrowdNode]) -> None:
    """Publish questions to the buckets of nodes, and presences to the area, as fast as no honest node does."""
    buckets = [subjects.bucket_of(victim.node_id) for victim in victims]
    ends_at = sender.now() + FLOOD_S
    while sender.now() < ends_at:
        for number in range(FLOOD_PER_STEP):
            for bucket in (buckets[number % len(buckets)], None):
                noise = random.randbytes(100)
                sender.channel.send(Envelope(None, noise[:16], HOP_LIMIT_MAX, None, noise, bucket))
        await asyncio.sleep(FLOOD_STEP_S)


async def p99_ms(nodes: Crowd, among: list[CrowdNode], seed: int) -> float:
    """Open ten streams a second among some nodes; return within how many milliseconds 99 % were agreed on."""
    rng = random.Random(seed)
    pairs = [tuple(rng.sample(among, 2)) for _ in range(30)]
    openings = await nodes.open_streams([(one, other) for one, other in pairs], per_s=10.0)
    assert [opening.failed for opening in openings] == [""] * len(openings)
    return 1000 * percentile([opening.took_s for opening in openings], 0.99)


async def test_node_that_floods_is_cut_short_while_the_others_keep_their_delay() -> None:
    async with broker(3) as at, crowd(at, 20) as nodes:
        await nodes.start(per_s=None)
        flooder, *others = nodes.nodes
        victims, calm = others[:4], others[4:]
        calm_ms = await p99_ms(nodes, calm, seed=2)
        before = [node.drops[Drop.FLOOD] for node in others]
        flooding = asyncio.create_task(flood(flooder, victims))
        meanwhile_ms = await p99_ms(nodes, victims + calm, seed=3)
        await flooding
        dropped = [node.drops[Drop.FLOOD] - was for node, was in zip(others, before, strict=True)]
        assert min(dropped) > 0, "every node of the area hears the presences, and drops most of them"
        assert meanwhile_ms < 1000.0, f"{calm_ms:.0f} ms before"
        assert all(node.channel.state.up for node in nodes.nodes)
        assert [node.ups for node in nodes.nodes] == [1] * 20, "nobody lost its connection"
