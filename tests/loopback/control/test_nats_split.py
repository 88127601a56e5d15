"""A real broker that is not there yet, falls into two halves, serves two realms, or forgets a revocation."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from kit.broker import Operator
from kit.cluster import HOST, Broker, BrokerServer, NatsNode, broker, certificates, far_nodes, free_ports, program
from kit.ear import WAIT_S, envelope, node_of
from kit.pipe import Pipe

from conflux.control.channel import Handoff
from conflux.control.drop import Drop
from conflux.realm.broker.subjects import bucket_of

NAMES = ("alice", "bob", "carol")


async def until_one_arrives(sender: NatsNode, receiver: NatsNode, payload: bytes) -> None:
    """Send again and again, as whoever waits for an answer does, until one arrives."""
    async with asyncio.timeout(WAIT_S):
        while payload not in receiver.ear.payloads():
            sender.send(envelope(receiver.node_id, payload))
            await asyncio.sleep(0.05)


async def test_node_that_starts_before_the_broker_finds_it_once_it_is_there() -> None:
    async with broker() as at:
        (server,) = at.servers
        await server.end()
        async with NatsNode(at.member("alice"), at.config(), knows=NAMES) as alice:
            await alice.until_it_says("does not answer")
            assert alice.send(envelope(node_of("bob"))) is Handoff.DOWN
            await server.start()
            began = time.monotonic()
            await alice.until(up=True)
            assert time.monotonic() - began < 5.0


# ── two halves ────────────────────────────────────────────────────────────────────────────────────────────────────────


@asynccontextmanager
async def two_halves() -> AsyncIterator[tuple[Broker, Pipe]]:
    """Two servers that know each other by a pipe alone."""
    operator, tls = Operator(), certificates()
    port, other_port, route, other_route, pipe_port = free_ports(5)
    pipe = Pipe(pipe_port, other_route)
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place)
        (directory / "certificate.pem").write_text(tls.certificate)
        (directory / "key.pem").write_text(tls.key)
        pair = f"tls {{ cert_file: '{directory}/certificate.pem', key_file: '{directory}/key.pem' }}\n"
        common = f"{pair}{operator.config()}"  # signed once: two of a second are not the same
        servers = [
            BrokerServer(
                directory,
                each,
                f"listen: '{HOST}:{each}'\n"
                f"cluster {{ name: test, listen: '{HOST}:{own}', routes: [{urls}] }}\n{common}",
                program(),
            )
            for each, own, urls in ((port, route, f"'nats://{HOST}:{pipe_port}'"), (other_port, other_route, ""))
        ]
        try:
            await pipe.mend()
            for server in servers:
                await server.start()
            yield Broker(servers, operator, tls), pipe
        finally:
            await pipe.cut()
            await asyncio.gather(*(server.end() for server in servers))


async def test_halves_of_a_broker_serve_their_own_nodes_and_are_one_again_when_healed() -> None:
    async with two_halves() as (at, pipe):
        here, there = at.addresses
        places = {"alice": here, "carol": here, "bob": there}
        nodes = {
            name: NatsNode(at.member(name), at.config(servers=(place,)), knows=NAMES) for name, place in places.items()
        }
        alice, bob, carol = (nodes[name] for name in NAMES)
        async with alice, bob, carol:
            for node in nodes.values():
                await node.until(up=True)
            await until_one_arrives(alice, bob, b"one broker")
            await pipe.cut()
            async with asyncio.timeout(WAIT_S):
                while bob.node_id not in alice.ear.absent:  # the server here says that nobody listens
                    alice.send(envelope(bob.node_id, b"lost"))
                    await asyncio.sleep(0.1)
            await until_one_arrives(alice, carol, b"in this half")
            await pipe.mend()
            await until_one_arrives(alice, bob, b"healed")
            await until_one_arrives(bob, alice, b"both ways")
            assert [node.ear.turns for node in (alice, bob, carol)] == [[True]] * 3


# ── two realms ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_two_realms_on_one_server_hear_nothing_of_each_other_even_with_the_same_keys() -> None:
    others = Operator()
    async with broker(tenants=[others]) as at:
        ours = [NatsNode(at.member(name), at.config(), knows=NAMES) for name in ("alice", "bob")]
        theirs = [
            NatsNode(at.member(name, realm="away", signer=others.signer), at.config(), knows=NAMES)
            for name in ("alice", "bob")
        ]
        async with ours[0] as alice, ours[1] as bob, theirs[0] as strange_alice, theirs[1] as strange_bob:
            for node in (*ours, *theirs):
                await node.until(up=True)
            for sender, word in ((alice, b"ours"), (strange_alice, b"theirs")):
                sender.send(envelope(None, b"all of " + word))
                sender.send(replace(envelope(None, b"who of " + word), bucket=bucket_of(bob.node_id)))
                sender.send(envelope(bob.node_id, b"bob of " + word))
                await sender.flushed()
            await bob.ear.heard(*(each + b"ours" for each in (b"all of ", b"who of ", b"bob of ")))
            await strange_bob.ear.heard(*(each + b"theirs" for each in (b"all of ", b"who of ", b"bob of ")))
            for node in (bob, strange_bob):
                await node.flushed()  # and nothing else has come
                assert len(node.ear.arrivals) == 3


# ── an operator that takes a revocation back ──────────────────────────────────────────────────────────────────────────


async def test_revoked_node_that_an_old_account_lets_in_again_is_heard_by_no_member() -> None:
    async with broker() as at, far_nodes(at, *NAMES) as (alice, bob, first):
        (server,) = at.servers
        old, thief_key = server.text, first.key
        await first.channel.stop()
        at.operator.revoked[thief_key] = int(time.time()) + 1
        await server.end()
        server.text = old[: old.index("operator: ")] + at.operator.config()
        await server.start()
        async with NatsNode(at.member("carol"), at.config(), knows=NAMES) as thief:
            await thief.until_it_says("refused: ")
        await server.end()
        server.text = old  # the operator signed that account, too
        await server.start()
        async with NatsNode(at.member("carol"), at.config(), knows=NAMES) as thief:
            await thief.until(up=True)
            for node in (alice, bob):
                node.channel.learn(thief.node_id, thief.key)
                node.channel.exclude(frozenset({thief.node_id}))
            async with asyncio.timeout(WAIT_S):
                while not bob.drops[Drop.REVOKED]:
                    thief.send(envelope(bob.node_id, b"of the thief"))
                    await asyncio.sleep(0.05)
            await until_one_arrives(alice, bob, b"of a member")
            assert b"of the thief" not in bob.ear.payloads()
