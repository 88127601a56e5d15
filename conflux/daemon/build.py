"""Building a daemon: the node, the shells around it, and what joins them.  Nothing runs before daemon.py starts it."""

from __future__ import annotations

import logging
import os
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from ipaddress import IPv4Network, IPv6Network
from typing import NamedTuple

from conflux.anchor.speed import best_aead
from conflux.api.echo import Echo
from conflux.api.operations import Operations
from conflux.api.rows import Relaying
from conflux.api.server import ApiServer
from conflux.carrier.interface import HOST_COUNT_MAX, CarrierEvent, Closed
from conflux.config.settings import Config, Origin
from conflux.control.admitting import Carrier, Office, Request
from conflux.control.channel import ControlChannel
from conflux.control.envelope import Kind
from conflux.control.event import Message
from conflux.control.lan.channel import LanChannel
from conflux.control.lan.config import LanConfig
from conflux.control.lan.join import renew
from conflux.control.lan.twins import REST_S as TWIN_REST_S
from conflux.control.lan.twins import Twins
from conflux.control.nats.config import NatsConfig
from conflux.control.plane import ControlPlane
from conflux.daemon import joining, native
from conflux.daemon.brokering import Brokering
from conflux.daemon.device import collisions, cut_off, interface_warnings
from conflux.daemon.ending import Ending
from conflux.daemon.governing import Governing
from conflux.daemon.health import Health
from conflux.daemon.issuing import Issuing
from conflux.daemon.kind import Given
from conflux.daemon.kind import Kind as DaemonKind
from conflux.daemon.late import LateRenewal
from conflux.daemon.limits import byte_bound, datapath_config, features, link_config, patience_bounds
from conflux.daemon.metering import Usage, slow_down
from conflux.daemon.passing import Passing
from conflux.daemon.reloading import Reloading, takers
from conflux.daemon.renewal import Renewal
from conflux.daemon.rest import Rest
from conflux.daemon.revoking import Revocation
from conflux.datapath.interface import Tables
from conflux.errors import ConfigError, RemoteProtocolError, StateError, UserError
from conflux.host.netlink import DeviceConfig
from conflux.host.networks import Network
from conflux.host.notices import notices
from conflux.host.tun import Tun
from conflux.host.underlay import Underlay
from conflux.ids import BootId, IPAddress, NodeId, format_node_id
from conflux.link.links import Links
from conflux.node import Node, NodeConfig
from conflux.realm.clock import RealmClock
from conflux.realm.credential import RELAY, Chain, Grant
from conflux.realm.issuer import Issuer
from conflux.realm.join import JoinAnswer, JoinRequest
from conflux.realm.member import Member
from conflux.realm.reason import Reason
from conflux.search.first import FirstSearch
from conflux.shell.feed import Feed
from conflux.shell.mover import Mover
from conflux.shell.pump import Pump
from conflux.state.clock import realm_clock
from conflux.state.directory import StateDir
from conflux.state.founding import issuer_of
from conflux.state.grants import accept_grant, given_grant
from conflux.state.usage_files import UsageFiles
from conflux.stream.resuming import Resumption

DAY_S = 86400

log = logging.getLogger(__name__)


class Running(NamedTuple):
    """A daemon's parts, all made and joined.  daemon.py starts and stops them."""

    state: StateDir
    tun: Tun
    node: Node
    pump: Pump
    mover: Mover
    channels: Sequence[ControlChannel]
    renewal: Renewal
    issuing: Issuing
    revocation: Revocation
    brokering: Brokering
    twins: Twins
    late: LateRenewal | None  # None: there is no channel on which an issuer could be looked for
    api: ApiServer
    health: Health
    reloading: Reloading
    usage: Usage


class _Start(NamedTuple):
    """What several parts of one start are made with.

    rng: jitter, not secrets.  overlay: the networks of the device; no link runs over them, and no LAN is sought there.
    """

    config: Config
    member: Member
    clock: RealmClock
    boot: BootId
    rng: random.Random
    revocation: Revocation
    governing: Governing
    overlay: tuple[IPv4Network | IPv6Network, ...]
    twins: Twins


def kind_of(config: Config) -> DaemonKind:
    """Return the configured kind of daemon."""
    if config.datapath.name == "native":
        return native
    from conflux.daemon import reference  # a tenth of all that a daemon imports, and seldom configured

    return reference


