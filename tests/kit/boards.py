"""Whole nodes in one event loop: real links over the loopback, control messages in memory, a kernel that answers pings.

kernel ─► pump ─► node ─► egress task ─► aiortc ═══ 127.0.0.1 ═══ aiortc ─► node ─► pump ─► kernel
             └──────────── control messages in memory ────────────────────────┘
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator, Callable
from ipaddress import IPv6Address

from kit.builders import NOW_UNIX, make_credential, make_realm, node_keys
from kit.exchange import Exchange, HubChannel

from conflux.anchor.frame import AES_256_GCM
from conflux.api.echo import IPV6, Echo
from conflux.api.ping import Ping
from conflux.carrier.rtc.carrier import RtcCarrier
from conflux.control.plane import ControlPlane
from conflux.datapath.config import DatapathConfig
from conflux.datapath.reference.datapath import ReferenceDatapath
from conflux.ids import BootId
from conflux.link.event import LinkConfig
from conflux.link.links import Links
from conflux.node import Node, NodeConfig
from conflux.node.relaying import FEATURE
from conflux.realm.credential import RELAY, Chain
from conflux.realm.member import Member
from conflux.search.first import FirstSearch
from conflux.shell.feed import Feed
from conflux.shell.pump import Pump
from conflux.shell.shuttle import Shuttle


class Board:
    """A node with a pump, a carrier on the loopback, and a kernel that answers echo requests."""

    def __init__(self, name: str, exchange: Exchange, idle_timeout_s: float = 15.0, relaying: bool = True) -> None:
        realm = make_realm("pump")
        credential = make_credential(realm, name, capabilities=(RELAY,) if relaying else ())
        self.member = Member(node_keys(name), realm.anchor, Chain(credential, None))
        self.address = next(each for each in self.member.addresses if isinstance(each, IPv6Address))
        self.delivered: list[bytes] = []
        self.arrived = asyncio.Event()
        self.failures: list[BaseException] = []
        self.devices_lost: list[str] = []
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
        self.channel = HubChannel(exchange, self.member.node_id)
        self.read_count = self.written_count = 0
        self.pump = Pump(
            node, connect=self._connect, channels=[self.channel], feed=self.feed, fail=self.failures.append
        )

    def _connect(self, pump: Pump) -> Shuttle:
        self.carrier = RtcCarrier(on_event=pump.carrier_event, on_frame=pump.frame, addresses=lambda: ["127.0.0.1"])
        lost = self.devices_lost.append
        return Shuttle(pump, self.datapath, self.carrier, self, device_lost=lost, echo=self.echo)

    def start(self, deliver: Callable[[bytes], None], lost: Callable[[str], None]) -> None:
        """Read nothing: tests hand packets to the pump themselves."""

    def write(self, packet: bytes) -> None:
        """Take a packet in place of the kernel, and answer an echo request as a kernel does."""
        if packet[40] == IPV6.request:
            answer = packet[:8] + packet[24:40] + packet[8:24] + bytes([IPV6.reply]) + packet[41:]
            self.pump.packet(answer)
        self.delivered.append(packet)
        self.arrived.set()

    def ping(self, other: Board, count: int = 1) -> Ping:
        """Return a ping of another board, which begins with its first item."""
        return Ping(self.pump.packet, self.echo, self.address, other.address, count, 0.01, 56)

    def udp(self, other: Board, payload: bytes) -> bytes:
        """Return a UDP packet from here to another board."""
        body = bytes(4) + (8 + len(payload)).to_bytes(2, "big") + bytes(2) + payload
        head = bytes([0x60, 0, 0, 0]) + len(body).to_bytes(2, "big") + bytes([17, 64])
        return head + self.address.packed + other.address.packed + body


@contextlib.asynccontextmanager
async def boards(*names: str, idle_timeout_s: float = 15.0, plain: tuple[str, ...] = ()) -> AsyncIterator[list[Board]]:
    """Start a board for every name, and stop them.  plain: those that do not relay.  Fails if any met a bug."""
    exchange = Exchange()
    made = [Board(name, exchange, idle_timeout_s, name not in plain) for name in names]
    for board in made:
        await board.channel.start(board.pump.inputs(board.channel))
    try:
        yield made
    finally:
        for board in made:
            await board.pump.close()
            await board.carrier.close()
            await board.channel.stop()
        assert [board.failures for board in made] == [[] for _ in made]
