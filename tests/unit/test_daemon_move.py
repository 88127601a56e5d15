"""`conflux route NAME` and `conflux route move NAME` against whole nodes, and what their relays tell of it."""

import asyncio
import contextlib
from types import SimpleNamespace

import pytest
from boards import Board, boards, run

from conflux import moving, report
from conflux.commands import observe
from conflux.commands import route as command
from conflux.config import Config
from conflux.errors import UserError
from conflux.events import Event
from conflux.ids import format_node_id
from conflux.operations import Operations
from conflux.pump import Pump
from conflux.search.interface import Measured, Path


class Person:
    """Somebody at a board's socket.  Every other board is a LAN neighbour."""

    def __init__(self, board: Board, *others: Board) -> None:
        neighbours = [{"name": other.member.name, "node": format_node_id(other.member.node_id)} for other in others]
        channel = SimpleNamespace(status=lambda: neighbours)
        daemon = SimpleNamespace(pump=board.pump, channels=[channel], config=Config(), relaying=True)
        self.operations = Operations(daemon, board.feed, board.echo).table()

    async def ask(self, do: str, **arguments: object) -> dict:
        operation = self.operations[do]
        defaults = {name: argument.default for name, argument in operation.arguments.items()}
        return await operation.call(defaults | arguments)

    async def refused(self, do: str, **arguments: object) -> str:
        with pytest.raises(UserError) as caught:
            await self.ask(do, **arguments)
        return str(caught.value)


@contextlib.asynccontextmanager
async def flowing(*relays: str, plain: tuple[str, ...] = ()):
    """Alpha with a stream to bravo, and relays beside them."""
    async with boards("alpha", "bravo", *relays, *plain, plain=plain) as made:
        alpha, bravo, *others = made
        items = [item async for item in alpha.ping(bravo).items()]
        assert items[0]["rtt_ms"] > 0
        yield Person(alpha, bravo, *others), alpha, bravo, others


async def still_answers(alpha: Board, bravo: Board) -> None:
    items = [item async for item in alpha.ping(bravo, 3).items()]
    assert all(item["rtt_ms"] > 0 for item in items)


def test_a_stream_moves_onto_a_relay_and_back():
    async def scenario():
        async with flowing("rod") as (person, alpha, bravo, _):
            got = await person.ask("move", name="bravo", via="rod")
            assert (got["name"], got["before"], got["after"]) == ("bravo", ["bravo"], ["rod", "bravo"])
            assert 0 < got["took_ms"] < 1000 * moving.MOVE_TIMEOUT_S
            assert command.describe_move(got | {"took_ms": 87.2}) == (
                "bravo moved in 87 ms\n  before  direct\n  now     rod"
            )
            await still_answers(alpha, bravo)
            got = await person.ask("move", name="bravo", direct=True)
            assert (got["before"], got["after"]) == (["rod", "bravo"], ["bravo"])
            await still_answers(alpha, bravo)

    run(scenario)


def test_without_a_path_named_the_best_that_is_known_to_work_is_taken_and_else_any_other():
    async def scenario():
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

    run(scenario)


@pytest.mark.parametrize("word", ["ROD", "{id}", "{address}"])
def test_a_relay_goes_by_its_name_its_id_and_its_address(word):
    async def scenario():
        async with flowing("rod") as (person, _, _, (rod,)):
            if word == "{address}":  # of an address only the card tells the owner
                await person.ask("route", name="rod")
            named = word.format(id=format_node_id(rod.member.node_id), address=rod.address)
            assert (await person.ask("move", name="bravo", via=named))["after"] == ["rod", "bravo"]

    run(scenario)


def test_a_route_through_two_relays_is_told_by_each_as_its_neighbours_only():
    async def scenario():
        async with flowing("rod", "ruth") as (person, alpha, bravo, (rod, ruth)):
            await person.ask("route", name="ruth")  # its card is here now; else its key would have to come from bravo
            await person.ask("move", name="bravo", via="rod,ruth")
            await still_answers(alpha, bravo)
            (of_rod,) = relayed(rod)
            assert (of_rod["before"]["name"], of_rod["ahead"]["name"]) == ("alpha", "ruth")
            (of_ruth,) = relayed(ruth)
            assert (of_ruth["before"]["name"], of_ruth["ahead"]["name"]) == ("rod", "bravo")
            assert of_rod["frames_ahead"] > 0
            assert of_rod["bytes_ahead"] > of_rod["frames_ahead"] * 16
            assert of_rod["ahead"]["label_out"] == of_ruth["before"]["label_in"]
            assert of_rod["expires_in_s"] > 0
            assert alpha.member.name not in str(of_ruth)
            assert bravo.member.name not in str(of_rod)

    run(scenario)


