"""The node as it is now, for commands, metrics and tests: frozen values, never a key."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from conflux.control.event import PlaneStatus
from conflux.datapath.status import DatapathStatus
from conflux.ids import IPAddress, NodeId, RealmId, StreamId
from conflux.link.event import LinkStatus
from conflux.node.trail import Trail
from conflux.realm.card import Card
from conflux.route.event import RelayStatus, RouteStatus
from conflux.search.interface import Candidate


class DestinationState(StrEnum):
    """Where a destination stands: the word that `conflux streams` shows."""

    WAITING = "waiting to retry"
    HANDSHAKE = "handshake"  # the stream is not agreed yet
    DIALING = "dialing"  # it is, and no link to a first hop is open
    ROUTE = "route"  # a route is being set up
    FLOWING = "flowing"
    SUSPECT = "suspect"  # feedback stopped


class DestinationStatus(NamedTuple):
    """One destination.  stream: None between tries.  path: the hops that carry the stream, or None."""

    node: NodeId
    name: str
    addresses: tuple[IPAddress, ...]
    state: DestinationState
    stream: StreamId | None
    path: tuple[NodeId, ...] | None
    failure_count: int
    candidates: tuple[Candidate, ...]


class Outlook(NamedTuple):
    """What carries packets to a node, and what comes next.  Times are monotonic seconds; None: nothing is planned.

    state: None: nothing is sent there.  path: the hops that carry packets, confirmed or not.  trying: the paths being
    tried.  retry_at: everything is tried again.  refused_until: packets are refused until then.  next_at: another
    path is tried beside those.  direct_at: so is the direct one.
    """

    state: DestinationState | None = None
    path: tuple[NodeId, ...] | None = None
    trying: tuple[tuple[NodeId, ...], ...] = ()
    retry_at: float | None = None
    refused_until: float | None = None
    next_at: float | None = None
    direct_at: float | None = None


class NodeStatus(NamedTuple):
    """The whole node.  drops: how often something was ignored, by reason.  cards: those of others that are kept."""

    node: NodeId
    name: str
    addresses: tuple[IPAddress, ...]
    realm: RealmId
    realm_name: str
    datapath: DatapathStatus
    destinations: tuple[DestinationStatus, ...]
    links: tuple[LinkStatus, ...]
    routes: tuple[RouteStatus, ...]
    relays: tuple[RelayStatus, ...]
    plane: PlaneStatus
    drops: Mapping[str, int]
    trails: Mapping[NodeId, Trail]
    cards: tuple[Card, ...]
