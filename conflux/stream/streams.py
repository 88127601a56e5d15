"""Streams: opens them, accepts them, renews their keys, gives them up.  Sans-IO.

It knows handshakes and keys; it does not know routes, links, queues or packets.  The node carries its transmits to the
control plane, and its events into the datapath's tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from conflux.anchor.frame import REKEY
from conflux.anchor.key import EPOCH_BYTES_LOG2_MAX, EPOCH_S_MAX
from conflux.control.envelope import Kind
from conflux.crypto import kdf, kem
from conflux.errors import RemoteProtocolError
from conflux.ids import BootId, NodeId, StreamId
from conflux.realm.card import Card
from conflux.realm.listbook import DIGEST_BYTES
from conflux.realm.member import Member
from conflux.realm.signed import UNSIGNED
from conflux.stream.event import (
    CardOutdated,
    Event,
    ReceiverEnd,
    ReceiverGone,
    ReceiverReady,
    ReceiverRekeyed,
    Reply,
    Send,
    SendEntry,
    SenderEnd,
    SenderFailed,
    SenderReady,
    SenderRekeyed,
    Transmit,
)
from conflux.stream.handshake import (
    Accept,
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
from conflux.stream.resuming import Resuming, Resumption
from conflux.stream.resumptions import HALF_OPEN_S, Pair, Resumptions
from conflux.stream.state import LIFETIME_S, Book, Incoming, Outgoing

REKEY_RETRY_S = 1.0  # the offer rides in a data frame, which may be lost
REKEY_GIVE_UP_S = 60.0  # then the stream is opened anew
REKEY_INTERVAL_S_MIN = 10.0  # between two that a sender gets: it needs one in 120 s, and each costs 0.3 ms here
ANSWER_INTERVAL_S_MIN = REKEY_RETRY_S / 2  # between two copies of an answer
INCOMING_COUNT_MAX = 1024  # of all peers together, about 4 kB each
INCOMING_PER_PEER_MAX = 4  # a peer needs one; the others are those it lost


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
        lists: Callable[[], bytes] = lambda: bytes(DIGEST_BYTES),
        lists_told: Callable[[NodeId, bytes, float], None] = lambda peer, digest, now: None,
        resumption: Resumption = Resumption.AUTO,
        holds: Callable[[NodeId], bool] = lambda peer: True,
        keyed_links: bool = False,
    ) -> None:
        """aead: the cipher this processor opens fastest.  vantage(peer): relays this node reaches well, for accepts.

        lists: the digest of the signed lists that this node holds.  lists_told: takes that of a peer.

        offload_kinds: entry kinds beyond plain packets that this node's datapath sends and takes.  resumption: whether
        a secret to open the next stream by is agreed on.  holds: says whether the credentials of a peer and of this
        node have not ended.  keyed_links: the carrier takes keys of a link in the place of a DTLS handshake.
        """
        self._member = member
        self._me = member.node_id
        self._realm = member.anchor.realm_id
        self._key = member.keys.signing
        self._boot = boot
        chain = kdf.sha256(member.chain.encode())
        self._book = Book(aead, offload_kinds, entropy, chain, vantage, lists, lists_told, keyed_links=keyed_links)
        self.opened = self._book.opened
        self._outgoing = self._book.outgoing
        self._incoming = self._book.incoming
        self._openings = self._book.openings
        self._events = self._book.events
        self.resuming = Resuming(
            self._book,
            Resumptions(self._me, boot, self._realm),
            resumption,
            holds=holds,
            make_room=self._make_room,
            ready=self._ready,
            close_receiver=self.close_receiver,
            close_sender=self.close_sender,
        )

    def adopt(self, member: Member) -> None:
        """Open streams under a renewed credential of the same node from now on."""
        self._member = member
        self._book.chain = kdf.sha256(member.chain.encode())
        self.resuming.forget_all()

    # ── sender ──

    def open(self, card: Card, *, now: float) -> StreamId:
        """Start a stream to the card's node; SenderReady or SenderFailed follows."""
        spare = self.resuming.take_spare(card.node_id, now=now)
        if spare is not None:
            return spare
        stream = StreamId(self._book.entropy(16))
        self._outgoing[stream] = Outgoing(
            card.node_id,
            card.boot,
            card.chain.credential.verify_key(),
            expires_at=now + LIFETIME_S,
            peer_chain=kdf.sha256(card.chain.encode()),
        )
        if not self.resuming.open(stream, now=now):
            self._openings[stream] = None
        return stream

    def _make_open(self, stream: StreamId, state: Outgoing) -> Send:
        """Make a stream's key and its OPEN, which takes a few milliseconds."""
        state.kem_key = kem.PrivateKey.generate()
        state.offered = (*self._book.offload_kinds, *self.resuming.keeps(state.peer, state.opened_at))
        state.open_ = (
            Open(
                sender=self._me,
                receiver=state.peer,
                stream=stream,
                receiver_boot=state.peer_boot,
                kem_public=state.kem_key.public,
                lifetime_s=LIFETIME_S,
                sender_chain_hash=self._book.chain,
                offload_kinds=state.offered,
                lists=self._book.lists(),
                signature=UNSIGNED,
            )
            .sign(self._key, self._realm)
            .encode()
        )
        return Send(state.peer, Kind.OPEN, state.open_, stream)

    def receive_accept(self, peer: NodeId, body: bytes, *, now: float) -> None:
        """Take an ACCEPT.  Raises RemoteProtocolError; the stream then waits on."""
        accept = Accept.decode_untrusted(body)
        stream = StreamId(accept.stream)
        state = self._outgoing.get(stream)
        if state is None or state.peer != peer or state.keys is not None or state.kem_key is None:
            raise RemoteProtocolError("unexpected", "an accept for no open of this node")
        check_accept(accept, state.open_, state.offered)
        assert state.verify_key is not None  # a spare has its keys from the start
        accept.verify_signature(state.verify_key, self._realm)
        self._book.lists_told(peer, accept.lists, now)
        self.opened["signatures"] += 1
        secret = state.kem_key.decapsulate(accept.ciphertext)
        state.kem_key.erase()
        state.kem_key = None
        state.keys = first_keys(secret, state.open_, body, self._realm, accept.aead)
        self.resuming.keep(state, accept.offload_kinds, secret, state.open_, body, now=now)
        state.open_ = b""
        self._ready(stream, state, accept.vantage, accept.offload_kinds)

    def _ready(self, stream: StreamId, state: Outgoing, vantage: tuple[Vantage, ...], kinds: tuple[int, ...]) -> None:
        assert state.keys is not None
        keys, kinds = state.keys, self._book.agreed(kinds)
        self._events.append(SenderReady(stream, state.peer, keys.data, keys.feedback, vantage, kinds))

    def receive_refused(self, peer: NodeId, body: bytes) -> None:
        """Take an OPEN_REFUSED.  Raises RemoteProtocolError."""
        refused = Refused.decode_untrusted(body)
        state = self._outgoing.get(StreamId(refused.stream))
        if state is None or state.peer != peer or state.keys is not None:
            raise RemoteProtocolError("unexpected", "a refusal of no open of this node")
        self.open_failed(StreamId(refused.stream), SenderEnd.REFUSED, refused.reason)

    def open_failed(self, stream: StreamId, end: SenderEnd, said: str = "") -> None:
        """Give up a stream whose OPEN came to nothing.  No-op for a stream that is open or unknown."""
        state = self._outgoing.get(stream)
        if state is not None and state.keys is None:
            self._forget_outgoing(stream)
            self._events.append(SenderFailed(stream, state.peer, end, said))

    def close_sender(self, stream: StreamId) -> None:
        """Forget a stream that this node sends, and erase its keys.  No-op if unknown."""
        self._forget_outgoing(stream)

    def _forget_outgoing(self, stream: StreamId) -> None:
        state = self._outgoing.pop(stream, None)
        self._openings.pop(stream, None)
        if state is None:
            return
        self.resuming.closed(stream, state)
        if state.kem_key is not None:
            state.kem_key.erase()
        if state.keys is not None:
            state.keys.erase()

    # ── receiver ──

    def receive_open(self, card: Card, body: bytes, to: Any, *, now: float) -> None:
        """Take an OPEN from the card's node; the answer names to.  Raises RemoteProtocolError.

        The control plane answers a repeated request with the identical reply.  So an OPEN that comes again as a new
        request is a replay: its stream exists, and it is refused.
        """
        open_ = Open.decode_untrusted(body)
        stream = StreamId(open_.stream)
        check_open(open_, sender=card.node_id, me=self._me)
        if open_.receiver_boot != self._boot:
            raise RemoteProtocolError("stale-boot", "the open was made before this node restarted")
        known = self._incoming.get(stream)
        given_up = known is not None and known.resumed and not known.is_used and known.peer == card.node_id
        if (known is not None and not given_up) or stream in self._outgoing:
            raise RemoteProtocolError("replay", "the stream exists")
        open_.verify_signature(card.chain.credential.verify_key(), self._realm)
        self._book.lists_told(card.node_id, open_.lists, now)
        self.resuming.signed(card.node_id, now=now)
        chain = kdf.sha256(card.chain.encode())
        if open_.sender_chain_hash != chain:
            # The keys stay when a credential is renewed, and rights are read from the card that verified here.
            self._events.append(CardOutdated(card.node_id))
        if not self._make_room(card.node_id):
            self._book.transmits.append(Reply(to, Kind.OPEN_REFUSED, Refused(stream, "busy").encode()))
            return
        self.opened["signatures"] += 1
        ciphertext, secret = kem.encapsulate(open_.kem_public)
        offload_kinds = self._book.agreed(open_.offload_kinds)
        keeps = [kind for kind in self.resuming.keeps(card.node_id, now) if kind in open_.offload_kinds][-1:]
        answer = (
            Accept(
                stream=stream,
                open_hash=kdf.sha256(body),
                ciphertext=ciphertext,
                aead=self._book.aead,
                offload_kinds=(*offload_kinds, *keeps),
                epoch_s_max=EPOCH_S_MAX,
                epoch_bytes_log2_max=EPOCH_BYTES_LOG2_MAX,
                vantage=self._book.vantage(card.node_id),
                lists=self._book.lists(),
                signature=UNSIGNED,
            )
            .sign(self._key, self._realm)
            .encode()
        )
        keys = first_keys(secret, body, answer, self._realm, self._book.aead)
        state = Incoming(card.node_id, keys, now + HALF_OPEN_S, lifetime_until=now + open_.lifetime_s)
        self._incoming[stream] = state
        if open_.sender_chain_hash == chain:
            pair = Pair(card.node_id, card.boot, chain, self._book.chain)
            state.kept = self.resuming.keep_with(pair, tuple(keeps), secret, body, answer, now=now)
        self._book.transmits.append(Reply(to, Kind.ACCEPT, answer))
        self._events.append(ReceiverReady(stream, card.node_id, keys.data, keys.feedback, offload_kinds))

    def _make_room(self, peer: NodeId) -> bool:
        """Push the peer's oldest stream out if it has its share.  False: the table of all peers is full."""
        own = [stream for stream, state in self._incoming.items() if state.peer == peer]
        if len(own) >= INCOMING_PER_PEER_MAX:
            self.close_receiver(own[0], ReceiverEnd.REPLACED)
        return len(self._incoming) < INCOMING_COUNT_MAX

    def receiver_verified(self, stream: StreamId) -> None:
        """Open a half-open stream, of which a frame verified: it lives for its lifetime."""
        state = self._incoming.get(stream)
        if state is None:
            return
        state.expires_at = state.lifetime_until
        self.resuming.verified(state)

    def close_receiver(self, stream: StreamId, end: ReceiverEnd) -> None:
        """Forget a stream that this node receives, and erase its keys.  No-op if unknown."""
        state = self._incoming.pop(stream, None)
        if state is not None:
            state.keys.erase()
            self.resuming.left(state.peer)
            self._events.append(ReceiverGone(stream, state.peer, end))

    def receives(self, stream: StreamId) -> NodeId | None:
        """Return the sender of a stream that this node receives, or None."""
        state = self._incoming.get(stream)
        return None if state is None else state.peer

    def peer_restarted(self, peer: NodeId) -> None:
        """End every stream from and to a peer that is a new process: it knows none of them."""
        self.resuming.forget(peer)
        for stream in [stream for stream, state in self._incoming.items() if state.peer == peer]:
            self.close_receiver(stream, ReceiverEnd.RESTARTED)
        for stream in [stream for stream, state in self._outgoing.items() if state.peer == peer]:
            self._give_up(stream, SenderEnd.RESTARTED)

    def peer_revoked(self, peer: NodeId) -> None:
        """End every stream from and to a peer that is a member no more."""
        self.resuming.forget(peer)
        for stream in [stream for stream, state in self._incoming.items() if state.peer == peer]:
            self.close_receiver(stream, ReceiverEnd.REVOKED)
        for stream in [stream for stream, state in self._outgoing.items() if state.peer == peer]:
            self._give_up(stream, SenderEnd.REVOKED)

    def peers(self) -> frozenset[NodeId]:
        """Return every node that this one has a stream with."""
        received = frozenset(state.peer for state in self._incoming.values())
        return received | {state.peer for state in self._outgoing.values()}

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

    def receive_entry(self, stream: StreamId, kind: int, body: bytes, *, epoch: int, now: float) -> None:
        """Take a verified REKEY entry: an offer on a received stream, an answer on a sent one.

        epoch: of the key that its frame was sealed with.  Raises RemoteProtocolError.
        """
        if kind != REKEY:
            raise RemoteProtocolError("unknown-kind", f"entry {kind}")
        if stream in self._incoming:
            self._receive_offer(stream, self._incoming[stream], body, epoch, now)
        elif stream in self._outgoing:
            self._receive_answer(stream, self._outgoing[stream], body)

    def _receive_offer(self, stream: StreamId, state: Incoming, body: bytes, epoch: int, now: float) -> None:
        if body == state.offer:  # the answer was lost
            if now < state.answer_from:
                raise RemoteProtocolError("rekey-rate", "the answer is on its way")
            state.answer_from = now + ANSWER_INTERVAL_S_MIN
            self._events.append(SendEntry(stream, REKEY, state.answer))
            return
        if epoch != state.keys.data.epoch:
            raise RemoteProtocolError("rekey-early", "the keys agreed on are not used yet")
        if now < state.rekey_from:
            raise RemoteProtocolError("rekey-rate", "an offer too soon after the one before")
        offer = RekeyOffer.decode_untrusted(body)
        if offer.epoch != (state.keys.data.epoch + 1) % 256:
            raise RemoteProtocolError("epoch", "an offer for another epoch than the next")
        state.rekey_from = now + REKEY_INTERVAL_S_MIN
        state.answer_from = now + ANSWER_INTERVAL_S_MIN
        ciphertext, secret = kem.encapsulate(offer.kem_public)
        state.offer = body
        state.answer = RekeyAnswer(offer.epoch, ciphertext).encode()
        keys = next_keys(state.keys, secret, state.offer, state.answer, self._realm)
        state.keys.erase()
        state.keys = keys
        self._events.append(ReceiverRekeyed(stream, keys.data, keys.feedback))
        self._events.append(SendEntry(stream, REKEY, state.answer))

    def _receive_answer(self, stream: StreamId, state: Outgoing, body: bytes) -> None:
        answer = RekeyAnswer.decode_untrusted(body)
        if state.keys is None or state.kem_key is None or not state.offer:
            return  # the answer came before, and was repeated
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
        deadlines = (at for at, _, _ in self._deadlines())
        return min((*deadlines, *self.resuming.deadlines()), default=None)

    def handle_timeout(self, *, now: float) -> None:
        """Give up streams that are too old, and repeat rekey offers and RESUMEs."""
        self.resuming.handle_timeout(self.peers(), now=now)
        for at, what, stream in list(self._deadlines()):
            if at > now:
                continue
            match what:
                case "receiver":
                    self.close_receiver(
                        stream, ReceiverEnd.EXPIRED if self._incoming[stream].is_used else ReceiverEnd.UNUSED
                    )
                case "sender":
                    self._give_up(stream, SenderEnd.LIFETIME)
                case "offer":
                    self._retry_offer(stream, now)
                case "spare":
                    self._forget_outgoing(stream)

    def _deadlines(self) -> Iterator[tuple[float, str, StreamId]]:
        for stream, incoming in self._incoming.items():
            yield incoming.expires_at, "receiver", stream
        for stream, outgoing in self._outgoing.items():
            yield outgoing.expires_at, "sender", stream
            if outgoing.spare_until is not None:
                yield outgoing.spare_until, "spare", stream
            if outgoing.offer:
                yield outgoing.offer_retry_at, "offer", stream

    def _retry_offer(self, stream: StreamId, now: float) -> None:
        state = self._outgoing.get(stream)
        if state is None or not state.offer:
            return
        if now - state.offer_since >= REKEY_GIVE_UP_S:
            self._give_up(stream, SenderEnd.REKEY)
            return
        state.offer_retry_at = now + REKEY_RETRY_S
        self._events.append(SendEntry(stream, REKEY, state.offer))

    def _give_up(self, stream: StreamId, end: SenderEnd) -> None:
        state = self._outgoing.get(stream)
        if state is not None:
            self._forget_outgoing(stream)
            self._events.append(SenderFailed(stream, state.peer, end))

    def next_transmit(self, lets: Callable[[NodeId], bool] = lambda peer: True) -> Transmit | None:
        """Return one message for the control plane, or None.  lets: says whether a peer may be sent its OPEN now."""
        if self._book.transmits:
            return self._book.transmits.popleft()
        resume = self.resuming.next_transmit(lets)
        if resume is not None:
            return resume
        stream = next((stream for stream in self._openings if lets(self._outgoing[stream].peer)), None)
        if stream is None:
            return None
        del self._openings[stream]
        return self._make_open(stream, self._outgoing[stream])

    def next_event(self) -> Event | None:
        """Return one event, or None."""
        return self._events.popleft() if self._events else None
