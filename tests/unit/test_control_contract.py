"""What every engine of the control channel keeps to.  A new engine is one more entry in ENGINES."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import uvloop
from control_ear import Ear, node_of, start_lan

from conflux.control.channel import ENVELOPE_BYTES_MAX, ControlChannel, Handoff
from conflux.control.memory import MemoryChannel, MemoryExchange, MemoryHub
from conflux.ids import NodeId

NAMES = ("alice", "bob", "carol")
ABSENT = NodeId(b"nobody is there!")


class Net:
    """Three nodes that see each other."""

    def __init__(self) -> None:
        self.channels: dict[str, ControlChannel] = {}
        self.ears: dict[str, Ear] = {}

    async def stop(self) -> None:
        for channel in self.channels.values():
            await channel.stop()


async def memory_net() -> Net:
    net = Net()
    exchange = MemoryExchange(MemoryHub(rng=random.Random(1)))
    for name in NAMES:
        net.channels[name] = MemoryChannel(exchange, node_of(name))
        net.ears[name] = Ear()
        await net.channels[name].start(net.ears[name].deliver, net.ears[name].changed)
    return net


async def lan_net() -> Net:
    net = Net()
    ports: list[int] = []
    for name in NAMES:
        channel, net.ears[name] = await start_lan(name, *ports)
        net.channels[name] = channel
        ports.append(channel.port)
    return net


ENGINES = {"memory": memory_net, "lan": lan_net}
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=[f"{engine}-{loop}" for engine in ENGINES for loop in LOOPS])
def run(request: pytest.FixtureRequest) -> Callable[[Callable[[Net], Awaitable[None]]], None]:
    """Run a scene on three nodes of every engine, on every event loop, and end with no socket open."""
    engine, loop = request.param.split("-")

    def run_scene(scene: Callable[[Net], Awaitable[None]]) -> None:
        async def whole() -> None:
            before = open_sockets()
            net = await ENGINES[engine]()
            try:
                for name in NAMES:
                    others = {node_of(other) for other in NAMES if other != name}
                    ear = net.ears[name]
                    await ear.until(lambda ear=ear, others=others: ear.up == others)  # type: ignore[misc]
                await scene(net)
            finally:
                await net.stop()
            assert open_sockets() <= before

        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            runner.run(whole())

    return run_scene


def open_sockets() -> set[str]:
    """Names of this process's sockets, the event loop's own among them."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            name = os.readlink(entry)
        except FileNotFoundError:  # the directory's own descriptor
            continue
        if name.startswith("socket:"):
            found.add(name)
    return found


Run = Callable[[Callable[[Net], Awaitable[None]]], None]


def test_envelope_arrives_unchanged_with_who_handed_it_over(run: Run) -> None:
    async def scene(net: Net) -> None:
        for envelope in (b"x", bytes(ENVELOPE_BYTES_MAX), os.urandom(20000)):
            assert await net.channels["alice"].send(node_of("bob"), envelope) is Handoff.ACCEPTED
            await net.ears["bob"].until(lambda envelope=envelope: envelope in net.ears["bob"].envelopes())  # type: ignore[misc]
        assert {arrival.via for arrival in net.ears["bob"].arrivals} == {node_of("alice")}
        assert {arrival.channel for arrival in net.ears["bob"].arrivals} == {net.channels["bob"].name}

    run(scene)


def test_message_to_one_never_reaches_another(run: Run) -> None:
    async def scene(net: Net) -> None:
        for index in range(20):
            await net.channels["alice"].send(node_of("bob"), b"for bob %d" % index)
            await net.channels["alice"].send(node_of("carol"), b"for carol %d" % index)
        for name in ("bob", "carol"):
            await net.ears[name].until(lambda name=name: len(net.ears[name].arrivals) >= 20)  # type: ignore[misc]
            assert all(envelope.startswith(b"for %s " % name.encode()) for envelope in net.ears[name].envelopes())
        assert net.ears["alice"].arrivals == []

    run(scene)


def test_announcement_reaches_all_but_the_sender(run: Run) -> None:
    async def scene(net: Net) -> None:
        assert await net.channels["alice"].announce(b"to all") is Handoff.ACCEPTED
        for name in ("bob", "carol"):
            await net.ears[name].until(lambda name=name: net.ears[name].envelopes() == [b"to all"])  # type: ignore[misc]
        assert net.ears["alice"].arrivals == []

    run(scene)


def test_node_that_is_not_there_is_absent(run: Run) -> None:
    async def scene(net: Net) -> None:
        assert await net.channels["alice"].send(ABSENT, b"x") is Handoff.ABSENT

    run(scene)


def test_oversized_envelope_is_refused(run: Run) -> None:
    async def scene(net: Net) -> None:
        oversized = bytes(ENVELOPE_BYTES_MAX + 1)
        assert await net.channels["alice"].send(node_of("bob"), oversized) is Handoff.REFUSED
        assert await net.channels["alice"].announce(oversized) is Handoff.REFUSED

    run(scene)


def test_send_does_not_deliver_inside_itself(run: Run) -> None:
    async def scene(net: Net) -> None:
        sending = net.channels["alice"].send(node_of("bob"), b"x")
        with pytest.raises(StopIteration):
            sending.send(None)  # type: ignore[attr-defined]  # to its end, without the event loop
        assert net.ears["bob"].arrivals == []
        await net.ears["bob"].until(lambda: len(net.ears["bob"].arrivals) == 1)

    run(scene)


def test_node_that_goes_is_seen_to_go_and_state_says_so(run: Run) -> None:
    async def scene(net: Net) -> None:
        assert net.channels["alice"].state.up
        assert "2 neighbours" in net.channels["alice"].state.detail
        await net.channels["bob"].stop()
        await net.ears["alice"].until(lambda: net.ears["alice"].up == {node_of("carol")})
        assert await net.channels["alice"].send(node_of("bob"), b"x") is Handoff.ABSENT
        assert "1 neighbour" in net.channels["alice"].state.detail
        assert not net.channels["bob"].state.up

    run(scene)


def test_stopped_channel_is_down_and_hears_nothing(run: Run) -> None:
    async def scene(net: Net) -> None:
        await net.channels["bob"].stop()
        assert not net.channels["bob"].state.up
        assert await net.channels["bob"].send(node_of("alice"), b"x") is Handoff.DOWN
        assert await net.channels["bob"].announce(b"x") is Handoff.DOWN
        await net.channels["alice"].announce(b"y")
        await net.ears["carol"].until(lambda: net.ears["carol"].envelopes() == [b"y"])
        assert net.ears["bob"].arrivals == []
        await net.channels["bob"].stop()  # twice does no harm

    run(scene)