def relayed(board: Board) -> list[dict]:
    now = Pump.now()
    return report.relays(board.pump.node.status(now=now), board.pump.node.plane, now=now)


def test_status_and_routes_show_what_passes_through():
    async def scenario():
        async with flowing("rod") as (person, alpha, bravo, (rod,)):
            await person.ask("move", name="bravo", via="rod")
            await still_answers(alpha, bravo)
            at_rod = Person(rod, alpha, bravo)
            got = await at_rod.ask("routes")
            (row,) = got["relays"]
            assert got["routes"] == []
            text = "\n\n".join(observe.describe_routes(got))
            for part in ("alpha", "bravo", f"{row['before']['label_in']:08x}", f"{row['ahead']['label_out']:08x}"):
                assert part in text
            assert max(map(len, text.splitlines())) <= 80

    run(scenario)


def test_a_route_is_explained():
    async def scenario():
        async with flowing("rod") as (person, *_):
            await person.ask("move", name="bravo", via="rod")
            got = await person.ask("route", name="bravo")
            assert (got["state"], got["path"]) == ("flowing", ["rod", "bravo"])
            assert [row["hops"] for row in got["paths"] if row["carries"]] == [["rod", "bravo"]]
            direct = next(row for row in got["paths"] if row["hops"] == ["bravo"])
            assert direct["opened"] == 1
            unknown = await person.ask("route", name="rod")
            assert (unknown["state"], unknown["path"]) == (None, None)
            for answer, words in ((got, "bravo: flowing, by rod"), (unknown, "rod: no stream goes there now")):
                title, table = command.describe_route(answer)
                assert title == words
                assert max(map(len, table.splitlines())) <= 100

    run(scenario)


def test_what_cannot_be_moved_is_told_precisely():
    async def scenario():
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

    run(scenario)


def test_a_path_that_is_not_to_be_had_is_told_with_its_reason_and_the_stream_stays():
    async def scenario():
        async with flowing("rod", plain=("prim",)) as (person, alpha, bravo, _):
            assert await person.refused("move", name="bravo", via="prim") == (
                "bravo: no path via prim: a node on it does not relay: it is switched off there, or its credential"
                " does not allow it"
            )
            stranger = format_node_id(b"nobody is called")
            assert await person.refused("move", name="bravo", via=f"rod,{stranger}") == (
                f"bravo: no path via rod, {stranger}: the key of a relay on it is not known here: it is no neighbour,"
                " and the destination has not named it"
            )
            assert (await person.ask("route", name="bravo"))["path"] == ["bravo"]
            await still_answers(alpha, bravo)

    run(scenario)


def test_a_path_that_takes_too_long_is_told_with_what_carries_meanwhile(monkeypatch):
    async def scenario():
        async with flowing("rod") as (person, _, _, (rod,)):
            rod_id = format_node_id(rod.member.node_id)
            monkeypatch.setattr(moving, "MOVE_TIMEOUT_S", 0)
            assert await person.refused("move", name="bravo", via="rod") == (
                f"bravo: no path via {rod_id} after 0 s; meanwhile packets go direct"
            )

    run(scenario)


def test_a_stream_that_ends_during_its_move_is_told():
    async def scenario():
        async with flowing("rod") as (person, alpha, bravo, (rod,)):
            rod.pump._running = False  # its process hangs: the move has no end of its own
            moved = asyncio.create_task(person.refused("move", name="bravo", via="rod"))
            await asyncio.sleep(0)
            alpha.pump._publish(Event("idle", bravo.member.node_id, "bravo"))
            assert await moved == "the stream to bravo ended meanwhile"

    run(scenario)
