"""What a running node shows of itself, as frozen values: server.py encodes them, and metrics can read the same ones.

The names of the fields are the keys of the JSON.  None: not known, not measured, or without meaning here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Literal, NamedTuple

from conflux.carrier.interface import Measured
from conflux.control.channel import NeighbourStatus
from conflux.control.event import PlaneStatus
from conflux.datapath.status import DatapathStatus
from conflux.host.memory import Memory
from conflux.ids import LinkId, NodeId, format_node_id, parse_node_id
from conflux.node.status import DestinationState, DestinationStatus, NodeStatus
from conflux.realm.card import Card
from conflux.realm.member import Member
from conflux.route.event import RelayEndStatus, RouteStatus
from conflux.search.interface import Candidate

NameOf = Callable[[NodeId], str]  # what a person calls a node


class Relaying(StrEnum):
    """Whether this node passes frames of others on; if not, who decided so."""

    ON = "on"
    OFF = "off"  # the configuration
    NOT_ALLOWED = "not-allowed"  # the credential


class HandedOver(NamedTuple):
    """What became of a changed credential.  used: its member uses it now.  reason: why it was not even sent, or ""."""

    used: bool
    reason: str


class Left(NamedTuple):
    """What became of the word that this node leaves.  told: its issuer has taken note."""

    told: bool


# ── streams ──


class SentStream(NamedTuple):
    """A stream from here to a node, or a node that packets wait for.  path: the hops that carry it, by name."""

    direction: Literal["out"]
    node: str
    name: str
    state: str
    stream: str | None
    path: tuple[str, ...] | None
    epoch: int | None
    link: int | None
    frames: int
    packets: int
    bytes: int
    queued_packets: int
    queued_bytes: int
    rtt_ms: float | None
    failures: int


class ReceivedStream(NamedTuple):
    """A stream from a node to here."""

    direction: Literal["in"]
    node: str
    name: str
    state: str
    stream: str
    epoch: int
    link: int | None
    frames: int
    packets: int
    lost_frames: int


StreamRow = SentStream | ReceivedStream


def streams(status: NodeStatus, name_of: NameOf) -> tuple[StreamRow, ...]:
    """Return every stream, wanted, open or received."""
    sent = (_sent(destination, status.datapath, name_of) for destination in status.destinations)
    received = (
        ReceivedStream(
            direction="in",
            node=receiver.source,
            name=name_of(parse_node_id(receiver.source)),
            state="receiving" if receiver.frames else "half-open",
            stream=receiver.stream,
            epoch=receiver.epoch,
            link=receiver.link,
            frames=receiver.frames,
            packets=receiver.packets,
            lost_frames=receiver.lost_frames,
        )
        for receiver in status.datapath.receivers
    )
    return (*sent, *received)


def _sent(destination: DestinationStatus, datapath: DatapathStatus, name_of: NameOf) -> SentStream:
    node = format_node_id(destination.node)
    stream = _stream(destination)
    sender = next((each for each in datapath.senders if each.stream == stream), None)
    queue = next((each for each in datapath.egresses if each.destination == node), None)
    # The tables may say that a stream flows while nothing is heard from its receiver.  That is no connection.
    silent = destination.state is DestinationState.FLOWING and sender is not None and sender.suspect
    return SentStream(
        direction="out",
        node=node,
        name=destination.name,
        state="no answer" if silent else destination.state,
        stream=stream,
        path=_path(destination, name_of),
        epoch=None if sender is None else sender.epoch,
        link=None if sender is None else sender.link,
        frames=0 if sender is None else sender.frames,
        packets=0 if sender is None else sender.packets,
        bytes=0 if sender is None else sender.bytes,
        queued_packets=0 if queue is None else queue.packets,
        queued_bytes=0 if queue is None else queue.bytes,
        rtt_ms=None if sender is None else sender.rtt_ms,
        failures=destination.failure_count,
    )


def _stream(destination: DestinationStatus) -> str | None:
    return None if destination.stream is None else destination.stream.hex()


def _path(destination: DestinationStatus, name_of: NameOf) -> tuple[str, ...] | None:
    return None if destination.path is None else tuple(name_of(hop) for hop in destination.path)


# ── membership ──


class RevokedRow(NamedTuple):
    """A node that was revoked.  cancelled: the invitations, in hex, that had let it in and were not used up."""

    node: str
    name: str
    cancelled: tuple[str, ...]


# ── links ──


class LinkRow(NamedTuple):
    """A link to a neighbour, or a neighbour that is not dialled for now.  From rtt_ms on: what the carrier measured."""

    link: int | None
    node: str
    name: str
    state: str
    initiator: bool | None
    age_s: float | None
    users: int
    failures: int
    next_in_s: float | None
    rtt_ms: float | None = None
    rate_mbit: float | None = None
    packet_bytes: int | None = None
    sent_bytes: int | None = None
    received_bytes: int | None = None
    repaired_chunks: int | None = None


def links(
    status: NodeStatus, name_of: NameOf, measured: Callable[[LinkId | None], Measured | None], *, now: float
) -> tuple[LinkRow, ...]:
    """Return every link, open or being opened, and every node that is not dialled for now.

    measured: what the carrier knows of a link's hop.
    """
    return tuple(
        LinkRow(
            link=link.link,
            node=format_node_id(link.peer),
            name=name_of(link.peer),
            state=link.state,
            initiator=link.initiator,
            age_s=None if link.opened_at is None else round(now - link.opened_at, 1),
            users=link.user_count,
            failures=link.failure_count,
            next_in_s=None if link.wake_at is None else round(max(0.0, link.wake_at - now), 1),
            **_hop(measured(link.link)),
        )
        for link in status.links
    )


def _hop(measured: Measured | None) -> dict[str, Any]:
    if measured is None:
        return {}
    return {
        "rtt_ms": None if measured.rtt_s is None else round(measured.rtt_s * 1e3, 3),
        "rate_mbit": None if measured.rate_bytes_s is None else round(measured.rate_bytes_s * 8e-6, 3),
        "packet_bytes": measured.packet_bytes,
        "sent_bytes": measured.sent_bytes,
        "received_bytes": measured.received_bytes,
        "repaired_chunks": measured.repaired_count,
    }


# ── routes, and what passes through ──


class RouteRow(NamedTuple):
    """A route that starts or ends here.  label: that of its frames; next: the neighbour it goes to, by name."""

    direction: str
    link: int
    label: int
    ready: bool
    next: str | None


class RelayEnd(NamedTuple):
    """One of the two hops of a route that passes through.  name: the neighbour's."""

    name: str | None
    link: int
    label_in: int
    label_out: int


