"""Streams: opens them, accepts them, renews their keys, gives them up.  Sans-IO.

It knows handshakes and keys; it does not know routes, links, queues or packets.  What it decides, the node carries to
the control plane (Send, Reply) and into the datapath's tables (the events).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from conflux.anchor.frame import REKEY
from conflux.control.channel import Kind
from conflux.crypto import kdf, kem
from conflux.crypto.sign import VerifyKey
from conflux.datapath.interface import EpochKey
from conflux.errors import RemoteProtocolError
from conflux.ids import BootId, NodeId, StreamId
from conflux.realm.card import Card
from conflux.realm.member import Member
from conflux.realm.signed import UNSIGNED
from conflux.stream.handshake import (
    Accept,
    EpochKeys,
    Open,
    Refused,
    RekeyAnswer,
    RekeyOffer,
    Vantage,
    check_accept,
    check_open,
    first_keys,
    next_keys,
)

HALF_OPEN_S = 10.0  # a stream accepted and never used is forgotten
LIFETIME_S = 86400  # one stream; a sender that needs longer opens the next
EPOCH_S_MAX = 120
EPOCH_BYTES_LOG2_MAX = 40
REKEY_RETRY_S = 1.0  # the offer rides in a data frame, which may be lost
REKEY_GIVE_UP_S = 60.0  # then the stream is opened anew
INCOMING_COUNT_MAX = 1024  # all peers together: about 4 kB each
INCOMING_PER_PEER_MAX = 4  # a peer needs one; the others are what it lost
UNUSED = "unused"  # why a stream is gone on which nothing ever came


# ── outputs ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Send:
    """A request for the peer, answered by ACCEPT, OPEN_REFUSED or silence."""

    peer: NodeId
    kind: Kind
    body: bytes
    stream: StreamId


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to the request that was handed in with to."""

    to: Any
    kind: Kind
    body: bytes


@dataclass(frozen=True, slots=True)
class SenderReady:
    stream: StreamId
    peer: NodeId
    data: EpochKey
    feedback: EpochKey
    vantage: tuple[Vantage, ...]
    offload_kinds: tuple[int, ...]  # agreed on; entry kinds beyond plain packets


@dataclass(frozen=True, slots=True)
class SenderFailed:
    """The stream cannot be opened, or its keys could not be renewed."""

    stream: StreamId
    peer: NodeId
    reason: str


@dataclass(frozen=True, slots=True)
class SenderRekeyed:
    stream: StreamId
    data: EpochKey
    feedback: EpochKey


@dataclass(frozen=True, slots=True)
class ReceiverReady:
    stream: StreamId
    peer: NodeId
    data: EpochKey
    feedback: EpochKey
    offload_kinds: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ReceiverRekeyed:
    stream: StreamId
    data: EpochKey
    feedback: EpochKey


@dataclass(frozen=True, slots=True)
class ReceiverGone:
    """Never used, pushed out by a newer stream of the same peer, or closed."""

    stream: StreamId
    peer: NodeId
    reason: str


@dataclass(frozen=True, slots=True)
class SendEntry:
    """An entry for the stream's next frame: a rekey."""

    stream: StreamId
    kind: int
    body: bytes


Event = SenderReady | SenderFailed | SenderRekeyed | ReceiverReady | ReceiverRekeyed | ReceiverGone | SendEntry


# ── state ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class _Outgoing:
    peer: NodeId
    verify_key: VerifyKey
    open_: bytes
    kem_key: kem.PrivateKey | None  # of the handshake, then of the rekey under way
    keys: EpochKeys | None = None  # None until accepted
    expires_at: float = 0.0
    offer: bytes = b""  # the rekey under way
    offer_retry_at: float = 0.0
    offer_since: float = 0.0


@dataclass(slots=True)
class _Incoming:
    peer: NodeId
    keys: EpochKeys
    expires_at: float  # half-open until a frame verifies, then the stream's lifetime
    offer: bytes = b""  # the rekey last answered, and the answer: a repeated offer gets the same one
    answer: bytes = b""
    lifetime_until: float = 0.0

    @property
    def is_used(self) -> bool:
        return self.expires_at == self.lifetime_until