def build(
    config: Config,
    state: StateDir,
    member: Member,
    tun: Tun,
    device: DeviceConfig,
    ending: Ending,
    fenced: Sequence[Network] = (),
    warnings: Sequence[str] = (),
    ca: str | None = None,
    origin: Origin | None = None,
    lookers: int | None = None,
) -> Running:
    """Make every part of a daemon in the running event loop.  Raises StateError and ConfigError.

    tun: the open device.  device: how it is configured.  ending: told of what ends the daemon.  fenced: of the plan.
    warnings: about the host, as long as the daemon runs.  ca: what read_ca() returned.  origin: of the configuration,
    for a reload.  lookers: the group whose members may look.
    """
    boot = state.next_boot(now_unix=int(time.time()), entropy=os.urandom)
    rng = random.Random(os.urandom(16))  # noqa: S311  # not for secrets
    clock = realm_clock(state)
    revocation = Revocation(state, member, clock)
    governing = Governing(state, revocation.book, clock)

    began_at = time.monotonic()

    def again(newer: BootId) -> bool:
        try:
            follows = state.note_boot(newer, now_unix=int(time.time()))
        except StateError as error:  # nothing is kept of this start, so only a long one is followed by another
            log.error("%s", error)
            follows = time.monotonic() >= began_at + TWIN_REST_S
        if follows:
            ending.again("other nodes hear this one as a newer boot alone")
        return follows

    twins = Twins(boot, time.monotonic, again, rests=state.began_for_twin())
    start = _Start(config, member, clock, boot, rng, revocation, governing, device.networks, twins)
    feed, echo = Feed(), Echo(os.urandom)

    def on_event(event: CarrierEvent) -> None:
        if isinstance(event, Closed):
            usage.link_ends()
        pump.carrier_event(event)
        rest.note(event)

    underlay = Underlay(
        count_max=HOST_COUNT_MAX,
        excluded=device.networks,
        interfaces=config.control.lan.interfaces,
        in_use=lambda: [text for channel in channels if isinstance(channel, LanChannel) for text in channel.addresses],
    )
    given = Given(
        limits=datapath_config(config),
        tun=tun,
        echo=echo,
        ice_servers=config.link.ice_servers,
        excluded=device.networks,
        addresses=underlay.addresses,
        on_event=on_event,
        device_lost=ending.device_lost,
    )
    kind = kind_of(config)
    parts = kind.parts(given)
    node = _node(
        start,
        parts.datapath,
        device.addresses,
        relays=config.relay.enabled,
        early=kind.SENDS_EARLY,
        keyed=kind.KEYS_LINKS,
    )

    def ask(peer: NodeId, kind: Kind, body: bytes) -> int:
        return int(pump.command(node.request, peer, kind, body))

    def answer(message: Message, kind: Kind, body: bytes) -> None:
        pump.command(node.reply, message, kind, body)

    def issue(request: Request, binding: bytes) -> JoinAnswer:
        answer = issuing.admit(request, binding)
        revocation.settle()  # a board that it replaced is no member from now on
        return answer

    office = Office(
        issue=issue,
        issuer=lambda: None if issuing.issuer is None else issuing.issuer.issuer_id,
        secret=lambda invite_id: issuing.secret_of(invite_id),
        lists=lambda: (signed.encode() for signed in node.plane.lists.book.newer_than(())),
    )

    def own(request: Request) -> bool:
        issuer = issuing.issuer
        if issuer is None:
            return False
        return request.issuer == issuer.issuer_id if isinstance(request, JoinRequest) else issuer.renews(request.chain)

    passing = Passing(
        is_issuer=revocation.book.is_issuer,
        own=own,
        issue=issue,
        ask=ask,
        answer=answer,
        drop=lambda reason: pump.drops.update((reason,)),
    )
    channels = _channels(start, node, office, passing, told=lambda data: pump.told(data), ca=ca)

    def on_message(message: Message) -> None:
        try:
            if message.kind in (Kind.ADMIT, Kind.ADMITTED):
                passing.receive(message, now=pump.now())
            elif message.kind is Kind.RENEWED:
                renewal.receive(message, now=pump.now())
            elif message.kind is not Kind.ACK or not renewal.acknowledged(message):
                issuing.receive(message, now=pump.now())
        except RemoteProtocolError as error:
            pump.drops[error.reason] += 1
        except StateError as error:
            log.error("renewal: %s", error)

    def adopted(renewed: Member) -> None:
        try:
            state.save_member(renewed)
            state.guard()
        except StateError as error:
            log.error("the renewed credential cannot be kept: %s", error)
        pump.adopt(renewed)

    pump = Pump(node, connect=parts.connect, channels=channels, feed=feed, fail=ending.fail, on_message=on_message)
    rest = Rest(lambda: pump.mover.carrier.socket_count())

    renewal = Renewal(
        member,
        lambda: issuing.issuer,
        start.clock,
        rng=rng,
        ask=ask,
        answer=answer,
        adopted=adopted,
        denies=revocation.book.denies,
    )
    revocation.publish = partial(pump.command, node.publish)
    governing.publish = partial(pump.command, node.publish)
    governing.follow(node.policing)

    def issuer_here() -> Issuer | None:
        issuer = issuer_of(state, member)
        if issuer is not None:
            issuer.elsewhere = lambda name: _owner_elsewhere(node, issuer.issuer_id, name)
        return issuer

    def take(grant: Grant) -> Issuer | None:
        if not accept_grant(state, renewal.member, grant, now_unix=start.clock.now_unix()):
            return None
        revocation.settle()  # its lists count as long as the grant that is on them
        return issuer_here()

    issuing = Issuing(
        issuer_here(),
        start.clock,
        late_s=config.realm.renew_expired * DAY_S,
        grant_of=lambda node_id: given_grant(state, node_id),
        take=take,
        look=issuer_here,
        ask=ask,
        answer=answer,
        adopt=renewal.adopt,
        denies=revocation.book.denies,
    )
    brokering = Brokering(
        state,
        config.control.nats,
        revocation=revocation,
        renewal=renewal,
        issuing=issuing,
        pump=pump,
        clock=clock,
        make=lambda known: _nats_channel(start, renewal.member, node, office, known),
        rng=rng,
    )
    revocation.noted = brokering.look
    usage = Usage(
        UsageFiles(state),
        byte_bound(config),
        clock,
        carrier=lambda: pump.mover.carrier,
        peers=node.links.peer_of,
        name_of=node.name_of,
        slow_down=lambda pace: slow_down(pace, reloading.config, pump, channels),
    )
    reloading = Reloading(config, origin or Origin(), takers(pump, node, channels, issuing, lambda: usage))
    api_drops: Counter[str] = Counter()
    operations = Operations(
        pump=pump,
        channels=channels,
        tun=tun,
        device=device,
        relaying=lambda: _relaying(reloading.config, renewal.member),
        warnings=lambda: [
            *warnings,
            *collisions((*device.networks, *device.closed), device.device),
            *state.warnings(),
            *filter(None, [underlay.warning]),
            *interface_warnings(config),
            *twins.warnings(),
            *renewal.warnings(),
            *revocation.warnings(),
            *brokering.warnings(),
            *filter(None, [node.policing.enforced.trouble]),
            *_contested(node),
            *usage.warnings(),
            *(f"board: {notice}" for notice in notices()),
        ],
        find_issued=revocation.find,
        revoke=revocation.revoke,
        reload=reloading.reload,
        leave=renewal.leave,
        usage=usage.shown,
        budget=usage.budget,
        hand_over=lambda node_id: issuing.hand_over(node_id, now=pump.now()),
        look_at_broker=brokering.look,
        look_at_policy=governing.look,
        feed=feed,
        echo=echo,
        api_drops=api_drops,
        stop=ending.stop,
        started_at=time.monotonic(),
    )
    api = ApiServer(config.socket, operations.table(), ending.fail, api_drops, group=lookers)
    late = (
        _late(start, reloading, renewal, brokering, ca)
        if config.control.lan.enabled or config.control.nats.enabled
        else None
    )
    health = Health(
        trouble=lambda: tun.trouble(device) or cut_off(fenced, device.device),
        warnings=lambda: [
            *filter(None, [underlay.warning]),
            *(text for text in renewal.warnings() if text != renewal.refused),  # it said that itself
            *_contested(node),
        ],
        lost=ending.again,
    )
    return Running(
        state,
        tun,
        node,
        pump,
        pump.mover,
        channels,
        renewal,
        issuing,
        revocation,
        brokering,
        twins,
        late,
        api,
        health,
        reloading,
        usage,
    )


