"""Two boards with one identity: both know it for certain, others say it, and the older one comes back."""

from __future__ import annotations

import asyncio

import pytest
from kit.control import boot_id
from kit.ear import node_of
from kit.lan import LanNode, free_port

from conflux.control.lan import twins as twins_module
from conflux.control.lan.twins import Twins, place_of
from conflux.ids import BootId


async def test_both_boards_with_one_identity_say_so_whoever_dials() -> None:
    async with LanNode("alice") as alice, LanNode("alice", alice.port, boot=2) as copy:
        for node in (alice, copy):
            await node.drops.until("twin")
            (words,) = node.channel._twins.warnings()
            assert words.startswith("twin: the board at 127.0.0.1 has this node's identity too")
            assert ("other nodes hear that board" in words) == (node is alice), "the newer boot is heard"
            assert node.channel.status() == ()


async def test_a_node_that_meets_both_boards_says_where_they_are() -> None:
    async with LanNode("bob") as bob, LanNode("alice", bob.port, boot=2) as copy:
        await copy.ear.sees("bob")
        async with LanNode("alice", bob.port) as alice:
            await alice.ear.sees("bob")
            twins = bob.channel._twins
            await bob.ear.until(lambda: bool(twins.warnings()))
            (words,) = twins.warnings()
            assert words.startswith("twins: two boards have the identity of alice")
            assert "127.0.0.1 and 127.0.0.1" in words
            assert bob.channel._neighbours.find(node_of("alice")).peer.boot == boot_id(2)


async def test_a_restart_is_no_twin() -> None:
    async with LanNode("bob") as bob, LanNode("alice", bob.port) as alice:
        await alice.ear.sees("bob")
        async with LanNode("alice", bob.port, boot=2) as again:
            await again.ear.sees("bob")
            await bob.ear.until(lambda: len(bob.ear.changes) >= 3)
            assert bob.channel._twins.warnings() == []


@pytest.fixture
def _quick(monkeypatch):
    monkeypatch.setattr(twins_module, "LOOK_S", 0.01)
    monkeypatch.setattr(twins_module, "QUIET_S", 0.0)


@pytest.mark.usefixtures("_quick")
async def test_the_older_board_starts_again_once_the_newer_one_is_gone() -> None:
    calls: list[BootId] = []

    def again(newer: BootId) -> bool:
        calls.append(newer)
        return True

    twins = Twins(boot_id(1), asyncio.get_running_loop().time, again)
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    place = server.sockets[0].getsockname()
    twins.met(boot_id(5), place)
    watching = asyncio.create_task(twins.watch())
    await asyncio.sleep(0.1)
    assert (calls, len(twins.warnings())) == ([], 1), "it listens still"
    server.close()
    await server.wait_closed()
    await asyncio.wait_for(watching, 10)
    assert (calls, twins.warnings()) == ([boot_id(5)], [])


@pytest.mark.usefixtures("_quick")
async def test_the_newer_board_goes_on_once_the_older_one_is_gone() -> None:
    looks: list[tuple[str, int]] = []
    last = asyncio.Event()

    async def is_there(place: tuple[str, int]) -> bool:
        looks.append(place)
        if len(looks) == twins_module.LOOK_COUNT:
            last.set()
        return False

    twins = Twins(boot_id(5), asyncio.get_running_loop().time, lambda newer: pytest.fail("started again"))
    twins.is_there = is_there
    twins.met(boot_id(1), ("127.0.0.1", 9))
    watching = asyncio.create_task(twins.watch())
    await asyncio.wait_for(last.wait(), 10)
    await asyncio.sleep(0.1)
    assert (twins.warnings(), watching.done(), len(looks)) == ([], False, twins_module.LOOK_COUNT)
    watching.cancel()


@pytest.mark.usefixtures("_quick")
async def test_looks_that_fail_now_and_then_do_not_make_a_board_start_again() -> None:
    """A board that is busy refuses a connection, and one that starts anew does not listen for a moment."""
    there = (answer for round_ in range(20) for answer in [False] * (twins_module.LOOK_COUNT - 1) + [True])
    looks: list[tuple[str, int]] = []

    async def is_there(place: tuple[str, int]) -> bool:
        looks.append(place)
        return next(there, False)

    calls: list[BootId] = []
    twins = Twins(boot_id(1), asyncio.get_running_loop().time, lambda newer: not calls.append(newer))
    twins.is_there = is_there
    twins.met(boot_id(5), ("127.0.0.1", 9))
    await asyncio.wait_for(twins.watch(), 30)
    assert (len(looks), calls) == (21 * twins_module.LOOK_COUNT, [boot_id(5)])


