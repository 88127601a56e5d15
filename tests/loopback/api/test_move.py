"""`conflux route NAME` and `conflux route move NAME` on whole nodes, and what their relays show of it."""

import asyncio
import contextlib

import pytest
from kit.boards import Board, boards
from kit.person import Person

from conflux.api import move
from conflux.cli import observe
from conflux.cli import route as command
from conflux.ids import format_node_id
from conflux.node.event import Event, EventKind
from conflux.search.interface import Measured, Path
from conflux.shell.pump import Pump


@contextlib.asynccontextmanager
async def flowing(*relays: str, plain: tuple[str, ...] = ()):
    """Yield a person at alpha, alpha with a stream to bravo, bravo, and relays beside them."""
    async with boards("alpha", "bravo", *relays, *plain, plain=plain) as made:
        alpha, bravo, *others = made
        items = [item async for item in alpha.ping(bravo).items()]
        assert items[0].rtt_ms > 0
        yield Person(alpha, bravo, *others), alpha, bravo, others


async def still_answers(alpha: Board, bravo: Board) -> None:
    items = [item async for item in alpha.ping(bravo, 3).items()]
    assert all(item.rtt_ms > 0 for item in items)


async def test_a_stream_moves_onto_a_relay_and_back():
    async with flowing("rod") as (person, alpha, bravo, _):
        got = await person.ask("move", name="bravo", via="rod")
        assert (got["name"], got["before"], got["after"]) == ("bravo", ["bravo"], ["rod", "bravo"])
        assert 0 < got["took_ms"] < 1000 * move.MOVE_TIMEOUT_S
        assert command.describe_move(got | {"took_ms": 87.2}) == (
            "bravo moved in 87 ms\n  before  direct\n  now     rod"
        )
        await still_answers(alpha, bravo)
        got = await person.ask("move", name="bravo", direct=True)
        assert (got["before"], got["after"]) == (["rod", "bravo"], ["bravo"])
        await still_answers(alpha, bravo)


async def test_without_via_the_best_measured_path_is_taken_and_else_any_other():
    async with flowing("rod", "ruth") as (person, alpha, bravo, (rod, ruth)):
        search, direct = alpha.pump.node.search, Path((bravo.member.node_id,))
        assert await person.refused("move", name="bravo") == "bravo: no other path is known"
        alpha.pump.bridge_changed(rod.member.node_id, True)
        assert (await person.ask("move", name="bravo"))["after"][0] in ("rod", format_node_id(rod.member.node_id))
        assert (await person.ask("move", name="bravo"))["after"] == ["bravo"]
        await person.ask("move", name="bravo", via="rod")
        alpha.pump.bridge_changed(ruth.member.node_id, True)
        search._costs.clear()
        assert search.paths(bravo.member.node_id, now=Pump.now())[0] == direct
        search.measured(Path((ruth.member.node_id, *direct.hops)), Measured(0.01, 0, 0, 0), now=Pump.now())
        assert (await person.ask("move", name="bravo"))["after"] == ["ruth", "bravo"]


@pytest.mark.parametrize("word", ["ROD", "{id}", "{address}"])
async def test_a_relay_is_found_by_its_name_its_id_and_its_address(word):
    async with flowing("rod") as (person, _, _, (rod,)):
        if word == "{address}":  # only its card says whose address it is
            await person.ask("route", name="rod")
        named = word.format(id=format_node_id(rod.member.node_id), address=rod.address)
        assert (await person.ask("move", name="bravo", via=named))["after"] == ["rod", "bravo"]


async def test_a_route_through_two_relays_is_told_by_each_as_its_neighbours_only():
    async with flowing("rod", "ruth") as (person, alpha, bravo, (rod, ruth)):
        await person.ask("route", name="ruth")  # now its card is here; else its key would have to come from bravo
        await person.ask("move", name="bravo", via="rod,ruth")
        await still_answers(alpha, bravo)
        (of_rod,) = await relayed(rod)
        assert (of_rod["before"]["name"], of_rod["ahead"]["name"]) == ("alpha", "ruth")
        (of_ruth,) = await relayed(ruth)
        assert (of_ruth["before"]["name"], of_ruth["ahead"]["name"]) == ("rod", "bravo")
        assert of_rod["ahead_frames"] > 0
        assert of_rod["ahead_bytes"] > of_rod["ahead_frames"] * 16
        assert of_rod["ahead"]["label_out"] == of_ruth["before"]["label_in"]
        assert of_rod["expires_in_s"] > 0
        assert alpha.member.name not in str(of_ruth)
        assert bravo.member.name not in str(of_rod)


