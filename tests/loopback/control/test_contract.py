"""The contract of every engine of the control channel.  A new engine is one more entry in ENGINES."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import uvloop
from kit.builders import node_keys
from kit.cluster import broker, far_nodes
from kit.ear import Ear, envelope, node_of
from kit.exchange import Exchange, HubChannel
from kit.lan import lan

from conflux.control.channel import ControlChannel, Handoff
from conflux.control.envelope import ENVELOPE_BYTES_MAX, PAYLOAD_BYTES_MAX
from conflux.crypto.sign import ED25519_PUBLIC_BYTES
from conflux.errors import LocalProtocolError
from conflux.ids import NodeId
from conflux.realm.broker import subjects

NAMES = ("alice", "bob", "carol")
ABSENT = NodeId(b"nobody is there!")


@dataclass
class Station:
    """One node on an engine."""

    channel: ControlChannel
    ear: Ear


Net = dict[str, Station]


@asynccontextmanager
async def hub_net() -> AsyncIterator[Net]:
    exchange = Exchange()
    net = {name: Station(HubChannel(exchange, node_of(name)), Ear()) for name in NAMES}
    for station in net.values():
        await station.channel.start(station.ear.inputs())
    yield net
    for station in net.values():
        await station.channel.stop()


@asynccontextmanager
async def lan_net() -> AsyncIterator[Net]:
    async with lan(*NAMES) as nodes:
        yield {node.name: Station(node.channel, node.ear) for node in nodes}


@asynccontextmanager
async def nats_net() -> AsyncIterator[Net]:
    async with broker() as servers, far_nodes(servers, *NAMES) as nodes:
        yield {node.name: Station(node.channel, node.ear) for node in nodes}


NEAR = {"hub": hub_net, "lan": lan_net}  # they see neighbours
ENGINES = {**NEAR, "nats": nats_net}
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}

Scene = Callable[[Net], Awaitable[None]]
Run = Callable[[Scene], None]


def on(request: pytest.FixtureRequest) -> Run:
    """Return what runs a scene on three nodes of an engine, on an event loop, and ends with no socket open."""
    engine, loop = request.param.split("-")

    def run_scene(scene: Scene) -> None:
        async def whole() -> None:
            before = open_sockets()
            async with ENGINES[engine]() as net:
                if engine in NEAR:
                    for name, station in net.items():
                        await station.ear.sees(*(other for other in NAMES if other != name))
                await scene(net)
            assert open_sockets() <= before

        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            runner.run(whole())

    return run_scene


@pytest.fixture(params=[f"{engine}-{loop}" for engine in ENGINES for loop in LOOPS])
def run(request: pytest.FixtureRequest) -> Run:
    """Run a scene on every engine, on every event loop."""
    return on(request)


@pytest.fixture(params=[f"{engine}-{loop}" for engine in NEAR for loop in LOOPS])
def run_near(request: pytest.FixtureRequest) -> Run:
    """Run a scene on every engine whose nodes see neighbours, on every event loop."""
    return on(request)


def open_sockets() -> set[str]:
    """Return the names of this process's sockets, those of the event loop among them."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            name = os.readlink(entry)
        except FileNotFoundError:  # the directory's own descriptor
            continue
        if name.startswith("socket:"):
            found.add(name)
    return found


def test_envelope_arrives_unchanged_with_the_one_that_handed_it_over(run: Run) -> None:
    async def scene(net: Net) -> None:
        for payload in (b"x", bytes(PAYLOAD_BYTES_MAX), os.urandom(20000)):
            sent = envelope(node_of("bob"), payload)
            assert net["alice"].channel.send(sent) is Handoff.ACCEPTED
            await net["bob"].ear.until(lambda: bool(net["bob"].ear.arrivals))
            arrival = net["bob"].ear.arrivals.pop()
            assert (arrival.envelope, arrival.channel) == (sent, net["bob"].channel.name)
            far = net["alice"].channel.far
            key = node_keys("alice").public.encode()[:ED25519_PUBLIC_BYTES]
            assert (arrival.via, arrival.path) == ((None, key) if far else (node_of("alice"), None))

    run(scene)


def test_envelope_for_one_node_never_reaches_another(run: Run) -> None:
    async def scene(net: Net) -> None:
        names = ("bob", "carol")
        for index in range(20):
            for name in names:
                net["alice"].channel.send(envelope(node_of(name), b"for %s %d" % (name.encode(), index)))
        for name in names:
            ear = net[name].ear
            await ear.until(lambda ear=ear: len(ear.arrivals) >= 20)
            assert all(payload.startswith(b"for %s " % name.encode()) for payload in ear.payloads())
        assert net["alice"].ear.arrivals == []

    run(scene)