@pytest.mark.usefixtures("_quick")
async def test_a_board_that_is_met_while_it_is_looked_for_is_not_gone() -> None:
    async def is_there(place: tuple[str, int]) -> bool:
        twins.met(boot_id(5), place)
        return False

    twins = Twins(boot_id(1), asyncio.get_running_loop().time, lambda newer: pytest.fail("started again"))
    twins.is_there = is_there
    twins.met(boot_id(5), ("127.0.0.1", 9))
    watching = asyncio.create_task(twins.watch())
    await asyncio.sleep(0.2)
    assert (len(twins.warnings()), watching.done()) == (1, False)
    watching.cancel()


async def test_a_look_at_a_twin_takes_note_of_what_it_runs_as_now() -> None:
    async with LanNode("alice") as alice, LanNode("alice", boot=3) as copy:
        twins = alice.channel._twins
        twins.met(boot_id(2), ("127.0.0.1", copy.port))
        assert await alice.channel._dialling.finds_twin(("127.0.0.1", copy.port))
        assert twins._twin is not None
        assert twins._twin.boot == boot_id(3)


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("rests", [True, False])
async def test_who_has_our_key_makes_us_start_again_once_an_hour_at_most(rests: bool) -> None:
    """Either this start is one that it made, or it was asked for and refused a moment ago."""
    now, calls = 0.0, asyncio.Queue[BootId]()

    def again(newer: BootId) -> bool:
        calls.put_nowait(newer)
        return rests

    twins = Twins(boot_id(1), lambda: now, again, rests=rests)
    twins.met(boot_id(5), ("127.0.0.1", free_port()))
    watching = asyncio.create_task(twins.watch())
    if not rests:
        await asyncio.wait_for(calls.get(), 10)
    now = twins_module.REST_S - 1
    for _ in range(3):
        twins.met(boot_id(6), ("127.0.0.1", free_port()))
        await asyncio.sleep(0.1)
    assert calls.empty()
    assert not watching.done()
    now = twins_module.REST_S
    assert await asyncio.wait_for(calls.get(), 10) == boot_id(6)
    assert len(twins.warnings()) == (not rests), "what hears that board says so as long as it does"
    watching.cancel()


def test_a_place_on_a_link_says_which_link() -> None:
    assert place_of(("fe80::1", 40000, 0, 3), 4860) == ("fe80::1%3", 4860)
    assert place_of(("2001:db8::1", 40000, 0, 0), 4860) == ("2001:db8::1", 4860)
    assert place_of(("192.0.2.1", 40000), 4860) == ("192.0.2.1", 4860)


def test_words_about_others_end_and_are_bounded() -> None:
    now = 0.0
    twins = Twins(boot_id(1), lambda: now, lambda newer: True)
    for number in range(twins_module.OTHER_COUNT_MAX + 3):
        twins.met_others(node_of(f"n{number}"), f"n{number}", "10.0.0.1", "10.0.0.2")
    assert len(twins.warnings()) == twins_module.OTHER_COUNT_MAX
    now = twins_module.KEPT_S
    assert twins.warnings() == []


@pytest.mark.usefixtures("_quick")
async def test_a_copy_that_was_made_a_new_node_at_the_same_place_is_no_twin_any_more() -> None:
    """Else the original, whose boot is the older one, would not be heard until that board is switched off."""
    async with LanNode("alice") as alice:
        calls: list[BootId] = []
        alice.channel._twins._again = lambda newer: not calls.append(newer)
        port = free_port()
        async with LanNode("alice", alice.port, boot=2, port=port):
            await alice.drops.until("twin")
        twins = alice.channel._twins
        twins.met(boot_id(2), ("127.0.0.1", port))
        async with LanNode("alice", boot=2, port=port):
            watching = asyncio.create_task(twins.watch())
            await asyncio.sleep(0.3)
            assert (calls, len(twins.warnings())) == ([], 1), "it has our key still"
            watching.cancel()  # nobody listens there for a moment, and that is not what is asked here
            await asyncio.gather(watching, return_exceptions=True)
        async with LanNode("bob", port=port) as new:
            await asyncio.wait_for(twins.watch(), 10)
            assert (calls, twins.warnings()) == ([boot_id(2)], [])
            await new.ear.sees("alice")