def _node(
    start: _Start, datapath: Tables, own: tuple[IPAddress, ...], *, relays: bool, early: bool, keyed: bool
) -> Node:
    member, rng = start.member, start.rng
    return Node(
        member,
        boot=start.boot,
        config=NodeConfig(
            aead=best_aead(),
            relaying=relays,
            early=early,
            patience=patience_bounds(start.config),
            resumption=Resumption(start.config.stream.resumption),
            keyed_links=keyed,
        ),
        datapath=datapath,
        plane=ControlPlane(
            member,
            boot=start.boot,
            entropy=os.urandom,
            rng=rng,
            clock=start.clock.now_unix,
            observe=start.clock.observe,
            now=Pump.now(),
            features=features(start.config, own, relays=relays),
            book=start.revocation.book,
            policies=start.governing.book,
        ),
        links=Links(member.node_id, rng=rng, entropy=os.urandom, config=link_config(start.config)),
        search=FirstSearch(member.node_id),
        rng=rng,
        entropy=os.urandom,
        own=own,
    )


def _relaying(config: Config, member: Member) -> Relaying:
    if not config.relay.enabled:
        return Relaying.OFF
    return Relaying.ON if RELAY in member.chain.credential.capabilities else Relaying.NOT_ALLOWED


def _channels(
    start: _Start, node: Node, office: Office, carrier: Carrier, *, told: Callable[[bytes], None], ca: str | None
) -> list[ControlChannel]:
    """Return the configured control channels, the nearest first."""
    control = start.config.control
    channels: list[ControlChannel] = []
    if control.lan.enabled:
        channels.append(_lan_channel(start, node, office, carrier, told))
    if control.nats.enabled and control.nats.servers:
        channels.append(_nats_channel(start, start.member, node, office, _nats_config(start, ca)))
    return channels


