"""What a running node shows of itself, as frozen values: server.py encodes them, and metrics can read the same ones.

The names of the fields are the keys of the JSON.  None: not known, not measured, or without meaning here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Literal, NamedTuple

from conflux.api.nodes import PeerRow
from conflux.api.usage import BudgetRow
from conflux.carrier.interface import Measured
from conflux.control.channel import NeighbourStatus
from conflux.control.event import PlaneStatus
from conflux.datapath.status import DatapathStatus, EgressStatus, PendingStatus, ReceiverStatus, SenderStatus
from conflux.host.memory import Memory
from conflux.ids import LinkId, NodeId, format_node_id, parse_node_id
from conflux.node.status import DestinationState, DestinationStatus, NodeStatus
from conflux.realm.card import Card
from conflux.realm.member import Member
from conflux.route.event import RelayEndStatus
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


class Reloaded(NamedTuple):
    """The answer to `conflux reload`.  changed: keys whose new values count.  restart: keys that need a restart."""

    changed: tuple[str, ...]
    restart: tuple[str, ...]


class Left(NamedTuple):
    """What became of the word that this node leaves.  told: its issuer has taken note."""

    told: bool


# ── streams ──


class StreamRow(NamedTuple):
    """A stream from here to a node, a node that packets wait for, or a stream from a node to here.

    direction: "out" or "in".  path: the hops that carry it, by name; of a stream that comes in nobody here knows them.
    bytes: of whole frames, as packets and frames are counted since the stream began.  lost_frames: of the present
    epoch, of a stream that comes in.  queued_packets to failures: of one that goes out.
    """

    direction: Literal["out", "in"]
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
    lost_frames: int | None
    queued_packets: int | None
    queued_bytes: int | None
    rtt_ms: float | None
    failures: int | None


def streams(status: NodeStatus, name_of: NameOf) -> tuple[StreamRow, ...]:
    """Return every stream, wanted, open or received."""
    sent = (_sent(destination, status.datapath, name_of) for destination in status.destinations)
    received = (
        StreamRow(
            direction="in",
            node=receiver.source,
            name=name_of(parse_node_id(receiver.source)),
            state="receiving" if receiver.frames else "half-open",
            stream=receiver.stream,
            path=None,
            epoch=receiver.epoch,
            link=receiver.link,
            frames=receiver.frames,
            packets=receiver.packets,
            bytes=receiver.bytes,
            lost_frames=receiver.lost_frames,
            queued_packets=None,
            queued_bytes=None,
            rtt_ms=None,
            failures=None,
        )
        for receiver in status.datapath.receivers
    )
    return (*sent, *received)


def _sent(destination: DestinationStatus, datapath: DatapathStatus, name_of: NameOf) -> StreamRow:
    node = format_node_id(destination.node)
    stream = _stream(destination)
    sender = next((each for each in datapath.senders if each.stream == stream), None)
    queue = next((each for each in datapath.egresses if each.destination == node), None)
    # The tables may say that a stream flows while nothing is heard from its receiver.  That is no connection.
    silent = destination.state is DestinationState.FLOWING and sender is not None and sender.suspect
    return StreamRow(
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
        lost_frames=None,
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
    dialled: bool | None
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
            dialled=link.initiator,
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
    label: str
    ready: bool
    next: str | None


class RelayEnd(NamedTuple):
    """One of the two hops of a route that passes through.  name: the neighbour's."""

    name: str | None
    link: int
    label_in: str
    label_out: str


class RelayRow(NamedTuple):
    """A route that passes through, and what went each way.  A relay knows no more of it."""

    before: RelayEnd
    ahead: RelayEnd
    ahead_frames: int
    ahead_bytes: int
    back_frames: int
    back_bytes: int
    expires_in_s: float


class PathRow(NamedTuple):
    """A path to a node, with its costs.  hops: by name.  why: the reason why it is or is not tried, for a person."""

    hops: tuple[str, ...]
    why: str
    rtt_ms: float | None
    open_ms: float | None
    openings: int | None
    failures: int | None
    received_frames: int | None
    lost_frames: int | None


class KnownPath(NamedTuple):
    """A path of `conflux paths`: what a PathRow has, and the name and id of its destination."""

    name: str
    node: str
    hops: tuple[str, ...]
    why: str
    rtt_ms: float | None
    open_ms: float | None
    openings: int | None
    failures: int | None
    received_frames: int | None
    lost_frames: int | None


class CandidatePath(NamedTuple):
    """A path of `conflux route NAME`: what a PathRow has, and whether it carries packets now."""

    carrying: bool
    hops: tuple[str, ...]
    why: str
    rtt_ms: float | None = None
    open_ms: float | None = None
    openings: int | None = None
    failures: int | None = None
    received_frames: int | None = None
    lost_frames: int | None = None


class Streams(NamedTuple):
    """The answer to `conflux streams`."""

    streams: tuple[StreamRow, ...]


class Links(NamedTuple):
    """The answer to `conflux links`."""

    links: tuple[LinkRow, ...]


