"""What the daemon answers about a whole node, and how it finds the node that a person names."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections import Counter
from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest
from kit.boards import Board, boards
from kit.lists import deny_list
from kit.person import Person

from conflux import __version__
from conflux.api import operations, rows
from conflux.api.echo import OVERHEAD_BYTES
from conflux.api.server import encode
from conflux.cli import observe
from conflux.control.channel import ChannelState, NeighbourStatus
from conflux.host.netlink import DeviceConfig
from conflux.ids import NodeId, format_node_id
from conflux.realm.credential import RELAY
from conflux.state.revoking import Revoked

DEVICE = DeviceConfig("conflux9", 1280, (), ())
ROD = format_node_id(NodeId(b"r" * 16))
NEIGHBOUR = NeighbourStatus(ROD, "rod", "10.0.0.2:7464", None, False, True, 12.5, 0.5, ("fd00::7",), 2**32)


def tun(trouble: str | None = None) -> SimpleNamespace:
    return SimpleNamespace(trouble=lambda config: trouble, drops=Counter({"tun-full": 2}))


def lan() -> SimpleNamespace:
    return SimpleNamespace(
        name="lan",
        far=False,
        state=ChannelState(True, "listening on port 7464, 1 neighbour"),
        status=lambda: (NEIGHBOUR,),
        departed=lambda: (),
        drops=Counter({"bad-hello": 3}),
    )


@contextlib.asynccontextmanager
async def pair() -> AsyncIterator[tuple[Board, Board]]:
    """Yield two nodes with a stream from the first to the second."""
    async with boards("alpha", "bravo") as (alpha, bravo):
        assert [item.sequence async for item in alpha.ping(bravo).items()] == [1]
        yield alpha, bravo


async def test_the_status_shows_the_whole_node_and_fits_a_terminal() -> None:
    async with pair() as (alpha, _):
        alpha.read_count, alpha.written_count = 5, 7
        person = Person(alpha, channels=[lan()], tun=tun(), device=DEVICE, api_drops={"api-refused": 1})
        status = await person.ask("status")
        assert (status["version"], status["pid"]) == (__version__, os.getpid())
        assert status["node"] == {
            "id": format_node_id(alpha.member.node_id),
            "name": "alpha",
            "addresses": [str(address) for address in alpha.member.addresses],
        }
        assert status["realm"]["name"] == "pump"
        assert status["credential"]["capabilities"] == [RELAY]
        assert status["credential"]["expires_at"] == alpha.member.chain.not_after
        assert status["device"] == {
            "name": "conflux9",
            "mtu_bytes": 1280,
            "up": True,
            "read_packets": 5,
            "written_packets": 7,
        }
        (channel,) = status["control"]
        assert (channel["name"], channel["up"]) == ("lan", True)
        assert channel["neighbours"][0]["name"] == "rod"
        assert status["drops"] == {"bad-hello": 3, "tun-full": 2, "api-refused": 1}
        assert list(status["drops"]) == ["bad-hello", "tun-full", "api-refused"], "most first"
        assert status["tasks"] == ["egress bravo"]
        assert status["sockets"] == alpha.carrier.socket_count() > 0
        assert [row["name"] for row in status["destinations"]] == ["bravo"]
        assert [row["direction"] for row in status["streams"]] == ["out", "in"]
        assert status["datapath"]["name"] == "reference"
        assert status["warnings"] == []
        text = "\n\n".join(observe.describe_status(status))
        assert max(map(len, text.splitlines())) <= 80


async def test_trouble_with_the_device_is_a_warning_and_the_device_is_not_up() -> None:
    async with boards("alpha") as (alpha,):
        person = Person(alpha, tun=tun("conflux9 is down"), device=DEVICE, channels=[], warnings=lambda: ["clock"])
        status = await person.ask("status")
        assert status["warnings"] == ["clock", "conflux9 is down"]
        assert not status["device"]["up"]


@pytest.mark.parametrize("relaying", rows.Relaying)
async def test_the_status_says_whether_the_node_relays_and_if_not_why(relaying: rows.Relaying) -> None:
    async with boards("alpha") as (alpha,):
        status = await Person(alpha, tun=tun(), device=DEVICE, channels=[], relaying=lambda: relaying).ask("status")
        assert status["relaying"] == relaying.value


async def test_a_ping_says_which_node_it_asks_and_what_became_of_each_request() -> None:
    async with pair() as (alpha, bravo):
        person = Person(alpha, device=DEVICE)
        target, *replies = await person.items("ping", name="bravo", count=2, interval=0.01)
        assert (target["name"], target["address"]) == ("bravo", str(bravo.address))
        assert target["node"] == format_node_id(bravo.member.node_id)
        assert [reply["sequence"] for reply in replies] == [1, 2]
        assert all(reply["rtt_ms"] > 0 for reply in replies)


async def test_the_first_reply_of_a_ping_carries_the_steps_of_the_set_up() -> None:
    async with boards("alpha", "bravo") as (alpha, _):
        _, reply, warm = await Person(alpha, device=DEVICE).items("ping", name="bravo", count=2, interval=1.0)
        steps = [step["event"] for step in reply["steps"]]
        assert steps[-1] == "frames"
        assert {"handshake", "dial", "link"} <= set(steps)
        assert {step["phase"] for step in reply["steps"]} == {"set-up"}
        assert [step["after_ms"] for step in reply["steps"]] == sorted(step["after_ms"] for step in reply["steps"])
        assert (reply["open"], warm["open"]) == (False, True)
        assert reply["path"] == warm["path"] == ["bravo"]
        assert {step["phase"] for step in warm["steps"]} <= {"search"}


async def test_a_ping_larger_than_the_mtu_is_refused() -> None:
    async with boards("alpha") as (alpha,):
        person = Person(alpha, device=DEVICE)
        fits = DEVICE.mtu - OVERHEAD_BYTES
        said = await person.refused("ping", name="bravo", size=fits + 1)
        assert said == f"{fits + 1} bytes do not fit the MTU: at most {fits}"


@pytest.mark.parametrize("word", ["alpha", "ALPHA", "{id}", "{address}"])
async def test_a_node_that_asks_for_itself_is_told_so(word: str) -> None:
    async with boards("alpha") as (alpha,):
        name = word.format(id=format_node_id(alpha.member.node_id), address=alpha.address)
        for do in ("route", "move", "ping"):
            assert await Person(alpha, device=DEVICE).refused(do, name=name) == f"{name} is this node itself"


async def test_a_name_that_no_node_answers_to_is_told_after_the_answer_or_the_timeout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(operations, "RESOLVE_TIMEOUT_S", 0.01)
    async with boards("alpha") as (alpha,):
        person = Person(alpha, channels=[lan()], device=DEVICE, find_issued=lambda target: None)
        said = await person.refused("route", name="sensor")
        assert said == "no node of this realm answers to 'sensor': is it running, and is the name right?"
        alone = Person(alpha, channels=[], device=DEVICE, find_issued=lambda target: None)
        assert "this node has no neighbour and no broker" in await alone.refused("route", name="sensor")


async def test_a_node_is_revoked_by_the_name_that_it_has_or_is_on_record_under() -> None:
    async with boards("alpha", "bravo") as (alpha, bravo):
        node, asked = bravo.member.node_id, []

        def revoke(target: NodeId, reason: str) -> Revoked:
            asked.append((target, reason))
            return Revoked(target, "", deny_list(target), ("0a0b",))

        person = Person(alpha, revoke=revoke)
        said = await person.ask("revoke", name="bravo", reason="stolen")
        assert said == {"node": format_node_id(node), "name": "bravo", "cancelled": ["0a0b"]}
        on_record = Person(alpha, revoke=revoke, find_issued=lambda target: NodeId(target.encode().ljust(16)))
        await on_record.ask("revoke", name="Cellar", reason="lost")
        assert asked == [(node, "stolen"), (b"cellar".ljust(16), "lost")]


async def test_down_stops_the_daemon_and_never_answers() -> None:
    async with boards("alpha") as (alpha,):
        stopped = asyncio.Event()
        down = asyncio.create_task(Person(alpha, stop=stopped.set).items("down"))
        await stopped.wait()
        assert not down.done()
        down.cancel()
        await asyncio.wait([down])


async def test_a_watcher_sees_events_as_they_happen() -> None:
    async with boards("alpha", "bravo") as (alpha, bravo):
        events = Person(alpha).operations["watch"].stream({})
        first = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        alpha.pump.packet(alpha.udp(bravo, b"x"))
        event = json.loads(encode(await first))
        assert (event["event"], event["name"]) == ("queue", str(bravo.address))
        await events.aclose()