def _nats_config(start: _Start, ca: str | None) -> NatsConfig:
    settings = start.config.control.nats
    return NatsConfig(settings.servers, ca, settings.area, start.overlay)


def _nats_channel(start: _Start, member: Member, node: Node, office: Office, config: NatsConfig) -> ControlChannel:
    from conflux.control.nats.channel import NatsChannel  # 2 MB and 50 ms that LANs do without

    def public_of(peer: NodeId) -> bytes | None:
        card = node.plane.card(peer)
        return None if card is None else card.chain.credential.node_public

    return NatsChannel(
        member,
        config=config,
        rng=start.rng,
        public_of=public_of,
        office=office,
        floor_unix=lambda: start.clock.floor_unix,
    )


def read_ca(config: Config) -> str | None:
    """Return the certificates that those of the broker's servers are held against; None: those that this system trusts.

    Raises ConfigError.  Called before the sandbox, as the file may lie anywhere.
    """
    settings = config.control.nats
    path = settings.ca if settings.enabled and settings.servers else None
    if path is None:
        return None
    try:
        return path.read_text("ascii")
    except OSError as error:
        raise ConfigError(f"control.nats.ca: cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"control.nats.ca: {path} holds no certificate in PEM") from None


def _lan_channel(
    start: _Start, node: Node, office: Office, carrier: Carrier, told: Callable[[bytes], None]
) -> LanChannel:
    member, clock, settings = start.member, start.clock, start.config.control.lan

    def judge(chain: Chain) -> None:
        try:
            clock.judge(chain, member.anchor)
        except RemoteProtocolError as error:
            if error.reason == Reason.EXPIRED:  # the realm signed it: the dates are verified last
                node.plane.note_ended(chain)
            raise

    return LanChannel(
        member,
        boot=start.boot,
        judge=judge,
        clock=clock.now_unix,
        entropy=os.urandom,
        rng=start.rng,
        config=LanConfig(
            port=settings.port,
            interfaces=settings.interfaces,
            mdns=settings.mdns,
            peers=settings.peers,
            overlay=start.overlay,
            ring=settings.ring,
        ),
        issue=office.issue,
        lists=office.lists,
        carrier=carrier,
        admit=start.revocation.book.judge,
        against=start.revocation.against,
        told=told,
        twins=start.twins,
        chains=node.plane.chains,
    )


def _late(start: _Start, reloading: Reloading, renewal: Renewal, brokering: Brokering, ca: str | None) -> LateRenewal:
    """Return what looks for an issuer, on the LAN and at the broker."""
    control = start.config.control

    async def search(member: Member) -> Member:
        def over_lan() -> Awaitable[Member]:
            return renew(
                member,
                clock=start.clock,
                entropy=os.urandom,
                endpoints=reloading.config.control.lan.peers,
                config=LanConfig(interfaces=control.lan.interfaces, mdns=control.lan.mdns, overlay=start.overlay),
            )

        def over_broker(config: NatsConfig) -> Awaitable[Member]:
            from conflux.control.nats.renew import renew  # 2 MB and 50 ms that LANs do without

            return renew(member, config=config, clock=start.clock, entropy=os.urandom)

        ways: list[Callable[[], Awaitable[Member]]] = [over_lan] if control.lan.enabled else []
        broker = _nats_config(start, ca) if control.nats.servers else brokering.wanted()
        if control.nats.enabled and broker is not None:
            ways.append(partial(over_broker, broker))
        if not ways:
            raise UserError("no control channel is there on which the issuer could be looked for")
        return await joining.first_of(ways)

    return LateRenewal(renewal, search, rng=start.rng)


def _owner_elsewhere(node: Node, issuer: NodeId, name: str) -> NodeId | None:
    """Return the node that another issuer let in under a name, if its card is here."""
    card = node.plane.card_by_name(name)
    return None if card is None or card.chain.credential.issuer == issuer else card.node_id


def _contested(node: Node) -> list[str]:
    """Return a warning for each name that several nodes have."""
    return [
        f"two-owners: {len(nodes)} nodes have the name {name}, let in by different issuers: {format_node_id(nodes[0])} "
        f"answers to it; rename the other where it was let in: conflux realm rename {format_node_id(nodes[1])} NAME"
        for name, nodes in sorted(node.plane.contested_names().items())
    ]