class Paths(NamedTuple):
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


def paths(status: NodeStatus, name_of: NameOf, *, now: float) -> Paths:
    """Return the routes that are set up, those of others that pass, and what is known of paths to destinations."""
    neighbours = _neighbours(status, name_of)
    own = (
        RouteRow(each.direction, each.link, _label(each.label), each.ready, neighbours.get(each.link))
        for each in status.routes
    )
    known = (
        KnownPath(name=destination.name, node=format_node_id(destination.node), **_costs(each, name_of))
        for destination in status.destinations
        for each in destination.candidates
    )
    return Paths(tuple(own), relays(status, name_of, now=now), tuple(known))


def relays(status: NodeStatus, name_of: NameOf, *, now: float) -> tuple[RelayRow, ...]:
    """Return the routes that pass through: the neighbour at either end, and what went each way."""
    neighbours = _neighbours(status, name_of)
    passed = {(each.before.link, each.before.label_in): each for each in status.datapath.relays}

    def end(of: RelayEndStatus) -> RelayEnd:
        return RelayEnd(neighbours.get(of.link), of.link, _label(of.label_in), _label(of.label_out))

    rows = []
    for relay in status.relays:
        counted = passed.get((relay.before.link, relay.before.label_in))
        rows.append(
            RelayRow(
                before=end(relay.before),
                ahead=end(relay.ahead),
                ahead_frames=0 if counted is None else counted.frames_ahead,
                ahead_bytes=0 if counted is None else counted.bytes_ahead,
                back_frames=0 if counted is None else counted.frames_back,
                back_bytes=0 if counted is None else counted.bytes_back,
                expires_in_s=round(max(0.0, relay.expires_at - now), 1),
            )
        )
    return tuple(rows)


def route(card: Card, status: NodeStatus, candidates: Sequence[Candidate], name_of: NameOf) -> Explained:
    """Return how packets get to one node: what carries them now, and every candidate with its costs."""
    destination = next((each for each in status.destinations if each.node == card.node_id), None)
    paths = [
        CandidatePath(carrying=destination is not None and each.hops == destination.path, **_costs(each, name_of))
        for each in candidates
    ]
    path = None if destination is None else _path(destination, name_of)
    if destination is not None and path is not None and not any(each.carrying for each in paths):
        stream = _stream(destination)
        rtt_ms = next((each.rtt_ms for each in status.datapath.senders if each.stream == stream), None)
        why = "moved there; the search does not offer it"
        paths.insert(0, CandidatePath(carrying=True, hops=path, why=why, rtt_ms=rtt_ms))
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
        "openings": candidate.opened,
        "failures": candidate.failed,
        "received_frames": candidate.received,
        "lost_frames": candidate.lost,
    }


def _label(label: int) -> str:
    return f"{label:08x}"


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

    expires_at: int
    renew_at: int
    serial: int
    issuer: str
    tags: tuple[str, ...]
    capabilities: tuple[str, ...]


class DeviceRow(NamedTuple):
    """The TUN device.  up: packets pass it.  read_packets, written_packets: that it gave and took."""

    name: str
    mtu_bytes: int
    up: bool
    read_packets: int
    written_packets: int


class ChannelRow(NamedTuple):
    """A control channel, and the neighbours it reaches."""

    name: str
    up: bool
    detail: str
    neighbours: tuple[NeighbourStatus, ...]


class DatapathRow(NamedTuple):
    """What moves the packets: its name, queues and ends of streams.  What it passes on for others is in relays."""

    name: str
    egresses: tuple[EgressStatus, ...]
    pending: tuple[PendingStatus, ...]
    senders: tuple[SenderStatus, ...]
    receivers: tuple[ReceiverStatus, ...]
    drops: Mapping[str, int]


class Status(NamedTuple):
    """The answer to `conflux status`.  drops: how often something was dropped, by reason, most first."""

    version: str
    pid: int
    uptime_s: float
    nodes: tuple[PeerRow, ...]
    node: NodeRow
    realm: RealmRow
    credential: CredentialRow
    device: DeviceRow
    control: tuple[ChannelRow, ...]
    relaying: Relaying
    policy_number: int | None
    memory: Memory
    budget: BudgetRow
    warnings: tuple[str, ...]
    sockets: int
    tasks: tuple[str, ...]
    streams: tuple[StreamRow, ...]
    links: tuple[LinkRow, ...]
    routes: tuple[RouteRow, ...]
    relays: tuple[RelayRow, ...]
    destinations: tuple[DestinationRow, ...]
    datapath: DatapathRow
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


def datapath(status: DatapathStatus) -> DatapathRow:
    """Return what a person may want to see of the datapath."""
    return DatapathRow(status.name, status.egresses, status.pending, status.senders, status.receivers, status.drops)


def credential(member: Member) -> CredentialRow:
    """Return what a person may want to know of a member's credential."""
    held = member.chain.credential
    return CredentialRow(
        expires_at=member.chain.not_after,
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
