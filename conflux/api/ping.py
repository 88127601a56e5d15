"""One `conflux ping`: it sends requests at an interval, and reports each as soon as it is answered or given up."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable
from enum import StrEnum
from itertools import islice, takewhile
from typing import NamedTuple

from conflux.api.echo import Echo
from conflux.api.why import Why
from conflux.errors import UserError
from conflux.ids import IPAddress, NodeId
from conflux.node.event import Event, EventKind
from conflux.realm.card import Card

REPLY_TIMEOUT_S = 12.0  # a first packet may wait 10 s for its way
REPLY_TIMEOUT_S_MAX = 60.0  # with 100 requests a second, 6000 wait at once
OUTCOME_COUNT_MAX = 1024  # that the reader has not taken: no more requests are sent meanwhile
STEP_COUNT_MAX = 64  # between two items: a peer could have paths fail without end

# The events that tell what became of a path.
STEP_EVENTS = frozenset(
    {
        EventKind.WHO,
        EventKind.CARD,
        EventKind.DIAL,
        EventKind.HANDSHAKE,
        EventKind.LINK,
        EventKind.FRAMES,
        EventKind.MOVED,
        EventKind.SUSPECT,
        EventKind.FAILED,
        EventKind.UNREACHABLE,
    }
)

Hops = tuple[NodeId, ...]


class Phase(StrEnum):
    """What a step belongs to."""

    SET_UP = "set-up"  # no way was open: the requests waited for it
    SEARCH = "search"  # a way was open: another one was looked for beside it


class PingTarget(NamedTuple):
    """The first item of a ping: the node that is asked, and how long it took to find it."""

    name: str
    node: str
    address: str
    resolve_ms: float


class PingStep(NamedTuple):
    """A step on the way to the node, and when it came after the first request.

    path: the path that is meant, by name, the destination last; None: none.  reason: as `conflux watch` has it.
    """

    phase: Phase
    event: EventKind
    after_ms: float
    path: tuple[str, ...] | None = None
    reason: str | None = None


class PingReply(NamedTuple):
    """What became of one request.

    rtt_ms: None if no reply came.  open: a way was open when it was sent, so rtt_ms is a round trip, with no set-up.
    path: what carried packets to the node when the reply came, by name.  steps: those since the item before.
    """

    sequence: int
    rtt_ms: float | None
    open: bool
    path: tuple[str, ...] | None
    steps: tuple[PingStep, ...]


class PingEnd(NamedTuple):
    """The last object of `conflux ping --json`, which the command itself makes.

    set_up_ms: the first answer that waited for a way.  least_ms, mean_ms, most_ms: over an open way; None: no answer
    came over one.  why: what `conflux why` answers, if the last request was not answered.
    """

    requests: int
    answers: int
    set_up_ms: float | None
    least_ms: float | None
    mean_ms: float | None
    most_ms: float | None
    why: Why | None


class Ping:
    """Echo requests to one address.

    send: takes an IP packet.  count: 0 for no end.  way: returns the hops that carry packets there now, or None.
    Raises UserError if too many pings run.
    """

    def __init__(
        self,
        send: Callable[[bytes], None],
        echo: Echo,
        source: IPAddress,
        destination: IPAddress,
        count: int,
        interval_s: float,
        size: int,
        *,
        timeout_s: float = REPLY_TIMEOUT_S,
        way: Callable[[], Hops | None] = lambda: None,
        name_of: Callable[[NodeId], str] = lambda node: node.hex(),
    ) -> None:
        self._send = send
        self._echo = echo
        self._count = count
        self._interval_s = interval_s
        self._size = size
        self._timeout_s = timeout_s
        self._way = way
        self._name_of = name_of
        # The outcome of each request, one for each; then None, when all have had theirs.
        self._outcomes: asyncio.Queue[tuple[int, float | None, Hops | None] | None] = asyncio.Queue()
        session = echo.open(source, destination, self._replied)
        if session is None:
            raise UserError("too many pings are running")
        self._session = session
        self._sent = 0
        self._open: dict[int, bool] = {}  # by sequence number, until its item is made
        self._looked = asyncio.Event()  # something may be due
        self._began_at: float | None = None  # when the first request went out
        self._phase = Phase.SET_UP
        self._steps: list[PingStep] = []  # since the last item

    def note(self, event: Event, card: Card) -> None:
        """Remember an event that the requests caused.  card: that of their destination."""
        if self._began_at is None or event.kind not in STEP_EVENTS or event.node not in (None, card.node_id):
            return
        if event.kind is EventKind.SUSPECT:
            self._phase = Phase.SET_UP  # what follows mends the way
        after_ms = round((time.monotonic() - self._began_at) * 1000, 3)
        path = tuple(map(self._name_of, event.path)) or None
        reason = None if event.reason is None else str(event.reason)
        if len(self._steps) < STEP_COUNT_MAX:
            self._steps.append(PingStep(self._phase, event.kind, after_ms, path, reason))
        if event.kind is EventKind.FRAMES or (event.kind is EventKind.MOVED and self._phase is Phase.SET_UP):
            self._phase = Phase.SEARCH
        elif event.kind is EventKind.UNREACHABLE:
            self._phase = Phase.SET_UP
            self._give_up()

    def _give_up(self) -> None:
        """End the wait for every request under way: the daemon has dropped what waited for the node."""
        for sequence in list(self._session.sent_at):
            self._end(sequence)
        self._looked.set()

    async def items(self) -> AsyncGenerator[PingReply, None]:
        """Yield one item per request, answered or not, in the order in which their outcome is known."""
        sending = asyncio.create_task(self._run(), name="ping")
        try:
            while (outcome := await self._outcomes.get()) is not None:
                yield self._item(*outcome)
            sending.result()  # raises what ended it
        finally:
            sending.cancel()
            self._echo.close(self._session)

    async def _run(self) -> None:
        try:
            next_at = time.monotonic()
            while True:
                now = time.monotonic()
                self._expire(now)
                is_done = 0 < self._count <= self._sent
                if is_done and not self._session.sent_at:
                    return
                if not is_done and now >= next_at:
                    if self._outcomes.qsize() < OUTCOME_COUNT_MAX:
                        self._request()
                    next_at = now + self._interval_s
                    continue
                due_at = [] if is_done else [next_at]
                due_at += [at + self._timeout_s for at in islice(self._session.sent_at.values(), 1)]
                self._looked.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, min(due_at) - now)):
                        await self._looked.wait()
        finally:
            self._outcomes.put_nowait(None)

    def _request(self) -> None:
        self._sent += 1
        now = time.monotonic()
        is_open = self._way() is not None
        if self._began_at is None:
            self._began_at, self._phase = now, Phase.SEARCH if is_open else Phase.SET_UP
        self._open[self._sent] = is_open
        self._send(self._session.request(self._sent, self._size, now=now))

    def _expire(self, now: float) -> None:
        sent = self._session.sent_at.items()  # the oldest first; there may be thousands, and this runs at every turn
        late = [sequence for sequence, _ in takewhile(lambda item: item[1] + self._timeout_s <= now, sent)]
        for sequence in late:
            self._end(sequence)

    def _end(self, sequence: int) -> None:
        del self._session.sent_at[sequence]
        self._outcomes.put_nowait((sequence, None, None))

    def _replied(self, sequence: int, rtt_s: float) -> None:
        self._outcomes.put_nowait((sequence, rtt_s, self._way()))
        if self._sent == self._count:
            self._looked.set()

    def _item(self, sequence: int, rtt_s: float | None, hops: Hops | None) -> PingReply:
        steps, self._steps = tuple(self._steps), []
        rtt_ms = None if rtt_s is None else round(rtt_s * 1000, 3)
        path = None if hops is None else tuple(map(self._name_of, hops))
        return PingReply(sequence, rtt_ms, self._open.pop(sequence), path, steps)
