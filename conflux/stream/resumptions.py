"""The secrets by which streams are opened again without signatures: kept in memory, used once, erased.  Sans-IO.

    kept ──ask()──► asked ──RESUMED opens──► next kept         given up, or no answer: erased
    kept ──RESUME opens──► answered ──first frame verifies──► next kept        10 s without one: erased

It knows secrets and the two messages; it does not know streams.  streams.py has those.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from conflux.budget import BudgetTable
from conflux.crypto import exchange, kdf
from conflux.errors import AuthError, RemoteProtocolError
from conflux.ids import BootId, NodeId, RealmId
from conflux.stream.handshake import EpochKeys
from conflux.stream.resume import Ends, Resume, Resumed, Schedule, Terms, check_terms

IDLE_S = 3600.0  # a secret is erased so long after the last stream of its pair was seen to end
SIGNED_S = 86400.0  # and so long after both ends last signed
MIX_COUNT = 16  # resumptions without ML-KEM in a row
MIX_S = 600.0  # and for how long
PEER_COUNT_MAX = 1024  # pairs, about 1 kB each; the one not used for longest goes first
PER_PEER_MAX = 2  # each end of a pair may have opened one with signatures
HALF_OPEN_S = 10.0  # an answered resumption without a frame
ANSWER_S = 12.0  # a repeated RESUME gets its answer, as every request does
SIGNED_TOGETHER_S = 5.0  # secrets of two openings with signatures, one of each end
USED_S = SIGNED_S  # ids of secrets that were used, to tell their use from a mistake
USED_COUNT_MAX = 4096
DISTRUST_S = 3600.0  # no secret with a node of whose secret somebody else had a copy
REPEAT_S = 0.25  # after the first try
GIVE_UP_S, GIVE_UP_S_MAX = 0.5, 3.0  # then an opening with signatures follows
# What is left of that after "not known", which anybody can say: four times what an answer takes, within these bounds.
UNKNOWN_S_MIN, UNKNOWN_S_MAX = 0.05, 0.25
TRIAL_RATE, TRIAL_BURST = 20.0, 100.0  # boxes that are tried, per secret; that of an answer after X25519 and ML-KEM


class Drop(StrEnum):
    """Why a resumption is refused, each counted under its word."""

    UNKNOWN = "resume-unknown"  # no secret of that id
    USED = "resume-used"  # the secret was used before, and is erased
    CONFLICT = "resume-conflict"  # two who have the secret used it
    STALE = "resume-stale"  # another boot, chain or set of lists than the secret is of, or too old
    SEAL = "resume-seal"  # the box does not open
    NO_KEM = "resume-no-kem"  # an ML-KEM key was due
    LATE = "resume-late"  # an answer to nothing that is asked
    FLOOD = "resume-flood"  # too many boxes for one secret


class Pair(NamedTuple):
    """What a secret is of: the peer as its card said, and the chains of both."""

    peer: NodeId
    peer_boot: BootId
    peer_chain: bytes  # SHA-256
    own_chain: bytes


@dataclass(slots=True, eq=False)
class Kept:
    """One secret.  ask_id, back_id: of what the peer asks; own_id, own_back_id: of what this node asks."""

    pair: Pair
    secret: bytearray
    always_mix: bool
    signed_at: float
    mixed_at: float
    idle_until: float
    own_id: bytes
    own_back_id: bytes
    ask_id: bytes
    back_id: bytes
    count: int = 0  # resumptions since ML-KEM was last mixed in
    resumed: bool = False  # it came out of a resumption
    confirmed: bool = False  # the peer is known to have it
    took_s: float = 0.0  # the last resumption with the peer, from RESUME to RESUMED

    @property
    def expires_at(self) -> float:
        """Return when it is erased."""
        return min(self.idle_until, self.signed_at + SIGNED_S)

    def mixes(self, now: float) -> bool:
        """Say whether ML-KEM is due."""
        return self.always_mix or self.count >= MIX_COUNT or now - self.mixed_at >= MIX_S

    @property
    def is_erased(self) -> bool:
        """Say whether the secret was overwritten."""
        return not any(self.secret)

    def erase(self) -> None:
        """Overwrite the secret."""
        self.secret[:] = bytes(len(self.secret))


@dataclass(slots=True, eq=False)
class Asked:
    """A RESUME of this node without an answer."""

    kept: Kept
    share: exchange.Share
    early: bytearray
    message: bytes
    began_at: float
    repeat_at: float  # infinity: it was
    until: float

    @property
    def peer(self) -> NodeId:
        """Return who the secret is shared with."""
        return self.kept.pair.peer

    def erase(self) -> None:
        """Erase every secret in it."""
        self.share.erase()
        self.early[:] = bytes(len(self.early))
        self.kept.erase()


@dataclass(slots=True, eq=False)
class Asking:
    """A RESUME of a peer that opened, and waits for what this node says."""

    kept: Kept
    message: bytes
    early: bytearray
    hs: bytearray
    agreed: exchange.Public  # what goes into the answer
    ahead: Terms
    mixed: bool  # with ML-KEM

    @property
    def peer(self) -> NodeId:
        """Return who the secret is shared with."""
        return self.kept.pair.peer

    def erase(self) -> None:
        """Overwrite what it was made with."""
        self.early[:] = bytes(len(self.early))
        self.hs[:] = bytes(len(self.hs))


class Answer(NamedTuple):
    """A RESUMED that goes out once more."""

    peer: NodeId
    id: bytes
    message: bytes


@dataclass(slots=True, eq=False)
class _Answered:
    """A RESUME that was answered.  old: its secret, until the next one is known to be shared."""

    digest: bytes  # of the RESUME
    answer: bytes
    until: float
    old: Kept
    early: bytearray
    next: Kept
    open_until: float

    def erase_old(self) -> None:
        """Erase what the exchange was made with."""
        self.old.erase()
        self.early[:] = bytes(len(self.early))


@dataclass(slots=True)
class Outcome:
    """The secret of an exchange.  erase() it when the streams' keys are made."""

    kept: Kept  # the secret for the next time
    master: bytearray
    schedule: Schedule = field(repr=False)

    def stream_keys(self, *, of_asker: bool, aead: int) -> EpochKeys:
        """Return the keys of one of the two streams."""
        return self.schedule.stream_keys(self.master, of_asker=of_asker, aead=aead)

    def erase(self) -> None:
        """Overwrite the master secret."""
        self.master[:] = bytes(len(self.master))


