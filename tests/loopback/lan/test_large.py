"""LANs of more than ten nodes: real channels with real TLS, that are shown to each other as mDNS does."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import AsyncIterator, Callable

from kit.ear import envelope
from kit.lan import LanNode

from conflux.control.channel import Handoff
from conflux.control.lan.circle import STANDING_COUNT_MAX
from conflux.control.lan.frame import FrameType
from conflux.control.lan.lans import Interface, Lans
from conflux.control.lan.meeting import TREE

COUNT = 12
LOOPBACK = Lans([Interface("lo", 1, (ipaddress.ip_interface("127.0.0.1/8"),))])
OPEN = {"accept_rate": 500.0, "accept_burst": 500.0, "accept_burst_per_address": 500.0}
WAIT_S = 60.0  # a machine that is busy with other things


async def becomes(holds: Callable[[], bool], wait_s: float = WAIT_S) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(wait_s):
        while not holds():  # noqa: ASYNC110  # of many nodes at once
            await asyncio.sleep(0.05)


def instance(node: LanNode) -> bytes:
    return node.channel._ourselves.instance


def show(node: LanNode, *others: LanNode) -> None:
    """Show others to a node."""
    for other in others:
        if other is not node:
            node.channel.found(instance(other), (("127.0.0.1", other.port),))


@contextlib.asynccontextmanager
async def shown(count: int = COUNT, *, ring: bool = True) -> AsyncIterator[list[LanNode]]:
    """Nodes of one LAN that are shown to each other, and have found their places."""
    options = {**OPEN, "ring": ring}
    async with contextlib.AsyncExitStack() as stack:
        nodes: list[LanNode] = []
        for number in range(count):
            nodes.append(await stack.enter_async_context(LanNode(f"node{number}", lans=LOOPBACK, **options)))
            for node in nodes:
                show(node, *nodes)
            await becomes(lambda: all(degree(node) for node in nodes) or len(nodes) == 1)
        await becomes(lambda: all(whole(node, nodes) for node in nodes))
        yield nodes


def degree(node: LanNode) -> int:
    return len(node.channel.status())


def whole(node: LanNode, nodes: list[LanNode]) -> bool:
    """Say whether a node has the neighbours that it should have, and nothing else is open."""
    count = len(nodes) - 1
    if count < STANDING_COUNT_MAX or not node.channel.config.ring:
        return degree(node) == count
    return 4 <= degree(node) <= STANDING_COUNT_MAX and len(node.channel._neighbours) == degree(node)


async def test_without_the_setting_everybody_is_a_neighbour_of_everybody_and_nothing_new_is_said() -> None:
    async with shown(ring=False) as nodes:
        assert {degree(node) for node in nodes} == {COUNT - 1}
        said = [near.peer.features for node in nodes for near in node.channel._neighbours.all()]
        assert not any(TREE in features for features in said)
        (near, *_) = nodes[0].channel._neighbours.all()
        near.connection.send(FrameType.NEAR, b"\1")
        await becomes(lambda: not near.connection.up)  # of an earlier build it is no frame


async def test_boards_with_and_without_the_setting_hear_each_other() -> None:
    """Those without it are like boards of an earlier version: they stay connected to all."""
    async with contextlib.AsyncExitStack() as stack:
        nodes: list[LanNode] = []
        for number in range(COUNT + 2):
            node = LanNode(f"node{number}", lans=LOOPBACK, ring=number not in (3, COUNT), **OPEN)
            nodes.append(await stack.enter_async_context(node))
        for node in nodes:
            show(node, *nodes)
        without = [node for node in nodes if not node.channel.config.ring]
        await becomes(lambda: all(degree(node) == len(nodes) - 1 for node in without))
        await becomes(lambda: all(4 <= degree(node) <= STANDING_COUNT_MAX + len(without) for node in nodes[4:COUNT]))
        for sender in (without[0], nodes[0], without[1], nodes[5]):
            said = envelope(None, f"from {sender.name}".encode())
            assert sender.send(said) is Handoff.ACCEPTED

            def all_heard(said: object = said, sender: LanNode = sender) -> bool:
                others = (node for node in nodes if node is not sender)
                return all(any(each.envelope == said for each in node.ear.arrivals) for node in others)

            await becomes(all_heard)
            for node in nodes:
                assert sum(each.envelope == said for each in node.ear.arrivals) <= 1


async def test_ten_nodes_are_a_mesh() -> None:
    async with shown(10) as nodes:
        assert {degree(node) for node in nodes} == {9}
        assert not any(node.channel._wide.is_wide for node in nodes)


async def test_on_a_larger_lan_each_has_ten_neighbours_at_most() -> None:
    async with shown() as nodes:
        degrees = [degree(node) for node in nodes]
        assert max(degrees) <= STANDING_COUNT_MAX
        assert min(degrees) >= 4


async def test_what_is_for_everybody_reaches_everybody_about_once() -> None:
    async with shown() as nodes:
        for number in range(8):
            said = envelope(None, f"hello {number}".encode())
            assert nodes[number].send(said) is Handoff.ACCEPTED
            others = [node for node in nodes if node is not nodes[number]]

            def all_heard(said: object = said, others: list[LanNode] = others) -> bool:
                return all(any(each.envelope == said for each in node.ear.arrivals) for node in others)

            await becomes(all_heard)
        before = sum(node.drops["duplicate"] for node in nodes)
        last = envelope(None, b"last")
        nodes[0].send(last)
        await becomes(lambda: all(any(each.envelope == last for each in node.ear.arrivals) for node in nodes[1:]))
        await asyncio.sleep(0.3)
        assert sum(node.drops["duplicate"] for node in nodes) - before <= COUNT


async def test_what_is_for_one_node_opens_a_connection_that_is_closed_when_idle() -> None:
    async with shown() as nodes:
        first = nodes[0]
        near = {each.node for each in first.channel.status()}
        far = next(
            node for node in nodes[1:] if node.node_id not in {n.peer.node for n in first.channel._neighbours.all()}
        )
        before = len(first.ear.changes)
        said = envelope(far.node_id, b"for you")
        assert first.send(said) is Handoff.ACCEPTED
        await becomes(lambda: any(each.envelope == said for each in far.ear.arrivals))
        assert {each.node for each in first.channel.status()} == near, "it is no neighbour"
        assert far.node_id in first.channel._neighbours
        await becomes(lambda: far.node_id not in first.channel._neighbours, 20.0)
        assert far.node_id not in {node for node, _ in first.ear.changes[before:]}, "no neighbour came or went"
        assert far.node_id in first.ear.parts, "what its handshake said is forgotten"
        assert far.node_id not in {each.node for each in first.channel.departed()}


async def test_node_that_goes_is_replaced_and_everybody_hears_everybody_again() -> None:
    async with shown() as nodes:
        gone = nodes.pop()
        await gone.channel.stop()
        for node in nodes:
            node.channel.gone(instance(gone))
        await becomes(lambda: all(whole(node, nodes) for node in nodes))
        said = envelope(None, b"after")
        nodes[3].send(said)
        await becomes(
            lambda: all(
                any(each.envelope == said for each in node.ear.arrivals) for node in nodes if node is not nodes[3]
            )
        )


async def test_frames_of_a_large_lan_that_are_no_such_frames_end_the_connection() -> None:
    async with shown(2) as (one, other):
        for kind, body in (
            (FrameType.NEAR, b""),
            (FrameType.NEAR, b"\x09"),
            (FrameType.NOTICE, b"1234567"),
            (FrameType.GRAFT, b"123"),
            (FrameType.PRUNE, b"1"),
            (FrameType.SPREAD, b"12345"),
        ):
            await becomes(lambda: degree(one) == 1 and degree(other) == 1)
            (near,) = one.channel._neighbours.all()
            before = other.drops["malformed"]
            near.connection.send(kind, body)
            await becomes(lambda near=near: not near.connection.up)
            assert other.drops["malformed"] == before
