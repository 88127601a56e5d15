"""One ping in the daemon: when a request is given up, what is bounded, and which step belongs to what."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from ipaddress import IPv6Address

import pytest
from kit.builders import make_card, make_member, make_realm
from kit.nodes import id_of

from conflux.api import ping as module
from conflux.api.echo import IPV6, Echo
from conflux.api.ping import Phase, Ping, PingReply
from conflux.ids import NodeId
from conflux.node.event import Event, EventKind, NodeEnd, Reason

CARD = make_card(make_member(make_realm(), "bravo"))
NODE, ROD = CARD.node_id, id_of("rod")
SOURCE, FAR = IPv6Address("fd00::1"), IPv6Address("fd00::2")
LONG_S = 60.0  # a test that had to wait for it would not pass


def silent(packet: bytes) -> None:
    """Answer nothing."""


class Answering:
    """A far end that answers every request at once."""

    def __init__(self, echo: Echo) -> None:
        self._echo = echo

    def __call__(self, packet: bytes) -> None:
        reply = packet[:8] + packet[24:40] + packet[8:24] + bytes([IPV6.reply]) + packet[41:]
        assert self._echo.take(reply, now=asyncio.get_running_loop().time())


def make(
    send: Callable[[bytes], None] = silent,
    count: int = 2,
    interval_s: float = 0.01,
    timeout_s: float = LONG_S,
    way: Callable[[], tuple[NodeId, ...] | None] = lambda: None,
    echo: Echo | None = None,
) -> Ping:
    names = {NODE: "bravo", ROD: "rod"}
    echo = Echo(os.urandom) if echo is None else echo
    return Ping(
        send, echo, SOURCE, FAR, count, interval_s, 56, timeout_s=timeout_s, way=way, name_of=lambda node: names[node]
    )


async def all_of(ping: Ping) -> list[PingReply]:
    async with asyncio.timeout(10):
        return [item async for item in ping.items()]


async def sent(ping: Ping, count: int) -> asyncio.Task[list[PingReply]]:
    """Start a ping; return the task that collects its items when so many requests are sent."""
    all_sent = asyncio.Event()
    send = ping._send

    def counting(packet: bytes) -> None:
        send(packet)
        if ping._sent == count:
            all_sent.set()

    ping._send = counting
    waiting = asyncio.create_task(all_of(ping))
    await all_sent.wait()
    return waiting


async def test_a_request_without_an_answer_ends_after_its_time() -> None:
    items = await all_of(make(timeout_s=0.05))
    assert [(item.sequence, item.rtt_ms, item.path) for item in items] == [(1, None, None), (2, None, None)]


async def test_requests_end_when_the_daemon_gives_the_node_up_and_not_only_after_their_time() -> None:
    ping = make(count=3)
    waiting = await sent(ping, 3)
    ping.note(Event(EventKind.UNREACHABLE, NODE, reason=Reason(NodeEnd.NO_PATH)), CARD)
    items = await waiting
    assert [item.rtt_ms for item in items] == [None] * 3
    assert [step.event for step in items[0].steps] == ["unreachable"]


class CountedDict(dict[int, float]):
    """A dictionary that knows how many of its entries were read in one go, at most."""

    read_count_max = 0

    def _counted(self, view):
        for count, each in enumerate(view, 1):
            self.read_count_max = max(self.read_count_max, count)
            yield each

    def items(self):
        return self._counted(super().items())

    def values(self):
        return self._counted(super().values())


async def test_a_turn_looks_at_the_oldest_request_and_not_at_all_that_wait() -> None:
    ping = make(count=200, interval_s=0.0001)
    ping._session.sent_at = sent_at = CountedDict()
    waiting = await sent(ping, 200)
    assert len(sent_at) == 200
    assert sent_at.read_count_max == 1
    ping._give_up()
    await waiting


async def test_another_node_that_is_given_up_ends_nothing() -> None:
    ping = make(count=1, timeout_s=0.2)
    waiting = await sent(ping, 1)
    ping.note(Event(EventKind.UNREACHABLE, ROD, reason=Reason(NodeEnd.NO_PATH)), CARD)
    assert ping._session.sent_at
    assert (await waiting)[0].steps == ()


async def test_an_answer_says_its_way_and_whether_it_waited_for_one() -> None:
    ways: list[tuple[NodeId, ...] | None] = [None, (ROD, NODE), (ROD, NODE), (NODE,)]
    echo = Echo(os.urandom)
    ping = make(Answering(echo), way=lambda: ways.pop(0), echo=echo)
    first, second = await all_of(ping)
    assert (first.open, first.path) == (False, ("rod", "bravo"))
    assert (second.open, second.path) == (True, ("bravo",))


async def test_a_ping_without_end_goes_on_until_it_is_broken_off() -> None:
    before = asyncio.all_tasks()
    echo = Echo(os.urandom)
    items = make(Answering(echo), count=0, interval_s=0.001, echo=echo).items()
    async with contextlib.aclosing(items):
        async for item in items:
            if item.sequence == 300:
                break
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
    assert echo._sessions == {}


async def test_a_reader_that_takes_nothing_gets_no_more_than_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OUTCOME_COUNT_MAX", 5)
    echo = Echo(os.urandom)
    ping = make(Answering(echo), count=0, interval_s=0.0001, echo=echo)
    sending = asyncio.create_task(ping._run())
    for _ in range(200):
        await asyncio.sleep(0.0005)
    assert ping._outcomes.qsize() == ping._sent == 5
    sending.cancel()
    await asyncio.wait([sending])


async def test_steps_belong_to_the_set_up_until_packets_flow_and_to_a_search_beside_them_afterwards() -> None:
    ping = make(count=1, timeout_s=0.2)
    waiting = await sent(ping, 1)
    direct, by_rod = (NODE,), (ROD, NODE)
    for event in (
        Event(EventKind.DIAL, NODE, path=by_rod),
        Event(EventKind.FRAMES, NODE, path=by_rod),
        Event(EventKind.DIAL, NODE, path=direct),
        Event(EventKind.IDLE, NODE),
        Event(EventKind.FAILED, NODE, path=direct, reason=Reason(NodeEnd.NO_PATH)),
        Event(EventKind.SUSPECT, NODE),
        Event(EventKind.DIAL, NODE, path=direct),
        Event(EventKind.MOVED, NODE, path=direct),
        Event(EventKind.DIAL, NODE, path=by_rod),
    ):
        ping.note(event, CARD)
    (item,) = await waiting
    assert [(step.phase, step.event, step.path) for step in item.steps] == [
        (Phase.SET_UP, "dial", ("rod", "bravo")),
        (Phase.SET_UP, "frames", ("rod", "bravo")),
        (Phase.SEARCH, "dial", ("bravo",)),
        (Phase.SEARCH, "failed", ("bravo",)),
        (Phase.SET_UP, "suspect", None),
        (Phase.SET_UP, "dial", ("bravo",)),
        (Phase.SET_UP, "moved", ("bravo",)),
        (Phase.SEARCH, "dial", ("rod", "bravo")),
    ]
    assert item.steps[3].reason == "no path"


async def test_paths_that_fail_without_end_fill_no_reply() -> None:
    ping = make(count=1, timeout_s=0.2)
    waiting = await sent(ping, 1)
    for _ in range(1000):
        ping.note(Event(EventKind.DIAL, NODE, path=(NODE,)), CARD)
    (item,) = await waiting
    assert len(item.steps) == module.STEP_COUNT_MAX
