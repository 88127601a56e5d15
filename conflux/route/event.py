"""Outputs of the routes and the relays: messages for links, events, and their status."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from conflux.carrier.interface import Hop
from conflux.ids import LinkId, NodeId, StreamId
from conflux.route.message import Refusal


class RouteEnd(StrEnum):
    """Why a route failed or was lost, as this node saw it."""

    TIMEOUT = "timeout"  # no answer came
    LINK_DOWN = "link-down"
    LINK_CLOSED = "link-closed"  # the far end let the link go in good order: it did not know of the set-up yet
    TETHER_DOWN = "tether-down"
    TORN_DOWN = "peer"  # the neighbour sent a TEARDOWN
    REFUSED = "refused"  # a hop said no


class Transmit(NamedTuple):
    """One message for conflux.link.1 of a link."""

    link: LinkId
    data: bytes


@dataclass(frozen=True, slots=True)
class RouteAsked:
    """The set-up of a route of one hop is on its way: frames may follow it at once, under the label it asks for.

    RouteReady or RouteFailed comes later.  Frames sent until then are lost if the route fails, or has another label.
    """

    route: int
    stream: StreamId
    hop: Hop


@dataclass(frozen=True, slots=True)
class RouteReady:
    """The far end confirmed the route, and its tether is open: frames may flow."""

    route: int
    stream: StreamId
    hop: Hop


@dataclass(frozen=True, slots=True)
class RouteFailed:
    """The route never became ready.  refusal: what a hop said; with RouteEnd.REFUSED only."""

    route: int
    stream: StreamId
    end: RouteEnd
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True)
class RouteLost:
    """The route was ready, and is no more."""

    route: int
    stream: StreamId
    hop: Hop
    end: RouteEnd


@dataclass(frozen=True, slots=True)
class ReceiverRoute:
    """The far end may send the stream here under hop.label_in."""

    stream: StreamId
    hop: Hop


@dataclass(frozen=True, slots=True)
class ReceiverRouteGone:
    """The far end may not send it there any more.  last: the stream's END if it sent one, unverified."""

    stream: StreamId
    hop: Hop
    last: bytes


Event = RouteAsked | RouteReady | RouteFailed | RouteLost | ReceiverRoute | ReceiverRouteGone


@dataclass(frozen=True, slots=True)
class LinkWanted:
    """A set-up that is passed on needs an open link to a node; link_open() or link_failed() answers.

    before: the link it came over, which must stay open too.
    """

    relay: int
    before: LinkId
    node: NodeId


@dataclass(frozen=True, slots=True)
class RelayReady:
    """A route is joined: frames under the label_in of either end leave at the other end under its label_out."""

    relay: int
    before: Hop
    ahead: Hop


@dataclass(frozen=True, slots=True)
class RelayGone:
    """A route is passed on no more.  before and ahead are None if it was never confirmed."""

    relay: int
    before: Hop | None
    ahead: Hop | None


RelayEvent = LinkWanted | RelayReady | RelayGone


class RouteStatus(NamedTuple):
    """One route that starts or ends here.  direction: "out" or "in".  label: what frames carry; 0 until confirmed."""

    direction: str
    link: LinkId
    label: int
    ready: bool


class RelayEndStatus(NamedTuple):
    """One end of a route through here: frames come under label_in and leave under label_out."""

    link: LinkId
    label_in: int
    label_out: int


class RelayStatus(NamedTuple):
    """All there is to know of a route through here: two links, four labels, an expiry."""

    before: RelayEndStatus
    ahead: RelayEndStatus
    expires_at: float
