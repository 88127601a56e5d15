"""LAN channels on loopback, with real TLS, that are stopped however a test ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import ssl
from collections.abc import AsyncIterator
from typing import Any

from kit.builders import NOW_UNIX, make_member, make_realm
from kit.control import boot_id
from kit.ear import Ear, Tally

from conflux.control.admitting import Carrier, Issue
from conflux.control.channel import Handoff
from conflux.control.envelope import Envelope
from conflux.control.lan.certificate import client_context
from conflux.control.lan.channel import LanChannel
from conflux.control.lan.config import LanConfig, Place
from conflux.control.lan.connection import Connection
from conflux.control.lan.dial import open_connection, resolve
from conflux.control.lan.lans import Lans
from conflux.ids import NodeId
from conflux.realm.credential import Chain
from conflux.realm.listbook import ListBook
from conflux.realm.lists import SignedList
from conflux.realm.member import Member


class LanNode:
    """One node's LAN channel, and an ear that hears what it tells.

    It listens on loopback and dials the given ports there, and places elsewhere.  options: of LanConfig.
    """

    def __init__(
        self,
        name: str,
        *ports: int,
        boot: int = 1,
        realm: str = "home",
        member: Member | None = None,
        now_unix: int = NOW_UNIX,
        issue: Issue | None = None,
        listen: tuple[str, ...] = ("127.0.0.1",),
        places: tuple[Place, ...] = (),
        lans: Lans | None = None,
        book: ListBook | None = None,
        carrier: Carrier | None = None,
        **options: Any,
    ) -> None:
        held = book or ListBook(make_realm(realm).anchor, lambda: now_unix)
        found = member or make_member(make_realm(realm), name)

        def judge(chain: Chain) -> None:
            chain.verify(found.anchor, now_unix=now_unix)

        peers = (*places, *((listen[0], port) for port in ports))
        settings: dict[str, Any] = {"port": 0, "mdns": False, "accept_rate_per_address": 200.0, **options}
        self.name = name
        self.node_id: NodeId = found.node_id
        self.book = held
        self.told: list[SignedList] = []
        self.ear = Ear()
        self.drops = Tally()
        self.channel = LanChannel(
            found,
            boot=boot_id(boot),
            judge=judge,
            clock=lambda: now_unix,
            entropy=os.urandom,
            rng=random.Random(name),
            config=LanConfig(listen=listen, peers=peers, **settings),
            issue=issue,
            survey=Lans.survey if lans is None else lambda: lans,
            admit=held.judge,
            against=lambda chain: held.lists_against(chain.credential.node_id, chain.credential.issuer)[0].encode(),
            told=self._hear,
            carrier=carrier,
        )
        self.channel.drops = self.drops

    def _hear(self, data: bytes) -> None:
        self.told.append(SignedList.decode_untrusted(data))
        self.book.learn(self.told[-1])

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self.channel.port

    async def __aenter__(self) -> LanNode:
        await self.channel.start(self.ear.inputs())
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.channel.stop()

    def send(self, envelope: Envelope) -> Handoff:
        """Send an envelope."""
        return self.channel.send(envelope)


@contextlib.asynccontextmanager
async def lan(*names: str, **options: Any) -> AsyncIterator[list[LanNode]]:
    """Nodes on one LAN, each of which dialled those before it; they have seen each other."""
    async with contextlib.AsyncExitStack() as stack:
        nodes: list[LanNode] = []
        for name in names:
            node = LanNode(name, *(other.port for other in nodes), **options)
            nodes.append(await stack.enter_async_context(node))
        for node in nodes:
            await node.ear.sees(*(name for name in names if name != node.name))
        yield nodes


async def stranger(port: int, context: ssl.SSLContext | None = None) -> Connection:
    """Return a TLS connection to a port of loopback whose dialler has said nothing yet."""
    (address,) = await resolve("127.0.0.1", port)
    return await open_connection(address, context or client_context(), asyncio.Event())


def free_port() -> int:
    """Return a port of loopback on which nothing listens."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        port: int = holder.getsockname()[1]
        return port
