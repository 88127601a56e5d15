"""LANs that share a node, on loopback with real TLS.

Every LAN is a loopback prefix, 127.0.N.0/24: a node that is dialled at 127.0.N.1 is on LAN N, and so is its dialler.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from ipaddress import ip_interface

import pytest
from kit.ear import envelope, node_of
from kit.lan import LanNode

from conflux.control.channel import Handoff
from conflux.control.envelope import HOP_LIMIT_MAX, Envelope
from conflux.control.lan import giving as giving_module
from conflux.control.lan.frame import FrameType
from conflux.control.lan.lans import Interface, Lans
from conflux.ids import NodeId


class Town:
    """Nodes and the LANs they are on; on a LAN, every node is a neighbour of every other."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self.lans: dict[str, tuple[int, ...]] = {}
        self.nodes: dict[str, LanNode] = {}

    def __getitem__(self, name: str) -> LanNode:
        return self.nodes[name]

    async def add(self, name: str, *on: int) -> None:
        """Start a node, which dials all its neighbours."""
        survey = Lans(Interface(f"lan{number}", number, (ip_interface(f"127.0.{number}.1/24"),)) for number in on)
        places = tuple(
            (f"127.0.{min(set(on) & set(self.lans[other]))}.1", self[other].port)
            for other in self.lans
            if set(on) & set(self.lans[other])
        )
        self.lans[name] = on
        node = LanNode(name, listen=("0.0.0.0",), places=places, lans=survey)
        self.nodes[name] = await self._stack.enter_async_context(node)

    async def remove(self, name: str) -> None:
        """Stop a node."""
        del self.lans[name]
        await self.nodes.pop(name).channel.stop()

    def neighbours(self, name: str) -> set[str]:
        return {other for other in self.lans if other != name and set(self.lans[name]) & set(self.lans[other])}

    async def settle(self) -> None:
        """Wait until all neighbours are connected, and then until each has heard everything before a mark."""
        for name, node in self.nodes.items():
            await node.ear.sees(*self.neighbours(name))
        marks = {name: envelope(None, b"mark") for name in self.lans}
        for name, mark in marks.items():
            if self.neighbours(name):
                assert self[name].send(mark) is Handoff.ACCEPTED
        for name in self.lans:
            for other in self.neighbours(name):
                await self.heard(name, marks[other])

    async def heard(self, name: str, what: Envelope) -> NodeId:
        """Wait until a node has heard an envelope; return from which neighbour.  Fails if it came twice so far."""
        await self[name].ear.until(lambda: bool(self.copies(name, what)))
        (via,) = self.copies(name, what)
        return via

    def copies(self, name: str, what: Envelope) -> list[NodeId]:
        """Return the neighbours from which a node has heard an envelope so far."""
        return [
            arrival.via
            for arrival in self[name].ear.arrivals
            if arrival.via is not None and arrival.envelope.id == what.id
        ]


@asynccontextmanager
async def town_of(**lans: tuple[int, ...]) -> AsyncIterator[Town]:
    """Start a node for every name, on those LANs, all connected."""
    async with AsyncExitStack() as stack:
        town = Town(stack)
        for name, on in lans.items():
            await town.add(name, *on)
        await town.settle()
        yield town


async def test_lans_that_share_a_node_are_joined() -> None:
    async with town_of(rod=(1, 2), alpha=(1,), alice=(1,), bravo=(2,), bob=(2,)) as town:
        request = envelope(node_of("bravo"))
        assert town["alpha"].send(request) is Handoff.FORWARDED
        assert await town.heard("bravo", request) == node_of("rod")
        said = envelope(None)
        town["alpha"].send(said)
        assert [await town.heard(name, said) for name in ("alice", "rod", "bravo", "bob")] == [
            node_of(via) for via in ("alpha", "alpha", "rod", "rod")
        ]
        await town.settle()  # any further copy would arrive before this
        assert not town.copies("alpha", said)
        for name in ("alice", "bob", "rod"):
            assert not town.copies(name, request)
        for name in ("alice", "rod", "bravo", "bob"):
            assert len(town.copies(name, said)) == 1


async def test_three_lans_in_a_row_are_joined() -> None:
    async with town_of(alpha=(1,), rod=(1, 2), ruth=(2, 3), bravo=(3,)) as town:
        there, back, said = envelope(node_of("bravo")), envelope(node_of("alpha")), envelope(None)
        assert town["alpha"].send(there) is Handoff.FORWARDED
        assert await town.heard("bravo", there) == node_of("ruth")
        assert town["bravo"].send(back) is Handoff.FORWARDED
        assert await town.heard("alpha", back) == node_of("rod")
        town["bravo"].send(said)
        assert await town.heard("alpha", said) == node_of("rod")
        hops = {arrival.envelope.hop_limit for arrival in town["alpha"].ear.arrivals}
        assert hops == {HOP_LIMIT_MAX, HOP_LIMIT_MAX - 1, HOP_LIMIT_MAX - 2}


