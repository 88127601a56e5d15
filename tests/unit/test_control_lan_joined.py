"""LANs that share a node, on loopback with real TLS.

Every LAN is a loopback prefix, 127.0.N.0/24: who is dialled at 127.0.N.1 is on LAN N, and so is who dials.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from ipaddress import ip_interface
from typing import Any

import pytest
import uvloop
from control_ear import WAIT_S, Ear, counted, node_of, start_lan

from conflux.control.channel import Handoff
from conflux.control.envelope import HOP_LIMIT_MAX, Envelope
from conflux.control.lan import mesh as mesh_module
from conflux.control.lan.frame import FrameType
from conflux.control.lan.lans import Interface, Lans
from conflux.control.lan.mesh import LanChannel
from conflux.ids import NodeId

Scene = Callable[[], Coroutine[Any, Any, None]]
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def run(scene: Scene, loop: str = "asyncio") -> None:
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(asyncio.wait_for(scene(), 3 * WAIT_S))


def envelope(to: NodeId | None, payload: bytes = b"sealed") -> bytes:
    return Envelope(to, os.urandom(16), HOP_LIMIT_MAX, None, payload).encode()


class Town:
    """Nodes and the LANs they are on; on a LAN, everybody is everybody's neighbour."""

    def __init__(self) -> None:
        self.lans: dict[str, tuple[int, ...]] = {}
        self.channels: dict[str, LanChannel] = {}
        self.ears: dict[str, Ear] = {}

    @classmethod
    async def of(cls, **lans: tuple[int, ...]) -> Town:
        town = cls()
        for name, on in lans.items():
            await town.add(name, *on)
        await town.settle()
        return town

    async def add(self, name: str, *on: int) -> None:
        """Start a node, which dials all that are there."""
        survey = Lans(Interface(f"lan{number}", number, (ip_interface(f"127.0.{number}.1/24"),)) for number in on)
        places = tuple(
            (f"127.0.{min(set(on) & set(self.lans[other]))}.1", self.channels[other].port)
            for other in self.lans
            if set(on) & set(self.lans[other])
        )
        self.lans[name] = on
        self.channels[name], self.ears[name] = await start_lan(
            name, listen=("0.0.0.0",), places=places, survey=lambda: survey
        )

    def neighbours(self, name: str) -> set[str]:
        return {other for other in self.lans if other != name and set(self.lans[name]) & set(self.lans[other])}

    async def settle(self) -> None:
        """Wait until everybody is connected, and then until every neighbour has heard everything before a mark."""
        for name, ear in self.ears.items():
            expected = set(map(node_of, self.neighbours(name)))
            await ear.until(lambda ear=ear, expected=expected: ear.up == expected)  # type: ignore[misc]
        marks = {name: envelope(None, b"mark") for name in self.lans}
        for name, mark in marks.items():
            if self.neighbours(name):
                assert await self.channels[name].announce(mark) is Handoff.ACCEPTED
        for name in self.lans:
            for other in self.neighbours(name):
                await self.heard(name, marks[other])

    async def heard(self, name: str, what: bytes) -> NodeId:
        """Wait until a node has heard an envelope; return from which neighbour.  Fails if it came twice so far."""
        await self.ears[name].until(lambda: bool(self.copies(name, what)))
        (via,) = self.copies(name, what)
        return via

    def copies(self, name: str, what: bytes) -> list[NodeId]:
        """Through which neighbours a node has heard an envelope so far."""
        sent = Envelope.decode_untrusted(what)
        return [
            arrival.via
            for arrival in self.ears[name].arrivals
            if arrival.via is not None and Envelope.decode_untrusted(arrival.envelope).id == sent.id
        ]

    async def stop(self) -> None:
        for channel in self.channels.values():
            await channel.stop()