class Streams:
    """Every stream this node sends or receives."""

    def __init__(
        self,
        member: Member,
        *,
        boot: BootId,
        aead: int,
        entropy: Callable[[int], bytes],
        offload_kinds: tuple[int, ...] = (),
        vantage: Callable[[NodeId], tuple[Vantage, ...]] = lambda peer: (),
    ) -> None:
        """aead: what our processor opens fastest.  vantage(peer): relays we reach well, for accepts.

        offload_kinds: entry kinds beyond plain packets that our datapath sends and takes.
        """
        self._member = member
        self._me = member.node_id
        self._realm = member.anchor.realm_id
        self._key = member.keys.signing
        self._boot = boot
        self._aead = aead
        self._offload_kinds = offload_kinds
        self._entropy = entropy
        self._vantage = vantage
        self._outgoing: dict[StreamId, _Outgoing] = {}
        self._incoming: dict[StreamId, _Incoming] = {}  # oldest first
        self._sends: deque[Send | Reply] = deque()
        self._events: deque[Event] = deque()

    def adopt(self, member: Member) -> None:
        """Open streams under a renewed credential of the same node from now on."""
        self._member = member

    # ── sender ──

    def open(self, card: Card, *, now: float) -> StreamId:
        """Start a stream to the card's node; SenderReady or SenderFailed follows."""
        stream = StreamId(self._entropy(16))
        kem_key = kem.PrivateKey.generate()
        body = (
            Open(
                sender=self._me,
                receiver=card.node_id,
                stream=stream,
                receiver_boot=card.boot,
                kem_public=kem_key.public,
                lifetime_s=LIFETIME_S,
                sender_chain_hash=kdf.sha256(self._member.chain.encode()),
                offload_kinds=self._offload_kinds,
                signature=UNSIGNED,
            )
            .sign(self._key, self._realm)
            .encode()
        )
        self._outgoing[stream] = _Outgoing(
            card.node_id, card.chain.credential.verify_key(), body, kem_key, expires_at=now + LIFETIME_S
        )
        self._sends.append(Send(card.node_id, Kind.OPEN, body, stream))
        return stream

    def receive_accept(self, peer: NodeId, body: bytes, *, now: float) -> None:
        """Take an ACCEPT.  Raises RemoteProtocolError; the stream then waits on."""
        accept = Accept.decode_untrusted(body)
        stream = StreamId(accept.stream)
        state = self._outgoing.get(stream)
        if state is None or state.peer != peer or state.keys is not None or state.kem_key is None:
            raise RemoteProtocolError("unexpected", "an accept for no open of ours")
        check_accept(accept, state.open_, self._offload_kinds)
        accept.verify_signature(state.verify_key, self._realm)
        secret = state.kem_key.decapsulate(accept.ciphertext)
        state.kem_key.erase()
        state.kem_key = None
        state.keys = first_keys(secret, state.open_, body, self._realm, accept.aead)
        state.open_ = b""
        self._events.append(
            SenderReady(stream, peer, state.keys.data, state.keys.feedback, accept.vantage, accept.offload_kinds)
        )

    def receive_refused(self, peer: NodeId, body: bytes) -> None:
        """Take an OPEN_REFUSED.  Raises RemoteProtocolError."""
        refused = Refused.decode_untrusted(body)
        state = self._outgoing.get(StreamId(refused.stream))
        if state is None or state.peer != peer or state.keys is not None:
            raise RemoteProtocolError("unexpected", "a refusal of no open of ours")
        self.open_failed(StreamId(refused.stream), f"refused: {refused.reason}")

    def open_failed(self, stream: StreamId, reason: str) -> None:
        """The OPEN got no answer.  No-op for a stream that is open or unknown."""
        state = self._outgoing.get(stream)
        if state is not None and state.keys is None:
            self._forget_outgoing(stream)
            self._events.append(SenderFailed(stream, state.peer, reason))

    def close_sender(self, stream: StreamId) -> None:
        """Forget a stream we send and erase its keys.  No-op if unknown."""
        self._forget_outgoing(stream)

    def _forget_outgoing(self, stream: StreamId) -> None:
        state = self._outgoing.pop(stream, None)
        if state is None:
            return
        if state.kem_key is not None:
            state.kem_key.erase()
        if state.keys is not None:
            state.keys.erase()

    # ── receiver ──

    def receive_open(self, card: Card, body: bytes, to: Any, *, now: float) -> None:
        """Take an OPEN from the card's node; the answer names to.  Raises RemoteProtocolError.

        The control plane answers a repeated request with the identical reply, so an OPEN that comes again as a new
        request names a stream we have, and is refused.
        """
        open_ = Open.decode_untrusted(body)
        stream = StreamId(open_.stream)
        check_open(open_, sender=card.node_id, me=self._me, chain_hash=kdf.sha256(card.chain.encode()))
        if open_.receiver_boot != self._boot:
            raise RemoteProtocolError("stale-boot", "the open was made for an earlier life of this node")
        if stream in self._incoming or stream in self._outgoing:
            raise RemoteProtocolError("replay", "the stream exists")
        open_.verify_signature(card.chain.credential.verify_key(), self._realm)
        if not self._make_room(card.node_id):
            self._sends.append(Reply(to, Kind.OPEN_REFUSED, Refused(stream, "busy").encode()))
            return
        ciphertext, secret = kem.encapsulate(open_.kem_public)
        offload_kinds = tuple(kind for kind in open_.offload_kinds if kind in self._offload_kinds)
        answer = (
            Accept(
                stream=stream,
                open_hash=kdf.sha256(body),
                ciphertext=ciphertext,
                aead=self._aead,
                offload_kinds=offload_kinds,
                epoch_s_max=EPOCH_S_MAX,
                epoch_bytes_log2_max=EPOCH_BYTES_LOG2_MAX,
                vantage=self._vantage(card.node_id),
                signature=UNSIGNED,
            )
            .sign(self._key, self._realm)
            .encode()
        )
        keys = first_keys(secret, body, answer, self._realm, self._aead)
        self._incoming[stream] = _Incoming(card.node_id, keys, now + HALF_OPEN_S, lifetime_until=now + open_.lifetime_s)
        self._sends.append(Reply(to, Kind.ACCEPT, answer))
        self._events.append(ReceiverReady(stream, card.node_id, keys.data, keys.feedback, offload_kinds))

    def _make_room(self, peer: NodeId) -> bool:
        """Push the peer's oldest stream out when it has its share; a full table refuses everybody else."""
        own = [stream for stream, state in self._incoming.items() if state.peer == peer]
        if len(own) >= INCOMING_PER_PEER_MAX:
            self.close_receiver(own[0], "replaced")
        return len(self._incoming) < INCOMING_COUNT_MAX

    def receiver_verified(self, stream: StreamId) -> None:
        """A frame of the stream verified: it is open, and lives for its lifetime."""
        state = self._incoming.get(stream)
        if state is not None:
            state.expires_at = state.lifetime_until

    def close_receiver(self, stream: StreamId, reason: str) -> None:
        """Forget a stream we receive and erase its keys.  No-op if unknown."""
        state = self._incoming.pop(stream, None)
        if state is not None:
            state.keys.erase()
            self._events.append(ReceiverGone(stream, state.peer, reason))

    def receives(self, stream: StreamId) -> NodeId | None:
        """Return who sends us the stream, or None."""
        state = self._incoming.get(stream)
        return None if state is None else state.peer

    def forget_peer(self, peer: NodeId, reason: str) -> None:
        """The peer restarted or left the realm: no stream of or to it means anything any more."""
        for stream in [stream for stream, state in self._incoming.items() if state.peer == peer]:
            self.close_receiver(stream, reason)
        for stream in [stream for stream, state in self._outgoing.items() if state.peer == peer]:
            self._forget_outgoing(stream)
            self._events.append(SenderFailed(stream, peer, reason))

    # ── epochs ──

    def rekey(self, stream: StreamId, *, now: float) -> None:
        """Offer a fresh key for the stream's next epoch.  No-op while an offer is out, or for an unknown stream."""
        state = self._outgoing.get(stream)
        if state is None or state.keys is None or state.offer:
            return
        state.kem_key = kem.PrivateKey.generate()
        epoch = (state.keys.data.epoch + 1) % 256
        state.offer = RekeyOffer(epoch, state.kem_key.public).encode()
        state.offer_since = now
        state.offer_retry_at = now + REKEY_RETRY_S
        self._events.append(SendEntry(stream, REKEY, state.offer))

    def receive_entry(self, stream: StreamId, kind: int, body: bytes) -> None:
        """Take a verified REKEY entry: an offer on a stream we receive, an answer on one we send.

        Raises RemoteProtocolError.
        """
        if kind != REKEY:
            raise RemoteProtocolError("unknown-kind", f"entry {kind}")
        if stream in self._incoming:
            self._receive_offer(stream, self._incoming[stream], body)
        elif stream in self._outgoing:
            self._receive_answer(stream, self._outgoing[stream], body)

    def _receive_offer(self, stream: StreamId, state: _Incoming, body: bytes) -> None:
        if body == state.offer:  # our answer was lost
            self._events.append(SendEntry(stream, REKEY, state.answer))
            return
        offer = RekeyOffer.decode_untrusted(body)
        if offer.epoch != (state.keys.data.epoch + 1) % 256:
            raise RemoteProtocolError("epoch", "an offer for another epoch than the next")
        ciphertext, secret = kem.encapsulate(offer.kem_public)
        state.offer = body
        state.answer = RekeyAnswer(offer.epoch, ciphertext).encode()
        keys = next_keys(state.keys, secret, state.offer, state.answer, self._realm)
        state.keys.erase()
        state.keys = keys
        self._events.append(ReceiverRekeyed(stream, keys.data, keys.feedback))
        self._events.append(SendEntry(stream, REKEY, state.answer))

    def _receive_answer(self, stream: StreamId, state: _Outgoing, body: bytes) -> None:
        answer = RekeyAnswer.decode_untrusted(body)
        if state.keys is None or state.kem_key is None or not state.offer:
            return  # an answer to an offer we took as answered: it was repeated
        if answer.epoch != (state.keys.data.epoch + 1) % 256:
            raise RemoteProtocolError("epoch", "an answer for another epoch than the one offered")
        secret = state.kem_key.decapsulate(answer.ciphertext)
        state.kem_key.erase()
        state.kem_key = None
        keys = next_keys(state.keys, secret, state.offer, body, self._realm)
        state.keys.erase()
        state.keys = keys
        state.offer = b""
        self._events.append(SenderRekeyed(stream, keys.data, keys.feedback))

    # ── time and outputs ──

    def next_timeout(self) -> float | None:
        """When handle_timeout() wants to be called, or None."""
        return min((at for at, _, _ in self._deadlines()), default=None)

    def handle_timeout(self, *, now: float) -> None:
        """Give up what is too old; repeat rekey offers."""
        for at, what, stream in list(self._deadlines()):
            if at > now:
                continue
            match what:
                case "receiver":
                    self.close_receiver(stream, "expired" if self._incoming[stream].is_used else UNUSED)
                case "sender":
                    self._give_up(stream, "lifetime")
                case "offer":
                    self._retry_offer(stream, now)

    def _deadlines(self) -> Iterator[tuple[float, str, StreamId]]:
        for stream, incoming in self._incoming.items():
            yield incoming.expires_at, "receiver", stream
        for stream, outgoing in self._outgoing.items():
            yield outgoing.expires_at, "sender", stream
            if outgoing.offer:
                yield outgoing.offer_retry_at, "offer", stream

    def _retry_offer(self, stream: StreamId, now: float) -> None:
        state = self._outgoing.get(stream)
        if state is None or not state.offer:
            return
        if now - state.offer_since >= REKEY_GIVE_UP_S:
            self._give_up(stream, "rekey")
            return
        state.offer_retry_at = now + REKEY_RETRY_S
        self._events.append(SendEntry(stream, REKEY, state.offer))

    def _give_up(self, stream: StreamId, reason: str) -> None:
        state = self._outgoing.get(stream)
        if state is not None:
            self._forget_outgoing(stream)
            self._events.append(SenderFailed(stream, state.peer, reason))

    def next_send(self) -> Send | Reply | None:
        """Return one message for the control plane, or None."""
        return self._sends.popleft() if self._sends else None

    def next_event(self) -> Event | None:
        """Return one event, or None."""
        return self._events.popleft() if self._events else None
