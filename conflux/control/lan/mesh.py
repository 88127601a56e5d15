"""The LAN engine: a TLS connection to every neighbour, and envelopes over it; between LANs too, see junction.py."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from conflux.control.budget import BudgetTable, TokenBucket
from conflux.control.channel import ENVELOPE_BYTES_MAX, Arrival, ChannelState, Handoff
from conflux.control.lan.certificate import Certificate, client_context, peer_digest
from conflux.control.lan.config import (
    CONNECTION_COUNT_MAX,
    DIAL_COUNT_MAX,
    FORWARD_BACKLOG_BYTES_MAX,
    HANDSHAKE_S,
    PING_LATER_S,
    PING_S,
    RETIRE_S,
    TARGET_COUNT_MAX,
    LanConfig,
)
from conflux.control.lan.connection import Connection
from conflux.control.lan.dial import Address, open_connection, underlay_addresses
from conflux.control.lan.frame import FrameType
from conflux.control.lan.handshake import INSTANCE_BYTES, Acceptor, Dialler, Ourselves, Peer, realm_tag
from conflux.control.lan.junction import Junction
from conflux.control.lan.lans import Lans
from conflux.control.lan.listener import ADDRESS_COUNT_MAX, Listener, budget_key
from conflux.control.lan.neighbours import Neighbour, Neighbours
from conflux.control.lan.target import Target
from conflux.errors import RemoteProtocolError, UserError
from conflux.ids import BootId, NodeId, format_node_id
from conflux.realm.credential import Chain
from conflux.realm.join import JoinAnswer, JoinRefused, JoinRequest
from conflux.realm.member import Member

log = logging.getLogger(__name__)

STEADY_S = 10.0  # a connection that lived this long was not a flap: the next loss starts from the shortest wait


class LanChannel:
    """One node's control channel on its LANs.

    judge: raises RemoteProtocolError unless a chain makes a member now.  clock: unix seconds.  issuer: answers a
    request to join, given the connection's 32-byte binding, or raises RemoteProtocolError with the reason; None: this
    node issues nothing.  survey: looks at the interfaces there are.
    """

    name = "lan"

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
        issuer: Callable[[JoinRequest, bytes], JoinAnswer] | None = None,
        survey: Callable[[], Lans] = Lans.survey,
    ) -> None:
        self.config = config or LanConfig()
        self.drops: Counter[str] = Counter()
        self.port = self.config.port
        self._me = member.node_id
        self._ourselves = Ourselves(member, boot, entropy(INSTANCE_BYTES), judge)
        self._clock = clock
        self._entropy = entropy
        self._rng = rng
        self._issuer = issuer
        self._survey = survey
        self._lans = Lans(())
        self._neighbours: Neighbours[Connection] = Neighbours(self._me)
        self._junction = Junction(self._me, self._drop)
        self._joined_lans: tuple[str, ...] = ()  # as the neighbours were told
        self._connections: set[Connection] = set()
        self._targets: list[Target] = []
        self._dial_slots = asyncio.Semaphore(DIAL_COUNT_MAX)
        self._join_budget = TokenBucket(self.config.join_rate, self.config.join_burst)
        self._join_address_budget = BudgetTable(
            self.config.join_rate_per_address, self.config.join_burst_per_address, ADDRESS_COUNT_MAX
        )
        self._listener: Listener | None = None
        self._discovery: Any = None
        self._certificate: Certificate | None = None
        self._client_context = client_context()

    # ── the control channel ──────────────────────────────────────────────────────────────────────────────────────────

    async def start(
        self,
        deliver: Callable[[Arrival], None],
        changed: Callable[[NodeId, bool], None],
        bridges: Callable[[NodeId, bool], None] | None = None,
    ) -> None:
        """Listen, announce, look for neighbours.  Raises UserError if the port is not to be had."""
        self._deliver = deliver
        self._changed = changed
        self._bridges = bridges or (lambda node, joins: None)
        self._certificate = Certificate.make()
        listener = Listener(self.config, self._certificate, self._serve, self.drops)
        listener.open()
        self._listener = listener
        self.port = listener.port
        for place in self.config.peers:
            self._pursue(Target((place,), None, yields=False, rng=self._rng))
        if self.config.mdns:
            from conflux.control.lan.discovery import Discovery  # zeroconf is 10 MB that a static mesh does without

            self._discovery = Discovery(
                tag=realm_tag(self._ourselves.member.realm_id),
                instance=self._ourselves.instance,
                port=self.port,
                config=self.config,
                found=self.found,
                gone=self.gone,
                moved=self.moved,
            )
            await self._discovery.start()

    async def stop(self) -> None:
        """Say goodbye and close everything."""
        if self._listener is None:
            return
        listener, self._listener = self._listener, None
        if self._discovery is not None:
            await self._discovery.stop()
            self._discovery = None
        tasks = [target.task for target in self._targets if target.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._targets.clear()
        await listener.close()
        connections = list(self._connections)
        for connection in connections:
            connection.close("stopped")
        await asyncio.gather(*(connection.closed for connection in connections))

    async def send(self, node: NodeId, envelope: bytes) -> Handoff:
        """Hand an envelope to a neighbour, or to those that join LANs: perhaps the node is behind one of them."""
        if self._listener is None:
            return Handoff.DOWN
        if len(envelope) > ENVELOPE_BYTES_MAX:
            return Handoff.REFUSED
        return self._send(node, envelope)

    async def announce(self, envelope: bytes) -> Handoff:
        """Hand an envelope to every neighbour."""
        if self._listener is None:
            return Handoff.DOWN
        if len(envelope) > ENVELOPE_BYTES_MAX:
            return Handoff.REFUSED
        return self._send(None, envelope)

    @property
    def state(self) -> ChannelState:
        """The truth, now."""
        if self._listener is None:
            return ChannelState(False, "stopped")
        count = sum(neighbour.connection.up for neighbour in self._neighbours.all())
        detail = f"listening on port {self.port}, {count} neighbour{'' if count == 1 else 's'}"
        if self._joined_lans:
            detail += f", joins {' and '.join(self._joined_lans)}"
        trouble = self._discovery.trouble if self._discovery is not None else None
        return ChannelState(True, f"{detail}; mDNS: {trouble}" if trouble else detail)

    # ── what only this engine has ────────────────────────────────────────────────────────────────────────────────────

    def adopt(self, member: Member) -> None:
        """Use a renewed credential from the next handshake on."""
        ours = self._ourselves
        self._ourselves = Ourselves(member, ours.boot, ours.instance, ours.judge)

    def status(self) -> list[dict[str, Any]]:
        """Return the neighbours as plain data."""
        now = asyncio.get_running_loop().time()
        return [
            {
                "node": format_node_id(neighbour.peer.node),
                "name": neighbour.peer.name,
                "address": neighbour.connection.remote,
                "lan": self._junction.lan(neighbour.peer.node),
                "joins": self._junction.says_it_joins(neighbour.peer.node),
                "dialled": neighbour.dialled,
                "up_s": round(now - neighbour.since, 1),
            }
            for neighbour in self._neighbours.all()
        ]

    def found(self, instance: bytes, places: tuple[tuple[str, int], ...]) -> None:
        """mDNS shows a node of the realm, perhaps again: dial it now unless it is connected."""
        for neighbour in self._neighbours.all():
            if neighbour.peer.instance == instance:
                neighbour.connection.probe()  # announced anew: perhaps it has moved, and the connection leads nowhere
        for target in self._targets:
            if target.announced and target.instance == instance:
                target.places = places
                target.over = False
                if target.failed:
                    target.backoff.reset()
                    target.wake()
                return
        if len(self._targets) >= TARGET_COUNT_MAX:
            self.drops["target-count"] += 1
            return
        # Both see each other at once.  The smaller instance dials; the other waits a little, in case it cannot.
        self._pursue(Target(places, instance, yields=instance < self._ourselves.instance, rng=self._rng))

    def gone(self, instance: bytes) -> None:
        """mDNS no longer shows a node.  If it is connected, it stays so."""
        for target in self._targets:
            if target.announced and target.instance == instance:
                target.over = True
                target.wake()

    def moved(self) -> None:
        """Our own addresses changed: see now which neighbours are still there, and not after 45 s of silence."""
        for neighbour in self._neighbours.all():
            neighbour.connection.probe()
        self._place_neighbours()

    # ── dialling ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _pursue(self, target: Target) -> None:
        self._targets.append(target)
        target.task = asyncio.create_task(self._keep_connected(target))
        target.task.add_done_callback(lambda _: self._forget(target))

    def _forget(self, target: Target) -> None:
        if target in self._targets:
            self._targets.remove(target)

    async def _keep_connected(self, target: Target) -> None:
        """Dial whenever the target is not connected, for as long as it is to be expected."""
        delay_s: float | None = target.delay_s()
        was_connected = False
        while True:
            await target.wait(delay_s)
            if self._is_connected(target):
                was_connected, delay_s = True, None
                continue
            if target.over:
                return
            if was_connected:
                was_connected, delay_s = False, target.delay_s()
                continue
            async with self._dial_slots:
                if not self._is_connected(target) and len(self._neighbours) < CONNECTION_COUNT_MAX:
                    await self._dial(target)
            was_connected = self._is_connected(target)
            target.failed = not was_connected
            delay_s = None if was_connected else target.delay_s()

    def _is_connected(self, target: Target) -> bool:
        if target.instance is not None and self._neighbours.has_instance(target.instance):
            return True
        # A configured place is a node's, whatever it is called in this boot; an announced one is one boot's.
        return not target.announced and target.node is not None and target.node in self._neighbours

    async def _dial(self, target: Target) -> None:
        """Try every address of a target once."""
        addresses = await underlay_addresses(target.places, self.config)
        while addresses:
            address: Address | None = None
            try:
                async with asyncio.timeout(HANDSHAKE_S):
                    connection, address = await open_connection(addresses, self._client_context)
                    peer = await self._introduce(connection)
            except (OSError, TimeoutError) as error:  # ssl.SSLError is an OSError
                log.debug("dialling %s: %s", target.places, error)
                self.drops["dial-failed"] += 1
            except RemoteProtocolError as error:
                self._dial_refused(target, error)
            except UserError as error:  # the clock's floor could not be kept, or the like
                log.error("dialling %s: %s", target.places, error)
                self.drops["local"] += 1
            else:
                target.node = peer.node
                if target.announced and peer.instance != target.instance:
                    target.over = True  # the announcement outlived its node
                else:
                    target.instance = peer.instance
                self._admit(connection, peer, dialled=True)
                return
            if address is None or target.over:
                return
            addresses.remove(address)

    async def _introduce(self, connection: Connection) -> Peer:
        """Do the dialler's part of the handshake; if it fails, the connection is gone."""
        self._track(connection)
        try:
            dialler = Dialler(self._ourselves, peer_digest(connection.tls), self._entropy)
            _, greeting = await connection.read(FrameType.GREETING)
            connection.send(FrameType.HELLO, dialler.hello_untrusted(greeting))
            _, welcome = await connection.read(FrameType.WELCOME)
            return dialler.finish_untrusted(welcome)
        except BaseException:
            connection.abort("handshake failed")
            raise

    def _dial_refused(self, target: Target, error: RemoteProtocolError) -> None:
        self.drops[error.reason] += 1
        if error.reason == "self":
            target.over = True
        elif error.reason == "closed":
            log.info("%s did not let us in: another realm, or our credential is not valid to it", target.places)
        else:
            log.info("%s is not a neighbour: %s", target.places, error)

    # ── accepting ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _serve(self, connection: Connection) -> None:
        """Find out who connected.  Whatever is raised ends the connection without a word."""
        assert self._certificate is not None
        self._track(connection)
        acceptor = Acceptor(self._ourselves, self._certificate.digest, self._entropy)
        connection.send(FrameType.GREETING, acceptor.greeting)
        kind, body = await connection.read(FrameType.HELLO, FrameType.JOIN)
        if kind is FrameType.JOIN:
            self._answer_join(connection, body, acceptor.binding)
            connection.close("joined")
            await connection.closed
            return
        peer, welcome = acceptor.answer_untrusted(body)
        if len(self._neighbours) >= CONNECTION_COUNT_MAX and peer.node not in self._neighbours:
            raise RemoteProtocolError("neighbour-count")
        connection.send(FrameType.WELCOME, welcome)
        self._admit(connection, peer, dialled=False)

    def _answer_join(self, connection: Connection, data: bytes, binding: bytes) -> None:
        """Answer one request of a node that is no member yet; a refusal says why."""
        now = asyncio.get_running_loop().time()
        try:
            if not self._join_address_budget.take(budget_key(connection.remote), now) or not self._join_budget.take(
                now
            ):
                raise RemoteProtocolError("busy", "too many requests to join")
            request = JoinRequest.decode_untrusted(data)
            if self._issuer is None:
                raise RemoteProtocolError("wrong-issuer", "this node issues nothing")
            answer = self._issuer(request, binding)
        except RemoteProtocolError as error:
            self.drops[f"join-{error.reason}"] += 1
            log.info("a request to join from %s was refused: %s", connection.remote, error)
            connection.send(FrameType.JOIN_REFUSED, JoinRefused(error.reason).encode())
            return
        except UserError as error:  # our own records: not the joiner's business
            log.error("a request to join from %s could not be answered: %s", connection.remote, error)
            connection.send(FrameType.JOIN_REFUSED, JoinRefused("busy").encode())
            return
        log.info("%s joined from %s", answer.chain.credential.name, connection.remote)
        connection.send(FrameType.JOINED, answer.encode())

    # ── neighbours ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _admit(self, connection: Connection, peer: Peer, *, dialled: bool) -> None:
        if self._listener is None or not connection.up:
            connection.abort("stopped")
            return
        loop = asyncio.get_running_loop()
        neighbour = Neighbour(peer, connection, dialled, loop.time())
        held = self._neighbours.find(peer.node)
        loser = self._neighbours.admit(neighbour)
        if loser is not neighbour:
            self._place_neighbours()
            self._tell_standing(neighbour)
        connection.run(
            lambda envelope: self._received(neighbour, envelope),
            told=lambda joins: self._told(neighbour, joins),
            ping_s=PING_S if dialled else PING_LATER_S,
        )
        if loser is not None:
            # Its last messages may be on the way to us; whoever dialled again gets them.
            loser.connection.retire(RETIRE_S)
        if loser is neighbour:
            return
        if held is None or held.peer.boot != peer.boot:
            log.info("neighbour %s at %s", peer.name, connection.remote)
            if held is not None:
                self._changed(peer.node, False)
            self._changed(peer.node, True)
            if self._junction.says_it_joins(peer.node):
                self._bridges(peer.node, True)  # said right after the handshake, before anybody knew of the neighbour

    def _track(self, connection: Connection) -> None:
        """Know of a connection as long as it has a socket."""
        self._connections.add(connection)
        connection.closed.add_done_callback(lambda _: self._lost(connection))

    def _lost(self, connection: Connection) -> None:
        self._connections.discard(connection)
        neighbour = self._neighbours.remove(connection)
        if neighbour is None:
            return
        log.info("neighbour %s lost: %s", neighbour.peer.name, connection.reason)
        self._junction.remove(neighbour.peer.node)
        self._see_lans()
        steady = asyncio.get_running_loop().time() - neighbour.since > STEADY_S
        for target in self._targets:
            if target.instance == neighbour.peer.instance or target.node == neighbour.peer.node:
                if steady:
                    target.backoff.reset()
                target.wake()
        if self._listener is not None:
            self._changed(neighbour.peer.node, False)

    # ── LANs ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _place_neighbours(self) -> None:
        """Look which LAN every neighbour is on: a second interface may be on the LAN of the first, or have left it."""
        try:
            self._lans = self._survey()
        except OSError as error:  # no descriptor left, or the like: what was true a moment ago has to do
            log.warning("cannot look at the network interfaces: %s", error)
        for neighbour in self._neighbours.all():
            ends = neighbour.connection.ends
            self._junction.place(neighbour.peer.node, None if ends is None else self._lans.of(*ends))
        self._see_lans()

    def _see_lans(self) -> None:
        """If we join other LANs than before, say so."""
        joined = self._junction.lans if self._junction.joins else ()
        before, self._joined_lans = self._joined_lans, joined
        if joined != before and self._listener is not None:
            log.info("this node joins %s", " and ".join(joined) or "no LANs any more")
        if bool(joined) != bool(before):
            for neighbour in self._neighbours.all():
                self._tell_standing(neighbour)

    def _tell_standing(self, neighbour: Neighbour[Connection]) -> None:
        neighbour.connection.send(FrameType.STANDING, bytes((self._junction.joins,)))

    def _told(self, neighbour: Neighbour[Connection], joins: bool) -> None:
        if self._neighbours.find(neighbour.peer.node) is neighbour:  # not a connection that has lost
            self._junction.hear(neighbour.peer.node, joins=joins)
            if self._listener is not None:
                self._bridges(neighbour.peer.node, joins)

    # ── envelopes ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _send(self, to: NodeId | None, envelope: bytes) -> Handoff:
        now = asyncio.get_running_loop().time()
        found = [self._neighbours.find(node) for node in self._junction.send(to, envelope, now=now)]
        said = [self._say(neighbour, envelope) for neighbour in found if neighbour is not None]
        return Handoff.ACCEPTED if any(said) else Handoff.ABSENT

    def _say(self, neighbour: Neighbour[Connection], envelope: bytes) -> bool:
        return self._holds(neighbour) and neighbour.connection.send(FrameType.ENVELOPE, envelope)

    def _received(self, neighbour: Neighbour[Connection], envelope: bytes) -> None:
        if self._listener is None or not self._holds(neighbour):
            return
        via = neighbour.peer.node
        passage = self._junction.receive_untrusted(envelope, via, now=asyncio.get_running_loop().time())
        if passage.deliver:
            self._deliver(Arrival(envelope, via, self.name))
        for node in passage.to:
            self._pass_on(node, passage.onward)

    def _pass_on(self, node: NodeId, envelope: bytes) -> None:
        neighbour = self._neighbours.find(node)
        if neighbour is None:
            return
        if neighbour.connection.backlog_bytes + len(envelope) > FORWARD_BACKLOG_BYTES_MAX:
            self._drop("forward-slow")
            return
        self._say(neighbour, envelope)

    def _holds(self, neighbour: Neighbour[Connection]) -> bool:
        """Say whether the neighbour is still a member; if not, it has to come again with a newer credential."""
        if self._clock() < neighbour.peer.not_after:
            return True
        self.drops["expired"] += 1
        neighbour.connection.close("expired")
        return False

    def _drop(self, reason: str) -> None:
        self.drops[reason] += 1
