"""The pump with real links over the loopback: packets go in at one node and come out at the other."""

import asyncio
import os
from ipaddress import IPv6Address

import pytest
from kit.boards import Board, boards
from kit.builders import make_card, make_member, make_realm
from kit.exchange import Exchange
from kit.native import A4, REALM, udp
from kit.person import Person

from conflux.api.echo import Echo
from conflux.api.ping import Ping
from conflux.cli import observe
from conflux.datapath.native.datapath import NO_OFFLOAD, NativeDatapath
from conflux.node.event import Event, EventKind


async def heard(board: Board, kind: str) -> None:
    """Wait for an event of a kind; the watch begins when this task first runs."""
    async for event in board.feed.watch():
        if event.event == kind:
            return


async def test_a_ping_brings_links_up_and_is_answered():
    async with boards("alpha", "bravo") as (alpha, bravo):
        items = [item async for item in alpha.ping(bravo, 3).items()]
        assert [item.sequence for item in items] == [1, 2, 3]
        assert all(item.rtt_ms > 0 for item in items)
        assert alpha.pump.task_names() == ["egress bravo"]
        assert bravo.pump.task_names() == ["egress alpha"]
        assert alpha.delivered == [], "the answers were the ping's, not the kernel's"
        await check_reports(alpha)


async def check_reports(board: Board) -> None:
    """Check what a person is shown of the running node, in the layout of the commands."""
    person = Person(board)
    streams, links, routes = [await person.ask(do) for do in ("streams", "links", "paths")]
    assert [(row["direction"], row["name"], row["state"]) for row in streams["streams"]] == [
        ("out", "bravo", "flowing"),
        ("in", "bravo", "receiving"),
    ]
    assert [(row["name"], row["state"]) for row in links["links"]] == [("bravo", "open")]
    assert [(row["direction"], row["next"]) for row in routes["routes"]] == [("out", "bravo"), ("in", "bravo")]
    texts = observe.describe_streams(streams["streams"]), observe.describe_links(links["links"])
    for text in (*texts, *observe.describe_paths(routes)):
        assert "bravo" in text
        assert max(map(len, text.splitlines())) <= 80


async def test_the_steps_of_a_set_up_are_timed_from_the_first_request():
    echo, source, far = Echo(os.urandom), IPv6Address("fd00::1"), IPv6Address("fd00::2")
    sent: asyncio.Queue[bytes] = asyncio.Queue()
    ping = Ping(sent.put_nowait, echo, source, far, 2, 0.02, 56)
    first = asyncio.create_task(anext(ping.items()))
    assert await sent.get() != await sent.get()
    ping.note(Event(EventKind.FRAMES), make_card(make_member(make_realm(), "bravo")))
    (step,) = ping._steps
    assert step.after_ms >= 20
    first.cancel()


async def test_a_ping_that_is_broken_off_leaves_no_task_and_no_session():
    before = asyncio.all_tasks()
    echo, source, far = Echo(os.urandom), IPv6Address("fd00::1"), IPv6Address("fd00::2")
    sent: asyncio.Queue[bytes] = asyncio.Queue()
    waiting = asyncio.create_task(anext(Ping(sent.put_nowait, echo, source, far, 2, 60.0, 56).items()))
    await sent.get()
    waiting.cancel()
    await asyncio.wait([waiting])
    await asyncio.sleep(0)  # the sender's cancellation
    assert asyncio.all_tasks() == before
    assert echo._sessions == {}


async def test_packets_come_out_in_the_order_they_went_in():
    async with boards("alpha", "bravo") as (alpha, bravo):
        sent = [alpha.udp(bravo, b"%04d" % number) for number in range(300)]
        for packet in sent:
            alpha.pump.packet(packet)
        while len(bravo.delivered) < len(sent):
            bravo.arrived.clear()
            await bravo.arrived.wait()
        assert bravo.delivered == sent


