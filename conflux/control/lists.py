"""How signed lists spread: every node compares with those it meets, and asks for what it lacks.

    made here  ──LIST──► all             who misses it hears of another digest by one of the others, and asks
    a digest is another one ──LISTS_ASK: my rows──► peer
                            ◄──LIST, LIST ... ─────  those that I lack
                            ◄──LISTS_ASK: its rows─  the answer; what the peer lacks goes to it

Lists prove themselves, and asking tells nothing.  So both messages are taken from anybody, verified sender or not: a
node that was away learns before it knows anybody's card, also from a node whose own credential has ended.  Budgets keep
that cheap.  Nobody is asked twice at once, nor again for what the answer did not settle.
"""

from __future__ import annotations

import random
from collections import Counter, OrderedDict, deque
from collections.abc import Hashable
from dataclasses import dataclass
from typing import NamedTuple

from conflux.budget import BudgetTable, Ration, SharedBudget, TokenBucket
from conflux.control.drop import Drop
from conflux.control.envelope import Kind, Reach
from conflux.errors import RemoteProtocolError
from conflux.ids import NODE_ID_BYTES, NodeId
from conflux.realm.listbook import DIGEST_BYTES, LIST_COUNT_MAX, Change, ListBook, Row, digest_of
from conflux.realm.lists import KIND_MAX, ListKey, SignedList
from conflux.record import Record, flag, nested, octets, sequence, uint

ROW_COUNT_MAX = 2 * LIST_COUNT_MAX  # the root's are held beside the others
ASK_RETRY_S = (0.3, 1.2)  # after the first try; then the next sign of the peer begins anew
ASK_AGAIN_S = 60.0  # a peer whose answer left a difference is not asked about the same one sooner
ASKING_COUNT_MAX = 4  # sources asked at once: what one of them tells is mostly what all would
ASK_COUNT_MAX = 256  # peers asked lately; the oldest is forgotten
ASK_RATE, ASK_BURST = 5.0, 20.0  # per second and at once: each is answered with up to 24 kB a list
# Of these for what one source says: it may speak in any names, and must not keep this node from asking others.
SHARE_RATE, SHARE_BURST = 1.0, 5.0
HINT_SHARE_MAX = 32
HINT_SPREAD_S = 1.0  # many hear a presence: they ask its sender one by one, and most find by then that all is well

# Answers to one source, and to all sources of a channel: who lies about senders has as many as it likes.
# A list that ANSWER_MANY nodes want within a second goes to all instead.
ANSWERS_EACH, ANSWERS_TOTAL = Ration(1.0, 6.0), Ration(20.0, 120.0)
# Of these to nodes whose card is not here: anybody can ask in their names, and one answer is up to 24 kB a list.
STRANGERS_EACH, STRANGERS_TOTAL = Ration(0.1, 6.0), Ration(2.0, 32.0)
ANSWER_MANY = 4
ANSWER_WINDOW_S = 1.0
FLOOD_AGAIN_S = 2.0  # between two times that a list goes to all
FLOOD_PAUSE_S = 0.25  # what is asked for meanwhile is on its way; who still lacks it asks again
# Verifying a list takes 3 ms on a server and 30 on a small board.
LEARN_EACH, LEARN_TOTAL = Ration(2.0, 16.0), Ration(8.0, 64.0)
SOURCE_COUNT_MAX = 256

# After start, and after a time without a neighbour, nobody's stream is accepted for so long: others are asked first.
SETTLE_S = 0.5
SETTLE_S_MAX = 2.0  # while an answer is out
ANNOUNCE_S_MIN, ANNOUNCE_S_MAX = 0.5, 8.0  # a node that learnt says so then: a thousand do not speak at once


@dataclass(frozen=True, slots=True)
class _WireRow(Record):
    """One list as its holder has it."""

    SHAPES = (uint(KIND_MAX), octets(NODE_ID_BYTES), uint(), octets(DIGEST_BYTES))

    kind: int
    signer: NodeId
    number: int
    check: bytes


