"""One destination's state: the stream its packets wait for, the paths that are tried, the route that carries it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from conflux.carrier.interface import Hop
from conflux.ids import NodeId, StreamId
from conflux.node.event import NodeEnd, Reason
from conflux.node.status import DestinationState, DestinationStatus
from conflux.realm.card import Card
from conflux.route.onion import HopKey
from conflux.search.interface import Candidate, Path

RETRY_S_MIN = 0.5  # after the first failure; doubles
RETRY_S_MAX = 30.0


@dataclass(slots=True)
class Try:
    """One path for the stream: being tried, carrying it, or retiring."""

    path: Path
    wanted: bool  # exactly this path was asked for (a move, a refresh): it carries the stream, better or not
    cold: bool  # relays may still have to open links, so the time to its confirmation says nothing of its round trip
    dialing: bool = False
    dialed_at: float | None = None  # when a link to its first hop was first asked for; None: it was there
    measured_count: int = 0  # confirmations whose time was a round trip
    again: bool = False  # the set-up is made a second time, because a link on the path was let go under the first
    route: int | None = None  # while it is set up and after
    began_at: float = 0.0  # of the set-up
    early: Hop | None = None  # packets go by its route although that is not confirmed
    suspect: bool = False  # carrying only: feedback stopped, so the next route that is confirmed takes over
    refresh_at: float | None = None  # carrying only: when a new route over the same path is to replace it
    until: float = 0.0  # retiring only: when it is torn down


@dataclass(slots=True)
class Race:
    """The paths that are tried at once for one stream."""

    tries: list[Try] = field(default_factory=list)
    next_at: float | None = None  # when the next candidate is tried too
    seek_at: float | None = None  # when a relay that every node can dial is asked for again, if nothing carries then
    direct_at: float | None = None  # when the direct path is tried again, if a relayed one carries then
    beaten: set[Path] = field(default_factory=set)  # work, but not better than what carries: not tried again
    reason: Reason | None = None  # why the last try failed; None if none did


class Counts(NamedTuple):
    """What the far end has counted in an epoch, by its last feedback."""

    received: int = 0
    lost: int = 0
    marked: int = 0


@dataclass(slots=True)
class Sending:
    """The stream to a destination, from its opening until it is dropped.  It is replaced whole."""

    stream: StreamId
    began_at: float  # since when packets wait for a route
    agreed: bool = False
    vantage: dict[NodeId, HopKey] = field(default_factory=dict)  # relays the destination named
    epoch: int = 0
    counts: Counts = field(default_factory=Counts)
    race: Race = field(default_factory=Race)
    active: Try | None = None  # carries the stream
    retiring: list[Try] = field(default_factory=list)

    @property
    def routed(self) -> list[Try]:
        """Return every try that may hold a route."""
        return [*([self.active] if self.active else []), *self.race.tries, *self.retiring]

    @property
    def suspect(self) -> bool:
        """Say whether feedback stopped on what carries the stream."""
        return self.active is not None and self.active.suspect

    @property
    def is_carried(self) -> bool:
        """Say whether a route carries the stream, as far as is known."""
        return self.active is not None and not self.active.suspect

    @property
    def failure(self) -> Reason | None:
        """Return why the stream has no route and no path left to try; None while it has one."""
        if self.active is not None or self.race.tries:
            return None
        return Reason(NodeEnd.NO_PATH) if self.agreed else self.race.reason

    def deadlines(self) -> Iterator[float]:
        """Yield every time at which something is due."""
        if self.race.next_at is not None:
            yield self.race.next_at
        if self.race.seek_at is not None:
            yield self.race.seek_at
        if self.race.direct_at is not None:
            yield self.race.direct_at
        if self.active is not None and self.active.refresh_at is not None:
            yield self.active.refresh_at
        yield from (attempt.until for attempt in self.retiring)

    def of_route(self, number: int) -> Try | None:
        """Return the try, not yet or no longer carrying, that holds a route."""
        return next((attempt for attempt in (*self.race.tries, *self.retiring) if attempt.route == number), None)


@dataclass(slots=True)
class Destination:
    """A node that packets of this host go to.  It has a queue of its own in every state: no other waits behind it."""

    card: Card
    sending: Sending | None = None  # None between two tries
    retry_at: float | None = None  # when the next try begins; None while sending
    failure_count: int = 0  # in a row
    renewed_at: float = float("-inf")  # when the stream was last opened anew because a set-up was refused
    forced_at: float = float("-inf")  # when its direct path was last tried as soon as that was lost
    early: bool = False  # made for an answer before there was one

    @property
    def node(self) -> NodeId:
        """Return the destination's id."""
        return self.card.node_id

    @property
    def unused(self) -> bool:
        """Say whether the far end has not reported one frame of the present stream."""
        return self.sending is not None and self.sending.epoch == 0 and self.sending.counts == Counts()

    @property
    def routed(self) -> list[Try]:
        """Return every try that may hold a route."""
        return [] if self.sending is None else self.sending.routed

    @property
    def tries(self) -> list[Try]:
        """Return the paths that are being tried."""
        return [] if self.sending is None else self.sending.race.tries

    @property
    def path(self) -> tuple[NodeId, ...] | None:
        """Return the hops that carry its packets, confirmed or not; None: they wait."""
        sending = self.sending
        if sending is None:
            return None
        early = next((attempt for attempt in sending.race.tries if attempt.early is not None), None)
        carrying = sending.active or early
        return None if carrying is None else carrying.path.hops

    @property
    def state(self) -> DestinationState:
        """Return where it stands."""
        sending = self.sending
        if sending is None:
            return DestinationState.WAITING
        if sending.active is not None:
            return DestinationState.SUSPECT if sending.suspect else DestinationState.FLOWING
        if not sending.agreed:
            return DestinationState.HANDSHAKE
        has_route = any(attempt.route is not None for attempt in sending.race.tries)
        return DestinationState.ROUTE if has_route else DestinationState.DIALING

    def deadlines(self) -> Iterator[float]:
        """Yield every time at which something is due."""
        if self.retry_at is not None:
            yield self.retry_at
        if self.sending is not None:
            yield from self.sending.deadlines()

    def status(self, candidates: tuple[Candidate, ...]) -> DestinationStatus:
        """Return what a person may see of it."""
        sending = self.sending
        return DestinationStatus(
            self.node,
            self.card.name,
            self.card.addresses,
            self.state,
            None if sending is None else sending.stream,
            None if sending is None or sending.active is None else sending.active.path.hops,
            self.failure_count,
            candidates,
        )


def retry_delay_s(failure_count: int, jitter: float) -> float:
    """Return how long to wait after the failure_count-th failure in a row; jitter from 0 to 1 spreads it by half."""
    delay: float = min(RETRY_S_MIN * 2 ** (failure_count - 1), RETRY_S_MAX)
    return delay * (0.75 + jitter / 2)
