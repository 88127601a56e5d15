"""One destination: what its packets wait for, and what they go by once they flow.  State; destinations.py decides."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from conflux.ids import IPAddress, NodeId, StreamId
from conflux.realm.card import Card
from conflux.route.onion import HopKey
from conflux.search.interface import Path

RETRY_S_MIN = 0.5  # after the first failure; doubles
RETRY_S_MAX = 30.0
PAUSE_S_MIN = 1.0  # of a destination that was given up; doubles
PAUSE_COUNT_MAX = 4096  # destinations and addresses remembered as not there; the oldest goes first


class Tell(Protocol):
    """How the node is told what a person may want to see."""

    def __call__(
        self, kind: str, card: Card | None, text: str = "", took_s: float | None = None, name: str = ""
    ) -> None: ...


@dataclass(slots=True)
class Try:
    """One path for the stream: being tried, carrying it, or retiring."""

    path: Path
    wanted: bool  # whoever asked for exactly this route gets it, better or not (a move, a refresh)
    cold: bool  # relays may still have to open links, so the time to its confirmation says nothing of its round trip
    dialing: bool = False
    again: bool = False  # a link on it was let go under the set-up, which is made a second time
    route: int | None = None  # while it is set up and after
    began_at: float = 0.0  # of the set-up
    until: float = 0.0  # retiring only


@dataclass(slots=True)
class Destination:
    """State only; destinations.py decides.  In every state its queue is its own: nobody waits behind it."""

    card: Card
    began_at: float
    stream: StreamId | None = None
    stream_agreed: bool = False
    active: Try | None = None  # carries the stream
    tries: list[Try] = field(default_factory=list)
    retiring: list[Try] = field(default_factory=list)
    race_at: float | None = None  # when the next candidate is tried too
    beaten: set[Path] = field(default_factory=set)  # work, but not better than what carries: this race is over for them
    refresh_at: float = float("inf")
    renewed_at: float = float("-inf")  # when the stream was last opened anew for the sake of its vantage
    vantage: dict[NodeId, HopKey] = field(default_factory=dict)  # relays the destination named
    suspect: bool = False  # feedback stopped: whatever is confirmed next carries
    failure_count: int = 0
    retry_at: float | None = None  # between tries; None while one is under way or the stream flows
    epoch: int = 0
    received_count: int = 0  # of the last feedback, to tell what is new
    lost_count: int = 0
    marked_count: int = 0

    @property
    def node(self) -> NodeId:
        return self.card.node_id

    @property
    def name(self) -> str:
        return self.card.name

    @property
    def routed(self) -> list[Try]:
        """Everything that may hold a route."""
        return [*([self.active] if self.active else []), *self.tries, *self.retiring]

    @property
    def state(self) -> str:
        """The word `conflux streams` shows."""
        if self.active is not None:
            return "suspect" if self.suspect else "flowing"
        if self.retry_at is not None:
            return "waiting to retry"
        if not self.stream_agreed:
            return "handshake"
        return "route" if any(attempt.route is not None for attempt in self.tries) else "dialing"

    def of_route(self, number: int) -> Try | None:
        """Return the try, not yet or no longer carrying, that holds a route."""
        return next((attempt for attempt in (*self.tries, *self.retiring) if attempt.route == number), None)


@dataclass(slots=True)
class _Pause:
    until: float
    pause_s: float


class Pauses:
    """Who was given up, and until when nothing is tried for it: longer each time in a row."""

    def __init__(self) -> None:
        self._pauses: dict[NodeId | IPAddress, _Pause] = {}

    def holds(self, who: NodeId | IPAddress, now: float) -> bool:
        """Say whether nothing is to be tried now."""
        pause = self._pauses.get(who)
        return pause is not None and pause.until > now

    def begin(self, who: NodeId | IPAddress, now: float) -> None:
        """Try nothing for a while."""
        old = self._pauses.pop(who, None)
        pause_s = PAUSE_S_MIN if old is None else min(2 * old.pause_s, RETRY_S_MAX)
        self._pauses[who] = _Pause(now + pause_s, pause_s)
        if len(self._pauses) > PAUSE_COUNT_MAX:
            del self._pauses[next(iter(self._pauses))]

    def end(self, who: NodeId | IPAddress) -> None:
        """It is there again, or was heard of."""
        self._pauses.pop(who, None)


def retry_delay_s(failure_count: int, jitter: float) -> float:
    """Return how long to wait after the failure_count-th failure in a row; jitter from 0 to 1 spreads it by half."""
    delay: float = min(RETRY_S_MIN * 2 ** (failure_count - 1), RETRY_S_MAX)
    return delay * (0.75 + jitter / 2)
