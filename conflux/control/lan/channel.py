"""The LAN engine: a TLS connection to every neighbour, and envelopes over it.

dial or accept ─► handshake ─► neighbour ═══ ENVELOPE ═══► bridge ─► this node's plane
                                                             └─────► neighbours on other LANs
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from conflux.control.admitting import LIST_COUNT_MAX, Carrier, Issue
from conflux.control.chains import Chains
from conflux.control.channel import Arrival, ChannelInputs, ChannelState, Departed, Handoff, NeighbourStatus
from conflux.control.drop import Drop
from conflux.control.envelope import Envelope
from conflux.control.lan.acquaintances import Acquaintances
from conflux.control.lan.admission import Admission
from conflux.control.lan.bridge import KNOWN, NOWHERE, Bridge, handoff
from conflux.control.lan.certificate import Certificate
from conflux.control.lan.config import (
    CONNECTION_COUNT_MAX,
    PING_LATER_S,
    PING_S,
    RETIRE_S,
    RING_TARGET_COUNT_MAX,
    TARGET_COUNT_MAX,
    LanConfig,
    Place,
)
from conflux.control.lan.connection import Connection
from conflux.control.lan.dialling import Dialling
from conflux.control.lan.frame import FrameType
from conflux.control.lan.giving import Giving
from conflux.control.lan.handshake import SEED_BYTES, Ourselves, Peer, realm_tag
from conflux.control.lan.introduction import AnyAcceptor, Introductions
from conflux.control.lan.islands import FLOOD_S, ISLAND_S, Islands
from conflux.control.lan.lans import Lans
from conflux.control.lan.listener import Listener
from conflux.control.lan.meeting import TREE
from conflux.control.lan.met import Met
from conflux.control.lan.neighbours import Neighbour, Neighbours
from conflux.control.lan.shown import departed_status, neighbour_status
from conflux.control.lan.target import Target, Targets
from conflux.control.lan.telling import STOPPED, Telling
from conflux.control.lan.twins import Twins, place_of
from conflux.control.lan.wide import Spread, Wide
from conflux.errors import RemoteProtocolError
from conflux.host.underlay import is_here
from conflux.ids import BootId, NodeId
from conflux.realm.credential import Chain
from conflux.realm.member import Member

if TYPE_CHECKING:
    from conflux.control.lan.discovery import Discovery  # zeroconf is 10 MB that configured peers do without

log = logging.getLogger(__name__)

ADDRESS_GONE = "address-gone"  # why a connection ended: this host no longer has the address that it came from
STEADY_S = 10.0  # a connection that lived this long was no flap: the next one is dialled after the shortest wait


class _Up(NamedTuple):
    """What there is from start() to stop()."""

    listener: Listener
    discovery: Discovery | None
    inputs: ChannelInputs


class LanChannel:
    """One node's control channel on its LANs.

    judge: raises RemoteProtocolError unless a chain makes a member now.  clock: unix seconds.  issue: answers requests
    to join; None: this node issues nothing.  survey: looks at the interfaces that this host has.  admit: raises
    RemoteProtocolError("revoked") for the chain of a node that is revoked.  against: returns the encoded signed list
    that denies it.  told: takes such a list from a node that did not let this one in.  lists: the encoded signed lists
    that a new member gets.  carrier: passes on requests for another issuer.  twins: told of boards that share an
    identity.  chains: those of others that the plane knows too.
    """

    name = "lan"
    far = False

    def __init__(
        self,
        member: Member,
        *,
        boot: BootId,
        judge: Callable[[Chain], None],
        clock: Callable[[], int],
        entropy: Callable[[int], bytes],
        rng: random.Random,
        config: LanConfig | None = None,
        issue: Issue | None = None,
        survey: Callable[[], Lans] = Lans.survey,
        admit: Callable[[Chain], None] = lambda chain: None,
        against: Callable[[Chain], bytes | None] = lambda chain: None,
        told: Callable[[bytes], None] = lambda data: None,
        lists: Callable[[], Iterable[bytes]] = tuple,
        carrier: Carrier | None = None,
        twins: Twins | None = None,
        chains: Chains | None = None,
    ) -> None:
        self.config = config or LanConfig()
        self.drops: Counter[str] = Counter()
        self.port = self.config.port
        self._me = member.node_id
        self._ourselves = Ourselves(member, boot, entropy(SEED_BYTES), judge, admit, (TREE,) * self.config.ring)
        self._against = against
        self._twins = twins or Twins(boot, time.monotonic, lambda newer: False)
        self._lists = lists
        self._introductions = Introductions(
            lambda: self._ourselves, entropy, Chains() if chains is None else chains, Acquaintances(clock)
        )
        self._survey = survey
        self._lans = Lans(())
        self._neighbours: Neighbours[Connection] = Neighbours(self._me)
        self._wide = Wide(self._ourselves.instance, self, rng=rng, drop=self._drop, is_on=self.config.ring)
        self._giving = Giving(self._neighbours, self._wide, clock, self._drop)
        self._bridge = Bridge(
            self._me,
            self._drop,
            wide=lambda: self._wide.is_wide,
            way=lambda node: self._wide.ways.by(node, self._now()),
            near=self._wide.is_at_a_known_place,
        )
        self._joined_lans: tuple[str, ...] = ()
        self._said_it_joins = False  # as the neighbours were told
        self._connections: set[Connection] = set()
        self._targets = Targets(
            self._ourselves.instance,
            rng=rng,
            drop=self._drop,
            connected=self._is_connected,
            dial=self._dial,
            wants=lambda target: not target.announced or target.instance is None or self._wide.wants(target.instance),
            count_max=RING_TARGET_COUNT_MAX if self.config.ring else TARGET_COUNT_MAX,
        )
        self._admission = Admission(issue, self.config, self._drop, carrier, is_on_link=self._is_on_link)
        self._telling = Telling()
        self._islands = Islands(listens=self.config.mdns)
        self._stood: set[bytes] = set()  # instances of the neighbours that are told of
        self._met = Met()
        self._up: _Up | None = None
        self._dialling = Dialling(
            introductions=self._introductions,
            config=self.config,
            twins=self._twins,
            telling=self._telling,
            drop=self._drop,
            told=told,
            track=self._track,
            admit=lambda connection, peer: self._admit(connection, peer, dialled=True),
        )
        self._twins.is_there = self._dialling.finds_twin

    # ── the control channel ───────────────────────────────────────────────────────────────────────────────────────────

    async def start(self, inputs: ChannelInputs) -> None:
        """Listen, announce, look for neighbours.  Raises UserError if the port is taken or not permitted."""
        listener = Listener(self.config, Certificate.make(), self._serve, self._drop, self._is_on_link)
        self._place_neighbours()
        listener.open()
        self.port = listener.port
        discovery = self._make_discovery() if self.config.mdns else None
        self._up = _Up(listener, discovery, inputs)
        self._targets.follow(self.config.peers)
        if discovery is not None:
            await discovery.start()

    def set_peers(self, peers: tuple[Place, ...]) -> None:
        """Keep connected to these places, and no longer to others that were configured; what is connected stays so."""
        self.config = self.config._replace(peers=peers)
        if self._up is not None:
            self._targets.follow(peers)

    async def stop(self) -> None:
        """Say goodbye and close everything."""
        if self._up is None:
            return
        up, self._up = self._up, None
        self._wide.stop()
        if up.discovery is not None:
            await up.discovery.stop()
        await self._targets.stop()
        await up.listener.close()
        connections = list(self._connections)
        for connection in connections:
            connection.close(STOPPED)
        await asyncio.gather(*(connection.closed for connection in connections))

    def send(self, envelope: Envelope, *, again: bool = False) -> Handoff:
        """Send an envelope to its receiver if that is a neighbour, else to every bridge; or to all neighbours."""
        if self._up is None:
            return Handoff.DOWN
        data = envelope.encode()
        nodes = self._bridge.send(envelope, now=self._now())
        to = envelope.to
        if to is not None and to not in nodes and self._wide.errand(to, data, own=True, again=again) and not again:
            return Handoff.ACCEPTED if self._wide.ways.is_proved(to) else Handoff.FORWARDED
        return handoff(envelope, nodes, self._giving.give(envelope, data, nodes, self._giving.send))

    def adopt(self, member: Member) -> None:
        """Use a renewed credential from the next handshake on."""
        self._ourselves = self._ourselves._replace(member=member)
        self._introductions.acquaintances.clear()  # they know our chain of before
        self._dialling.shun_none()

    def exclude(self, nodes: frozenset[NodeId]) -> None:
        """Close the connections to those nodes, and to nodes that one of them issued; admit() keeps them out.

        If this node itself is among them, it has no connections any more and seldom asks for one.
        """
        self._introductions.acquaintances.forget(nodes)
        self._met.forget(nodes)
        for neighbour in self._neighbours.all():
            if self._me in nodes or neighbour.peer.node in nodes or neighbour.peer.issuer in nodes:
                neighbour.connection.close("revoked")

    def learn(self, node: NodeId, path: bytes) -> None:
        """No-op: on a LAN a node is a neighbour, or behind a bridge."""

    def cross(self, buckets: frozenset[int] | None) -> None:
        """Be a bridge to another channel, or no longer; buckets do not matter: a LAN hears every question."""
        self._bridge.crosses = self._wide.meets_all = buckets is not None
        self._see_joined_lans()

    def pass_on(self, envelope: Envelope, hint: bytes | None = None) -> Handoff:
        """Send on an envelope that came by another channel, unless the neighbours had it; they must keep up."""
        if self._up is None:
            return Handoff.DOWN
        data = envelope.encode()
        nodes = self._bridge.enter(envelope, now=self._now())
        to = envelope.to
        if to is not None and to not in nodes and self._wide.errand(to, data, own=False):
            return Handoff.ACCEPTED
        if envelope.bucket is not None:  # no other neighbour answers, but one of a ring passes it on
            nodes = tuple(node for node in nodes if self._takes(node, envelope.bucket))
        return handoff(envelope, nodes, self._giving.give(envelope, data, nodes, self._giving.pass_on))

    @property
    def buckets(self) -> frozenset[int]:
        """The buckets of the questions that neighbours answer."""
        met = self._met.buckets() if self._wide.is_wide else frozenset[int]()
        return met.union(*(neighbour.peer.buckets for neighbour in self._neighbours.all()))

    def _takes(self, node: NodeId, bucket: int) -> bool:
        near = self._neighbours.find(node)
        return near is not None and (bucket in near.peer.buckets or self._wide.in_ring(near.peer.instance))

    @property
    def state(self) -> ChannelState:
        """The state at this moment."""
        if self._up is None:
            return ChannelState(False, "stopped")
        count = sum(neighbour.connection.up for neighbour in self._standing())
        detail = f"listening on port {self.port}, {count} neighbour{'' if count == 1 else 's'}"
        if self._joined_lans:
            detail += f", joins {' and '.join(self._joined_lans)}"
        trouble = None if self._up.discovery is None else self._up.discovery.trouble
        return ChannelState(True, f"{detail}; mDNS: {trouble}" if trouble else detail)

    # ── what only this engine has ─────────────────────────────────────────────────────────────────────────────────────

    def status(self) -> tuple[NeighbourStatus, ...]:
        """Return what a person may want to see of every neighbour."""
        return tuple(neighbour_status(each, self._bridge, self._now()) for each in self._standing())

    def departed(self) -> tuple[Departed, ...]:
        """Return the nodes that were neighbours and are not now, the latest last."""
        return departed_status(self._neighbours.departed(), self._now())

    @property
    def addresses(self) -> list[str]:
        """This host's addresses that neighbours' connections use."""
        ends = (neighbour.connection.ends for neighbour in self._neighbours.all())
        return [str(local[0]) for local, _ in filter(None, ends)]

    def found(self, instance: bytes, places: tuple[Place, ...]) -> None:
        """Take note that mDNS shows a node of the realm, perhaps again."""
        for neighbour in self._neighbours.all():
            if neighbour.peer.instance == instance:
                neighbour.connection.probe()  # announced anew: perhaps it moved, and the connection leads nowhere
        if self._islands.saw(instance) and self._neighbours.has_instance(instance):
            self._place_neighbours()
        self._targets.found(instance, places)
        if self.config.ring:
            self._wide.found(instance, self._lans.where(places))

    def gone(self, instance: bytes) -> None:
        """Take note that mDNS shows a node no longer."""
        self._met.gone(instance)
        self._wide.gone(instance)
        self._targets.gone(instance)

    def address_changed(self) -> None:
        """Close connections from addresses that are gone and dial anew at once, as well as who was not in reach."""
        for neighbour in self._neighbours.all():
            ends = neighbour.connection.ends
            if ends is not None and not is_here(str(ends[0][0])):
                neighbour.connection.abort(ADDRESS_GONE)
        with contextlib.suppress(OSError):  # no descriptor left: they are dialled as their own waits have it
            self._targets.hurry(self._survey().addresses, self._now())

    def moved(self) -> None:
        """Take note that our own addresses changed: see now, not after 45 s of silence, which neighbours are there."""
        for neighbour in self._neighbours.all():
            neighbour.connection.probe()
        self._place_neighbours()

    def _make_discovery(self) -> Discovery:
        from conflux.control.lan.discovery import Discovery

        return Discovery(
            tag=realm_tag(self._ourselves.member.realm_id),
            instance=self._ourselves.instance,
            port=self.port,
            config=self.config,
            found=self.found,
            gone=self.gone,
            moved=self.moved,
            drop=self._drop,
        )

    # ── dialling ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _is_connected(self, target: Target) -> bool:
        if target.instance is not None and self._neighbours.has_instance(target.instance):
            return True
        # A configured place belongs to one node, whatever its instance in this boot; an announced place to one boot.
        return not target.announced and target.node is not None and target.node in self._neighbours

    async def _dial(self, target: Target) -> None:
        instance = target.instance
        if len(self._neighbours) < CONNECTION_COUNT_MAX:
            await self._dialling.dial(target)
        if not target.announced and target.instance is not None:
            self._wide.pin(target.instance, before=instance)
        elif target.announced and instance is not None and not self._neighbours.has_instance(instance):
            self._wide.failed(instance)

    # ── accepting ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _serve(self, connection: Connection, certificate: Certificate) -> None:
        """Do the acceptor's part of the handshake.  Any exception ends the connection without a word."""
        self._track(connection)
        acceptor = self._introductions.acceptor(connection, certificate, self._has_room)
        connection.send(FrameType.GREETING, acceptor.greeting)
        kind, body = await connection.read(*acceptor.expects, FrameType.JOIN, FrameType.RENEW)
        if kind in (FrameType.JOIN, FrameType.RENEW):
            now = self._now()
            answer = await self._admission.answer_untrusted(kind, body, acceptor.binding, connection.remote, now=now)
            if answer[0] is FrameType.JOINED:
                for signed in itertools.islice(self._lists(), LIST_COUNT_MAX):
                    connection.send(FrameType.LIST, signed)
            connection.send(*answer)
            connection.close("joined")
            await connection.closed
            return
        if self._ourselves.is_revoked:
            raise RemoteProtocolError(Drop.REVOKED, "this node itself")
        try:
            await self._shake_hands(acceptor, connection, kind, body)
        except RemoteProtocolError as error:
            if error.reason == Drop.REVOKED and acceptor.their_chain is not None:
                await self._tell_revoked(connection, acceptor.their_chain)
            if acceptor.twin is None:
                raise
        if acceptor.twin is not None:
            if connection.ends is not None:
                self._twins.met(acceptor.twin.boot, place_of(connection.ends[1], self.port))
            connection.close("twin")
            await connection.closed
            raise acceptor.twin
        assert acceptor.peer is not None
        self._admit(connection, acceptor.peer, dialled=False)

    async def _shake_hands(self, acceptor: AnyAcceptor, connection: Connection, kind: FrameType, body: bytes) -> None:
        """Answer the dialler until it has proved who it is.  Raises RemoteProtocolError."""
        while True:
            for frame in acceptor.take_untrusted(kind, body):
                connection.send(*frame)
            if acceptor.peer is not None or not acceptor.expects:
                return
            kind, body = await connection.read(*acceptor.expects)

    def _has_room(self, node: NodeId) -> bool:
        return len(self._neighbours) < CONNECTION_COUNT_MAX or node in self._neighbours

    async def _tell_revoked(self, connection: Connection, chain: Chain) -> None:
        """Let a node that has proved who it is know why it is not let in."""
        signed = self._against(chain)
        if signed is not None:
            connection.send(FrameType.REVOKED, signed)
            connection.close("revoked")
            await connection.closed

    # ── neighbours ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _admit(self, connection: Connection, peer: Peer, *, dialled: bool) -> None:
        up = self._up
        if up is None or not connection.up:
            connection.abort(STOPPED)
            return
        try:  # others were waited for since it proved who it is, and a list may have come meanwhile
            if peer.chain is not None:
                self._ourselves.admit(peer.chain)
            if not self._has_room(peer.node):
                raise RemoteProtocolError(Drop.NEIGHBOUR_COUNT)
        except RemoteProtocolError as error:
            self._drop(error.reason)
            connection.close(error.reason)
            return
        neighbour = Neighbour(peer, connection, dialled, self._now())
        held = self._neighbours.find(peer.node)
        loser = self._neighbours.admit(neighbour)
        again = held is not None and held.peer.instance == peer.instance
        if loser is not neighbour:
            if held is not None and not again:
                self._part(held, dead=False)
            self._place_neighbours()
            asyncio.get_running_loop().call_later(ISLAND_S + 0.1, self._place_again)
            self._say_whether_bridge(neighbour)
        connection.run(
            lambda data: self._received_untrusted(neighbour, data),
            joins=lambda joins: self._neighbour_joins(neighbour, joins),
            tree=partial(self._tree_untrusted, neighbour) if self.config.ring and TREE in peer.features else None,
            ping_s=PING_S if dialled else PING_LATER_S,
            peer=peer.node,
        )
        if loser is not None:
            loser.connection.retire(RETIRE_S)  # its last messages may still be on their way to us
        if loser is neighbour:
            if held is not None and peer.boot < held.peer.boot:  # boots only grow: this is no earlier life of that one
                self._twins.met_others(peer.node, peer.name, connection.remote, held.connection.remote)
            return
        if self.config.ring and self._bridge.crosses:
            self._met.met(peer)
        if not self._wide.opened(neighbour, replaces=again) and not again:
            self.stands(neighbour, True)
        if again or peer.instance not in self._stood:
            up.inputs.says(peer.node, peer.features, peer.knows)

    # ── what the large LANs have to say ───────────────────────────────────────────────────────────────────────────────

    def connected(self, instance: bytes) -> Neighbour[Connection] | None:
        """Return the neighbour of that instance, if it is a member still."""
        return near if (near := self._neighbours.by_instance(instance)) and self._giving.holds(near) else None

    def wake(self, instances: Iterable[bytes], *, at_once: bool = False) -> frozenset[bytes]:
        """Dial these nodes; return those without a place.  at_once: also those whose last try failed a moment ago."""
        return self._targets.want(frozenset(instances), at_once=at_once)

    def stands(self, neighbour: Neighbour[Connection], stands: bool) -> None:
        """Tell that a node is a neighbour for good from now on, or no longer."""
        if self._up is None or (neighbour.peer.instance in self._stood) is stands:
            return
        node, inputs = neighbour.peer.node, self._up.inputs
        if not stands:
            self._stood.discard(neighbour.peer.instance)
            inputs.parted(node)
            return
        self._stood.add(neighbour.peer.instance)
        self._telling.came(neighbour.peer.name, neighbour.connection.remote)
        inputs.says(node, neighbour.peer.features, neighbour.peer.knows)
        inputs.changed(node, True)
        if self._bridge.says_it_joins(node):
            inputs.bridges(node, True)  # it said so right after the handshake, before it was a neighbour

    def absent(self, node: NodeId) -> None:
        """Tell that what was to go to a node went nowhere."""
        if self._up is not None:
            self._up.inputs.absent(node)

    def _standing(self) -> list[Neighbour[Connection]]:
        return [each for each in self._neighbours.all() if each.peer.instance in self._stood]

    def _part(self, neighbour: Neighbour[Connection], *, dead: bool) -> None:
        """Tell that a neighbour is gone, or that one is which was none for good."""
        self._wide.lost(neighbour.peer.instance, dead=dead)
        stood = neighbour.peer.instance in self._stood
        self._stood.discard(neighbour.peer.instance)
        if stood and neighbour.connection.reason:  # else it started again, and is told of as it comes
            self._telling.went(neighbour.peer.name, neighbour.connection.reason)
        if self._up is not None:
            inputs, node = self._up.inputs, neighbour.peer.node
            inputs.changed(node, False) if stood else inputs.parted(node)

    def _track(self, connection: Connection) -> None:
        """Know of a connection as long as it has a socket."""
        self._connections.add(connection)
        connection.closed.add_done_callback(lambda _: self._lost(connection))

    def _lost(self, connection: Connection) -> None:
        self._connections.discard(connection)
        neighbour = self._neighbours.remove(connection, self._now(), connection.reason, self._stood)
        if neighbour is None:
            return
        self._bridge.remove(neighbour.peer.node)
        self._see_joined_lans()
        up_s = self._now() - neighbour.since
        self._targets.lost(neighbour.peer, steady=up_s > STEADY_S, ours=connection.reason == ADDRESS_GONE)
        self._part(neighbour, dead=connection.reason == "silent")

    # ── LANs ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _place_neighbours(self) -> None:
        """Look which LAN every neighbour is on: an interface may be new, or on another LAN than before."""
        try:
            self._lans = self._survey()
        except OSError as error:  # no descriptor left, or the like: the last survey has to do
            log.warning("cannot look at the network interfaces: %s", error)
        now = self._now()
        for neighbour in self._neighbours.all():
            ends, peer, up_s = neighbour.connection.ends, neighbour.peer, now - neighbour.since
            lan = None if ends is None else self._lans.of(*ends)
            self._bridge.place(peer.node, self._islands.lan(lan, peer.name, peer.instance, up_s, now), lan)
        self._see_joined_lans()

    def _is_on_link(self, host: str) -> bool:
        return self._lans.are_beside(host)

    def _place_again(self) -> None:
        if self._up is not None:
            self._place_neighbours()
            if self._islands.look_again(self._now()):
                asyncio.get_running_loop().call_later(FLOOD_S, self._place_again)

    def _see_joined_lans(self) -> None:
        """Tell the neighbours if this node is a bridge now and was none, or the other way round."""
        joins = self._bridge.joins
        joined = (*self._bridge.lans, *(("the broker",) if self._bridge.crosses else ())) if joins else ()
        before, self._joined_lans = self._joined_lans, joined
        if joined != before and self._up is not None:
            self._telling.joins(joined)
        said, self._said_it_joins = self._said_it_joins, joins
        if joins != said:
            for neighbour in self._neighbours.all():
                self._say_whether_bridge(neighbour)

    def _say_whether_bridge(self, neighbour: Neighbour[Connection]) -> None:
        neighbour.connection.send(FrameType.BRIDGE, bytes((self._bridge.joins,)))

    def _neighbour_joins(self, neighbour: Neighbour[Connection], joins: bool) -> None:
        if self._neighbours.find(neighbour.peer.node) is neighbour:  # not one whose connection is being retired
            self._bridge.hear(neighbour.peer.node, joins=joins)
            if self._up is not None and neighbour.peer.instance in self._stood:
                self._up.inputs.bridges(neighbour.peer.node, joins)

    # ── envelopes ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _tree_untrusted(self, neighbour: Neighbour[Connection], kind: FrameType, body: bytes) -> None:
        is_current = self._neighbours.find(neighbour.peer.node) is neighbour
        if self._up is None or not is_current or not neighbour.connection.up:
            return
        ends = neighbour.connection.ends
        if kind is FrameType.NEAR and ends is not None and self._wide.of(neighbour.peer.instance) is None:
            self._wide.found(neighbour.peer.instance, self._lans.of(*ends), shown=False)
        spread = self._wide.take_untrusted(neighbour, kind, body)
        if spread is not None:
            self._received_untrusted(neighbour, spread.data, spread)

    def _received_untrusted(self, neighbour: Neighbour[Connection], data: bytes, spread: Spread | None = None) -> None:
        if self._up is None or not self._giving.holds(neighbour):
            return
        via = neighbour.peer.node
        passage = self._bridge.receive_untrusted(data, via, now=self._now())
        if passage is NOWHERE:
            if spread is not None:
                self._wide.refuse(neighbour, spread)
            return
        if spread is not None or (self._wide.is_wide and passage is not KNOWN):
            self._wide.received_untrusted(neighbour, data, spread)
        if passage.delivered is not None:
            self._up.inputs.deliver(Arrival(passage.delivered, via, self.name))
        if passage.onward:
            onward = Envelope.decode_untrusted(passage.onward)
            if passage.errand and onward.to is not None:
                self._wide.errand(onward.to, passage.onward, own=False)
            self._giving.give(onward, passage.onward, passage.to, self._giving.pass_on)
        if passage.across is not None:
            self._up.inputs.transit(Arrival(passage.across, via, self.name))

    def _drop(self, reason: str) -> None:
        self.drops[reason] += 1
        if reason == Drop.MDNS_FLOOD:
            self._islands.flooded(self._now())

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
