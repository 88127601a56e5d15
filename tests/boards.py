"""Whole nodes in one event loop: real links over the loopback, control messages in memory, a kernel that answers pings.

kernel ─► pump ─► node ─► egress task ─► aiortc ═══ 127.0.0.1 ═══ aiortc ─► node ─► pump ─► kernel
             └──────────── control messages in memory ────────────────────────┘
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from ipaddress import IPv6Address

from builders import NOW_UNIX, make_credential, make_realm, node_keys

from conflux.anchor.frame import AES_256_GCM
from conflux.carrier.rtc import RtcCarrier
from conflux.control.memory import MemoryChannel, MemoryExchange, MemoryHub
from conflux.control.plane import ControlPlane
from conflux.datapath.config import DatapathConfig
from conflux.datapath.reference import ReferenceDatapath
from conflux.echo import ECHO_REPLY, ECHO_REQUEST, Echo
from conflux.feed import Feed
from conflux.ids import BootId
from conflux.link.interface import LinkConfig
from conflux.link.links import Links
from conflux.node import Node, NodeConfig
from conflux.node.relaying import FEATURE
from conflux.pinging import Ping
from conflux.pump import Pump
from conflux.realm.credential import RELAY, Chain
from conflux.realm.member import Member
from conflux.search.first import FirstSearch
from conflux.shuttle import Shuttle

WITHIN_S = 20.0  # a busy machine; nothing here takes a tenth of it


class Board:
    """A node with a pump, a carrier on the loopback, and a kernel that answers echo requests."""

    def __init__(
        self, name: str, exchange: MemoryExchange, idle_timeout_s: float = 15.0, relaying: bool = True
    ) -> None:
        realm = make_realm("pump")
        credential = make_credential(realm, name, capabilities=(RELAY,) if relaying else ())
        self.member = Member(node_keys(name), realm.anchor, Chain(credential, None))
        self.address = next(each for each in self.member.addresses if isinstance(each, IPv6Address))
        self.delivered: list[bytes] = []
        self.arrived = asyncio.Event()
        self.failures: list[BaseException] = []
        self.echo = Echo(os.urandom)
        self.feed = Feed()
        rng = random.Random(name)
        boot = BootId(b"\0\0\0\0\1" + os.urandom(3))
        self.datapath = ReferenceDatapath(DatapathConfig(idle_timeout_s=idle_timeout_s))
        node = Node(
            self.member,
            boot=boot,
            config=NodeConfig(aead=AES_256_GCM, relaying=relaying),
            datapath=self.datapath,
            plane=ControlPlane(
                self.member,
                boot=boot,
                entropy=os.urandom,
                rng=rng,
                clock=lambda: NOW_UNIX,
                now=Pump.now(),
                features=(FEATURE,) if relaying else (),
            ),
            links=Links(self.member.node_id, rng=rng, entropy=os.urandom, config=LinkConfig(linger_s=0.1)),
            search=FirstSearch(self.member.node_id),
            rng=rng,
            entropy=os.urandom,
        )
        self.pump = Pump(node, feed=self.feed, fail=self.failures.append)
        self.carrier = RtcCarrier(
            on_event=self.pump.carrier_event, on_frame=self.pump.frame, addresses=lambda: ["127.0.0.1"]
        )
        self.channel = MemoryChannel(exchange, self.member.node_id)
        shuttle = Shuttle(self.pump, self.datapath, self.carrier, deliver=self._deliver, echo=self.echo)
        self.pump.attach(self.carrier, shuttle, [self.channel])

    def _deliver(self, packet: bytes) -> None:
        if packet[40] == ECHO_REQUEST:
            answer = packet[:8] + packet[24:40] + packet[8:24] + bytes([ECHO_REPLY]) + packet[41:]
            self.pump.packet(answer)
        self.delivered.append(packet)
        self.arrived.set()

    def ping(self, other: Board, count: int = 1) -> Ping:
        return Ping(self.pump.packet, self.echo, self.address, other.address, count, 0.01, 56)

    def udp(self, other: Board, payload: bytes) -> bytes:
        body = bytes(4) + (8 + len(payload)).to_bytes(2, "big") + bytes(2) + payload
        head = bytes([0x60, 0, 0, 0]) + len(body).to_bytes(2, "big") + bytes([17, 64])
        return head + self.address.packed + other.address.packed + body


@contextlib.asynccontextmanager
async def boards(*names: str, idle_timeout_s: float = 15.0, plain: tuple[str, ...] = ()) -> AsyncIterator[list[Board]]:
    """Start a board for every name; plain ones do not relay.  At the end none may have met a bug."""
    exchange = MemoryExchange(MemoryHub(rng=random.Random(1)))
    made = [Board(name, exchange, idle_timeout_s, name not in plain) for name in names]
    for board in made:
        await board.channel.start(board.pump.arrival, board.pump.channel_changed, board.pump.bridge_changed)
    try:
        yield made
    finally:
        for board in made:
            await board.pump.close()
            await board.carrier.close()
            await board.channel.stop()
        assert [board.failures for board in made] == [[] for _ in made]


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(WITHIN_S):
            await scenario()

    asyncio.run(limited())