@dataclass(frozen=True, slots=True)
class Asking(Record):
    """Body of LISTS_ASK: what the sender holds; it wants what is newer.  answers: it was asked just so itself."""

    BYTES_MAX = 64 + 48 * ROW_COUNT_MAX
    SHAPES = (sequence(nested(_WireRow), ROW_COUNT_MAX), flag())

    held: tuple[_WireRow, ...]
    answers: bool

    @classmethod
    def of(cls, book: ListBook, *, answers: bool) -> Asking:
        """Return the body that says what a book holds."""
        held = tuple(_WireRow(row.key.kind, row.key.signer, row.number, row.check) for row in book.rows())
        return cls(held, answers)

    def rows(self) -> tuple[Row, ...]:
        """Return what the sender holds."""
        return tuple(Row(ListKey(row.kind, row.signer), row.number, row.check) for row in self.held)


class Send(NamedTuple):
    """One message to sign and send, plain.  to: None for all nodes."""

    to: NodeId | None
    kind: Kind
    body: bytes
    reach: Reach = Reach.REALM


@dataclass(slots=True)
class _Ask:
    """A peer that was asked, and about which difference.  next_at: None if it is not asked again."""

    theirs: bytes
    mine: bytes
    at: float
    next_at: float | None
    source: Hashable
    try_count: int = 0


class _Hint(NamedTuple):
    """A peer that is to be asked later, and about which digest."""

    at: float
    theirs: bytes
    source: Hashable


