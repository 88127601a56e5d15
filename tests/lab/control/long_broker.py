"""What goes wrong at a broker for minutes: the second part of `make control-full`.  No lane of `make test` runs it.

The nodes of the first tests are in this process (rig/letters.py), on a real cluster of three; those of the last ones
are real daemons.  The figures go to build/control.json.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager

import pytest
from kit.cluster import Broker, broker
from kit.figures import note
from rig.broker import Broker as LabBroker
from rig.broker import broker_detail, until_on_broker
from rig.crowd import Crowd, crowd
from rig.letters import Correspondent, Letter, Post, correspondents, post
from rig.topology import Host, Lab, Realm, wait_for

from conflux.control.nats.config import PAIR_PING_S

NODES = 20
LETTERS_PER_S = 100.0  # ten of each writer: a node takes 20 a second of one sender
IN_TROUBLE_S = 12.0  # longer than any node may need to leave a server
UP_S = 10.0  # between two restarts: by then a node has a second connection again
NOTICED_S_MAX = PAIR_PING_S + 15.0  # a ping, its answer that does not come, and a new connection

BOARDS = 30
JOINS_AT_ONCE = 4


@asynccontextmanager
async def writers() -> AsyncIterator[tuple[Broker, Crowd]]:
    """A crowd on three servers, each node with two connections, each reader known to its writer."""
    async with broker(3) as at, crowd(at, NODES, Correspondent) as nodes:
        await nodes.start(per_s=20.0)
        first = await post(nodes, nothing, per_s=LETTERS_PER_S)
        assert_all_there(first, 3.0)
        yield at, nodes


async def nothing() -> None:
    """No trouble."""


def assert_all_there(was: Post, within_s: float) -> None:
    """See that no letter was lost, given up, read twice, or late."""
    assert (was.failed, was.lost, was.doubled) == ((), 0, 0), was
    assert was.delay_s < within_s, was


@contextmanager
def dropped(*rules: str) -> Iterator[None]:
    """Drop what the rules match on this host, silently; each is in nft's own words."""
    table = "add table inet cut; add chain inet cut incoming { type filter hook input priority 0; }"
    chain = "; ".join(f"add rule inet cut incoming {rule} drop" for rule in rules)
    subprocess.run(["nft", f"{table}; {chain}"], check=True)
    try:
        yield
    finally:
        subprocess.run(["nft", "delete", "table", "inet", "cut"], check=True)


# ── one server of three ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("trouble", "within_s"), [("killed", 3.0), ("hung", 10.0), ("cut_off", 10.0)])
async def test_server_in_trouble_costs_none_of_a_hundred_messages_a_second(trouble: str, within_s: float) -> None:
    async with writers() as (at, nodes):
        server = at.servers[0]

        async def happens() -> None:
            match trouble:
                case "killed":
                    await server.end()
                    await asyncio.sleep(IN_TROUBLE_S)
                    await server.start()
                case "hung":
                    await server.hang()
                    await asyncio.sleep(IN_TROUBLE_S)
                    server.signal(signal.SIGCONT)
                case "cut_off":
                    port = server.address[1]
                    with dropped(f"tcp dport {port}", f"tcp sport {port}"):
                        await asyncio.sleep(IN_TROUBLE_S)

        was = await post(nodes, happens, per_s=LETTERS_PER_S)
        note(f"letter_delay_{trouble}_s", was.delay_s)
        assert_all_there(was, within_s)


async def test_rolling_restart_of_all_three_costs_no_message() -> None:
    async with writers() as (at, nodes):

        async def happens() -> None:
            for server in at.servers:
                await server.end()
                await server.start()
                await asyncio.sleep(UP_S)

        was = await post(nodes, happens, per_s=LETTERS_PER_S)
        note("letter_delay_rolling_restart_s", was.delay_s)
        assert_all_there(was, 3.0)


# ── a NAT that forgets ────────────────────────────────────────────────────────────────────────────────────────────────


def flows(node: Correspondent) -> list[str]:
    """Return rules that match what the present connections of a node carry, and nothing of later ones."""
    ports = [
        connection._transport._io_writer.get_extra_info("sockname")[1]  # type: ignore[union-attr]
        for connection in node.connections()
    ]
    return [f"tcp {end} {port}" for port in ports for end in ("sport", "dport")]


async def until_answered(letter: Letter, within_s: float) -> None:
    async with asyncio.timeout(within_s):
        while letter.is_open:  # noqa: ASYNC110  # no event tells of one
            await asyncio.sleep(0.05)


def test_node_whose_router_forgot_its_connections_has_others_when_it_asks_and_soon_when_it_waits() -> None:
    asyncio.run(forgotten())  # longer than a test on an event loop may take


