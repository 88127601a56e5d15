"""How policies spread: who holds which, who is asked for a newer one, and what of it is still to come.

    who publishes:  POLICY_TELL, POLICY_HEAD and the first pieces to all at once
    who holds one:  POLICY_TELL with each PRESENCE, and to a neighbour that comes
    who lacks it:   POLICY_ASK, for the head and then for the pieces ─► POLICY_HEAD, POLICY_PIECE

A policy proves itself, so it may come from any node.  A build that knows no policy drops these messages by their kind.
A realm without a policy sends none of them.
"""

from __future__ import annotations

import random
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from conflux.budget import Ration, SharedBudget
from conflux.control.drop import Drop
from conflux.control.envelope import Kind, Reach
from conflux.control.lists import Send
from conflux.errors import RemoteProtocolError
from conflux.ids import NodeId
from conflux.realm.card import Card
from conflux.realm.credential import SKEW_S, UNIX_S_MAX
from conflux.realm.policy import DIGEST_BYTES, PIECE_BYTES, PIECE_COUNT_MAX, PolicyHead, Rank, SignedPolicy
from conflux.realm.policybook import PolicyBook
from conflux.record import Record, octets, uint

FETCH_COUNT_MAX = 4  # policies fetched at once, each told by another source: mostly one, unless somebody lies
HOLDER_COUNT_MAX = 8  # nodes that a policy is asked of, one after the other
ASK_RETRY_S = (0.5, 1.0, 1.5, 2.0, 4.0)  # after each question that brought nothing; then it is given up
ASK_COUNT_MAX = 4  # pieces asked for at once
FLOODED_WAIT_S = 0.5  # a head that nobody asked for was sent to all, and the pieces may be behind it
FORGET_S = 60.0  # a policy that did not hold, or that nobody gave, is not asked for sooner
REFUSED_COUNT_MAX = 64
FLOOD_PIECE_COUNT_MAX = 2  # a thousand rules; what is larger is asked for, by few nodes at a time
OWED_COUNT_MAX = 64
OWED_WAIT_S, OWED_SPREAD_S = 0.5, 2.0  # who said that it is there says what it holds within that time, or is told
ANNOUNCE_S_MIN, ANNOUNCE_S_MAX = 0.5, 6.0  # a node that learnt says so then: a thousand do not speak at once

# Answers to one source, and to all of a channel; a piece that ANSWER_MANY nodes want within a second goes to all.
ANSWERS_EACH, ANSWERS_TOTAL = Ration(4.0, 24.0), Ration(20.0, 120.0)
STRANGERS_EACH, STRANGERS_TOTAL = Ration(0.5, 20.0), Ration(4.0, 40.0)  # in the names of nodes without a card here
ANSWER_MANY, ANSWER_WINDOW_S, FLOOD_AGAIN_S, FLOOD_PAUSE_S = 4, 1.0, 2.0, 0.25
# Verifying a head takes 5 ms on a server and 50 on a small board.
LEARN_EACH, LEARN_TOTAL = Ration(0.5, 4.0), Ration(2.0, 16.0)
SOURCE_COUNT_MAX = 256

_HEAD = 0  # as a place


@dataclass(frozen=True, slots=True)
class PolicyTold(Record):
    """Body of POLICY_TELL: the policy that the sender holds."""

    BYTES_MAX = 64
    SHAPES = (uint(UNIX_S_MAX), octets(DIGEST_BYTES))

    number: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class PolicyAsked(Record):
    """Body of POLICY_ASK.  place: 0 for the head, else a piece, from 1."""

    BYTES_MAX = 64
    SHAPES = (octets(DIGEST_BYTES), uint(PIECE_COUNT_MAX))

    digest: bytes
    place: int


@dataclass(frozen=True, slots=True)
class PolicyPiece(Record):
    """Body of POLICY_PIECE.  place: from 1."""

    BYTES_MAX = PIECE_BYTES + 64
    SHAPES = (octets(DIGEST_BYTES), uint(PIECE_COUNT_MAX), octets(1, PIECE_BYTES))

    digest: bytes
    place: int
    data: bytes