class Lists:
    """One node's part in the spreading of lists."""

    def __init__(self, book: ListBook, *, me: NodeId, rng: random.Random) -> None:
        self.book = book
        self.drops: Counter[str] = Counter()
        self.announce_at: float | None = None  # when a presence should say that the lists are others now
        self._me = me
        self._rng = rng
        self._asks: OrderedDict[NodeId, _Ask] = OrderedDict()
        self._hints: dict[NodeId, _Hint] = {}
        self._ask_budget = TokenBucket(ASK_RATE, ASK_BURST)
        self._ask_shares = BudgetTable(SHARE_RATE, SHARE_BURST, SOURCE_COUNT_MAX)
        self._answer_budget = SharedBudget(each=ANSWERS_EACH, total=ANSWERS_TOTAL, count_max=SOURCE_COUNT_MAX)
        self._stranger_budget = SharedBudget(each=STRANGERS_EACH, total=STRANGERS_TOTAL, count_max=SOURCE_COUNT_MAX)
        self._learn_budget = SharedBudget(each=LEARN_EACH, total=LEARN_TOTAL, count_max=SOURCE_COUNT_MAX)
        self._wanted: dict[ListKey, deque[float]] = {}  # when each was sent to one node lately
        self._flooded: dict[ListKey, float] = {}  # when each went to all
        self._settles_at: float | None = None  # None: no neighbour yet
        self._sends: deque[Send] = deque()
        self._changes: deque[Change] = deque()

    @property
    def digest(self) -> bytes:
        """The digest that this node tells its peers."""
        return self.book.digest

    # ── inputs ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def publish(self, signed: SignedList, *, now: float) -> None:
        """Take a list that was signed here, and send it to all at once.  Raises RemoteProtocolError."""
        change = self.book.learn(signed)
        if change is not None:
            self._changed(change, now)
        self._flood(signed, now)

    def hear(self, peer: NodeId, digest: bytes, *, now: float, direct: bool, source: Hashable = None) -> None:
        """Compare with the digest that a peer tells; whether it is who it says makes no difference.

        direct: it told this node alone, so nobody else asks because of it.  source: who handed it over; None: the peer.
        """
        source = peer if source is None else source
        if digest == self.digest or peer == self._me:
            self._hints.pop(peer, None)
            self._asks.pop(peer, None)
            return
        if self._was_asked(peer, digest, now):
            return
        asking = {ask.source for ask in self._asks.values() if ask.next_at is not None}
        if direct and source not in asking and len(asking) < ASKING_COUNT_MAX:
            self._ask(peer, digest, source, now)
        elif peer not in self._hints and self._has_room(source):
            self._hints[peer] = _Hint(now + self._rng.uniform(0.0, HINT_SPREAD_S), digest, source)

    def _was_asked(self, peer: NodeId, digest: bytes, now: float) -> bool:
        """Say whether a peer is being asked, or was about the same difference a short time ago."""
        asked = self._asks.get(peer)
        if asked is None:
            return False
        same = (asked.theirs, asked.mine) == (digest, self.digest)
        return asked.next_at is not None or (same and now < asked.at + ASK_AGAIN_S)

    def _has_room(self, source: Hashable) -> bool:
        """Say whether one more peer can be asked later because of a source."""
        of_source = sum(hint.source == source for hint in self._hints.values())
        return len(self._hints) < ASK_COUNT_MAX and of_source < HINT_SHARE_MAX

    def met(self, *, now: float) -> None:
        """Take note that there is a neighbour again, or that a message came: from now on others can be asked."""
        if self._settles_at is None:
            self._settles_at = now + SETTLE_S

    def alone(self) -> None:
        """Take note that no channel reaches anybody."""
        self._settles_at = None

    def receive_untrusted(
        self, peer: NodeId, kind: Kind, body: bytes, source: Hashable, *, now: float, known: bool = True
    ) -> None:
        """Take a LISTS_ASK or LIST.  Raises RemoteProtocolError.

        peer: who says that it sent it.  source: who handed it over, whom budgets are charged to.  known: it is certain
        that peer asks.
        """
        if kind is Kind.LIST:
            self._receive_list_untrusted(SignedList.decode_untrusted(body), source, now)
        else:
            if not known and not self._stranger_budget.take(_group(source), source, now):
                raise RemoteProtocolError(Drop.FLOOD, "lists are asked for in the names of strangers")
            self._receive_ask_untrusted(peer, Asking.decode_untrusted(body), source, now)

    def _receive_list_untrusted(self, signed: SignedList, source: Hashable, now: float) -> None:
        if not self.book.may_be_news(signed):
            return  # one of many copies
        if not self._learn_budget.take(_group(source), source, now):
            raise RemoteProtocolError(Drop.FLOOD, "lists")
        change = self.book.learn(signed)
        if change is not None:
            self._changed(change, now)

    def _receive_ask_untrusted(self, peer: NodeId, asking: Asking, source: Hashable, now: float) -> None:
        if not self._answer_budget.take(_group(source), source, now):
            raise RemoteProtocolError(Drop.FLOOD, "lists are asked for")
        rows = asking.rows()
        is_older = self.book.older_than(rows)
        for signed in self.book.newer_than(rows):
            self._answer(peer, signed, now)
        if not asking.answers:
            self._sends.append(Send(peer, Kind.LISTS_ASK, Asking.of(self.book, answers=True).encode()))
            if is_older:  # the peer sends what is newer, as it has our rows; if that is lost, ask again
                self._expect(peer, digest_of(rows), source, now)
        elif not is_older and (asked := self._asks.get(peer)) is not None:
            asked.next_at = None

    # ── is a stream accepted now? ─────────────────────────────────────────────────────────────────────────────────────

    def settles_at(self, now: float) -> float | None:
        """Return until when an OPEN waits, as others may know that its sender is revoked; None: it does not wait.

        What the sender itself tells would not help: a revoked node can say that it knows of nothing.
        """
        self.met(now=now)
        assert self._settles_at is not None
        if now < self._settles_at:
            return self._settles_at
        until = self._settles_at - SETTLE_S + SETTLE_S_MAX
        is_asking = any(ask.next_at is not None and ask.at < self._settles_at for ask in self._asks.values())
        return until if is_asking and now < until else None

    # ── doors of a machine ────────────────────────────────────────────────────────────────────────────────────────────

    def next_send(self) -> Send | None:
        """Return the next message to sign and send."""
        return self._sends.popleft() if self._sends else None

    def next_change(self) -> Change | None:
        """Return the next change of what is held."""
        return self._changes.popleft() if self._changes else None

    def next_timeout(self) -> float | None:
        """Return when handle_timeout() has something to do."""
        due = [ask.next_at for ask in self._asks.values() if ask.next_at is not None]
        return min([*due, *(hint.at for hint in self._hints.values())], default=None)

    def handle_timeout(self, *, now: float) -> None:
        """Ask those that are due."""
        for peer, hint in [each for each in self._hints.items() if each[1].at <= now]:
            del self._hints[peer]
            self.hear(peer, hint.theirs, now=now, direct=True, source=hint.source)
        for peer, ask in [each for each in self._asks.items() if each[1].next_at is not None]:
            if ask.next_at is not None and ask.next_at <= now:
                self._try(peer, ask, now)

    # ── sending ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _ask(self, peer: NodeId, digest: bytes, source: Hashable, now: float) -> None:
        ask = self._expect(peer, digest, source, now)
        if ask is not None:
            self._try(peer, ask, now)

    def _expect(self, peer: NodeId, digest: bytes, source: Hashable, now: float) -> _Ask | None:
        """Ask a peer from now on until it has answered; None if it was asked lately, or too many are.

        Two nodes that cannot take each other's lists would else cause each other's questions, for ever.
        """
        if self._was_asked(peer, digest, now):
            return None
        if not self._ask_shares.take(source, now) or not self._ask_budget.take(now):
            self.drops[Drop.FLOOD] += 1
            return None
        self._hints.pop(peer, None)
        self._asks.pop(peer, None)
        if len(self._asks) >= ASK_COUNT_MAX:
            self._asks.popitem(last=False)
        ask = self._asks[peer] = _Ask(digest, self.digest, now, now + ASK_RETRY_S[0], source)
        return ask

    def _try(self, peer: NodeId, ask: _Ask, now: float) -> None:
        if ask.try_count > len(ASK_RETRY_S):
            ask.next_at = None
            return
        self._sends.append(Send(peer, Kind.LISTS_ASK, Asking.of(self.book, answers=False).encode()))
        ask.next_at = now + ASK_RETRY_S[min(ask.try_count, len(ASK_RETRY_S) - 1)]
        ask.try_count += 1

    def _answer(self, peer: NodeId, signed: SignedList, now: float) -> None:
        flooded_s = now - self._flooded.get(signed.key, float("-inf"))
        if flooded_s < FLOOD_PAUSE_S:
            return
        wanted = self._wanted.setdefault(signed.key, deque(maxlen=ANSWER_MANY))
        wanted.append(now)
        many = len(wanted) == ANSWER_MANY and now - wanted[0] < ANSWER_WINDOW_S
        if many and flooded_s >= FLOOD_AGAIN_S:
            self._flood(signed, now)
        else:
            self._sends.append(Send(peer, Kind.LIST, signed.encode()))

    def _flood(self, signed: SignedList, now: float) -> None:
        self._flooded[signed.key] = now
        self._sends.append(Send(None, Kind.LIST, signed.encode()))

    def _changed(self, change: Change, now: float) -> None:
        self._changes.append(change)
        self.announce_at = now + self._rng.uniform(ANNOUNCE_S_MIN, ANNOUNCE_S_MAX)
        self._hints.clear()  # they were about what was held before; who still differs asks when this node says so
        for peer in [peer for peer, ask in self._asks.items() if ask.theirs == self.digest]:
            del self._asks[peer]


def _group(source: Hashable) -> Hashable:
    """Return whose total a source is of: the channel that it came by."""
    return source[0] if isinstance(source, tuple) else None
