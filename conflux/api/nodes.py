"""The nodes that this one knows: what `conflux status` begins with, and what the page, `ip` and `hosts` show.

Sources: the cards that are kept, the neighbours of the control channels and those that left, the streams, and the
datapath's count of bytes by node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from ipaddress import ip_address
from typing import NamedTuple

from conflux.control.channel import Departed, NeighbourStatus
from conflux.ids import NodeId, format_node_id, parse_node_id
from conflux.node.relaying import NO_IPV6
from conflux.node.status import DestinationStatus, NodeStatus
from conflux.node.trail import Trail
from conflux.realm.address import ipv6_address


class Reach(StrEnum):
    """How a node is reached now."""

    LAN = "lan"  # it is a neighbour: a LAN has both
    BROKER = "broker"  # it was heard over the broker
    RELAY = "relay"  # by way of other nodes
    DIRECT = "direct"  # by a link, although it is no neighbour on a LAN


class PeerRow(NamedTuple):
    """Another node, as this one knows it.

    ipv6, ipv4: its overlay addresses; None: it has none, or it is not known here.  reach: how it is reached; None: not
    now, as far as is known.  by: the relays in order, by name.  state: of the stream that goes there, as in `conflux
    streams`; None: none does.  heard_at: Unix seconds of what it said last.  left_at: Unix seconds; it was a neighbour
    on the LAN until then, and was not heard since.  sent_bytes, received_bytes: of whole frames, since the daemon
    started.  expires_at: of its credential.  named: it is who answers to its name.
    """

    name: str
    node: str
    ipv6: str | None
    ipv4: str | None
    reach: Reach | None
    by: tuple[str, ...]
    state: str | None
    heard_at: float | None
    left_at: float | None
    sent_bytes: int
    received_bytes: int
    expires_at: int | None
    named: bool


class AddressRow(NamedTuple):
    """The answer to `conflux ip NAME`.  ipv6, ipv4: None if the node has no such address."""

    name: str
    node: str
    ipv6: str | None
    ipv4: str | None


class Nodes(NamedTuple):
    """The answer to `conflux hosts`: this node and the others that it knows, by name."""

    node: AddressRow
    nodes: tuple[PeerRow, ...]


class Clock(NamedTuple):
    """One moment on both clocks."""

    now: float  # monotonic seconds
    now_unix: float

    def unix(self, at: float) -> float:
        """Return the Unix seconds of a monotonic moment."""
        return round(self.now_unix - (self.now - at), 1)


class _Known(NamedTuple):
    """What is known of who a node is."""

    name: str
    addresses: tuple[str, ...]
    expires_at: int | None
    has_ipv6: bool = True


def address_row(name: str, node: NodeId, addresses: Iterable[object]) -> AddressRow:
    """Return the addresses of one node."""
    return AddressRow(name, format_node_id(node), *_by_family(map(str, addresses)))


def _by_family(addresses: Iterable[str]) -> tuple[str | None, str | None]:
    by_version = {ip_address(each).version: each for each in addresses}
    return by_version.get(6), by_version.get(4)


def nodes(
    status: NodeStatus,
    neighbours: Sequence[NeighbourStatus],
    departed: Sequence[Departed],
    *,
    broker_up: bool,
    owner_of: Callable[[str], NodeId | None],
    clock: Clock,
) -> tuple[PeerRow, ...]:
    """Return every other node that is known, by name.

    broker_up: a broker is connected.  owner_of: who answers to a name.
    """
    near = {parse_node_id(each.node): each for each in neighbours}
    left = {parse_node_id(each.node): each for each in departed}
    to = {each.node: each for each in status.destinations}
    known = _known(status, near, left, to)
    traffic = {each.node: each for each in status.datapath.traffic}
    streams = _states(status)
    rows = []
    for node, about in known.items():
        ipv6, ipv4 = _by_family(about.addresses or [str(ipv6_address(status.realm, node))])
        moved = traffic.get(node)
        heard_at = _heard_at(near.get(node), status.trails.get(node), None if moved is None else moved.heard_at, clock)
        left_at = None if node in near or node not in left else round(clock.now_unix - left[node].left_s, 1)
        if left_at is not None and heard_at is not None and heard_at > left_at:
            left_at = None
        reach, by = _reach(node, near, status.trails.get(node), to.get(node), left, broker_up=broker_up)
        if left_at is not None and reach is Reach.BROKER:
            reach = None
        rows.append(
            PeerRow(
                name=about.name,
                node=format_node_id(node),
                ipv6=ipv6 if about.has_ipv6 else None,
                ipv4=ipv4,
                reach=reach,
                by=tuple(known[hop].name if hop in known else format_node_id(hop) for hop in by),
                state=streams.get(node),
                heard_at=heard_at if left_at is None else left_at,
                left_at=left_at,
                sent_bytes=0 if moved is None else moved.sent_bytes,
                received_bytes=0 if moved is None else moved.received_bytes,
                expires_at=about.expires_at,
                named=owner_of(about.name) in (None, node),
            )
        )
    return tuple(sorted(rows, key=lambda row: (row.name, row.node)))


def _known(
    status: NodeStatus,
    near: Mapping[NodeId, NeighbourStatus],
    left: Mapping[NodeId, Departed],
    to: Mapping[NodeId, DestinationStatus],
) -> dict[NodeId, _Known]:
    """Return who the known nodes are: a card knows best, then the handshake of a neighbour, then a destination."""
    found = {node: _Known(each.name, tuple(map(str, each.addresses)), None) for node, each in to.items()}
    for met in (left, near):
        found |= {node: _Known(each.name, each.addresses, each.expires_at) for node, each in met.items()}
    for card in status.cards:
        addresses = tuple(map(str, card.addresses))
        found[card.node_id] = _Known(card.name, addresses, card.chain.not_after, NO_IPV6 not in card.features)
    found.pop(status.node, None)
    return found


def _states(status: NodeStatus) -> dict[NodeId, str]:
    silent = {each.stream for each in status.datapath.senders if each.suspect}
    return {
        each.node: "no answer" if each.stream is not None and each.stream.hex() in silent else str(each.state)
        for each in status.destinations
    }


def _heard_at(
    neighbour: NeighbourStatus | None, trail: Trail | None, frames_at: float | None, clock: Clock
) -> float | None:
    ats = [
        frames_at,
        None if trail is None else trail.heard_at,
        None if neighbour is None else clock.now - neighbour.heard_s,
    ]
    newest = max((at for at in ats if at is not None), default=None)
    return None if newest is None else clock.unix(newest)


def _reach(
    node: NodeId,
    near: Mapping[NodeId, NeighbourStatus],
    trail: Trail | None,
    to: DestinationStatus | None,
    left: Mapping[NodeId, Departed],
    *,
    broker_up: bool,
) -> tuple[Reach | None, tuple[NodeId, ...]]:
    """Return how a node is reached, and by which nodes: what carries its stream, else what its messages came by."""
    path = None if to is None else to.path
    if path is not None and len(path) > 1:
        return Reach.RELAY, path[:-1]
    if node in near:
        return Reach.LAN, ()
    if path is not None:
        return Reach.DIRECT, ()
    if trail is None or trail.heard_at is None:
        return None, ()
    via = trail.heard_via
    if via is not None and via != node and via in near:
        return Reach.RELAY, (via,)
    if via == node and node not in left:
        return Reach.LAN, ()  # a connection for what it said alone
    return (Reach.BROKER if broker_up and via != node else None), ()
