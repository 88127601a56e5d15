"""What one node hears from its control channel, and waiting for it without sleeping."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Callable

from builders import NOW_UNIX, make_member, make_realm
from control_world import boot_id

from conflux.control.channel import Arrival
from conflux.control.lan.config import LanConfig
from conflux.control.lan.lans import Lans
from conflux.control.lan.mesh import LanChannel
from conflux.ids import NodeId
from conflux.realm.credential import Chain
from conflux.realm.join import JoinAnswer, JoinRequest
from conflux.realm.member import Member

WAIT_S = 10.0


class Tally(Counter[str]):
    """Drop counts that can be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self._something = asyncio.Event()

    def __setitem__(self, reason: str, count: int) -> None:
        super().__setitem__(reason, count)
        self._something.set()

    async def until(self, reason: str) -> None:
        """Wait until something is counted under that reason."""
        async with asyncio.timeout(WAIT_S):
            while not self[reason]:
                self._something.clear()
                await self._something.wait()


class Ear:
    """Give its methods to ControlChannel.start()."""

    def __init__(self) -> None:
        self.arrivals: list[Arrival] = []
        self.changes: list[tuple[NodeId, bool]] = []
        self.up: set[NodeId] = set()
        self.joining: set[NodeId] = set()
        self._something = asyncio.Event()

    def deliver(self, arrival: Arrival) -> None:
        self.arrivals.append(arrival)
        self._something.set()

    def changed(self, node: NodeId, up: bool) -> None:
        self.changes.append((node, up))
        (self.up.add if up else self.up.discard)(node)
        if not up:
            self.joining.discard(node)
        self._something.set()

    def bridges(self, node: NodeId, joins: bool) -> None:
        (self.joining.add if joins else self.joining.discard)(node)
        self._something.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something that is heard makes the condition true."""
        async with asyncio.timeout(WAIT_S):
            while not condition():
                self._something.clear()
                await self._something.wait()

    def envelopes(self) -> list[bytes]:
        return [arrival.envelope for arrival in self.arrivals]


def lan_channel(
    name: str,
    *peers: int,
    boot: int = 1,
    realm: str = "home",
    member: Member | None = None,
    now_unix: int = NOW_UNIX,
    issuer: Callable[[JoinRequest, bytes], JoinAnswer] | None = None,
    listen: tuple[str, ...] = ("127.0.0.1",),
    places: tuple[tuple[str, int], ...] = (),
    survey: Callable[[], Lans] = Lans.survey,
    **options: object,
) -> LanChannel:
    """A LAN channel on loopback that dials the given ports there, and places elsewhere."""
    found = member or make_member(make_realm(realm), name)

    def judge(chain: Chain) -> None:
        chain.verify(found.anchor, now_unix=now_unix)

    places = (*places, *((listen[0], port) for port in peers))
    settings: dict[str, object] = {"port": 0, "mdns": False, "accept_rate_per_address": 200.0, **options}
    channel = LanChannel(
        found,
        boot=boot_id(boot),
        judge=judge,
        clock=lambda: now_unix,
        entropy=os.urandom,
        rng=random.Random(name),
        config=LanConfig(listen=listen, peers=places, **settings),  # type: ignore[arg-type]  # tests know the keys
        issuer=issuer,
        survey=survey,
    )
    channel.drops = Tally()
    return channel


async def counted(channel: LanChannel, reason: str) -> None:
    """Wait until a drop is counted: the far side of what was just done."""
    assert isinstance(channel.drops, Tally)
    await channel.drops.until(reason)


async def start_lan(name: str, *peers: int, **options: object) -> tuple[LanChannel, Ear]:
    """Start one."""
    channel, ear = lan_channel(name, *peers, **options), Ear()  # type: ignore[arg-type]  # passed through
    await channel.start(ear.deliver, ear.changed, ear.bridges)
    return channel, ear


def node_of(name: str, realm: str = "home") -> NodeId:
    return make_member(make_realm(realm), name).node_id