async def relayed(board: Board) -> list[dict]:
    return (await Person(board).ask("paths"))["relays"]


async def test_routes_shows_the_routes_that_pass_through():
    async with flowing("rod") as (person, alpha, bravo, (rod,)):
        await person.ask("move", name="bravo", via="rod")
        await still_answers(alpha, bravo)
        at_rod = Person(rod, alpha, bravo)
        got = await at_rod.ask("paths")
        (row,) = got["relays"]
        assert got["routes"] == []
        text = "\n\n".join(observe.describe_paths(got))
        for part in ("alpha", "bravo", row["before"]["label_in"], row["ahead"]["label_out"]):
            assert part in text
        assert max(map(len, text.splitlines())) <= 80


async def test_a_route_is_explained():
    async with flowing("rod") as (person, *_):
        await person.ask("move", name="bravo", via="rod")
        got = await person.ask("route", name="bravo")
        assert (got["state"], got["path"]) == ("flowing", ["rod", "bravo"])
        assert [row["hops"] for row in got["paths"] if row["carrying"]] == [["rod", "bravo"]]
        direct = next(row for row in got["paths"] if row["hops"] == ["bravo"])
        assert direct["openings"] == 1
        unknown = await person.ask("route", name="rod")
        assert (unknown["state"], unknown["path"]) == (None, None)
        for answer, words in ((got, "bravo: flowing, by rod"), (unknown, "rod: no stream goes there now")):
            title, table = command.describe_route(answer)
            assert title == words
            assert max(map(len, table.splitlines())) <= 100


async def test_a_move_that_is_impossible_is_refused_with_the_reason():
    async with flowing("rod") as (person, alpha, *_):
        own = "this node itself is no relay of its own streams"
        assert await person.refused("move", name="rod") == "no stream flows to rod: there is nothing to move"
        assert await person.refused("move", name="alpha") == "alpha is this node itself"
        assert await person.refused("move", name="bravo", direct=True) == "the stream to bravo goes direct already"
        assert await person.refused("move", name="bravo", via="rita") == (
            "no relay 'rita' is known here: name a neighbour, or a far relay by its node id"
        )
        assert await person.refused("move", name="bravo", via="10.9.9.9") == (
            "no relay '10.9.9.9' is known here: name a neighbour, or a far relay by its node id"
        )
        assert await person.refused("move", name="bravo", via=format_node_id(alpha.member.node_id)) == own
        assert await person.refused("move", name="bravo", via="alpha") == own
        assert await person.refused("move", name="bravo", via="rod,bravo") == (
            "bravo is where the stream goes: --via names the relays before it"
        )
        assert await person.refused("move", name="bravo", via="rod,rod") == (
            "bravo: a path is at most 4 hops, each another node"
        )
        assert "either via or direct" in await person.refused("move", name="bravo", via="rod", direct=True)


async def test_a_path_that_fails_is_told_with_its_reason_and_the_stream_stays():
    async with flowing("rod", plain=("prim",)) as (person, alpha, bravo, _):
        assert await person.refused("move", name="bravo", via="prim") == (
            "bravo: no path by prim: prim does not relay (no-relay)"
        )
        stranger = format_node_id(b"nobody is called")
        assert await person.refused("move", name="bravo", via=f"rod,{stranger}") == (
            f"bravo: no path by rod, {stranger}: the key of {stranger} is not known here (no-key)"
        )
        assert (await person.ask("route", name="bravo"))["path"] == ["bravo"]
        await still_answers(alpha, bravo)


async def test_a_path_that_takes_too_long_is_told_with_the_path_that_carries_meanwhile(monkeypatch):
    async with flowing("rod") as (person, _, _, (rod,)):
        rod_id = format_node_id(rod.member.node_id)
        monkeypatch.setattr(move, "MOVE_TIMEOUT_S", 0)
        assert await person.refused("move", name="bravo", via="rod") == (
            f"bravo: no path by {rod_id} after 0 s; meanwhile packets go direct"
        )


async def test_a_stream_that_ends_during_its_move_is_told():
    async with flowing("rod") as (person, alpha, bravo, (rod,)):
        rod.pump._running = False  # its process hangs, so the move does not end by itself
        moved = asyncio.create_task(person.refused("move", name="bravo", via="rod"))
        await asyncio.sleep(0)
        alpha.pump._publish(Event(EventKind.IDLE, bravo.member.node_id))
        assert await moved == "the stream to bravo ended meanwhile"