class Resumptions:
    """Every secret of this node."""

    def __init__(self, me: NodeId, boot: BootId, realm: RealmId) -> None:
        self._me = me
        self._boot = boot
        self._schedule = Schedule(realm)
        self._kept: OrderedDict[NodeId, list[Kept]] = OrderedDict()  # of each peer the newest last
        self._by_id: dict[bytes, Kept] = {}  # by ask_id
        self._asked: dict[bytes, Asked] = {}  # by the id of the answer
        self._asking: dict[bytes, Asking] = {}  # by ask_id
        self._answered: OrderedDict[bytes, _Answered] = OrderedDict()  # by ask_id
        self._used: OrderedDict[bytes, float] = OrderedDict()  # ask_id → until when
        self._distrusted: OrderedDict[NodeId, float] = OrderedDict()  # → until when
        self._trials = BudgetTable(TRIAL_RATE, TRIAL_BURST, PEER_COUNT_MAX)
        self._took: OrderedDict[NodeId, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_id)

    # ── keeping ──

    def trusts(self, peer: NodeId, now: float) -> bool:
        """Say whether a secret with that node may be agreed on."""
        until = self._distrusted.get(peer)
        if until is not None and until <= now:
            del self._distrusted[peer]
            until = None
        return until is None

    def keep_first(
        self,
        pair: Pair,
        secret: bytes,
        open_: bytes,
        accept: bytes,
        *,
        always_mix: bool,
        now: float,
    ) -> Kept:
        """Keep the secret that a handshake with signatures leaves.

        Its acceptor may ask by it at once: if the ACCEPT is lost, it learns so, and opens with signatures too.
        """
        rs = self._schedule.first(secret, open_, accept)
        kept = self._make(pair, rs, always_mix=always_mix, signed_at=now, mixed_at=now, count=0, now=now)
        kept.confirmed = True
        kept.took_s = self._took.get(pair.peer, 0.0)
        self._add(kept)
        return kept

    def _make(
        self, pair: Pair, rs: bytearray, *, always_mix: bool, signed_at: float, mixed_at: float, count: int, now: float
    ) -> Kept:
        me, peer, schedule = self._me, pair.peer, self._schedule
        return Kept(
            pair,
            rs,
            always_mix,
            signed_at,
            mixed_at,
            now + IDLE_S,
            own_id=schedule.ask_id(rs, me, peer),
            own_back_id=schedule.back_id(rs, me, peer),
            ask_id=schedule.ask_id(rs, peer, me),
            back_id=schedule.back_id(rs, peer, me),
            count=count,
        )

    def _add(self, kept: Kept) -> None:
        peer = kept.pair.peer
        own = self._kept.setdefault(peer, [])
        self._kept.move_to_end(peer)
        own.append(kept)
        self._by_id[kept.ask_id] = kept
        while len(own) > PER_PEER_MAX:
            self._drop(own[0])
        if len(self._kept) > PEER_COUNT_MAX:
            self.forget(next(iter(self._kept)))

    def _drop(self, kept: Kept) -> None:
        """Erase a kept secret.  No-op if it is not kept."""
        own = self._kept.get(kept.pair.peer, [])
        if kept in own:
            own.remove(kept)
            if not own:
                del self._kept[kept.pair.peer]
        self._by_id.pop(kept.ask_id, None)
        if (asking := self._asking.pop(kept.ask_id, None)) is not None:
            asking.erase()
        kept.erase()

    def _take_out(self, kept: Kept) -> None:
        """Remove a secret that is in use, unerased."""
        own = self._kept.get(kept.pair.peer, [])
        if kept in own:
            own.remove(kept)
            if not own:
                del self._kept[kept.pair.peer]
        self._by_id.pop(kept.ask_id, None)

    def forget(self, peer: NodeId) -> None:
        """Erase everything that was agreed with a node: it is another process, or a member no more."""
        for kept in list(self._kept.get(peer, [])):
            self._drop(kept)
        for asked in [asked for asked in self._asked.values() if asked.peer == peer]:
            self.give_up(asked)
        for ask_id, answered in list(self._answered.items()):
            if answered.old.pair.peer == peer:
                answered.erase_old()
                del self._answered[ask_id]

    def signed(self, peer: NodeId, now: float) -> None:
        """Take note that a peer signs: so it has no secret that serves, and who else has one must not use it.

        What both signed for a moment ago stays: both may have opened at once.
        """
        for kept in list(self._kept.get(peer, [])):
            if kept.resumed or kept.signed_at < now - SIGNED_TOGETHER_S:
                self._drop(kept)
        for answered in self._answered.values():
            if answered.old.pair.peer == peer:
                answered.erase_old()

    def forget_all(self) -> None:
        """Erase everything: this node acts under another credential."""
        for peer in {*self._kept, *(asked.peer for asked in self._asked.values())}:
            self.forget(peer)
        for answered in self._answered.values():
            answered.erase_old()
        self._answered.clear()

    def used(self, peer: NodeId, now: float) -> None:
        """Take note that there was a stream with a peer until just now."""
        for kept in self._kept.get(peer, []):
            kept.idle_until = now + IDLE_S

    # ── asking ──

    def find(self, pair: Pair, now: float) -> Kept | None:
        """Return the secret to resume with; secrets of another boot or chain, and old ones, are erased."""
        for kept in list(self._kept.get(pair.peer, [])):
            if kept.pair != pair or kept.expires_at <= now:
                self._drop(kept)
        return next((kept for kept in reversed(self._kept.get(pair.peer, [])) if kept.confirmed), None)

    def ask(self, kept: Kept, ahead: Terms, now: float) -> Asked:
        """Make the RESUME for a secret that find() returned; the secret serves nothing else any more.

        It stays under its id until the answer is here: the peer may ask by it at the same moment.
        """
        share = exchange.Share.generate(with_ml=kept.mixes(now))
        early = self._schedule.early(kept.secret, self._ends(kept, asks=True))
        draft = Resume(share.x_public, share.ml_public, bytes(17))
        box = self._schedule.seal_ahead(early, draft.head(), ahead)
        message = Resume(share.x_public, share.ml_public, box).encode()
        kept.confirmed = False  # find() returns it no more
        patience_s = min(max(GIVE_UP_S, 4 * kept.took_s), GIVE_UP_S_MAX)
        asked = Asked(kept, share, early, message, now, now + REPEAT_S, now + patience_s)
        self._asked[kept.own_back_id] = asked
        return asked

    def _ends(self, kept: Kept, *, asks: bool) -> Ends:
        me, peer = (self._me, self._boot), (kept.pair.peer, kept.pair.peer_boot)
        (asker, asker_boot), (answerer, answerer_boot) = (me, peer) if asks else (peer, me)
        return Ends(asker, answerer, asker_boot, answerer_boot)

    def receive_resumed(
        self, back_id: bytes, body: bytes, now: float, check: Callable[[Pair, Terms], None]
    ) -> tuple[Asked, Terms, Outcome]:
        """Take a RESUMED.  Raises RemoteProtocolError; the RESUME then waits on, unless the peer's terms are stale."""
        asked = self._asked.get(back_id)
        if asked is None:
            raise RemoteProtocolError(Drop.LATE)
        resumed, digest = Resumed.decode_untrusted(body), kdf.sha256(asked.message)
        if not self._trials.take(back_id, now):
            raise RemoteProtocolError(Drop.FLOOD)
        hs = self._schedule.handshake(asked.early, asked.share.agree(resumed.x_public, resumed.ml_ciphertext))
        try:
            back = self._schedule.unseal_back(hs, digest, resumed)
            check_terms(back)
            check(asked.kept.pair, back)
            master = self._schedule.master(hs, asked.message, body)
        except AuthError:
            raise RemoteProtocolError(Drop.SEAL) from None
        finally:
            hs[:] = bytes(len(hs))
        took_s = now - asked.began_at
        kept = self._next(asked.kept, master, mixed=bool(asked.share.ml_public), now=now)
        kept.confirmed = True  # the peer made it before it answered
        self._note_took(kept, took_s)
        self.give_up(asked)
        self._succeed(kept)
        return asked, back, Outcome(kept, master, self._schedule)

    def _next(self, old: Kept, master: bytearray, *, mixed: bool, now: float) -> Kept:
        kept = self._make(
            old.pair,
            self._schedule.next(master),
            always_mix=old.always_mix,
            signed_at=old.signed_at,
            mixed_at=now if mixed else old.mixed_at,
            count=0 if mixed else old.count + 1,
            now=now,
        )
        kept.took_s = old.took_s
        kept.resumed = True
        return kept

    def _note_took(self, kept: Kept, took_s: float) -> None:
        kept.took_s = took_s
        self._took.pop(kept.pair.peer, None)
        self._took[kept.pair.peer] = took_s
        if len(self._took) > PEER_COUNT_MAX:
            self._took.popitem(last=False)

    def _succeed(self, kept: Kept) -> None:
        """Keep the secret of an exchange that both know to have worked, and no other of the pair."""
        for other in list(self._kept.get(kept.pair.peer, [])):
            if other is not kept:
                self._drop(other)
        if kept not in self._kept.get(kept.pair.peer, []):
            self._add(kept)

    def give_up(self, asked: Asked) -> None:
        """Erase a RESUME and its secret: nobody uses them any more."""
        self._asked.pop(asked.kept.own_back_id, None)
        self._drop(asked.kept)
        asked.erase()

    def unknown(self, own_id: bytes, now: float) -> None:
        """Take note that somebody says not to know the secret; a better answer may be on its way."""
        for asked in self._asked.values():
            if asked.kept.own_id == own_id:
                answer_s = max(now - asked.began_at, asked.kept.took_s)
                asked.until = min(asked.until, now + min(max(UNKNOWN_S_MIN, 4 * answer_s), UNKNOWN_S_MAX))
                asked.repeat_at = float("inf")

    def asked_by(self, back_id: bytes) -> Asked | None:
        """Return the RESUME that a RESUMED of that id answers."""
        return self._asked.get(back_id)

    def asked_of(self, peer: NodeId) -> Asked | None:
        """Return the RESUME to a peer that has no answer yet."""
        return next((asked for asked in self._asked.values() if asked.peer == peer), None)

    # ── answering ──

    def receive_resume(
        self, ask_id: bytes, body: bytes, now: float, check: Callable[[Pair, Terms], None]
    ) -> Asking | Answer | None:
        """Take a RESUME.  Returns it for answer(); or the answer to one that came again; or None if it waits for one.

        check: raises RemoteProtocolError for terms that do not fit; the secret is then erased.  Raises
        RemoteProtocolError: a word of Drop, or another.
        """
        answered = self._answered.get(ask_id)
        if answered is not None:
            return self._again(answered, body, now)
        kept = self._by_id.get(ask_id)
        if kept is None:
            raise RemoteProtocolError(Drop.USED if ask_id in self._used else Drop.UNKNOWN)
        waiting = self._asking.get(ask_id)
        if waiting is not None and waiting.message == body:
            return None
        asked = self.asked_of(kept.pair.peer)
        if asked is not None and asked.kept is kept and self._me < kept.pair.peer:
            return None  # both asked at once: this node's counts
        if kept.expires_at <= now:
            self._drop(kept)
            raise RemoteProtocolError(Drop.STALE)
        resume = Resume.decode_untrusted(body)
        if not self._trials.take(ask_id, now):
            raise RemoteProtocolError(Drop.FLOOD)
        early = self._schedule.early(kept.secret, self._ends(kept, asks=False))
        try:
            ahead = self._schedule.unseal_ahead(early, resume)
        except AuthError:
            early[:] = bytes(len(early))
            raise RemoteProtocolError(Drop.SEAL) from None
        if waiting is not None:
            self.distrust(kept.pair.peer, now)
            raise RemoteProtocolError(Drop.CONFLICT)
        try:
            check_terms(ahead)
            check(kept.pair, ahead)
            if not resume.ml_public and (kept.always_mix or kept.count >= MIX_COUNT):
                raise RemoteProtocolError(Drop.NO_KEM)
            agreed = exchange.answer(resume.x_public, resume.ml_public)  # now: a bad key is refused before all else
        except RemoteProtocolError:
            self._drop(kept)
            early[:] = bytes(len(early))
            raise
        hs = self._schedule.handshake(early, agreed.secret)
        asking = Asking(kept, body, early, hs, agreed.public, ahead, mixed=bool(resume.ml_public))
        self._asking[ask_id] = asking
        return asking

    def peer_of(self, ask_id: bytes) -> NodeId | None:
        """Return who may ask by an id, or has asked a moment ago."""
        answered, kept = self._answered.get(ask_id), self._by_id.get(ask_id)
        if answered is not None:
            return answered.old.pair.peer
        return None if kept is None else kept.pair.peer

    def _again(self, answered: _Answered, body: bytes, now: float) -> Answer:
        """Return the answer that a repeated RESUME got; raise for another one under the same secret."""
        if kdf.sha256(body) == answered.digest:
            return Answer(answered.old.pair.peer, answered.old.back_id, answered.answer)
        resume = Resume.decode_untrusted(body)
        if not any(answered.early):
            raise RemoteProtocolError(Drop.USED)
        if not self._trials.take(answered.old.ask_id, now):
            raise RemoteProtocolError(Drop.FLOOD)
        try:
            self._schedule.unseal_ahead(answered.early, resume)
        except AuthError:
            raise RemoteProtocolError(Drop.SEAL) from None
        self.distrust(answered.old.pair.peer, now)
        raise RemoteProtocolError(Drop.CONFLICT)

    def distrust(self, peer: NodeId, now: float) -> None:
        """Erase all secrets with a node, and agree on none for an hour: somebody else had one."""
        self.forget(peer)
        self._distrusted.pop(peer, None)
        self._distrusted[peer] = now + DISTRUST_S
        if len(self._distrusted) > PEER_COUNT_MAX:
            self._distrusted.popitem(last=False)

    def answer(self, asking: Asking, back: Terms, now: float) -> tuple[bytes, Outcome] | None:
        """Return the RESUMED and its secret.  None: the secret was erased meanwhile, and the RESUME gets no answer."""
        kept, agreed, hs = asking.kept, asking.agreed, asking.hs
        if self._asking.pop(kept.ask_id, None) is not asking or kept.is_erased:
            asking.erase()
            return None
        asked = self.asked_of(kept.pair.peer)
        if asked is not None and asked.kept is kept:  # both asked at once, and the peer's counts
            self._asked.pop(kept.own_back_id)
            asked.share.erase()
            asked.early[:] = bytes(len(asked.early))
        draft = Resumed(agreed.x_public, agreed.ml_ciphertext, bytes(17))
        digest = kdf.sha256(asking.message)
        box = self._schedule.seal_back(hs, digest, draft.head(), back)
        message = Resumed(agreed.x_public, agreed.ml_ciphertext, box).encode()
        master = self._schedule.master(hs, asking.message, message)
        hs[:] = bytes(len(hs))
        new = self._next(kept, master, mixed=asking.mixed, now=now)
        self._take_out(kept)
        self._note_used(kept.ask_id, now)
        self._answered[kept.ask_id] = _Answered(
            digest, message, now + ANSWER_S, kept, asking.early, new, now + HALF_OPEN_S
        )
        self._add(new)
        return message, Outcome(new, master, self._schedule)

    def _note_used(self, ask_id: bytes, now: float) -> None:
        while self._used and (len(self._used) >= USED_COUNT_MAX or next(iter(self._used.values())) <= now):
            self._used.popitem(last=False)
        self._used[ask_id] = now + USED_S

    def confirm(self, kept: Kept) -> None:
        """Take note that a frame verified under the keys that came with a secret: the peer has it."""
        for answered in self._answered.values():
            if answered.next is kept:
                answered.erase_old()
        if kept in self._kept.get(kept.pair.peer, []):
            kept.confirmed = True
            if kept.resumed:
                self._succeed(kept)

    # ── time ──

    def next_timeout(self) -> float | None:
        """When handle_timeout() wants to be called, or None."""
        return min(self._deadlines(), default=None)

    def _deadlines(self) -> Iterator[float]:
        for asked in self._asked.values():
            yield min(asked.repeat_at, asked.until)
        for answered in self._answered.values():
            yield answered.open_until if any(answered.early) else answered.until
        for own in self._kept.values():
            yield from (kept.expires_at for kept in own)

    def handle_timeout(self, peers: frozenset[NodeId], *, now: float) -> tuple[list[Asked], list[Asked]]:
        """Erase what is too old.  peers: with whom there are streams.  Returns what to repeat, and what is given up."""
        for own in list(self._kept.values()):
            for kept in list(own):
                if kept.idle_until <= now and kept.pair.peer in peers:
                    kept.idle_until = now + IDLE_S
                if kept.expires_at <= now:
                    self._drop(kept)
        for ask_id, answered in list(self._answered.items()):
            if answered.open_until <= now and any(answered.early):
                answered.erase_old()
                if not answered.next.confirmed:
                    self._drop(answered.next)
            if answered.until <= now:
                del self._answered[ask_id]
        repeated = [asked for asked in self._asked.values() if asked.repeat_at <= now < asked.until]
        for asked in repeated:
            asked.repeat_at = float("inf")
        ended = [asked for asked in self._asked.values() if asked.until <= now]
        for asked in ended:
            self.give_up(asked)
        return repeated, ended
