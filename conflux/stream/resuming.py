"""Streams that are opened by the secret of the last one, in both directions at once.

    open() ─► waits for the offer of a link, if one is being made ─► RESUME ─► RESUMED ─► both streams have their keys
                                                                        └─ no answer ─► OPEN, as without a secret

resumptions.py has the secrets, streams.py the streams.  An offer rides along in RESUME, and its answer in RESUMED.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from conflux.anchor.frame import CHACHA20_POLY1305
from conflux.carrier.interface import LinkKeys
from conflux.control.envelope import Kind, Pairing
from conflux.crypto import kdf
from conflux.errors import RemoteProtocolError
from conflux.ids import NodeId, StreamId
from conflux.realm.card import Card
from conflux.stream.event import (
    CardOutdated,
    Conflict,
    Pass,
    ReceiverEnd,
    ReceiverReady,
    Resumed,
    RideEnded,
    Rode,
    SenderEnd,
    SenderFailed,
    SignedAnew,
    Transmit,
)
from conflux.stream.handshake import AEADS, Vantage
from conflux.stream.resume import CHAIN_HASH_BYTES, NO_STREAM, Rider, Terms
from conflux.stream.resumptions import (
    HALF_OPEN_S,
    Answer,
    Asked,
    Asking,
    Drop,
    Kept,
    Outcome,
    Pair,
    Resumptions,
)
from conflux.stream.state import LIFETIME_S, Book, Incoming, Outgoing

SPARE_S = HALF_OPEN_S / 2  # one that is taken at the last moment still has time to get there
RIDE_S = 0.1  # a RESUMED waits for the answer to the offer that came along; a carrier describes itself in 5 ms


class Resumption(StrEnum):
    """Whether streams are opened by a secret of the last one."""

    AUTO = "auto"
    ALWAYS_KEM = "always-kem"  # with a fresh ML-KEM key each time
    OFF = "off"


# Among the entry kinds of OPEN and ACCEPT: no kinds of entries, and earlier builds leave them out.
KEEPS_MIXING = 253  # its sender keeps a secret to resume by, and ML-KEM is in each resumption
KEEPS = 254  # it keeps one, and ML-KEM is in one now and then
_KEEPS = {Resumption.AUTO: (KEEPS_MIXING, KEEPS), Resumption.ALWAYS_KEM: (KEEPS_MIXING,), Resumption.OFF: ()}


@dataclass(slots=True)
class _Resuming:
    """A RESUME of this node.  rides: an offer goes along.  link_aead: wanted of a link without a handshake, or 0."""

    stream: StreamId
    asked: Asked
    rides: bool
    link_aead: int


class RodeBack(NamedTuple):
    """An answer to an offer went along with a RESUMED.  keys: of the link; None: it has a handshake."""

    keys: LinkKeys | None


class Resuming:
    """Every stream that is opened by a secret, and what OPEN and ACCEPT say of one."""

    def __init__(
        self,
        book: Book,
        secrets: Resumptions,
        resumption: Resumption,
        *,
        holds: Callable[[NodeId], bool],
        make_room: Callable[[NodeId], bool],
        ready: Callable[[StreamId, Outgoing, tuple[Vantage, ...], tuple[int, ...]], None],
        close_receiver: Callable[[StreamId, ReceiverEnd], None],
        close_sender: Callable[[StreamId], None],
    ) -> None:
        """holds: says whether the credentials of a peer and of this node have not ended.

        make_room: says whether another stream of a peer may be received.  ready: tells of an agreed stream."""
        self._book = book
        self.secrets = secrets
        self._resumption = resumption
        self._holds = holds
        self._make_room = make_room
        self._ready = ready
        self._close_receiver = close_receiver
        self._close_sender = close_sender
        self._waiting: dict[StreamId, Kept] = {}  # streams whose RESUME is not made yet
        self._asked: dict[NodeId, _Resuming] = {}  # RESUMEs without an answer
        self._rides: dict[NodeId, tuple[Asking, float]] = {}  # RESUMEs that wait for the answer to an offer, until when
        self._left: set[NodeId] = set()  # peers of streams that ended since the last look

    # ── keeping ──

    def keeps(self, peer: NodeId, now: float) -> tuple[int, ...]:
        """Return what an OPEN or ACCEPT says of the secret that this node would keep, the word it prefers last."""
        return _KEEPS[self._resumption] if self.secrets.trusts(peer, now) else ()

    def keep(
        self, state: Outgoing, kinds: tuple[int, ...], secret: bytes, open_: bytes, accept: bytes, *, now: float
    ) -> None:
        """Keep the secret of a handshake that this node began.  kinds: of the ACCEPT."""
        pair = Pair(state.peer, state.peer_boot, state.peer_chain, self._book.chain)
        self.keep_with(pair, kinds, secret, open_, accept, now=now)

    def keep_with(
        self, pair: Pair, kinds: tuple[int, ...], secret: bytes, open_: bytes, accept: bytes, *, now: float
    ) -> Kept | None:
        """Keep the secret of a handshake, if both said so."""
        if not {KEEPS, KEEPS_MIXING} & set(kinds) or not self.keeps(pair.peer, now):
            return None
        return self.secrets.keep_first(pair, secret, open_, accept, always_mix=KEEPS_MIXING in kinds, now=now)

    def verified(self, state: Incoming) -> None:
        """Take note that a frame of a stream verified: its sender has the secret that came with it."""
        if state.kept is not None:
            self.secrets.confirm(state.kept)
            state.kept = None

    def closed(self, stream: StreamId, state: Outgoing) -> None:
        """Take note that a stream of this node is no more."""
        self._waiting.pop(stream, None)
        if state.keys is not None:
            self.left(state.peer)
        asked = self._asked.get(state.peer)
        if asked is not None and asked.stream == stream:
            self._fall_back(asked.asked)

    def left(self, peer: NodeId) -> None:
        """Take note that a stream with a peer ended: the secret is kept for an hour from now."""
        self._left.add(peer)

    def _note_left(self, now: float) -> None:
        for peer in self._left:
            self.secrets.used(peer, now)
        self._left.clear()

    def forget(self, peer: NodeId) -> None:
        """Erase all secrets with a peer; what waits is opened with signatures."""
        self._rides.pop(peer, None)
        self.secrets.forget(peer)
        for stream in [stream for stream, kept in self._waiting.items() if kept.pair.peer == peer]:
            del self._waiting[stream]
            self._book.openings[stream] = None
        if (asked := self._asked.get(peer)) is not None:
            self._fall_back(asked.asked)

    def forget_all(self) -> None:
        """Erase all secrets: this node acts under another credential."""
        for peer in {*(kept.pair.peer for kept in self._waiting.values()), *self._asked, *self._rides}:
            self.forget(peer)
        self.secrets.forget_all()

    def awaits_secret(self) -> bool:
        """Say whether an OPEN of this node has no answer yet: a secret may come with that."""
        return any(state.keys is None and state.kem_key is not None for state in self._book.outgoing.values())

    def awaits_answer(self) -> bool:
        """Say whether a RESUME of this node has no answer yet: its peer may have a stream by it already."""
        return bool(self._asked)

    # ── asking ──

    def open(self, stream: StreamId, *, now: float) -> bool:
        """Open a stream by a secret, when the link's offer is ready; False: there is none that serves."""
        self._note_left(now)
        state = self._book.outgoing[stream]
        if not self._holds(state.peer):
            self.secrets.forget(state.peer)
            return False
        kept = self.secrets.find(Pair(state.peer, state.peer_boot, state.peer_chain, self._book.chain), now)
        if kept is None or state.peer in self._asked or self._waits(state.peer) is not None:
            return False
        self._waiting[stream] = kept
        return True

    def take_spare(self, peer: NodeId, *, now: float) -> StreamId | None:
        """Return the stream to a peer that its own resumption opened, if nothing is sent on it yet."""
        for stream, state in self._book.outgoing.items():
            if state.peer == peer and state.spare_until is not None:
                state.spare_until, state.expires_at = None, now + LIFETIME_S
                self._ready(stream, state, state.vantage, state.offered)
                return stream
        return None

    def next_transmit(self, lets: Callable[[NodeId], bool]) -> Transmit | None:
        """Return the next RESUME that waits for no offer any more, or None.

        Where the peer's own waits for its answer, that will open the stream: two under one secret would cross.
        """
        for stream in list(self._waiting):
            state = self._book.outgoing[stream]
            if state.peer in self._rides or not lets(state.peer):
                continue
            if (resume := self._make_resume(stream, None, state.opened_at)) is not None:
                return resume
        return None

    def _waits(self, peer: NodeId) -> StreamId | None:
        return next((stream for stream in self._waiting if self._book.outgoing[stream].peer == peer), None)

    def _fall_back(self, asked: Asked) -> None:
        """Open with signatures what a RESUME was for, unless that is closed."""
        resuming = self._asked.get(asked.peer)
        self.secrets.give_up(asked)
        if resuming is None or resuming.asked is not asked:
            return
        del self._asked[asked.peer]
        if resuming.stream in self._book.outgoing:
            self._book.openings[resuming.stream] = None
        if resuming.rides:
            self._book.events.append(RideEnded(asked.peer, answered=False))

    def ride(self, peer: NodeId, rider: Rider, *, now: float) -> bool:
        """Send an offer of a link along with the RESUME for that peer; False: none is about to be sent."""
        stream = self._waits(peer)
        if stream is None or peer in self._rides:
            return False
        resume = self._make_resume(stream, rider, now)
        if resume is not None:
            self._book.transmits.append(resume)
        return resume is not None

    def _make_resume(self, stream: StreamId, rider: Rider | None, now: float) -> Pass | None:
        state, kept = self._book.outgoing[stream], self._waiting.pop(stream)
        if self.secrets.find(kept.pair, now) is not kept:  # it was used, or grew too old, meanwhile
            self._book.openings[stream] = None
            return None
        link_aead = self._book.aead if self._book.keyed_links and rider is not None else 0
        asked = self.secrets.ask(kept, self._terms(stream, state.peer, rider, link_aead), now)
        self._asked[state.peer] = _Resuming(stream, asked, rides=rider is not None, link_aead=link_aead)
        return Pass(state.peer, kept.own_id, Pairing.RESUME, asked.message)

    def _terms(self, stream: StreamId, peer: NodeId, rider: Rider | None, link_aead: int) -> Terms:
        kind, body, seq = rider or (0, b"", 0)
        return Terms(
            stream=stream,
            aead=self._book.aead,
            offload_kinds=self._book.offload_kinds,
            chain_hash=self._book.chain[:CHAIN_HASH_BYTES],
            lists=self._book.lists(),
            vantage=self._book.vantage(peer),
            link_aead=link_aead,
            rider_seq=seq,
            rider_kind=kind,
            rider=body,
        )

    def _check(self, pair: Pair, said: Terms, card_of: Callable[[NodeId], Card | None], now: float) -> None:
        """Raise RemoteProtocolError unless a secret is of both chains as they are now, and the peer says so too.

        The peer has to hold the same signed lists.
        """
        card = card_of(pair.peer) if self._holds(pair.peer) else None
        if card is None or pair != Pair(pair.peer, card.boot, kdf.sha256(card.chain.encode()), self._book.chain):
            raise RemoteProtocolError(Drop.STALE)
        if said.chain_hash != pair.peer_chain[:CHAIN_HASH_BYTES]:
            self._book.events.append(CardOutdated(pair.peer))  # else the next secret would be of that chain too
            raise RemoteProtocolError(Drop.STALE)
        if said.lists != self._book.lists():
            self._book.lists_told(pair.peer, said.lists, now)
            raise RemoteProtocolError(Drop.STALE)

    def receive_resumed(
        self,
        id_: bytes,
        body: bytes,
        card_of: Callable[[NodeId], Card | None],
        heard: Callable[[NodeId], None] = lambda peer: None,
        *,
        now: float,
    ) -> None:
        """Take a RESUMED.  Raises RemoteProtocolError; unless the peer's terms are stale, the RESUME waits on.

        heard: told whose it is once it opened, before anything follows from it.
        """

        def check(pair: Pair, back: Terms) -> None:
            self._check(pair, back, card_of, now)
            if back.link_aead and not (
                self._asked[pair.peer].link_aead and back.link_aead in AEADS and back.rider_kind == Kind.ANSWER
            ):
                raise RemoteProtocolError("parameters", "a link without a handshake that was not asked for")
            heard(pair.peer)

        try:
            asked, back, outcome = self.secrets.receive_resumed(id_, body, now, check)
        except RemoteProtocolError as error:
            if error.reason == Drop.STALE and (stale := self.secrets.asked_by(id_)) is not None:
                self._fall_back(stale)
            raise
        peer = asked.peer
        resuming = self._asked.pop(peer)
        state = self._book.outgoing[resuming.stream]
        state.keys, state.resumed = outcome.stream_keys(of_asker=True, aead=back.aead), True
        self._ready(resuming.stream, state, back.vantage, back.offload_kinds)
        if back.stream != NO_STREAM:
            self._take_in(StreamId(back.stream), peer, outcome, back.offload_kinds, of_asker=False, now=now)
        keys = _link_keys(outcome, back.link_aead, of_asker=True)
        outcome.erase()
        self._book.opened["resumption"] += 1
        self._book.events.append(Resumed(peer))
        if resuming.rides:
            ride = back.riding
            self._book.events.append(
                RideEnded(peer, answered=True) if ride is None else Rode(peer, ride.kind, ride.body, 0, keys)
            )

    def resume_unknown(self, id_: bytes, *, now: float) -> None:
        """Take a peer's word, or anybody's, that it does not know the secret of a RESUME."""
        self.secrets.unknown(id_, now)

    def receive_resume(
        self,
        id_: bytes,
        body: bytes,
        card_of: Callable[[NodeId], Card | None],
        heard: Callable[[NodeId], None] = lambda peer: None,
        *,
        now: float,
    ) -> None:
        """Take a RESUME.  Raises RemoteProtocolError.  card_of: the cards that are known and hold.

        heard: told whose it is once it opened, before it is answered: so the answer names the relay that it came by.
        """
        self._note_left(now)
        peer = self.secrets.peer_of(id_)

        def check(pair: Pair, ahead: Terms) -> None:
            self._check(pair, ahead, card_of, now)
            if ahead.stream in self._book.incoming or ahead.stream in self._book.outgoing:
                raise RemoteProtocolError("replay", "the stream exists")
            if not self._make_room(pair.peer):
                raise RemoteProtocolError("busy", "as many streams as are received")
            heard(pair.peer)

        try:
            asking = self.secrets.receive_resume(id_, body, now, check)
        except RemoteProtocolError as error:
            if error.reason == Drop.CONFLICT and peer is not None:
                self._end_resumed(peer, seen_here=True)
            raise
        if isinstance(asking, Answer):
            self._book.transmits.append(Pass(asking.peer, asking.id, Pairing.RESUMED, asking.message))
        elif asking is not None:
            ride = asking.ahead.riding
            if ride is None or asking.peer in self._rides:
                self._answer_resume(asking, None, now)
            else:
                self._rides[asking.peer] = (asking, now + RIDE_S)
                self._book.events.append(Rode(asking.peer, ride.kind, ride.body, ride.seq))

    def conflict_told(self, peer: NodeId, *, now: float) -> None:
        """Take a peer's signed word that somebody else has a secret of the pair."""
        self.secrets.distrust(peer, now)
        self._end_resumed(peer, seen_here=False)

    def signed(self, peer: NodeId, *, now: float) -> None:
        """Take note that a peer opened a stream with signatures: it has no secret that serves, nor what one opened.

        A secret may have been stolen and used.  Or the answer to the peer's RESUME was lost.
        """
        self.secrets.signed(peer, now)
        if (resuming := self._asked.get(peer)) is not None and resuming.asked.kept.is_erased:
            self._fall_back(resuming.asked)  # whoever has that secret could still answer
        if peer in self._rides and self._rides[peer][0].kept.is_erased:
            del self._rides[peer]
        self._end_streams(peer, ReceiverEnd.SIGNED, SenderEnd.SIGNED)
        self._book.events.append(SignedAnew(peer))

    def _end_resumed(self, peer: NodeId, *, seen_here: bool) -> None:
        """End what resumptions with a peer opened: it was perhaps not the peer who asked, or not the peer alone."""
        self.forget(peer)
        self._end_streams(peer, ReceiverEnd.CONFLICT, SenderEnd.CONFLICT)
        self._book.events.append(Conflict(peer, seen_here))

    def _end_streams(self, peer: NodeId, of_receiver: ReceiverEnd, of_sender: SenderEnd) -> None:
        for stream, incoming in list(self._book.incoming.items()):
            if incoming.peer == peer and incoming.resumed:
                self._close_receiver(stream, of_receiver)
        for stream, outgoing in list(self._book.outgoing.items()):
            if outgoing.peer == peer and outgoing.spare_until is not None:
                self._close_sender(stream)
            elif outgoing.peer == peer and outgoing.resumed:
                self._close_sender(stream)
                self._book.events.append(SenderFailed(stream, peer, of_sender))

    def ride_back(self, peer: NodeId, re: int, rider: Rider, *, keyed: bool = False, now: float) -> RodeBack | None:
        """Send the answer to an offer along with the RESUMED; None: that has gone, or there is none.

        keyed: the link can still be given keys.
        """
        asking, _ = self._rides.get(peer, (None, 0.0))
        if asking is None or asking.ahead.rider_seq != re:
            return None
        del self._rides[peer]
        return self._answer_resume(asking, rider, now, keyed=keyed)

    def _answer_resume(
        self, asking: Asking, rider: Rider | None, now: float, *, keyed: bool = False
    ) -> RodeBack | None:
        peer, ahead, pair = asking.peer, asking.ahead, asking.kept.pair
        own = self._reverse_of(asking)
        link_aead = self._agree_on(ahead.link_aead) if keyed and rider is not None and rider.kind == Kind.ANSWER else 0
        # A node that sends already keeps no other: a later packet would take that, and no RESUME would go, which has
        # the peer's stream agreed before it answers.  And the peer would keep its end for nothing.
        spared = own not in self._book.outgoing and self._sends(peer)
        back = self._terms(NO_STREAM if spared else own, peer, rider, link_aead)
        answered = self.secrets.answer(asking, back, now)
        if answered is None:
            return None
        message, outcome = answered
        self._book.transmits.append(Pass(peer, asking.kept.back_id, Pairing.RESUMED, message))
        self._take_in(StreamId(ahead.stream), peer, outcome, ahead.offload_kinds, of_asker=True, now=now)
        self._book.openings.pop(own, None)
        self._waiting.pop(own, None)
        state = self._book.outgoing.get(own)
        if state is None and not spared:  # nothing is sent there yet: open() takes it, or it ends unused
            state = self._book.outgoing[own] = Outgoing(peer, pair.peer_boot, None, expires_at=now + LIFETIME_S)
            state.spare_until, state.offered = now + SPARE_S, ahead.offload_kinds
            state.vantage = ahead.vantage
        if state is not None:
            state.keys, state.resumed = outcome.stream_keys(of_asker=False, aead=ahead.aead), True
            if state.spare_until is None:
                self._ready(own, state, ahead.vantage, ahead.offload_kinds)
        keys = _link_keys(outcome, link_aead, of_asker=False)
        outcome.erase()
        if (resuming := self._asked.get(peer)) is not None and resuming.stream == own:  # both asked at once
            del self._asked[peer]
            if resuming.rides:
                self._book.events.append(RideEnded(peer, answered=False))
        self._book.opened["resumption"] += 1
        self._book.events.append(Resumed(peer))
        return RodeBack(keys)

    def _agree_on(self, wanted: int) -> int:
        """Return the cipher of a link that has no handshake, or 0.  wanted: by the peer, with its offer."""
        if not self._book.keyed_links or wanted not in AEADS:
            return 0
        return wanted if wanted == CHACHA20_POLY1305 else self._book.aead  # AES only if both are fast at it

    def _sends(self, peer: NodeId) -> bool:
        """Say whether a stream of this node to a peer is agreed, and asked for."""
        own = (state for state in self._book.outgoing.values() if state.peer == peer)
        return any(state.keys is not None and state.spare_until is None for state in own)

    def _reverse_of(self, asking: Asking) -> StreamId:
        """Return the stream to a peer that its resumption opens: one that waits for its keys, or a new one."""
        resuming = self._asked.get(asking.peer)
        if resuming is not None and resuming.asked.kept is asking.kept:
            return resuming.stream
        waiting = (
            stream
            for stream in (*self._waiting, *self._book.openings)
            if self._book.outgoing[stream].peer == asking.peer
        )
        return next(waiting, None) or StreamId(self._book.entropy(16))

    def _take_in(
        self,
        stream: StreamId,
        peer: NodeId,
        outcome: Outcome,
        kinds: tuple[int, ...],
        *,
        of_asker: bool,
        now: float,
    ) -> None:
        """Receive a stream that a resumption opened, half-open as any."""
        if stream in self._book.incoming or stream in self._book.outgoing or not self._make_room(peer):
            return
        keys = outcome.stream_keys(of_asker=of_asker, aead=self._book.aead)
        self._book.incoming[stream] = Incoming(
            peer,
            keys,
            now + HALF_OPEN_S,
            lifetime_until=now + LIFETIME_S,
            kept=outcome.kept,
            resumed=True,
        )
        self._book.events.append(ReceiverReady(stream, peer, keys.data, keys.feedback, self._book.agreed(kinds)))

    # ── time ──

    def deadlines(self) -> Iterator[float]:
        """Yield every time at which something is due."""
        yield from (until for _, until in self._rides.values())
        if (at := self.secrets.next_timeout()) is not None:
            yield at

    def handle_timeout(self, peers: frozenset[NodeId], *, now: float) -> None:
        """Repeat RESUMEs, give up what has no answer, answer what waits for a link too long, and erase what is old."""
        self._note_left(now)
        for peer in [peer for peer, (_, until) in self._rides.items() if until <= now]:
            asking, _ = self._rides.pop(peer)
            self._answer_resume(asking, None, now)
        repeated, ended = self.secrets.handle_timeout(peers, now=now)
        for asked in repeated:
            self._book.transmits.append(Pass(asked.peer, asked.kept.own_id, Pairing.RESUME, asked.message, again=True))
        for asked in ended:
            self._fall_back(asked)


def _link_keys(outcome: Outcome, aead: int, *, of_asker: bool) -> LinkKeys | None:
    """Return the keys of the link whose offer and answer went along, for one of its ends; None: it has a handshake."""
    return outcome.schedule.link_keys(outcome.master, of_asker=of_asker, aead=aead) if aead else None