@pytest.mark.parametrize("loop", LOOPS)
def test_lans_that_share_a_node_are_joined(loop: str) -> None:
    async def scene() -> None:
        town = await Town.of(rod=(1, 2), alpha=(1,), alice=(1,), bravo=(2,), bob=(2,))
        request = envelope(node_of("bravo"))
        assert await town.channels["alpha"].send(node_of("bravo"), request) is Handoff.ACCEPTED
        assert await town.heard("bravo", request) == node_of("rod")
        said = envelope(None)
        await town.channels["alpha"].announce(said)
        assert [await town.heard(name, said) for name in ("alice", "rod", "bravo", "bob")] == [
            node_of(via) for via in ("alpha", "alpha", "rod", "rod")
        ]
        await town.settle()  # whatever else there is would come before this
        assert not town.copies("alpha", said)
        for name in ("alice", "bob", "rod"):
            assert not town.copies(name, request)
        for name in ("alice", "rod", "bravo", "bob"):
            assert len(town.copies(name, said)) == 1
        await town.stop()

    run(scene, loop)


def test_three_lans_in_a_row_are_joined() -> None:
    async def scene() -> None:
        town = await Town.of(alpha=(1,), rod=(1, 2), ruth=(2, 3), bravo=(3,))
        there, back, said = envelope(node_of("bravo")), envelope(node_of("alpha")), envelope(None)
        assert await town.channels["alpha"].send(node_of("bravo"), there) is Handoff.ACCEPTED
        assert await town.heard("bravo", there) == node_of("ruth")
        assert await town.channels["bravo"].send(node_of("alpha"), back) is Handoff.ACCEPTED
        assert await town.heard("alpha", back) == node_of("rod")
        await town.channels["bravo"].announce(said)
        assert await town.heard("alpha", said) == node_of("rod")
        hops = {Envelope.decode_untrusted(arrival.envelope).hop_limit for arrival in town.ears["alpha"].arrivals}
        assert hops == {HOP_LIMIT_MAX, HOP_LIMIT_MAX - 1, HOP_LIMIT_MAX - 2}
        await town.stop()

    run(scene)


def test_middle_node_reaches_what_is_two_lans_away() -> None:
    async def scene() -> None:
        town = await Town.of(alpha=(1,), rod=(1, 2), ruth=(2, 3), bravo=(3,))
        request = envelope(node_of("bravo"))
        assert await town.channels["rod"].send(node_of("bravo"), request) is Handoff.ACCEPTED
        assert await town.heard("bravo", request) == node_of("ruth")
        await town.stop()

    run(scene)


def test_two_middle_nodes_between_the_same_lans_double_nothing() -> None:
    async def scene() -> None:
        town = await Town.of(rod=(1, 2), ruth=(1, 2), alpha=(1,), bravo=(2,))
        said, request = envelope(None), envelope(node_of("bravo"))
        await town.channels["alpha"].announce(said)
        await town.channels["alpha"].send(node_of("bravo"), request)
        for name in ("rod", "ruth", "bravo"):
            await town.heard(name, said)
        await town.heard("bravo", request)
        await counted(town.channels["bravo"], "duplicate")
        await town.settle()
        await town.settle()
        assert not town.copies("alpha", said)
        assert len(town.copies("bravo", request)) == 1
        assert town.channels["bravo"].drops["duplicate"] >= 2  # of said and of request: one path each is enough
        await town.stop()

    run(scene)


def test_node_without_a_neighbour_that_joins_lans_knows_who_is_absent() -> None:
    async def scene() -> None:
        town = await Town.of(alpha=(1,), alice=(1,))
        assert await town.channels["alpha"].send(node_of("bravo"), envelope(node_of("bravo"))) is Handoff.ABSENT
        await town.stop()

    run(scene)


