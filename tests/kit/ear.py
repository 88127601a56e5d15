"""What one node hears from its control channel, and waiting for it without sleeping."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable

from kit.builders import make_member, make_realm

from conflux.control.channel import Arrival, ChannelInputs
from conflux.control.envelope import HOP_LIMIT_MAX, Envelope
from conflux.ids import NodeId

WAIT_S = 10.0  # a busy machine; nothing here takes a tenth of it


class Tally(Counter[str]):
    """Drop counts that can be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self._something = asyncio.Event()

    def __setitem__(self, reason: str, count: int) -> None:
        super().__setitem__(reason, count)
        self._something.set()

    async def until(self, reason: str, count: int = 1) -> None:
        """Wait until so much is counted under that reason."""
        async with asyncio.timeout(WAIT_S):
            while self[reason] < count:
                self._something.clear()
                await self._something.wait()


class Ear:
    """Hears what a channel tells: give its inputs() to ControlChannel.start()."""

    def __init__(self) -> None:
        self.arrivals: list[Arrival] = []
        self.changes: list[tuple[NodeId, bool]] = []
        self.up: set[NodeId] = set()
        self.joining: set[NodeId] = set()
        self.absent: list[NodeId] = []
        self.turns: list[bool] = []
        self.parts: list[NodeId] = []
        self.transits: list[Arrival] = []
        self._something = asyncio.Event()

    def inputs(self) -> ChannelInputs:
        """Return what a channel tells this ear by."""
        heard = self.deliver, self.changed, self.bridges, self.missed, self.turned, self.transit
        return ChannelInputs(*heard, parted=self.parts.append)

    def deliver(self, arrival: Arrival) -> None:
        """Hear an envelope."""
        self.arrivals.append(arrival)
        self._something.set()

    def changed(self, node: NodeId, up: bool) -> None:
        """Hear that a neighbour came or went."""
        self.changes.append((node, up))
        (self.up.add if up else self.up.discard)(node)
        if not up:
            self.joining.discard(node)
        self._something.set()

    def bridges(self, node: NodeId, joins: bool) -> None:
        """Hear that a neighbour is a bridge, or is none any more."""
        (self.joining.add if joins else self.joining.discard)(node)
        self._something.set()

    def missed(self, node: NodeId) -> None:
        """Hear that nobody took what was sent to a node."""
        self.absent.append(node)
        self._something.set()

    def turned(self, up: bool) -> None:
        """Hear that the channel came up or went down by itself."""
        self.turns.append(up)
        self._something.set()

    def transit(self, arrival: Arrival) -> None:
        """Hear an envelope that another channel may have to carry on."""
        self.transits.append(arrival)
        self._something.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something that is heard makes the condition true."""
        async with asyncio.timeout(WAIT_S):
            while not condition():
                self._something.clear()
                await self._something.wait()

    async def heard(self, *payloads: bytes) -> None:
        """Wait until exactly these payloads have arrived, in this order."""
        await self.until(lambda: len(self.arrivals) >= len(payloads))
        assert [arrival.envelope.payload for arrival in self.arrivals] == list(payloads)

    async def sees(self, *names: str) -> None:
        """Wait until exactly these nodes are neighbours."""
        expected = {node_of(name) for name in names}
        await self.until(lambda: self.up == expected)

    def payloads(self) -> list[bytes]:
        """Return what arrived."""
        return [arrival.envelope.payload for arrival in self.arrivals]


def envelope(to: NodeId | None, payload: bytes = b"sealed") -> Envelope:
    """Return a new envelope, as a node sends it: sealed if it is for one node."""
    return Envelope(to, os.urandom(16), HOP_LIMIT_MAX, None if to is None else b"a key id", payload)


def node_of(name: str, realm: str = "home") -> NodeId:
    """Return the node id that belongs to a name."""
    return make_member(make_realm(realm), name).node_id
