"""What a broker of three servers and its nodes cost, by how many nodes there are."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from kit.cluster import Broker, broker
from rig import gauge
from rig.crowd import Crowd, Opening, crowd

from conflux.control.nats.config import PAIR_PING_S
from conflux.control.presence import FAR_PERIOD_S

SETTLE_S = 3.0  # after everything was said: the last presence, and what servers tell each other
SEED = 11


@dataclass(frozen=True, slots=True)
class Plan:
    """What is done.  start_per_s: None for all at once.  rest_s: 0 for a rest that is counted, not waited for."""

    node_count: int
    stream_count: int
    stream_per_s: float = 10.0
    start_per_s: float | None = None
    rest_s: float = 0.0


class Servers(NamedTuple):
    """What the three servers hold and have used.  cpu_s: of all.  pss_mb: of each."""

    cpu_s: float
    pss_mb: tuple[float, ...]

    @classmethod
    def of(cls, at: Broker) -> Servers:
        """Read it from the kernel."""
        pids = [server.pid for server in at.servers]
        return cls(sum(map(gauge.cpu_s, pids)), tuple(gauge.memory(pid).pss_mb for pid in pids))


@dataclass(frozen=True, slots=True)
class Row:
    """What was measured with one number of nodes.  Bytes are both ways, with TLS, TCP, IP and Ethernet."""

    nodes: int
    areas: int
    connections: int
    joined_s: float
    join_kb_per_node: float
    join_presences_heard_per_node: float
    ping_bytes: float  # of one ping on each of a node's two connections
    presence_bytes: float  # a node's own presence and those of its area, once
    idle_kb_per_min: float  # per node: from the two above and their periods
    idle_measured_kb_per_min: float | None  # per node, over rest_s; None: not waited for
    streams: int
    streams_failed: int
    messages_per_stream: float
    retries: int
    kb_per_stream: float  # on the connections of all nodes
    stream_ms_median: float
    stream_ms_p99: float
    server_cpu_ms_per_join: float
    server_cpu_ms_per_stream: float
    server_rest_cpu_percent: float | None  # of one core, all servers together
    server_mb: tuple[float, ...]
    server_kb_per_node: float  # of all servers together
    generator_busy: float  # share of one core while streams were opened
    drops: dict[str, int]


async def measure(plan: Plan) -> Row:
    """Start a broker and nodes, measure, and end them."""
    async with broker(3) as at:
        empty = Servers.of(at)
        async with crowd(at, plan.node_count) as nodes:
            return await _measure(plan, nodes, empty)


async def _measure(plan: Plan, nodes: Crowd, empty: Servers) -> Row:
    count, rng = plan.node_count, random.Random(SEED)
    joined_s = await nodes.start(per_s=plan.start_per_s)
    await asyncio.sleep(SETTLE_S)
    join, at_join, presences = nodes.wire(), Servers.of(nodes.at), nodes.got("presence")

    began = nodes.wire()
    await nodes.all_ping(per_s=200.0)
    await asyncio.sleep(0.3)  # acknowledgements are late
    pinged = nodes.wire()
    await nodes.all_say_presence(per_s=50.0)
    await asyncio.sleep(0.3)
    said = nodes.wire()
    ping_bytes, presence_bytes = (each.bytes / count for each in (pinged.since(began), said.since(pinged)))
    idle_bytes = ping_bytes * 60 / PAIR_PING_S + presence_bytes * 60 / FAR_PERIOD_S

    rest_kb, rest_cpu = await _rest(plan, nodes, rng)
    before, sent, cpu = nodes.wire(), nodes.all_sent(), Servers.of(nodes.at).cpu_s
    retries, own_cpu, clock = nodes.retries(), time.process_time(), time.monotonic()
    openings = await nodes.open_streams(nodes.pairs(plan.stream_count, rng), plan.stream_per_s)
    busy = (time.process_time() - own_cpu) / (time.monotonic() - clock)
    await asyncio.sleep(SETTLE_S)
    done = Servers.of(nodes.at)
    took_ms = _took_ms(openings)
    failed = [opening.failed for opening in openings if opening.failed]
    return Row(
        nodes=count,
        areas=len({node.area for node in nodes.nodes}),
        connections=sum(len(node.connections()) for node in nodes.nodes),
        joined_s=round(joined_s, 2),
        join_kb_per_node=round(join.bytes / count / 1000, 2),
        join_presences_heard_per_node=round(presences / count, 1),
        ping_bytes=round(ping_bytes, 1),
        presence_bytes=round(presence_bytes, 1),
        idle_kb_per_min=round(idle_bytes / 1000, 3),
        idle_measured_kb_per_min=rest_kb,
        streams=len(openings),
        streams_failed=len(failed),
        messages_per_stream=round((nodes.all_sent() - sent) / len(openings), 3),
        retries=nodes.retries() - retries,
        kb_per_stream=round(nodes.wire().since(before).bytes / len(openings) / 1000, 2),
        stream_ms_median=round(statistics.median(took_ms), 1),
        stream_ms_p99=round(percentile(took_ms, 0.99), 1),
        server_cpu_ms_per_join=round((at_join.cpu_s - empty.cpu_s) * 1000 / count, 2),
        server_cpu_ms_per_stream=round((done.cpu_s - cpu) * 1000 / len(openings), 2),
        server_rest_cpu_percent=rest_cpu,
        server_mb=tuple(round(each, 1) for each in done.pss_mb),
        server_kb_per_node=round((sum(done.pss_mb) - sum(empty.pss_mb)) * 1000 / count, 1),
        generator_busy=round(busy, 2),
        drops=dict(nodes.drops()),
    )


async def _rest(plan: Plan, nodes: Crowd, rng: random.Random) -> tuple[float | None, float | None]:
    """Wait, as long as the plan says; return a node's kB and the servers' processor share."""
    if not plan.rest_s:
        return None, None
    nodes.spread_clocks(rng)
    await asyncio.sleep(3 * SETTLE_S)
    before, cpu = nodes.wire(), Servers.of(nodes.at).cpu_s
    await asyncio.sleep(plan.rest_s)
    after, cpu_after = nodes.wire(), Servers.of(nodes.at).cpu_s
    kb = after.since(before).bytes / 1000 / plan.node_count * 60 / plan.rest_s
    return round(kb, 3), round(100 * (cpu_after - cpu) / plan.rest_s, 2)


def _took_ms(openings: Sequence[Opening]) -> list[float]:
    return [1000 * opening.took_s for opening in openings if not opening.failed]


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least that share of all values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