def test_second_lan_that_comes_later_is_joined_and_one_that_goes_is_not_any_more() -> None:
    async def scene() -> None:
        town = await Town.of(alpha=(1,), rod=(1, 2))
        alpha, to = town.channels["alpha"], node_of("bravo")
        assert await alpha.send(to, envelope(to)) is Handoff.ABSENT
        assert "joins" not in town.channels["rod"].state.detail
        await town.add("bravo", 2)
        await town.settle()
        assert await alpha.send(to, envelope(to)) is Handoff.ACCEPTED
        assert town.channels["rod"].state.detail.endswith("2 neighbours, joins lan1 and lan2")
        assert {name: ear.joining for name, ear in town.ears.items()} == {
            "alpha": {node_of("rod")},
            "bravo": {node_of("rod")},
            "rod": set(),
        }
        await town.channels.pop("bravo").stop()
        town.lans.pop("bravo")
        town.ears.pop("bravo")
        await town.settle()
        assert await alpha.send(to, envelope(to)) is Handoff.ABSENT
        assert "joins" not in town.channels["rod"].state.detail
        assert town.ears["alpha"].joining == set()
        await town.stop()

    run(scene)


def test_neighbour_that_joins_lans_and_comes_back_is_told_of_again() -> None:
    async def scene() -> None:
        town = await Town.of(alpha=(1,), bravo=(2,), rod=(1, 2))
        ear = town.ears["alpha"]
        assert ear.joining == {node_of("rod")}
        await town.channels.pop("rod").stop()
        await ear.until(lambda: ear.changes[-1] == (node_of("rod"), False))
        del town.lans["rod"], town.ears["rod"]
        assert ear.joining == set()
        await town.add("rod", 1, 2)
        await ear.until(lambda: ear.joining == {node_of("rod")})
        await town.stop()

    run(scene)


def test_interfaces_that_turn_out_to_be_on_one_lan_are_not_joined() -> None:
    async def scene() -> None:
        town = await Town.of(rod=(1, 2), alpha=(1,), bravo=(2,))
        rod, to = town.channels["rod"], node_of("bravo")
        shared = ip_interface("10.0.0.1/24")
        one_lan = Lans(Interface(f"lan{n}", n, (ip_interface(f"127.0.{n}.1/24"), shared)) for n in (1, 2))
        rod._survey = lambda: one_lan
        rod.moved()
        await town.settle()
        assert await town.channels["alpha"].send(to, envelope(to)) is Handoff.ABSENT
        assert {entry["lan"] for entry in rod.status()} == {"lan1+lan2"}
        await town.stop()

    run(scene)


def test_status_says_who_is_on_which_lan_and_who_joins_lans() -> None:
    async def scene() -> None:
        town = await Town.of(rod=(1, 2), alpha=(1,), bravo=(2,))
        seen = {
            name: {entry["name"]: (entry["lan"], entry["joins"]) for entry in channel.status()}
            for name, channel in town.channels.items()
        }
        assert seen == {
            "rod": {"alpha": ("lan1", False), "bravo": ("lan2", False)},
            "alpha": {"rod": ("lan1", True)},
            "bravo": {"rod": ("lan2", True)},
        }
        await town.stop()

    run(scene)


def test_neighbour_that_does_not_keep_up_with_others_envelopes_is_not_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        town = await Town.of(rod=(1, 2), alpha=(1,), bravo=(2,))
        monkeypatch.setattr(mesh_module, "FORWARD_BACKLOG_BYTES_MAX", 100)
        large, small = envelope(None, bytes(200)), envelope(None)
        await town.channels["alpha"].announce(large)
        await counted(town.channels["rod"], "forward-slow")
        monkeypatch.undo()
        await town.channels["alpha"].announce(small)
        await town.heard("bravo", small)
        assert not town.copies("bravo", large)
        assert town.ears["bravo"].changes == [(node_of("rod"), True)]
        await town.stop()

    run(scene)


@pytest.mark.parametrize("body", [b"", b"\x02", b"\x01\x01"])
def test_malformed_standing_ends_the_connection(body: bytes) -> None:
    async def scene() -> None:
        town = await Town.of(alpha=(1,), bravo=(1,))
        (connection,) = town.channels["bravo"]._connections
        connection.send(FrameType.STANDING, body)
        await town.ears["alpha"].until(lambda: (node_of("bravo"), False) in town.ears["alpha"].changes)
        await town.stop()

    run(scene)
