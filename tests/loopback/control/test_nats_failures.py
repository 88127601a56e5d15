"""A real broker of three servers of which one is killed, hangs or comes back, and what a node notices of it.

The figures go to build/control.json.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from kit.builders import node_keys
from kit.cluster import Broker, BrokerServer, NatsNode, broker, far_nodes
from kit.ear import envelope, node_of
from kit.figures import note

from conflux.control.channel import Handoff
from conflux.control.envelope import Reach
from conflux.control.nats.channel import ed25519_of
from conflux.control.nats.config import PAIR_PING_S, Server
from conflux.realm.broker.subjects import bucket_of

NAMES = ("alice", "bob")


def server_of(node: NatsNode, at: Broker) -> BrokerServer:
    """Return the server that a node is connected to."""
    detail = node.channel.state.detail.partition(", in reserve ")[0]
    return next(server for server in at.servers if detail.endswith(f":{server.address[1]}"))


@asynccontextmanager
async def pair_apart() -> AsyncIterator[tuple[Broker, NatsNode, NatsNode]]:
    """Two nodes on different servers of three."""
    async with broker(3) as at:
        alice, bob = (NatsNode(at.member(name), at.config(), knows=NAMES, rng=random.Random()) for name in NAMES)
        async with alice:
            await alice.until(up=True)
            others = tuple(each for each in at.addresses if each != server_of(alice, at).address)
            bob.channel.config = at.config(servers=others)
            async with bob:
                await bob.until(up=True)
                yield at, alice, bob


async def until_one_arrives(sender: NatsNode, receiver: NatsNode, retry_s: float = 0.1) -> float:
    """Send again and again, as whoever waits for an answer does; return how long it takes until one arrives."""
    before, began = len(receiver.ear.arrivals), time.monotonic()
    while len(receiver.ear.arrivals) == before:
        sender.send(envelope(receiver.node_id, b"?"))
        await asyncio.sleep(retry_s)
    return time.monotonic() - began


async def test_killed_server_delays_what_is_wanted_by_at_most_three_seconds():
    delays = {}
    for whose in ("sender", "receiver", "neither"):
        async with pair_apart() as (at, alice, bob):
            await until_one_arrives(alice, bob)
            used = {"sender": server_of(alice, at), "receiver": server_of(bob, at)}
            third = next(server for server in at.servers if server not in used.values())
            await used.get(whose, third).end()
            delays[whose] = await until_one_arrives(alice, bob)
    note("server_killed_delay_s", max(delays.values()))
    assert max(delays.values()) < 3.0
    assert delays["neither"] < 0.5


async def test_hanging_server_delays_what_is_wanted_by_at_most_ten_seconds():
    delays = []
    for whose in ("sender", "receiver"):
        async with pair_apart() as (at, alice, bob):
            await until_one_arrives(alice, bob)
            server = server_of(alice if whose == "sender" else bob, at)
            await server.hang()
            asks = asyncio.create_task(ask_now_and_then(bob))  # who says nothing notices a minute later
            try:
                delays.append(await until_one_arrives(alice, bob))
            finally:
                asks.cancel()
                server.signal(signal.SIGCONT)
    note("server_hung_delay_s", max(delays))
    assert max(delays) < 10.0


async def ask_now_and_then(node: NatsNode) -> None:
    """Send something that wants an answer every half second."""
    while True:
        node.send(envelope(node_of("alice"), b"!"))
        await asyncio.sleep(0.5)


async def test_broker_that_returns_is_found_within_five_seconds():
    async with broker() as at, far_nodes(at, *NAMES) as (alice, bob):
        (server,) = at.servers
        await server.end()
        await alice.until(up=False)
        assert alice.send(envelope(node_of("bob"))) is Handoff.DOWN
        await alice.until_it_says("does not answer")
        await asyncio.sleep(8.0)  # the back-off is at its longest now
        await server.start()
        began = time.monotonic()
        for node in (alice, bob):
            await node.until(up=True)
        back_s = time.monotonic() - began
        note("broker_back_s", back_s)
        assert back_s < 5.0
        await until_one_arrives(alice, bob)


async def test_renewed_admission_takes_over_without_losing_a_message_either_way():
    async with broker(3) as at, far_nodes(at, *NAMES) as (alice, bob):
        await until_one_arrives(alice, bob)
        bob.ear.arrivals.clear()
        number, made_before = 0, server_of(alice, at)

        async def talk(seconds: float) -> None:
            nonlocal number
            ends_at = time.monotonic() + seconds
            while time.monotonic() < ends_at:
                assert alice.send(envelope(node_of("bob"), b"a%d" % number)) is Handoff.ACCEPTED
                assert bob.send(envelope(node_of("alice"), b"b%d" % number)) is Handoff.ACCEPTED
                number += 1
                await asyncio.sleep(0.02)

        await talk(0.3)
        alice.channel.adopt(at.member("alice", lives_s=7200))
        await talk(2.0)
        assert server_of(alice, at) is not made_before  # another connection
        assert alice.ear.turns == [True]  # and never none
        for hears, letter in ((bob, b"a"), (alice, b"b")):
            wanted = {letter + b"%d" % index for index in range(number)}
            await hears.ear.until(lambda hears=hears, wanted=wanted: wanted <= set(hears.ear.payloads()))


async def test_server_that_says_it_goes_down_is_left_before_it_does():
    async with broker(3) as at, far_nodes(at, *NAMES) as (alice, bob):
        before = server_of(alice, at)
        pair = alice.channel._pair
        assert pair is not None
        pair._lead._made_at -= 60  # a connection of a minute ago: a new one would not follow
        before.signal(signal.SIGUSR2)  # "lame duck mode"
        async with asyncio.timeout(10):
            while server_of(alice, at) is before:  # noqa: ASYNC110  # no event: the channel stays up
                await asyncio.sleep(0.01)
        assert alice.ear.turns == [True]
        await until_one_arrives(alice, bob)


async def test_admission_that_ends_is_named_and_a_newer_one_is_used_at_once():
    async with broker() as at, NatsNode(at.member("alice", lives_s=2), at.config()) as alice:
        await alice.until(up=True)
        await alice.until(up=False)
        assert "admission expired" in alice.channel.state.detail
        await alice.until_it_says("refused: ")
        alice.channel.adopt(at.member("alice"))
        await alice.until(up=True)


async def test_member_without_admission_waits_for_it():
    async with broker() as at, NatsNode(at.member("alice", jwt=""), at.config()) as alice:
        await alice.until_it_says("no admission to the broker yet")
        alice.channel.adopt(at.member("alice"))
        await alice.until(up=True)


async def test_node_behind_another_is_reached_by_the_path_that_was_learnt():
    async with broker() as at, far_nodes(at, "alice", "bridge") as (alice, bridge):
        behind = node_of("carol")
        assert alice.send(envelope(behind)) is Handoff.ABSENT  # its card is not known
        alice.channel.learn(behind, ed25519_of(node_keys("bridge").public.encode()))
        bridge.channel.cross(frozenset())
        sent = envelope(behind, b"for carol")
        assert alice.send(sent) is Handoff.ACCEPTED
        await bridge.ear.until(lambda: bool(bridge.ear.transits))
        assert bridge.ear.transits[0].envelope == sent
        assert bridge.ear.arrivals == []
        await bridge.channel.stop()
        alice.send(envelope(behind))
        await alice.ear.until(lambda: alice.ear.absent == [behind])
        assert alice.send(envelope(behind)) is Handoff.ABSENT  # the path is forgotten


async def test_question_for_one_node_reaches_it_although_its_key_is_not_known():
    async with broker() as at:
        alice, bob = (NatsNode(at.member(name), at.config()) for name in NAMES)
        async with alice, bob:
            for node in (alice, bob):
                await node.until(up=True)
            sent = replace(envelope(bob.node_id, b"a question"), key_id=None)
            assert alice.send(sent) is Handoff.FORWARDED
            await bob.ear.until(lambda: bool(bob.ear.arrivals))
            assert [arrival.envelope for arrival in bob.ear.arrivals] == [sent]


async def test_bridge_listens_to_the_buckets_of_those_behind_it_while_it_is_one():
    async with broker() as at:
        members = [at.member("alice"), at.member("bridge", capabilities=("bridge",))]
        async with (
            NatsNode(members[0], at.config()) as alice,
            NatsNode(members[1], at.config()) as bridge,
        ):
            for node in (alice, bridge):
                await node.until(up=True)
            bridge.channel.cross(frozenset({7}))
            await bridge.flushed()
            alice.send(replace(envelope(None, b"first"), bucket=7))
            await bridge.ear.until(lambda: [each.envelope.payload for each in bridge.ear.transits] == [b"first"])
            assert bridge.ear.arrivals == []
            bridge.channel.cross(None)
            await bridge.flushed()
            alice.send(replace(envelope(None, b"second"), bucket=7))
            alice.send(envelope(None, b"to all"))
            await bridge.ear.heard(b"to all")
            assert len(bridge.ear.transits) == 1


async def test_slow_reader_is_cut_off_and_comes_back():
    async with broker() as at, far_nodes(at, *NAMES) as (alice, bob):
        started = time.monotonic()
        payload, sent = bytes(28000), 0
        while time.monotonic() - started < 1.0:  # more than bob's budget, and it reads on
            sent += alice.send(envelope(node_of("bob"), payload)) is Handoff.ACCEPTED
            await asyncio.sleep(0)
        await bob.drops.until("flood")
        assert bob.channel.state.up
        await until_one_arrives(bob, alice)


async def test_what_is_for_the_realm_reaches_every_area_and_presence_only_its_own():
    async with broker(3) as at:
        areas = {"alice": "north", "bob": "north", "carol": "south"}
        nodes = [NatsNode(at.member(name), at.config(area=area)) for name, area in areas.items()]
        async with nodes[0] as alice, nodes[1] as bob, nodes[2] as carol:
            for node in nodes:
                await node.until(up=True)
            for payload, reach in ((b"here", Reach.ALL), (b"a list", Reach.REALM)):
                alice.send(replace(envelope(None, payload), reach=reach))
            await bob.ear.heard(b"here", b"a list")
            await carol.ear.heard(b"a list")


@asynccontextmanager
async def pair_in_reserve() -> AsyncIterator[tuple[Broker, NatsNode, NatsNode]]:
    """Two nodes whose main connections are at different servers of three, and each has a second one."""
    async with broker(3) as at:
        first, second, third = at.addresses
        config = at.config()
        alice = NatsNode(at.member("alice"), replace(config, servers=(first,)), knows=NAMES)
        bob = NatsNode(at.member("bob"), replace(config, servers=(second, third)), knows=NAMES)
        async with alice, bob:
            await alice.until(up=True)
            await bob.until_it_says("in reserve")
            await until_one_arrives(alice, bob)
            yield at, alice, bob


async def test_node_that_only_waits_is_reached_by_a_retry_while_its_server_hangs():
    async with pair_in_reserve() as (at, alice, bob):
        before = len(bob.ear.arrivals)
        server = server_of(bob, at)
        await server.hang()
        try:
            began = time.monotonic()
            first = envelope(bob.node_id, b"first")
            assert alice.send(first) is Handoff.ACCEPTED  # into the server that hangs
            await asyncio.sleep(0.25)
            assert len(bob.ear.arrivals) == before
            retry = replace(first, id=b"another envelope")
            assert alice.channel.send(retry, again=True) is Handoff.ACCEPTED
            await bob.ear.until(lambda: len(bob.ear.arrivals) > before)
            assert bob.ear.arrivals[before].envelope == retry
            heard = len(alice.ear.arrivals)
            bob.send(envelope(alice.node_id, b"answer"))  # by the second connection, as the first one is in doubt
            await alice.ear.until(lambda: len(alice.ear.arrivals) > heard)
            delay_s = time.monotonic() - began
            note("hung_server_of_a_waiting_node_delay_s", delay_s)
            assert delay_s < 2.0
            await bob.until_it_says(f"connected to 127.0.0.1:{other_than(server, bob.channel.config.servers)}")
            assert bob.ear.turns == [True]
            assert alice.ear.absent == []
        finally:
            server.signal(signal.SIGCONT)


def other_than(server: BrokerServer, servers: tuple[Server, ...]) -> int:
    """Return the port of the other one of two servers."""
    (other,) = (each for each in servers if each != server.address)
    return other[1]


async def test_question_again_is_heard_by_the_second_connection_of_those_asked():
    async with pair_in_reserve() as (at, alice, bob):
        before = len(bob.ear.arrivals)
        bucket = bucket_of(bob.node_id)
        server = server_of(bob, at)
        await server.hang()
        try:
            alice.channel.send(replace(envelope(None, b"who?"), bucket=bucket))
            alice.channel.send(replace(envelope(None, b"who, again?"), bucket=bucket), again=True)
            await bob.ear.until(lambda: len(bob.ear.arrivals) > before)
            assert bob.ear.payloads()[before:] == [b"who, again?"]
        finally:
            server.signal(signal.SIGCONT)


async def test_list_is_heard_while_the_main_server_hangs():
    async with pair_in_reserve() as (at, alice, bob):
        before = len(bob.ear.arrivals)
        server = server_of(bob, at)
        await server.hang()
        try:
            alice.send(replace(envelope(None, b"revoked"), reach=Reach.REALM))
            await bob.ear.until(lambda: len(bob.ear.arrivals) > before)
            assert bob.ear.payloads()[before:] == [b"revoked"]
        finally:
            server.signal(signal.SIGCONT)


async def test_message_comes_once_while_all_servers_are_well_and_a_retry_by_either_way():
    async with pair_in_reserve() as (_, alice, bob):
        before = len(bob.ear.arrivals)
        for number in range(5):
            alice.send(envelope(bob.node_id, b"%d" % number))
        await bob.ear.until(lambda: len(bob.ear.arrivals) >= before + 5)
        await bob.flushed()
        assert bob.ear.payloads()[before:] == [b"0", b"1", b"2", b"3", b"4"]
        alice.channel.send(envelope(bob.node_id, b"again"), again=True)
        await bob.ear.until(lambda: bob.ear.payloads()[before + 5 :] == [b"again", b"again"])
        ids = {arrival.envelope.id for arrival in bob.ear.arrivals[before + 5 :]}
        assert len(ids) == 1  # by which the plane knows the second one


async def test_second_connection_takes_over_at_once_when_a_server_is_killed():
    async with pair_in_reserve() as (at, alice, bob):
        before = len(bob.ear.arrivals)
        await server_of(bob, at).end()
        took_s = await until_one_arrives(alice, bob)
        assert took_s < 1.0
        assert len(bob.ear.arrivals) > before
        assert bob.ear.turns == [True]  # it was never without a connection
        assert "in reserve" not in bob.channel.state.detail  # and no server is left for another one


async def test_connections_of_a_channel_are_pinged_more_seldom_while_bytes_are_short():
    async with pair_in_reserve() as (_, _, bob):
        pair = bob.channel._pair
        assert pair is not None
        both = [each for each in (pair.main, pair.spare) if each is not None]
        assert [each.ping_s for each in both] == [PAIR_PING_S] * 2
        bob.channel.stretch(4.0)
        assert [each.ping_s for each in both] == [4 * PAIR_PING_S] * 2


async def test_node_with_one_server_has_one_connection_and_nobody_is_told_that_it_is_absent():
    async with broker() as at, far_nodes(at, *NAMES) as (alice, bob):
        alice.channel.send(envelope(bob.node_id, b"again"), again=True)
        await bob.ear.heard(b"again")
        await alice.flushed()
        assert alice.ear.absent == []
        pair = bob.channel._pair
        assert pair is not None
        assert pair.spare is None
