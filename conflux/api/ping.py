"""One `conflux ping`: it sends requests at an interval, reports replies as they come, and missing ones at the end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from typing import NamedTuple

from conflux.api.echo import Echo
from conflux.errors import UserError
from conflux.ids import IPAddress
from conflux.node.event import Event, EventKind
from conflux.realm.card import Card

REPLY_TIMEOUT_S = 12.0  # a first packet may wait 10 s for its way

# The events that tell what the set-up of a stream cost.
SETUP_EVENTS = frozenset(
    {
        EventKind.WHO,
        EventKind.CARD,
        EventKind.DIAL,
        EventKind.HANDSHAKE,
        EventKind.LINK,
        EventKind.FRAMES,
        EventKind.FAILED,
        EventKind.UNREACHABLE,
    }
)


class PingTarget(NamedTuple):
    """The first item of a ping: the node that is asked, and how long it took to find it."""

    to: str
    node: str
    address: str
    resolve_ms: float


class SetupStep(NamedTuple):
    """A step on the way to the first packet, and when it came after the first request."""

    event: EventKind
    after_ms: float


class PingReply(NamedTuple):
    """What became of one request.  rtt_ms: None if no reply came.  setup: the steps since the item before."""

    sequence: int
    rtt_ms: float | None
    setup: tuple[SetupStep, ...]


class Ping:
    """Echo requests to one address.  send: takes an IP packet.  Raises UserError if too many pings run."""

    def __init__(
        self,
        send: Callable[[bytes], None],
        echo: Echo,
        source: IPAddress,
        destination: IPAddress,
        count: int,
        interval_s: float,
        size: int,
    ) -> None:
        self._send = send
        self._echo = echo
        self._count = count
        self._interval_s = interval_s
        self._size = size
        # (sequence number, round trip) of each reply, at most one per request; then None, when the wait is over.
        self._answers: asyncio.Queue[tuple[int, float] | None] = asyncio.Queue()
        session = echo.open(source, destination, lambda sequence, rtt_s: self._answers.put_nowait((sequence, rtt_s)))
        if session is None:
            raise UserError("too many pings are running")
        self._session = session
        self._began_at: float | None = None  # when the first request went out
        self._setup: list[SetupStep] = []  # since the last item

    def note(self, event: Event, card: Card) -> None:
        """Remember an event that the requests caused.  card: that of their destination."""
        if self._began_at is not None and event.kind in SETUP_EVENTS and event.node in (None, card.node_id):
            after_ms = round((time.monotonic() - self._began_at) * 1000, 3)
            self._setup.append(SetupStep(event.kind, after_ms))

    async def items(self) -> AsyncGenerator[PingReply, None]:
        """Yield one item per request, answered or not."""
        sending = asyncio.create_task(self._send_all(), name="ping")
        pending = self._count
        try:
            while pending and (answer := await self._answers.get()) is not None:
                pending -= 1
                yield self._item(*answer)
            if sending.done():
                sending.result()  # raises what ended it
            for sequence in sorted(self._session.sent_at):
                yield self._item(sequence, None)
        finally:
            sending.cancel()
            self._echo.close(self._session)

    async def _send_all(self) -> None:
        try:
            for sequence in range(1, self._count + 1):
                if sequence > 1:
                    await asyncio.sleep(self._interval_s)
                now = time.monotonic()
                self._began_at = self._began_at or now
                self._send(self._session.request(sequence, self._size, now=now))
            await asyncio.sleep(REPLY_TIMEOUT_S)
        finally:
            self._answers.put_nowait(None)

    def _item(self, sequence: int, rtt_s: float | None) -> PingReply:
        setup, self._setup = tuple(self._setup), []
        return PingReply(sequence, None if rtt_s is None else round(rtt_s * 1000, 3), setup)
