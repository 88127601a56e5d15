"""Many nodes in one process, as far as a broker sees them: the real plane, streams and NATS adapter of each.

      crowd ── node ── plane, streams          what a node says of links is of the real size, but no link is opened
                 └──── NatsChannel ══ TLS ══► one of three real servers

A node here has no datapath and no disk.  Each has a clock of its own, which can be set forward.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from kit.builders import NOW_UNIX
from kit.cluster import Broker
from kit.wire import Wire, wire_of

from conflux.carrier.interface import SCTP_PORT, Description
from conflux.control.channel import Arrival, ChannelInputs
from conflux.control.choice import hand_over
from conflux.control.envelope import Envelope, Kind
from conflux.control.event import CardFound, Message, RequestFailed, WhoFailed
from conflux.control.nats.channel import NatsChannel
from conflux.control.nats.connection import Connection
from conflux.control.plane import ControlPlane
from conflux.control.presence import FAR_PERIOD_S
from conflux.control.who import Who
from conflux.ids import BootId, NodeId
from conflux.link.records import Answer, Candidates, Offer
from conflux.realm.card import Card
from conflux.realm.member import Member
from conflux.stream.event import Reply, Send
from conflux.stream.resuming import Resumption
from conflux.stream.streams import Streams

AREA_NODES_MAX = 128  # what docs/how-to/run-a-broker.md advises
WITHIN_S = 60.0
STREAM_MESSAGES = 8  # question, question back and card, OPEN and ACCEPT, OFFER, ANSWER and CANDIDATES
CANDIDATES = tuple(
    f"{number} 1 udp {2130706431 - number} 2001:db8:1234:5678:9abc:def0:0:{number} 50000 typ host"
    for number in range(1, 4)
)
Item = TypeVar("Item")
DESCRIPTION = Description("c" * 8, "p" * 24, bytes(32), SCTP_PORT, 65536, CANDIDATES, bytes(8))


@dataclass(slots=True)
class Opening:
    """A stream that a node opens, and the link under it: when it began and when both ends had agreed on each."""

    peer: NodeId
    began: float
    done: asyncio.Future[None]
    accepted_at: float = 0.0
    answered_at: float = 0.0
    failed: str = ""

    @property
    def took_s(self) -> float:
        """How long it took until both were agreed on."""
        return max(self.accepted_at, self.answered_at) - self.began

    def look(self) -> None:
        """Note whether it is over."""
        if not self.done.done() and (self.failed or (self.accepted_at and self.answered_at)):
            self.done.set_result(None)


@dataclass(slots=True)
class Counts:
    """What a node handed to its channel and got from it, by sort.  again: copies beyond the first."""

    sent: Counter[str] = field(default_factory=Counter)
    got: Counter[str] = field(default_factory=Counter)
    again: int = 0


def sort_of(envelope: Envelope) -> str:
    """Return what an envelope is, as far as a broker can tell."""
    if envelope.to is None:
        return "presence" if envelope.bucket is None else "question"
    return "message"


class CrowdNode:
    """One node."""

    def __init__(self, member: Member, at: Broker, area: str, heard: asyncio.Event) -> None:
        self.member = member
        self.area = area
        self.skew_s = 0.0
        self.counts = Counts()
        self.ups = 0
        rng = random.Random()
        boot = BootId(os.urandom(8))
        self.plane = ControlPlane(
            member, boot=boot, entropy=os.urandom, rng=rng, clock=lambda: NOW_UNIX + 60, now=self.now()
        )
        self.streams = Streams(member, boot=boot, aead=1, entropy=os.urandom, resumption=Resumption.OFF)
        self.channel = NatsChannel(member, config=at.config(area=area), rng=rng, public_of=self._public_of)
        self._heard = heard
        self._openings: dict[Who, Opening] = {}
        self._tokens: dict[int, Opening] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._drain_due = False

    def now(self) -> float:
        """Return this node's time."""
        return time.monotonic() + self.skew_s

    @property
    def node_id(self) -> NodeId:
        """Its id."""
        return self.member.node_id

    @property
    def has_joined(self) -> bool:
        """Whether it is connected and has said so to its area."""
        return self.channel.state.up and self.counts.sent["presence"] > 0

    @property
    def drops(self) -> Counter[str]:
        """What it dropped."""
        return self.plane.drops + self.plane.lists.drops + Counter(self.channel.drops)

    def connections(self) -> tuple[Connection, ...]:
        """Return the connections that are up."""
        pair = self.channel._pair
        return () if pair is None else tuple(each for each in (pair.main, pair.spare) if each is not None)

    def wire(self) -> Wire:
        """Return what went over its connections that are up."""
        read = [wire_of(each._transport._io_writer.get_extra_info("socket")) for each in self.connections()]  # type: ignore[union-attr]
        return Wire(sum(each.bytes for each in read), sum(each.segments for each in read))

    # ── what it does ──

    async def start(self) -> None:
        """Begin to connect."""
        inputs = ChannelInputs(deliver=self._deliver, absent=self._absent, turned=self._turned)
        await self.channel.start(inputs)
        self.touch()

    async def stop(self) -> None:
        """Go away."""
        if self._timer is not None:
            self._timer.cancel()
        await self.channel.stop()

    def set_forward(self, seconds: float) -> None:
        """Set its clock forward: what is due by then happens now."""
        self.skew_s += seconds
        self.touch()

    def say_presence(self) -> None:
        """Say to its area that it is there."""
        self.plane.channel_up(now=self.now())
        self.touch()

    def open(self, peer: CrowdNode) -> Opening:
        """Open a stream and a link to a node of which only the address is known."""
        opening = Opening(peer.node_id, time.monotonic(), asyncio.get_running_loop().create_future())
        who = Who(address=peer.member.addresses[0])  # IPv6: of those of IPv4, which names make here, two may be alike
        self._openings[who] = opening
        self.plane.who(who, now=self.now())
        self.touch()
        return opening

    # ── inputs ──

    def _deliver(self, arrival: Arrival) -> None:
        self.counts.got[sort_of(arrival.envelope)] += 1
        self.plane.receive_untrusted(arrival, now=self.now())
        self.touch()

    def _absent(self, node: NodeId) -> None:
        self.plane.absent(node, "nats", now=self.now())
        self.touch()

    def _turned(self, up: bool) -> None:
        if up:
            self.ups += 1
            self.plane.channel_up(now=self.now())
            self.touch()

    def _public_of(self, node: NodeId) -> bytes | None:
        card = self.plane.card(node)
        return None if card is None else card.chain.credential.node_public

    # ── the pump ──

    def touch(self) -> None:
        """Drain the machines at the end of this turn of the loop."""
        if not self._drain_due:
            self._drain_due = True
            asyncio.get_running_loop().call_soon(self._drain)

    def _drain(self) -> None:
        self._drain_due = False
        now = self.now()
        if self.plane.next_timeout() <= now:
            self.plane.handle_timeout(now=now)
        while (event := self.plane.next_event()) is not None:
            self._take(event, now)
        while (transmit := self.streams.next_transmit()) is not None:
            if isinstance(transmit, Reply):
                self.plane.reply(transmit.to, transmit.kind, transmit.body, now=now)
            elif isinstance(transmit, Send):  # it never resumes
                self._request(transmit, now)
        while self.streams.next_event() is not None:
            pass
        while (handed := self.plane.next_transmit()) is not None:
            result = hand_over(handed, [self.channel])
            if result.takers:
                self.counts.again += handed.again
                self.counts.sent[sort_of(handed.envelope)] += not handed.again
            self.plane.handoff(handed.token, result, now=now)
        while (learnt := self.plane.next_path()) is not None:
            self.channel.learn(learnt.node, learnt.path)
        self._heard.set()
        self._set_timer(now)

    def _set_timer(self, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        wait_s = max(0.002, self.plane.next_timeout() - now)
        self._timer = asyncio.get_running_loop().call_later(wait_s, self.touch)

    def _request(self, send: Send, now: float) -> None:
        opening = next(each for each in self._openings.values() if each.peer == send.peer)
        self._tokens[self.plane.request(send.peer, send.kind, send.body, now=now)] = opening

    def _take(self, event: object, now: float) -> None:
        match event:
            case CardFound(card, query) if query in self._openings:
                self._found(card, self._openings[query], now)
            case WhoFailed(query, reason) if query in self._openings:
                self._fail(self._openings[query], f"question: {reason}")
            case RequestFailed(token=token, kind=kind, reason=reason) if token in self._tokens:
                self._fail(self._tokens.pop(token), f"{kind.name}: {reason}")
            case Message():
                self._take_message(event, now)

    def _found(self, card: Card, opening: Opening, now: float) -> None:
        self.streams.open(card, now=now)
        body = Offer(os.urandom(8), 1, DESCRIPTION).encode()
        self._tokens[self.plane.request(card.node_id, Kind.OFFER, body, now=now)] = opening

    @staticmethod
    def _fail(opening: Opening, why: str) -> None:
        opening.failed = opening.failed or why
        opening.look()

    def _take_message(self, message: Message, now: float) -> None:
        opening = self._tokens.pop(message.re, None)
        if message.kind is Kind.OPEN:
            card = self.plane.card(message.peer)
            assert card is not None
            self.streams.receive_open(card, message.body, message, now=now)
        elif message.kind is Kind.OFFER:
            self.plane.reply(message, Kind.ANSWER, Answer(bytes(8), DESCRIPTION).encode(), now=now)
        elif message.kind is Kind.ACCEPT and opening is not None:
            self.streams.receive_accept(message.peer, message.body, now=now)
            opening.accepted_at = time.monotonic()
            opening.look()
        elif message.kind is Kind.ANSWER and opening is not None:
            opening.answered_at = time.monotonic()
            self.plane.notify(message.peer, Kind.CANDIDATES, Candidates(bytes(8), CANDIDATES[:1]).encode(), now=now)
            opening.look()


class Crowd:
    """All of them.  heard: set whenever anything happens at one."""

    def __init__(self, at: Broker, count: int, of: type[CrowdNode] = CrowdNode) -> None:
        self.at = at
        self.heard = asyncio.Event()
        area_count = -(-count // AREA_NODES_MAX)
        self.nodes = [
            of(at.member(f"node-{number}"), at, f"area-{number % area_count}", self.heard) for number in range(count)
        ]
        sizes = Counter(node.area for node in self.nodes)
        self.hearer_count = {node.node_id: sizes[node.area] - 1 for node in self.nodes}

    async def start(self, *, per_s: float | None) -> float:
        """Start all of them, so many a second, or all at once; return the seconds until all had joined.

        On return each has its second connection too.
        """
        began = time.monotonic()
        await paced(self.nodes, per_s, lambda node: node.start())
        await self.until(lambda: all(node.has_joined for node in self.nodes))
        joined_s = time.monotonic() - began
        await self.until_paired()
        return joined_s

    async def until_paired(self) -> None:
        """Wait until each has two connections."""
        async with asyncio.timeout(WITHIN_S):
            while not all(len(node.connections()) == 2 for node in self.nodes):  # noqa: ASYNC110  # no event tells
                await asyncio.sleep(0.1)

    async def until(self, condition: Callable[[], bool], within_s: float = WITHIN_S) -> None:
        """Wait until the condition is true; it is looked at when something happened, ten times a second at most."""
        async with asyncio.timeout(within_s):
            while not condition():
                self.heard.clear()
                await self.heard.wait()
                await asyncio.sleep(0.1)

    async def all_say_presence(self, *, per_s: float) -> None:
        """Have each say once that it is there, so many a second, and wait until its whole area has heard it."""
        due = self.got("presence") + sum(self.hearer_count.values())

        async def say(node: CrowdNode) -> None:
            node.say_presence()

        await paced(self.nodes, per_s, say)
        await self.until(lambda: self.got("presence") >= due)

    async def all_ping(self, *, per_s: float) -> None:
        """Have each ping its servers once, so many a second, and wait for all answers."""
        connections = [connection for node in self.nodes for connection in node.connections()]

        async def ping(connection: Connection) -> None:
            connection.probe()

        await paced(connections, per_s, ping)
        while any(connection._answer is not None for connection in connections):  # noqa: ASYNC110  # no event tells
            await asyncio.sleep(0.1)

    def sent(self, sort: str) -> int:
        """Return how many envelopes of a sort they sent, retries not counted."""
        return sum(node.counts.sent[sort] for node in self.nodes)

    def got(self, sort: str) -> int:
        """Return how many envelopes of a sort came."""
        return sum(node.counts.got[sort] for node in self.nodes)

    def all_sent(self) -> int:
        """Return how many envelopes they sent, retries not counted."""
        return sum(node.counts.sent.total() for node in self.nodes)

    def retries(self) -> int:
        """Return how many envelopes were sent again."""
        return sum(node.counts.again for node in self.nodes)

    def wire(self) -> Wire:
        """Return what went over all connections."""
        read = [node.wire() for node in self.nodes]
        return Wire(sum(each.bytes for each in read), sum(each.segments for each in read))

    def drops(self) -> Counter[str]:
        """Return what all of them dropped."""
        return sum((node.drops for node in self.nodes), Counter[str]())

    def spread_clocks(self, rng: random.Random) -> None:
        """Set all clocks forward, each as far as it likes: presences then come as from nodes that started long ago."""
        for node in self.nodes:
            node.set_forward(rng.uniform(0.0, FAR_PERIOD_S))

    async def open_streams(self, pairs: Iterable[tuple[CrowdNode, CrowdNode]], per_s: float) -> list[Opening]:
        """Open a stream and a link for each pair, so many a second; return them when they are agreed on or failed."""
        openings: list[Opening] = []

        async def begin(pair: tuple[CrowdNode, CrowdNode]) -> None:
            openings.append(pair[0].open(pair[1]))

        await paced(pairs, per_s, begin)
        async with asyncio.timeout(WITHIN_S):
            await asyncio.gather(*(opening.done for opening in openings))
        return openings

    def pairs(self, count: int, rng: random.Random) -> list[tuple[CrowdNode, CrowdNode]]:
        """Return pairs that know nothing of each other: at most so many, none twice and none the other way round."""
        found: dict[frozenset[NodeId], tuple[CrowdNode, CrowdNode]] = {}
        count = min(count, len(self.nodes) * (len(self.nodes) - 1) // 2)
        while len(found) < count:
            one, other = rng.sample(self.nodes, 2)
            found.setdefault(frozenset((one.node_id, other.node_id)), (one, other))
        return list(found.values())


async def paced(items: Iterable[Item], per_s: float | None, act: Callable[[Item], Awaitable[None]]) -> None:
    """Act on each item, so many a second.  None: all at once."""
    began = time.monotonic()
    for number, item in enumerate(items):
        if per_s is not None:
            await asyncio.sleep(max(0.0, began + number / per_s - time.monotonic()))
        await act(item)


@asynccontextmanager
async def crowd(at: Broker, count: int, of: type[CrowdNode] = CrowdNode) -> AsyncIterator[Crowd]:
    """So many nodes, not started; they go away with the context."""
    made = Crowd(at, count, of)
    async with AsyncExitStack() as stack:
        for node in made.nodes:
            stack.push_async_callback(node.stop)
        yield made