def test_question_to_a_bucket_reaches_those_who_listen_there(run: Run) -> None:
    async def scene(net: Net) -> None:
        bucket = subjects.bucket_of(b"bob")
        question = replace(envelope(None, b"where is bob?"), bucket=bucket)
        assert net["alice"].channel.send(question) is Handoff.ACCEPTED
        await net["bob"].ear.heard(b"where is bob?")
        assert net["bob"].ear.arrivals[0].envelope == question
        assert net["alice"].channel.send(envelope(node_of("carol"), b"after it")) is Handoff.ACCEPTED
        await net["carol"].ear.until(lambda: b"after it" in net["carol"].ear.payloads())
        heard = len(net["carol"].ear.arrivals) > 1
        assert heard is not net["alice"].channel.far  # on a LAN all neighbours hear it

    run(scene)


def test_many_envelopes_at_once_arrive_or_are_refused(run: Run) -> None:
    async def scene(net: Net) -> None:
        accepted = sum(
            net["alice"].channel.send(envelope(node_of("bob"), b"%d" % index)) is Handoff.ACCEPTED
            for index in range(150)
        )
        bob = net["bob"].ear
        await bob.until(lambda: len(bob.arrivals) >= accepted)
        assert net["alice"].channel.state.up

    run(scene)


def test_envelope_for_all_reaches_all_but_its_sender(run: Run) -> None:
    async def scene(net: Net) -> None:
        assert net["alice"].channel.send(envelope(None, b"to all")) is Handoff.ACCEPTED
        for name in ("bob", "carol"):
            await net[name].ear.heard(b"to all")
        assert net["alice"].ear.arrivals == []

    run(scene)


def test_node_that_is_not_there_is_absent(run: Run) -> None:
    async def scene(net: Net) -> None:
        assert net["alice"].channel.send(envelope(ABSENT)) is Handoff.ABSENT

    run(scene)


def test_oversized_envelope_is_our_own_bug(run: Run) -> None:
    async def scene(net: Net) -> None:
        with pytest.raises(LocalProtocolError):
            net["alice"].channel.send(envelope(node_of("bob"), bytes(ENVELOPE_BYTES_MAX)))

    run(scene)


def test_send_does_not_deliver_inside_itself(run: Run) -> None:
    async def scene(net: Net) -> None:
        net["alice"].channel.send(envelope(node_of("bob"), b"x"))
        assert net["bob"].ear.arrivals == []
        await net["bob"].ear.heard(b"x")

    run(scene)


def test_node_that_goes_is_seen_to_go_and_the_state_says_so(run_near: Run) -> None:
    async def scene(net: Net) -> None:
        alice = net["alice"]
        assert alice.channel.state.up
        assert "2 neighbours" in alice.channel.state.detail
        await net["bob"].channel.stop()
        await alice.ear.sees("carol")
        assert alice.channel.send(envelope(node_of("bob"))) is Handoff.ABSENT
        assert "1 neighbour" in alice.channel.state.detail
        assert not net["bob"].channel.state.up

    run_near(scene)


def test_excluded_node_hears_and_says_nothing_more(run_near: Run) -> None:
    async def scene(net: Net) -> None:
        alice, bob = net["alice"], net["bob"]
        alice.channel.exclude(frozenset({node_of("bob"), ABSENT}))
        await bob.ear.until(lambda: (node_of("alice"), False) in bob.ear.changes)
        assert (node_of("carol"), False) not in alice.ear.changes
        assert alice.channel.send(envelope(node_of("carol"), b"still here")) is Handoff.ACCEPTED
        await net["carol"].ear.heard(b"still here")

    run_near(scene)


def test_stopped_channel_is_down_and_hears_nothing(run: Run) -> None:
    async def scene(net: Net) -> None:
        bob = net["bob"]
        await bob.channel.stop()
        assert not bob.channel.state.up
        assert bob.channel.send(envelope(node_of("alice"))) is Handoff.DOWN
        assert bob.channel.send(envelope(None)) is Handoff.DOWN
        net["alice"].channel.send(envelope(None, b"y"))
        await net["carol"].ear.heard(b"y")
        assert bob.ear.arrivals == []
        await bob.channel.stop()  # twice does no harm

    run(scene)