async def test_bridge_reaches_a_node_two_lans_away() -> None:
    async with town_of(alpha=(1,), rod=(1, 2), ruth=(2, 3), bravo=(3,)) as town:
        request = envelope(node_of("bravo"))
        assert town["rod"].send(request) is Handoff.FORWARDED
        assert await town.heard("bravo", request) == node_of("ruth")


async def test_two_bridges_between_the_same_lans_double_nothing() -> None:
    async with town_of(rod=(1, 2), ruth=(1, 2), alpha=(1,), bravo=(2,)) as town:
        said, request = envelope(None), envelope(node_of("bravo"))
        town["alpha"].send(said)
        town["alpha"].send(request)
        for name in ("rod", "ruth", "bravo"):
            await town.heard(name, said)
        await town.heard("bravo", request)
        await town["bravo"].drops.until("duplicate")
        await town.settle()
        await town.settle()
        assert not town.copies("alpha", said)
        assert len(town.copies("bravo", request)) == 1
        assert town["bravo"].drops["duplicate"] >= 2  # of said and of request: one path each is enough


async def test_node_without_a_bridge_knows_which_node_is_absent() -> None:
    async with town_of(alpha=(1,), alice=(1,)) as town:
        assert town["alpha"].send(envelope(node_of("bravo"))) is Handoff.ABSENT


async def test_second_lan_that_comes_later_is_joined_and_one_that_goes_is_no_longer() -> None:
    async with town_of(alpha=(1,), rod=(1, 2)) as town:
        alpha, to = town["alpha"].channel, node_of("bravo")
        assert alpha.send(envelope(to)) is Handoff.ABSENT
        assert "joins" not in town["rod"].channel.state.detail
        await town.add("bravo", 2)
        await town.settle()
        assert alpha.send(envelope(to)) is Handoff.FORWARDED
        assert town["rod"].channel.state.detail.endswith("2 neighbours, joins lan1 and lan2")
        assert {name: node.ear.joining for name, node in town.nodes.items()} == {
            "alpha": {node_of("rod")},
            "bravo": {node_of("rod")},
            "rod": set(),
        }
        await town.remove("bravo")
        await town.settle()
        assert alpha.send(envelope(to)) is Handoff.ABSENT
        assert "joins" not in town["rod"].channel.state.detail
        assert town["alpha"].ear.joining == set()


async def test_bridge_that_comes_back_is_told_of_again() -> None:
    async with town_of(alpha=(1,), bravo=(2,), rod=(1, 2)) as town:
        ear = town["alpha"].ear
        assert ear.joining == {node_of("rod")}
        await town.remove("rod")
        await ear.until(lambda: ear.changes[-1] == (node_of("rod"), False))
        assert ear.joining == set()
        await town.add("rod", 1, 2)
        await ear.until(lambda: ear.joining == {node_of("rod")})


async def test_interfaces_that_turn_out_to_be_on_one_lan_are_not_joined() -> None:
    async with town_of(rod=(1, 2), alpha=(1,), bravo=(2,)) as town:
        rod, to = town["rod"].channel, node_of("bravo")
        shared = ip_interface("10.0.0.1/24")
        one_lan = Lans(Interface(f"lan{n}", n, (ip_interface(f"127.0.{n}.1/24"), shared)) for n in (1, 2))
        rod._survey = lambda: one_lan
        rod.moved()
        await town.settle()
        assert town["alpha"].send(envelope(to)) is Handoff.ABSENT
        assert {entry.lan for entry in rod.status()} == {"lan1+lan2"}


async def test_status_says_the_lan_of_each_neighbour_and_which_are_bridges() -> None:
    async with town_of(rod=(1, 2), alpha=(1,), bravo=(2,)) as town:
        seen = {
            name: {entry.name: (entry.lan, entry.bridging) for entry in node.channel.status()}
            for name, node in town.nodes.items()
        }
        assert seen == {
            "rod": {"alpha": ("lan1", False), "bravo": ("lan2", False)},
            "alpha": {"rod": ("lan1", True)},
            "bravo": {"rod": ("lan2", True)},
        }


async def test_neighbour_too_slow_for_the_envelopes_of_others_is_not_cut_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with town_of(rod=(1, 2), alpha=(1,), bravo=(2,)) as town:
        monkeypatch.setattr(giving_module, "FORWARD_BACKLOG_BYTES_MAX", 100)
        large, small = envelope(None, bytes(200)), envelope(None)
        town["alpha"].send(large)
        await town["rod"].drops.until("forward-slow")
        monkeypatch.undo()
        town["alpha"].send(small)
        await town.heard("bravo", small)
        assert not town.copies("bravo", large)
        assert town["bravo"].ear.changes == [(node_of("rod"), True)]


@pytest.mark.parametrize("body", [b"", b"\x02", b"\x01\x01"])
async def test_malformed_bridge_frame_ends_the_connection(body: bytes) -> None:
    async with town_of(alpha=(1,), bravo=(1,)) as town:
        (connection,) = town["bravo"].channel._connections
        connection.send(FrameType.BRIDGE, body)
        await town["alpha"].ear.until(lambda: (node_of("bravo"), False) in town["alpha"].ear.changes)