@dataclass(slots=True)
class _Fetch:
    """A policy that is on its way here.  holders: who said that it has it, and by whom that came."""

    source: Hashable  # by which it was heard of first
    next_at: float
    head: PolicyHead | None = None
    pieces: dict[int, bytes] = field(default_factory=dict)
    holders: OrderedDict[NodeId, None] = field(default_factory=OrderedDict)
    tries: int = 0


@dataclass(slots=True)
class _Owed:
    """A node that said that it is there, and not what policy it holds."""

    at: float
    reach: Reach


class Policies:
    """One node's part in the spreading of the policy."""

    def __init__(self, book: PolicyBook, *, me: NodeId, rng: random.Random, clock: Callable[[], int]) -> None:
        self.book = book
        self.drops: Counter[str] = Counter()
        # Told of another policy that counts (None: there is none any more), and of every card that is kept.
        self.learnt: Callable[[SignedPolicy | None], None] | None = None
        self.card_stored: Callable[[Card], None] | None = None
        self.announce_at: float | None = None  # when a presence should say that the policy is another one now
        self._me = me
        self._rng = rng
        self._clock = clock
        self._fetches: dict[Rank, _Fetch] = {}
        self._refused: OrderedDict[Rank, float] = OrderedDict()  # until when it is not asked for
        self._owed: OrderedDict[NodeId, _Owed] = OrderedDict()
        self._answer_budget = SharedBudget(each=ANSWERS_EACH, total=ANSWERS_TOTAL, count_max=SOURCE_COUNT_MAX)
        self._stranger_budget = SharedBudget(each=STRANGERS_EACH, total=STRANGERS_TOTAL, count_max=SOURCE_COUNT_MAX)
        self._learn_budget = SharedBudget(each=LEARN_EACH, total=LEARN_TOTAL, count_max=SOURCE_COUNT_MAX)
        self._wanted: dict[int, deque[float]] = {}  # by place: when each was sent to one node lately
        self._flooded: dict[int, float] = {}  # by place: when each went to all
        self._sends: deque[Send] = deque()
        self._rank = book.rank  # as it was told

    # ── inputs ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def publish(self, policy: SignedPolicy, *, now: float) -> None:
        """Take a policy that was signed here, and send it to all at once.  Raises RemoteProtocolError."""
        if self.book.learn(policy):
            self._changed(now)
        self.tell(None, Reach.REALM)
        self._flood(_HEAD, now)
        if len(policy.pieces) <= FLOOD_PIECE_COUNT_MAX:
            for place in range(1, len(policy.pieces) + 1):
                self._flood(place, now)

    def tell(self, to: NodeId | None, reach: Reach) -> None:
        """Say what this node holds; nothing if it holds none."""
        rank = self.book.rank
        if rank is not None:
            self._sends.append(Send(to, Kind.POLICY_TELL, PolicyTold(*rank).encode(), reach))

    def there(self, peer: NodeId, reach: Reach, *, now: float) -> None:
        """Take note that a node told all that it is there: unless it, or another one, says what holds, it is told."""
        if self.book.rank is None or peer == self._me or len(self._owed) >= OWED_COUNT_MAX:
            return
        at = now + OWED_WAIT_S + self._rng.uniform(0.0, OWED_SPREAD_S)
        self._owed.setdefault(peer, _Owed(at, reach))

    def receive_untrusted(
        self, peer: NodeId, kind: Kind, body: bytes, source: Hashable, *, to_all: bool, now: float, known: bool = True
    ) -> None:
        """Take a message of a kind of POLICY_KINDS.  Raises RemoteProtocolError.

        peer: who says that it sent it.  source: who handed it over, whom budgets are charged to.  known: it is certain
        that peer asks.
        """
        match kind:
            case Kind.POLICY_TELL:
                told = PolicyTold.decode_untrusted(body)
                self._hear(peer, Rank(told.number, told.digest), source, to_all, now)
            case Kind.POLICY_ASK:
                if not known and not self._stranger_budget.take(_group(source), source, now):
                    raise RemoteProtocolError(Drop.FLOOD, "a policy is asked for in the names of strangers")
                self._answer_untrusted(peer, PolicyAsked.decode_untrusted(body), source, now)
            case Kind.POLICY_HEAD:
                self._take_head_untrusted(peer, PolicyHead.decode_untrusted(body), source, now)
            case _:
                self._take_piece_untrusted(PolicyPiece.decode_untrusted(body), now)

    def _hear(self, peer: NodeId, rank: Rank, source: Hashable, to_all: bool, now: float) -> None:
        """Compare with what a peer says that it holds; whether it is who it says makes no difference."""
        if peer == self._me:
            return
        self._owed.pop(peer, None)
        mine = self.book.rank
        if rank == mine:
            if to_all:
                self._owed.clear()  # everybody heard it
        elif mine is not None and rank < mine:
            if to_all:
                self.there(peer, Reach.ALL, now=now)
            else:
                self.tell(peer, Reach.NEAR)
        elif rank.number <= self._clock() + SKEW_S and now >= self._refused.get(rank, now):
            fetch = self._fetch(rank, source, now)
            if fetch is not None and len(fetch.holders) < HOLDER_COUNT_MAX:
                fetch.holders[peer] = None

    def _fetch(self, rank: Rank, source: Hashable, now: float, *, proven: bool = False) -> _Fetch | None:
        """Return the policy on its way of that rank, perhaps a new one; None if there is no room.

        One that is only spoken of makes room for one whose head is here; and of one source one at a time is believed.
        """
        fetch = self._fetches.get(rank)
        if fetch is not None:
            return fetch
        rumours = {each: told for each, told in self._fetches.items() if told.head is None}
        if proven and len(self._fetches) >= FETCH_COUNT_MAX:
            del self._fetches[next(iter(rumours), min(self._fetches))]
        elif not proven:
            of_source = [each for each, told in rumours.items() if told.source == source]
            if of_source and max(of_source) > rank:
                return None
            for lower in of_source:
                del self._fetches[lower]
            if len(self._fetches) >= FETCH_COUNT_MAX:
                self.drops[Drop.FLOOD] += 1
                return None
        fetch = self._fetches[rank] = _Fetch(source, now)
        return fetch

    def _answer_untrusted(self, peer: NodeId, asked: PolicyAsked, source: Hashable, now: float) -> None:
        if not self._answer_budget.take(_group(source), source, now):
            raise RemoteProtocolError(Drop.FLOOD, "a policy is asked for")
        current, rank = self.book.current, self.book.rank
        if current is None or rank is None or rank.digest != asked.digest or asked.place > len(current.pieces):
            return  # it is another one by now, and this node has said so
        flooded_s = now - self._flooded.get(asked.place, float("-inf"))
        if flooded_s < FLOOD_PAUSE_S:
            return
        wanted = self._wanted.setdefault(asked.place, deque(maxlen=ANSWER_MANY))
        wanted.append(now)
        if len(wanted) == ANSWER_MANY and now - wanted[0] < ANSWER_WINDOW_S and flooded_s >= FLOOD_AGAIN_S:
            self._flood(asked.place, now)
        else:
            self._send(peer, asked.place, Reach.REALM)

    def _take_head_untrusted(self, peer: NodeId, head: PolicyHead, source: Hashable, now: float) -> None:
        rank = head.rank
        held = self._fetches.get(rank)
        if rank == self.book.rank or (held is not None and held.head is not None):
            return  # one of many copies
        if now < self._refused.get(rank, now) and held is None:
            return
        if not self._learn_budget.take(_group(source), source, now):
            raise RemoteProtocolError(Drop.FLOOD, "policies")
        try:
            self.book.judge_untrusted(head)
        except RemoteProtocolError:
            self._refuse(rank, now)
            raise
        fetch = self._fetch(rank, source, now, proven=True)
        assert fetch is not None
        if not fetch.holders:
            fetch.holders[peer] = None
        fetch.head, fetch.tries = head, 0
        fetch.next_at = now + FLOODED_WAIT_S if held is None else now

    def _take_piece_untrusted(self, piece: PolicyPiece, now: float) -> None:
        rank = next((each for each in self._fetches if each.digest == piece.digest), None)
        fetch = None if rank is None else self._fetches[rank]
        if rank is None or fetch is None or fetch.head is None:
            return  # it is here already, or the head is still to come
        if not fetch.head.is_piece(piece.place - 1, piece.data):
            raise RemoteProtocolError(Drop.MALFORMED, "not that piece of the policy")
        if piece.place in fetch.pieces:
            return
        fetch.pieces[piece.place] = piece.data
        fetch.tries = 0
        missing = self._missing(fetch)
        if missing:
            if not any(place < piece.place for place in missing):
                fetch.next_at = min(fetch.next_at, now + FLOODED_WAIT_S)
            return
        del self._fetches[rank]
        try:
            policy = SignedPolicy.join_untrusted(fetch.head, [fetch.pieces[place] for place in sorted(fetch.pieces)])
            is_new = self.book.learn(policy)
        except RemoteProtocolError:
            self._refuse(rank, now)
            raise
        if is_new:
            self._changed(now)

    def recheck(self) -> None:
        """Tell if another policy counts now; it may be that its signer was revoked."""
        rank = self.book.rank
        if rank != self._rank:
            self._rank = rank
            if self.learnt is not None:
                self.learnt(self.book.current)

    def stored(self, card: Card) -> None:
        """Take note of a card that is kept."""
        if self.card_stored is not None:
            self.card_stored(card)

    # ── doors of a machine ────────────────────────────────────────────────────────────────────────────────────────────

    def next_send(self) -> Send | None:
        """Return the next message to sign and send."""
        return self._sends.popleft() if self._sends else None

    def next_timeout(self) -> float | None:
        """Return when handle_timeout() has something to do."""
        due = [fetch.next_at for fetch in self._fetches.values()]
        return min([*due, *(owed.at for owed in self._owed.values())], default=None)

    def handle_timeout(self, *, now: float) -> None:
        """Ask for what is missing, and tell what nobody else did."""
        for rank, fetch in [each for each in self._fetches.items() if each[1].next_at <= now]:
            if not self.book.is_news(rank):
                del self._fetches[rank]
            elif fetch.tries >= len(ASK_RETRY_S) or not fetch.holders:
                self._refuse(rank, now)
            else:
                self._ask(rank, fetch, now)
        owed = [each for each in self._owed.values() if each.at <= now]
        if owed:
            self._owed.clear()
            self.tell(None, max(each.reach for each in owed))

    def _ask(self, rank: Rank, fetch: _Fetch, now: float) -> None:
        holder = next(iter(fetch.holders))
        fetch.holders.move_to_end(holder)
        for place in self._missing(fetch)[:ASK_COUNT_MAX] if fetch.head is not None else (_HEAD,):
            self._sends.append(Send(holder, Kind.POLICY_ASK, PolicyAsked(rank.digest, place).encode()))
        fetch.next_at = now + ASK_RETRY_S[fetch.tries]
        fetch.tries += 1

    def _missing(self, fetch: _Fetch) -> list[int]:
        """Return the places of the pieces that are still to come."""
        assert fetch.head is not None
        return [place for place in range(1, len(fetch.head.pieces) + 1) if place not in fetch.pieces]

    def _refuse(self, rank: Rank, now: float) -> None:
        self._fetches.pop(rank, None)
        self._refused.pop(rank, None)
        self._refused[rank] = now + FORGET_S
        if len(self._refused) > REFUSED_COUNT_MAX:
            self._refused.popitem(last=False)

    def _flood(self, place: int, now: float) -> None:
        self._flooded[place] = now
        self._send(None, place, Reach.REALM)

    def _send(self, to: NodeId | None, place: int, reach: Reach) -> None:
        """Send the head or a piece of the policy that counts."""
        current, rank = self.book.current, self.book.rank
        if current is None or rank is None:
            return
        if place == _HEAD:
            self._sends.append(Send(to, Kind.POLICY_HEAD, current.head.encode(), reach))
        else:
            body = PolicyPiece(rank.digest, place, current.pieces[place - 1]).encode()
            self._sends.append(Send(to, Kind.POLICY_PIECE, body, reach))

    def _changed(self, now: float) -> None:
        self.recheck()
        self.announce_at = now + self._rng.uniform(ANNOUNCE_S_MIN, ANNOUNCE_S_MAX)
        self._owed.clear()
        self._wanted.clear()
        self._flooded.clear()
        for rank in [each for each in self._fetches if not self.book.is_news(each)]:
            del self._fetches[rank]


def _group(source: Hashable) -> Hashable:
    """Return whose total a source is of: the channel that it came by."""
    return source[0] if isinstance(source, tuple) else None
