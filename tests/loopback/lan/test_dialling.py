"""Dialling what anybody may have announced."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections.abc import AsyncIterator

from kit.builders import make_member, make_realm
from kit.control import boot_id
from kit.lan import LanNode, lan

from conflux import record
from conflux.control.lan.certificate import Certificate
from conflux.control.lan.config import HANDSHAKE_S, Place
from conflux.control.lan.frame import FrameType, encode_frame
from conflux.control.lan.handshake import Greeting, Ourselves, Welcome


async def test_node_that_claims_anothers_announcement_does_not_keep_it_from_being_dialled() -> None:
    async with LanNode("alice") as alice, LanNode("bob") as bob, LanNode("mallory") as mallory:
        instance = bob.channel._ourselves.instance
        mallory.channel._ourselves = Ourselves(*mallory.channel._ourselves[:2], instance, lambda chain: None)
        mallory.channel.found(b"not hers", (("127.0.0.1", alice.port),))
        await alice.ear.sees("mallory")
        alice.channel.found(instance, (("127.0.0.1", bob.port),))
        await alice.ear.sees("bob", "mallory")
        await bob.ear.sees("alice")


async def test_a_place_that_proves_nothing_is_left_alone_although_it_is_announced_anew_under_any_name() -> None:
    knocks = 0

    async def welcome(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal knocks
        knocks += 1
        writer.write(encode_frame(FrameType.GREETING, Greeting(os.urandom(32)).encode()))
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readexactly(3)
            writer.write(encode_frame(FrameType.WELCOME, record.encode([b"\xff" * 28_000])))
            await reader.read()
        writer.close()

    server = await asyncio.start_server(welcome, "127.0.0.1", 0, ssl=Certificate.make(meets=False).context)
    place = server.sockets[0].getsockname()[:2]
    async with server, LanNode("alice") as alice:
        for number in range(8):  # as many as are dialled at once
            alice.channel.found(number.to_bytes(8, "little"), (place,))
        await alice.drops.until("version")
        for number in range(50):
            alice.channel.found(b"a liar's", (place,))
            alice.channel.found(number.to_bytes(8), (place,))
        await alice.drops.until("left-alone", 50)
        assert knocks == 1


@contextlib.asynccontextmanager
async def silent(host: str = "127.0.0.2") -> AsyncIterator[Place]:
    """Listen, take connections, and say nothing: anybody on a LAN can add such an address to another's name."""
    held: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda reader, writer: held.append(writer), host, 0)
    try:
        found: Place = server.sockets[0].getsockname()[:2]
        yield found
    finally:
        server.close()
        for writer in held:
            writer.close()


async def test_an_address_that_stalls_keeps_no_other_from_being_tried() -> None:
    async with silent() as first, silent() as second, LanNode("alice") as alice, LanNode("bob") as bob:
        places = (first, second, ("127.0.0.1", bob.port))
        async with asyncio.timeout(HANDSHAKE_S):  # before it gives the first one up
            alice.channel.found(bob.channel._ourselves.instance, places)
            await alice.ear.sees("bob")


async def test_addresses_that_stall_are_left_alone_the_next_time() -> None:
    async with silent() as place, LanNode("alice") as alice:
        alice.channel.found(b"a liar's", (place,))
        await alice.drops.until("dial-failed")
        assert alice.channel._dialling.shuns(place)


async def test_another_member_at_one_of_a_nodes_addresses_keeps_no_other_from_being_tried() -> None:
    async with LanNode("mallory") as mallory, LanNode("alice") as alice, LanNode("bob") as bob:
        places = (("127.0.0.1", mallory.port), ("127.0.0.1", bob.port))
        alice.channel.found(bob.channel._ourselves.instance, places)
        await alice.ear.sees("bob", "mallory")


async def test_announcement_that_outlived_its_node_is_dialled_once() -> None:
    async with lan("alice", "bob") as (alice, bob):
        bob.channel.found(b"outlived", (("127.0.0.1", alice.port),))
        (target,) = (each for each in bob.channel._targets.all() if each.announced)
        assert target.task is not None
        await target.task
        assert target.over
        assert target not in bob.channel._targets.all()


async def test_a_configured_place_whose_listener_says_that_it_is_the_dialler_is_dialled_again() -> None:
    """The dialler's own chain and boot, which it says to any listener, and no proof."""
    knocks = itertools.count(1)
    twice = asyncio.Event()
    mirror = Welcome(make_member(make_realm(), "alice").chain, boot_id(1), bytes(8), bytes(3373)).encode()

    async def welcome(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if next(knocks) == 2:
            twice.set()
        writer.write(encode_frame(FrameType.GREETING, Greeting(os.urandom(32)).encode()))
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readexactly(3)
            writer.write(encode_frame(FrameType.WELCOME, mirror))
            await reader.read()
        writer.close()

    server = await asyncio.start_server(welcome, "127.0.0.1", 0, ssl=Certificate.make(meets=False).context)
    async with server, LanNode("alice", server.sockets[0].getsockname()[1]) as alice:
        await asyncio.wait_for(twice.wait(), 10)
        assert alice.drops["bad-signature"] >= 1
        assert alice.drops["self"] == 0
