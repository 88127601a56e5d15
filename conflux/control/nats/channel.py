"""The broker engine: envelopes over the NATS servers that the realm uses.

send ─► subject ─► connection ═══ broker ═══► inbox ─► this node's plane
                                                └─► "nobody listens": absent, or once more

A retry goes to the receiver's second connection too (pair.py): the server of its first one may hang.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Callable
from ipaddress import ip_address

from conflux.control.admitting import Office
from conflux.control.channel import Arrival, ChannelInputs, ChannelState, Departed, Handoff, NeighbourStatus
from conflux.control.drop import Drop
from conflux.control.envelope import Envelope, Reach
from conflux.control.nats.config import (
    INTEREST_RETRY_S,
    INTEREST_S,
    PRESENCE_BUFFER_BYTES_MAX,
    NatsConfig,
    Server,
)
from conflux.control.nats.connection import Connection, Credentials, Listener
from conflux.control.nats.end import ConnectError, End
from conflux.control.nats.inbox import Inbox, Nobody
from conflux.control.nats.pair import Pair
from conflux.control.nats.paths import Errand, Parcel, Paths, Sent
from conflux.control.nats.protocol import Message
from conflux.control.nats.reception import Reception
from conflux.control.nats.supervisor import shown
from conflux.control.nats.tls import Trust
from conflux.crypto import nkey
from conflux.crypto.sign import ED25519_PUBLIC_BYTES
from conflux.errors import ConfigError, RemoteProtocolError
from conflux.ids import NodeId
from conflux.realm.broker import subjects
from conflux.realm.credential import ISSUER
from conflux.realm.member import Member


class NatsChannel:
    """One node's control channel over a broker.

    public_of: returns the public keys of a node whose card is known, Ed25519's 32 bytes first.  office: lets nodes in
    that ask over the broker, while this node may issue; None: it never does.  entropy: for what office needs.
    floor_unix: returns the newest date that the realm has signed, below which this host's clock is wrong.
    """

    name = "nats"
    far = True

    def __init__(
        self,
        member: Member,
        *,
        config: NatsConfig,
        rng: random.Random,
        public_of: Callable[[NodeId], bytes | None],
        office: Office | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
        floor_unix: Callable[[], int] = lambda: 0,
    ) -> None:
        self.config = config
        self.drops: Counter[str] = Counter()
        self._member = member
        self._me = ed25519_of(member.keys.public.encode())
        self._rng = rng
        self._public_of = public_of
        self._own_buckets = _buckets_of(member)
        self._crossing: frozenset[int] | None = None
        self._inbox = Inbox(self._me, config.area, self._drop)
        self._inbox.buckets = self._own_buckets
        self._reception = None if office is None else Reception(office, entropy=entropy, drop=self._drop)
        self._paths = Paths()
        self._sent = Sent()
        self._retries: set[asyncio.TimerHandle] = set()
        self._inputs: ChannelInputs | None = None
        self._pair: Pair | None = None
        self._main: Connection | None = None  # as it was last
        self._floor_unix = floor_unix
        self._trust: Trust | None = None
        self._was_up = False  # as inputs.turned() was told
        self._made_at = 0.0  # when the main connection became it

    # ── the control channel ───────────────────────────────────────────────────────────────────────────────────────────

    async def start(self, inputs: ChannelInputs) -> None:
        """Begin to connect.  Raises ConfigError if the CA is none."""
        try:
            self._trust = Trust(self.config.ca, floor_unix=self._floor_unix)
        except ConfigError as error:
            raise ConfigError(f"control.nats.ca: {error}") from None
        self._inputs = inputs
        self._pair = Pair(self.config.servers, rng=self._rng, connect=self._connect, changed=self._connected)
        self._pair.start()

    def stretch(self, factor: float) -> None:
        """Ping so much more seldom than usual: bytes are short."""
        if self._pair is not None:
            self._pair.stretch(factor)

    async def stop(self) -> None:
        """Close the connections."""
        pair, self._pair, self._inputs = self._pair, None, None
        for timer in self._retries:
            timer.cancel()
        self._retries.clear()
        if pair is not None:
            await pair.stop()

    def send(self, envelope: Envelope, *, again: bool = False) -> Handoff:
        """Publish an envelope for a node, a bucket or the area.  ACCEPTED: nobody may listen; then absent() follows.

        What is plain, and for a node whose key is not known, goes to the bucket of its id: only that node takes it.  So
        a relay can ask the next hop alone for its card.
        """
        if envelope.to is None:
            return self._send_to_many(envelope, again=again)
        keys = self._keys(envelope.to)
        if not keys and envelope.key_id is None:
            handoff = self._send_to_bucket(subjects.bucket_of(envelope.to), envelope, again=again)
            return Handoff.FORWARDED if handoff is Handoff.ACCEPTED else handoff
        return self._send_to(keys if again else keys[:1], envelope, own=True, again=again)

    def adopt(self, member: Member) -> None:
        """Use a renewed credential: new connections are made with it, and take over from the present ones."""
        before, self._member = self._member, member
        self._own_buckets = _buckets_of(member)
        if self._pair is not None and before.chain.credential.nats_jwt != member.chain.credential.nats_jwt:
            self._pair.replace()
        self._listen()

    def exclude(self, nodes: frozenset[NodeId]) -> None:
        """Forget how these nodes are reached, and drop what they seal or pass on, before it costs anything.

        That they reach this one no more is the broker's part.  Until it has heard, they can ask what the lists say.
        """
        for node in nodes:
            self._paths.exclude(node)

    def learn(self, node: NodeId, path: bytes) -> None:
        """Take note that a verified, fresh message of a node came from that key."""
        if len(path) == ED25519_PUBLIC_BYTES and node != self._member.node_id:
            public = self._public_of(node)
            self._paths.learn(node, path, own=public is not None and ed25519_of(public) == path)

    def cross(self, buckets: frozenset[int] | None) -> None:
        """Listen to these buckets too, and tell of envelopes that another channel may have to carry on."""
        self._crossing = buckets
        self._listen()

    def pass_on(self, envelope: Envelope, hint: bytes | None = None) -> Handoff:
        """Publish an envelope of another node.  hint: the key that its receiver may have, if none is known."""
        if envelope.to is None:
            return self._send_to_many(envelope)
        keys = self._keys(envelope.to)[:1]
        if keys or hint is None or len(hint) != ED25519_PUBLIC_BYTES:
            return self._send_to(keys, envelope, own=False)
        handoff = self._send_to([hint], envelope, own=False)
        return Handoff.FORWARDED if handoff is Handoff.ACCEPTED else handoff

    @property
    def buckets(self) -> frozenset[int]:
        """None: over a broker there are no neighbours."""
        return frozenset()

    @property
    def state(self) -> ChannelState:
        """The state at this moment."""
        pair = self._pair
        if pair is None:
            return ChannelState(False, "stopped")
        if (main := pair.main) is not None:
            spare = "" if pair.spare is None else f", in reserve {shown(pair.spare.server)}"
            return ChannelState(True, f"connected to {shown(main.server)}{spare}")
        if not self._member.chain.credential.nats_jwt:
            return ChannelState(False, "no admission to the broker yet: it comes with the next renewal")
        if pair.refused:
            return ChannelState(False, f"refused: {pair.trouble}")
        return ChannelState(False, f"not connected: {pair.trouble}" if pair.trouble else "connecting")

    def departed(self) -> tuple[Departed, ...]:
        """None: over a broker there are no neighbours."""
        return ()

    def status(self) -> tuple[NeighbourStatus, ...]:
        """None: over a broker there are no neighbours."""
        return ()

    # ── the connections ───────────────────────────────────────────────────────────────────────────────────────────────

    async def _connect(self, server: Server) -> Connection:
        member, trust = self._member, self._trust
        jwt = member.chain.credential.user_jwt
        if not jwt:
            raise ConnectError(End.NOT_ADMITTED)
        assert trust is not None
        return await Connection.open(
            server,
            trust=trust,
            credentials=Credentials(jwt, lambda nonce: nkey.sign_nonce(member.keys.signing, nonce)),
            listener=Listener(self._received_untrusted, self._drop, lambda: self._leaving(server)),
            subjects=self._subjects() if self._up() is None else self._spare_subjects(),
            allows=self._allows,
        )

    def _connected(self) -> None:
        """Take note that main or spare is another connection, or none."""
        if (main := self._up()) is not self._main:
            self._main, self._made_at = main, self._now()
        self._listen()  # its subjects may be others than when it began to connect
        self._see_whether_up()

    def _see_whether_up(self) -> None:
        """Tell if the channel came up or went down; not if one connection took over from another."""
        up = self._up() is not None
        if up != self._was_up and self._inputs is not None:
            self._was_up = up
            self._inputs.turned(up)

    def _leaving(self, server: Server) -> None:
        if self._pair is not None:
            self._pair.leave(server)

    def _listen(self) -> None:
        """Listen where this node has to now."""
        self._inbox.buckets = self._own_buckets | (self._crossing or frozenset())
        if self._pair is None:
            return
        if (main := self._pair.main) is not None:
            main.listen(self._subjects())
        if (spare := self._pair.spare) is not None:
            spare.listen(self._spare_subjects())

    def _up(self) -> Connection | None:
        return None if self._pair is None else self._pair.main

    def _subjects(self) -> list[str]:
        """Return what the main connection listens to: inbox, this area, what is for the realm, buckets.

        An issuer also listens to those who want to join.
        """
        found = [subjects.messages_of(self._me, subjects.ENVELOPE), subjects.presences(self.config.area)]
        if self._reception is not None and ISSUER in self._member.chain.credential.capabilities:
            found.append(subjects.ANY_JOIN)
        return found + self._shared_subjects() + [subjects.questions(bucket) for bucket in sorted(self._inbox.buckets)]

    def _spare_subjects(self) -> list[str]:
        """Return what the spare one listens to: copies for the inbox and the buckets, and what is for the realm."""
        again = [subjects.questions(bucket, again=True) for bucket in sorted(self._inbox.buckets)]
        return [subjects.messages_of(self._me, subjects.AGAIN), *self._shared_subjects(), *again]

    def _shared_subjects(self) -> list[str]:
        """Return what both listen to: that nobody listens is told on the connection that asks; a list comes twice."""
        kinds = (subjects.NO_RESPONDERS, subjects.NO_RESPONDERS_AGAIN)
        nobody = [subjects.messages_of(self._me, kind) for kind in kinds]
        return [*nobody, subjects.presences(subjects.EVERY_AREA), subjects.ANY_AUTH]

    def _allows(self, host: str) -> bool:
        """Say whether an address is on the underlay: over one of the overlay's, the overlay would carry itself."""
        address = ip_address(host.partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None)
        return not any((mapped or address) in network for network in self.config.overlay)

    # ── out ───────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _best(self, *, again: bool = False) -> Connection | None:
        """Return the connection to send by.  again: there was no answer, so the main one's server may hang."""
        if self._pair is None:
            return None
        if again and self._pair.spare is not None and self._pair.main is not None:
            self._pair.main.probe()
        return self._pair.best

    def _send_to_many(self, envelope: Envelope, *, again: bool = False) -> Handoff:
        if envelope.bucket is not None:
            return self._send_to_bucket(envelope.bucket, envelope, again=again)
        data, connection = envelope.encode(), self._best()
        if connection is None:
            return Handoff.DOWN
        area = subjects.EVERY_AREA if envelope.reach is Reach.REALM else self.config.area
        subject = subjects.presence(area, self._me)
        sent = connection.send(subject, data, backlog_bytes_max=PRESENCE_BUFFER_BYTES_MAX)
        return Handoff.ACCEPTED if sent else Handoff.REFUSED

    def _send_to_bucket(self, bucket: int, envelope: Envelope, *, again: bool = False) -> Handoff:
        data, connection = envelope.encode(), self._best(again=again)
        if connection is None:
            return Handoff.DOWN
        sent = connection.send(subjects.question(bucket, self._me), data)
        if again:
            connection.send(subjects.question(bucket, self._me, again=True), data)
        connection.expect()
        return Handoff.ACCEPTED if sent else Handoff.REFUSED

    def _send_to(self, keys: list[bytes], envelope: Envelope, *, own: bool, again: bool = False) -> Handoff:
        """Publish an envelope to the inboxes of these keys.  again: also for the second connections of those nodes."""
        data, node, connection = envelope.encode(), envelope.to, self._best(again=again)
        assert node is not None
        if connection is None:
            return Handoff.DOWN
        if not keys:
            return Handoff.ABSENT
        errand = Errand(node, own)
        parcels = [Parcel(key, data, errand, copy) for key in keys for copy in ((False, True) if again else (False,))]
        errand.open_count = sum(self._publish(connection, parcel) for parcel in parcels)
        return Handoff.ACCEPTED if errand.open_count else Handoff.REFUSED

    def _publish(self, connection: Connection, parcel: Parcel) -> bool:
        """Send a parcel; if nobody listens, once more, as long as the connection is new."""
        subject = subjects.message(parcel.key, self._me, again=parcel.again)
        reply = subjects.no_responders(self._me, parcel.key, again=parcel.again)
        if not connection.send(subject, parcel.data, reply=reply):
            return False
        now = self._now()
        self._sent.add(parcel, again=not parcel.again and now - self._made_at < INTEREST_S, now=now)
        connection.expect()
        return True

    def _keys(self, node: NodeId) -> list[bytes]:
        """Return the keys by which a node is reached: its last path, then its own."""
        public = self._public_of(node)
        known = (self._paths.find(node), None if public is None else ed25519_of(public))
        return list(dict.fromkeys(key for key in known if key is not None and key != self._me))

    # ── in ────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _received_untrusted(self, message: Message) -> None:
        if self._inputs is None:
            return
        if self._reception is not None and message.subject.startswith(subjects.JOIN):
            self._received_join_untrusted(message, self._reception)
            return
        received = self._inbox.receive_untrusted(message, now=self._now())
        if isinstance(received, Nobody):
            self._nobody_listens(received)
        elif received is not None:
            if received.again:
                self._best(again=True)  # the first copy did not come: is the main connection all right?
            self._arrived(Arrival(received.envelope, None, self.name, received.sender), self._inputs)

    def _received_join_untrusted(self, message: Message, reception: Reception) -> None:
        """Answer who wants to join; that has budgets of its own, so that it costs members nothing."""
        try:
            subject = subjects.parse_untrusted(message.subject)
        except RemoteProtocolError:
            self._drop(Drop.MALFORMED)
            return
        assert isinstance(subject, subjects.Join)
        answers = reception.receive_untrusted(subject.invite_id, message.payload, now=self._now())
        if answers and (connection := self._best()) is not None:
            for answer in answers:
                connection.send(subjects.joined(subject.invite_id), answer)

    def _arrived(self, arrival: Arrival, inputs: ChannelInputs) -> None:
        envelope = arrival.envelope
        to, bucket = envelope.to, envelope.bucket
        for_me = to == self._member.node_id or (to is None and (bucket is None or bucket in self._own_buckets))
        is_revoked = self._paths.excludes(arrival.path)
        if is_revoked and (envelope.key_id is not None or not for_me):
            self._drop(Drop.REVOKED)
            return
        if for_me:
            inputs.deliver(arrival)
        if self._crossing is not None and not is_revoked and to != self._member.node_id:
            inputs.transit(arrival)
        elif not for_me:
            self._drop(Drop.NOT_FOR_US)

    def _nobody_listens(self, nobody: Nobody) -> None:
        """Take note that a server says so.  If it lies, that costs a path, and a few messages."""
        key = nobody.key
        once_more, lost = self._sent.nobody(key, again=nobody.again, now=self._now())
        for parcel in once_more:
            self._send_later(parcel)
        errands = [parcel.errand for parcel in lost]
        for errand in errands:
            if not nobody.again:  # a node with one connection takes no copies
                self._paths.forget(errand.node, key)
            errand.open_count -= 1
        for node in dict.fromkeys(errand.node for errand in errands if errand.own and errand.open_count == 0):
            if self._inputs is not None:
                self._inputs.absent(node)

    def _send_later(self, parcel: Parcel) -> None:
        def send() -> None:
            self._retries.discard(timer)
            if (connection := self._best()) is not None:
                self._publish(connection, parcel)

        timer = asyncio.get_running_loop().call_later(INTEREST_RETRY_S, send)
        self._retries.add(timer)

    def _drop(self, reason: str) -> None:
        self.drops[reason] += 1

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def _buckets_of(member: Member) -> frozenset[int]:
    """Return the buckets of the questions that a member answers."""
    capabilities = member.chain.credential.capabilities
    return frozenset(subjects.buckets_of(member.node_id, member.name, member.addresses, capabilities))


def ed25519_of(public: bytes) -> bytes:
    """Return the Ed25519 half of a node's public keys: what a broker knows the node by."""
    return public[:ED25519_PUBLIC_BYTES]