async def forgotten() -> None:
    async with writers() as (_, nodes):
        everybody = correspondents(nodes)
        (asks, waits), (asked, friend) = everybody[:2], everybody[NODES // 2 : NODES // 2 + 2]  # who know each other
        with dropped(*flows(asks), *flows(waits)):
            began = time.monotonic()
            letter = asks.write(asked, 0)
            await until_answered(letter, 15.0)
            assert not letter.failed, letter
            note("forgotten_asks_s", letter.answered_at - letter.sent_at)
            while True:  # as often as whoever wants to reach it does
                letter = friend.write(waits, 1)
                await until_answered(letter, 15.0)
                if letter.answered_at:
                    break
                assert time.monotonic() - began < NOTICED_S_MAX, "it has not noticed"
            note("forgotten_waits_s", letter.answered_at - began)


# ── real daemons ──────────────────────────────────────────────────────────────────────────────────────────────────────

FAR = {"control.lan": {"enabled": False}}  # or the LAN would make them neighbours


def far_realm(lab: Lab, *hosts: Host, servers: int) -> tuple[Realm, LabBroker]:
    """Return a realm that the first of these hosts made, on one LAN and known to each other by a broker alone."""
    lan = hosts[0].lans[0]
    gate, *boards = hosts
    for host in hosts:
        host.configure(FAR)
    gate.conflux("realm", "create", "far", "--node", gate.name)
    made = LabBroker(gate, *(lab.host(f"server-{number}", lan) for number in range(servers)))
    made.start()
    realm = Realm(gate, created=True)
    until_on_broker(realm, gate)
    token = realm.invite(len(boards))
    with ThreadPoolExecutor(JOINS_AT_ONCE) as joining:
        done = joining.map(lambda host: host.conflux("join", token, "--name", host.name, within_s=60), boards)
        assert all(each.returncode == 0 for each in done)
    return realm, made


def test_operator_that_replays_an_old_account_lets_a_revoked_node_in_and_no_member_hears_it(lab: Lab) -> None:
    lan = lab.lan()
    gate, rod, kitchen = (lab.host(name, lan) for name in ("gate", "rod", "kitchen"))
    realm, made = far_realm(lab, gate, rod, kitchen, servers=1)
    for host in (rod, kitchen):
        realm.restart(host)
    until_on_broker(realm, rod, kitchen)
    address = rod.overlay_addresses()[1]
    assert kitchen.first_answer_ms(address) < 5000
    old = (made.directory / "account.jwt").read_text().strip()
    gate.conflux("realm", "revoke", "kitchen", "--reason", "stolen", "--broker", str(made.directory))
    wait_for(
        lambda: broker_detail(realm, kitchen).startswith("refused"),
        "kitchen off the broker",
        within_s=10,
        logs=realm.logs(),
    )

    realm.daemons["kitchen"].kill()
    for kept in (kitchen.state / "state" / "lists").glob("*"):
        kept.unlink()  # as a thief would have it
    kitchen.configure({**FAR, "control.nats": made.settings()})
    (server,) = made.servers
    server.kill()
    server.put_account(old)
    server.start()
    realm.restart(kitchen)
    until_on_broker(realm, gate, rod, kitchen, within_s=40)
    knocking = kitchen.ping(address, "-c", "20", "-i", "0.4", "-W", "1", within_s=40)
    assert knocking.received == 0, realm.tails()
    assert realm.daemons["rod"].status().drops.get("revoked", 0) > 0
    assert rod.ping(gate.overlay_addresses()[1], "-c", "3", "-i", "0.2", "-W", "5").lost == 0
    assert any("revoked" in warning for warning in realm.daemons["kitchen"].status().warnings), "it was told"


def test_thirty_boards_that_start_at_once_are_soon_on_the_broker_and_reach_each_other(lab: Lab) -> None:
    lan = lab.lan()
    gate, *boards = (lab.host(name, lan) for name in ("gate", *(f"board-{number}" for number in range(BOARDS))))
    realm, _ = far_realm(lab, gate, *boards, servers=3)
    began = time.monotonic()
    started = [
        host.spawn("daemon", lab.program, "up", "--foreground", "--config", host.configured()) for host in boards
    ]
    wait_for(
        lambda: all("nats: up" in process.output() for process in started),
        "all boards on the broker",
        within_s=180,
        logs=(realm.daemons["gate"],),
    )
    note("thirty_on_broker_s", time.monotonic() - began)
    for one, other in zip(boards[::2], boards[1::2], strict=True):
        answer = one.conflux("ping", other.name, "-c", "2", "-i", "0.2", within_s=40).stdout
        assert "2 answered" in answer, f"{one.name} to {other.name}: {answer}"
    for host in boards:
        drops = host.status().drops
        assert not {"flood", "busy"} & set(drops), f"{host.name}: {drops}"