async def test_after_idle_no_task_no_link_and_no_socket_is_left():
    async with boards("alpha", "bravo", idle_timeout_s=0.2) as (alpha, bravo):
        closed = [asyncio.create_task(heard(board, "closed")) for board in (alpha, bravo)]
        assert len([item async for item in alpha.ping(bravo).items()]) == 1
        await asyncio.gather(*closed)
        for board in (alpha, bravo):
            assert board.pump.task_names() == []
            assert board.carrier.socket_count() == 0


async def test_a_dead_destination_has_its_own_task_and_delays_no_other():
    async with boards("alpha", "bravo", "dead") as (alpha, bravo, dead):
        assert len([item async for item in alpha.ping(dead).items()]) == 1
        dead.pump._running = False  # its process hangs: its sockets are open, and nothing answers
        warm = [item async for item in alpha.ping(bravo, 2).items()]
        for number in range(200):
            alpha.pump.packet(alpha.udp(dead, bytes(1000)))
            if number % 20 == 0:
                await asyncio.sleep(0)
        beside = [item async for item in alpha.ping(bravo, 10).items()]
        assert alpha.pump.task_names() == ["egress bravo", "egress dead"]
        assert all(item.rtt_ms is not None for item in warm + beside)


async def test_packets_go_on_by_the_new_route_while_the_old_tether_takes_nothing():
    async with boards("alpha", "bravo") as (alpha, bravo):
        assert len([item async for item in alpha.ping(bravo).items()]) == 1
        node, far = alpha.pump.node, bravo.member.node_id
        old = node.datapath.hop(far)  # type: ignore[attr-defined]
        drain, stuck = alpha.carrier.drain, asyncio.Event()

        async def drain_all_but_old(link, tether):
            if tether == old.tether:
                stuck.set()
                await asyncio.Event().wait()
            await drain(link, tether)

        alpha.carrier.drain = drain_all_but_old
        alpha.pump.packet(alpha.udp(bravo, b"first"))
        await stuck.wait()
        sent = [alpha.udp(bravo, b"%04d" % number) for number in range(50)]
        for packet in sent:
            alpha.pump.packet(packet)
        alpha.pump.command(node.move, far, ())
        while bravo.delivered[-len(sent) :] != sent:
            bravo.arrived.clear()
            await bravo.arrived.wait()
        assert node.datapath.hop(far).tether != old.tether  # type: ignore[attr-defined]
        assert alpha.pump.task_names() == ["egress bravo"]


@pytest.mark.parametrize("method", ["packet", "receive", "frame", "carrier_event", "handle_timeout"])
async def test_an_unexpected_exception_is_handed_to_fail_and_never_swallowed(method):
    exchange = Exchange()
    board = Board("alpha", exchange)
    bug = KeyError("a bug")

    def broken(*arguments, now):
        raise bug

    setattr(board.pump.node, method, broken)
    if method == "handle_timeout":
        board.pump.node.next_timeout = lambda: 0.0
        board.pump._timeout()
    else:
        inputs = {"receive": board.pump.arrival, "frame": lambda data: board.pump.frame(1, data, 0)}
        inputs.get(method, getattr(board.pump, method, None))(b"")
    assert board.failures == [bug]


async def test_upcalls_behind_one_that_raised_are_handled_in_the_next_turn():
    board, datapath = Board("alpha", Exchange()), NativeDatapath()
    board.pump.node.datapath = datapath
    datapath.configure((A4,), REALM)
    bug, held, all_held = KeyError("a library's"), [], asyncio.Event()

    def hold(data, came_at):
        if came_at == 1.0:
            raise bug
        held.append(came_at)
        if len(held) == 2:
            all_held.set()

    datapath._hold = hold
    for came_at in (1.0, 2.0, 3.0):
        datapath._engine.packet(NO_OFFLOAD + udp(), came_at)
    loop = asyncio.get_running_loop()
    loop.add_reader(datapath.fd, board.pump.upcalls)
    await all_held.wait()
    loop.remove_reader(datapath.fd)
    assert (held, board.failures) == ([2.0, 3.0], [bug])
    datapath.stop()