class RelayRow(NamedTuple):
    """A route that passes through, and what went each way.  A relay knows no more of it."""

    before: RelayEnd
    ahead: RelayEnd
    frames_ahead: int
    bytes_ahead: int
    frames_back: int
    bytes_back: int
    expires_in_s: float


class PathRow(NamedTuple):
    """A path to a node, with its costs.  hops: by name.  why: the reason why it is or is not tried, for a person."""

    hops: tuple[str, ...]
    why: str
    rtt_ms: float | None
    open_ms: float | None
    opened: int | None
    failed: int | None
    received: int | None
    lost: int | None


class KnownPath(NamedTuple):
    """A path of `conflux paths`: what a PathRow has, and the name and id of its destination."""

    name: str
    node: str
    hops: tuple[str, ...]
    why: str
    rtt_ms: float | None
    open_ms: float | None
    opened: int | None
    failed: int | None
    received: int | None
    lost: int | None


class CandidatePath(NamedTuple):
    """A path of `conflux route NAME`: what a PathRow has, and whether it carries packets now."""

    carries: bool
    hops: tuple[str, ...]
    why: str
    rtt_ms: float | None = None
    open_ms: float | None = None
    opened: int | None = None
    failed: int | None = None
    received: int | None = None
    lost: int | None = None


class Routes(NamedTuple):
    """The answer to `conflux paths`."""

    routes: tuple[RouteRow, ...]
    relays: tuple[RelayRow, ...]
    paths: tuple[KnownPath, ...]


class Explained(NamedTuple):
    """The answer to `conflux route NAME`.  state, path: of the stream there; None if there is none."""

    name: str
    node: str
    state: str | None
    path: tuple[str, ...] | None
    paths: tuple[CandidatePath, ...]


def routes(status: NodeStatus, name_of: NameOf, *, now: float) -> Routes:
    """Return the routes that are set up, those of others that pass, and what is known of paths to destinations."""
    neighbours = _neighbours(status, name_of)
    own = (
        RouteRow(each.direction, each.link, each.label, each.ready, neighbours.get(each.link)) for each in status.routes
    )
    paths = (
        KnownPath(name=destination.name, node=format_node_id(destination.node), **_costs(each, name_of))
        for destination in status.destinations
        for each in destination.candidates
    )
    return Routes(tuple(own), relays(status, name_of, now=now), tuple(paths))


def relays(status: NodeStatus, name_of: NameOf, *, now: float) -> tuple[RelayRow, ...]:
    """Return the routes that pass through: the neighbour at either end, and what went each way."""
    neighbours = _neighbours(status, name_of)
    passed = {(each.before.link, each.before.label_in): each for each in status.datapath.relays}

    def end(of: RelayEndStatus) -> RelayEnd:
        return RelayEnd(neighbours.get(of.link), of.link, of.label_in, of.label_out)

    rows = []
    for relay in status.relays:
        counted = passed.get((relay.before.link, relay.before.label_in))
        rows.append(
            RelayRow(
                before=end(relay.before),
                ahead=end(relay.ahead),
                frames_ahead=0 if counted is None else counted.frames_ahead,
                bytes_ahead=0 if counted is None else counted.bytes_ahead,
                frames_back=0 if counted is None else counted.frames_back,
                bytes_back=0 if counted is None else counted.bytes_back,
                expires_in_s=round(max(0.0, relay.expires_at - now), 1),
            )
        )
    return tuple(rows)


def route(card: Card, status: NodeStatus, candidates: Sequence[Candidate], name_of: NameOf) -> Explained:
    """Return how packets get to one node: what carries them now, and every candidate with its costs."""
    destination = next((each for each in status.destinations if each.node == card.node_id), None)
    paths = [
        CandidatePath(carries=destination is not None and each.hops == destination.path, **_costs(each, name_of))
        for each in candidates
    ]
    path = None if destination is None else _path(destination, name_of)
    if destination is not None and path is not None and not any(each.carries for each in paths):
        stream = _stream(destination)
        rtt_ms = next((each.rtt_ms for each in status.datapath.senders if each.stream == stream), None)
        why = "moved there; the search does not offer it"
        paths.insert(0, CandidatePath(carries=True, hops=path, why=why, rtt_ms=rtt_ms))
    return Explained(
        name=card.name,
        node=format_node_id(card.node_id),
        state=None if destination is None else destination.state,
        path=path,
        paths=tuple(paths),
    )


def _costs(candidate: Candidate, name_of: NameOf) -> dict[str, Any]:
    return {
        "hops": tuple(name_of(hop) for hop in candidate.hops),
        "why": candidate.why,
        "rtt_ms": candidate.rtt_ms,
        "open_ms": candidate.open_ms,
        "opened": candidate.opened,
        "failed": candidate.failed,
        "received": candidate.received,
        "lost": candidate.lost,
    }


def _neighbours(status: NodeStatus, name_of: NameOf) -> dict[LinkId, str]:
    """Return the name of the node at the other end of each link."""
    return {link.link: name_of(link.peer) for link in status.links if link.link is not None}


# ── the whole node ──


class NodeRow(NamedTuple):
    """This node."""

    id: str
    name: str
    addresses: tuple[str, ...]


class RealmRow(NamedTuple):
    """The realm of this node."""

    name: str
    id: str


class DestinationRow(NamedTuple):
    """A node that packets go to.  path: by name.  paths: those the search knows, their hops by node id."""

    node: str
    name: str
    addresses: tuple[str, ...]
    state: str
    stream: str | None
    path: tuple[str, ...] | None
    failures: int
    paths: tuple[PathRow, ...]


class CredentialRow(NamedTuple):
    """This node's credential.  Dates are Unix seconds."""

    not_after: int
    renew_at: int
    serial: int
    issuer: str
    tags: tuple[str, ...]
    capabilities: tuple[str, ...]


class DeviceRow(NamedTuple):
    """The TUN device.  up: packets pass it.  read, written: packets it gave and took."""

    name: str
    mtu: int
    up: bool
    read: int
    written: int


class ChannelRow(NamedTuple):
    """A control channel, and the neighbours it reaches."""

    name: str
    up: bool
    detail: str
    neighbours: tuple[NeighbourStatus, ...]


class Status(NamedTuple):
    """The answer to `conflux status`.  drops: how often something was dropped, by reason, most first."""

    version: str
    pid: int
    uptime_s: float
    node: NodeRow
    realm: RealmRow
    credential: CredentialRow
    device: DeviceRow
    control: tuple[ChannelRow, ...]
    relaying: Relaying
    memory: Memory
    warnings: tuple[str, ...]
    sockets: int
    tasks: tuple[str, ...]
    streams: tuple[StreamRow, ...]
    links: tuple[LinkRow, ...]
    routes: tuple[RouteStatus, ...]
    relays: tuple[RelayRow, ...]
    destinations: tuple[DestinationRow, ...]
    datapath: DatapathStatus
    plane: PlaneStatus
    drops: Mapping[str, int]


def destinations(status: NodeStatus, name_of: NameOf) -> tuple[DestinationRow, ...]:
    """Return every node that packets go to."""
    return tuple(
        DestinationRow(
            node=format_node_id(each.node),
            name=each.name,
            addresses=tuple(map(str, each.addresses)),
            state=each.state,
            stream=_stream(each),
            path=_path(each, name_of),
            failures=each.failure_count,
            paths=tuple(PathRow(**_costs(candidate, format_node_id)) for candidate in each.candidates),
        )
        for each in status.destinations
    )


def credential(member: Member) -> CredentialRow:
    """Return what a person may want to know of a member's credential."""
    held = member.chain.credential
    return CredentialRow(
        not_after=member.chain.not_after,
        renew_at=held.renew_at,
        serial=held.serial,
        issuer=format_node_id(held.issuer),
        tags=held.tags,
        capabilities=held.capabilities,
    )


def merge_drops(*counts: Mapping[str, int]) -> dict[str, int]:
    """Return drops by reason over all of counts, most first."""
    total: dict[str, int] = {}
    for count in counts:
        for reason, number in count.items():
            total[reason] = total.get(reason, 0) + number
    return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))
