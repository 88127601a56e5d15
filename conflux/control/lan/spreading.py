"""How what is for everybody spreads in a large LAN: each node gets it about once.  Sans-IO.

    along a tree       a node sends what is new to it to its neighbours in the tree, but not back
    beside the tree    it tells some of the others, by eight bytes, that it has it
    GRAFT              who was told of something that does not come asks for it: the tree grows there
    PRUNE              who gets the same again and again from a neighbour asks it to tell instead

It is Plumtree (Leitao, Pereira and Rodrigues, 2007), with three differences: one repeat cuts no branch, as many senders
share the tree; only two are told, as notices are most of the bytes; and a neighbour that swallows is found.  Whoever
brought the last message of a sender is expected to bring the next one; if that comes by GRAFT from another, it is late.
One neighbour alone can make another one late, by telling of what only it has: so it takes two that brought such.
"""

from __future__ import annotations

import random
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from conflux.budget import TokenBucket
from conflux.crypto.kdf import sha256

ID_BYTES: Final = 8
ID_COUNT_MAX: Final = 4096
ID_S: Final = 60.0
KEPT_S: Final = 10.0  # what may still be asked for by GRAFT
KEPT_BYTES_MAX: Final = 1024 * 1024
TOLD_COUNT: Final = 2  # of the neighbours beside the tree
TOLD_OF_QUESTIONS: Final = 1  # a question may be asked again, and most are the bytes of a node that is not there
NOTICE_S: Final = 0.005
GRAFT_S, GRAFT_AGAIN_S = 0.080, 0.040
REPEAT_COUNT: Final = 3
MISSING_EACH_MAX: Final = 64  # messages that one neighbour told of; then its own oldest is forgotten
TOLD_RATE, TOLD_BURST = 50.0, 512.0  # ids of one neighbour, per second and at once
EMPTY_MAX: Final = 8  # times that one neighbour was asked in vain: what it tells is not heard for DEAF_S
DEAF_S: Final = 60.0
TELLER_COUNT_MAX: Final = 8  # of one missing message
NOTICE_ID_COUNT_MAX: Final = 128  # in one frame
SENDER_COUNT_MAX: Final = 1024
REFUSED_COUNT_MAX: Final = 1024  # messages that came over budget; the oldest is forgotten
WINDOW, LATE_MAX, STRIKE_MAX = 8, 3, 2
BRINGER_COUNT_MIN: Final = 2


class Push(NamedTuple):
    """Send this whole message to a neighbour."""

    to: bytes
    data: bytes


class Tell(NamedTuple):
    """Tell a neighbour that this node has these messages."""

    to: bytes
    ids: tuple[bytes, ...]


class Graft(NamedTuple):
    """Ask a neighbour for a message, and for all that come after it."""

    to: bytes
    id: bytes


class Prune(NamedTuple):
    """Ask a neighbour to tell instead of sending."""

    to: bytes


class Replace(NamedTuple):
    """A neighbour does not pass on what it should: another one should be found."""

    to: bytes


Out = Push | Tell | Graft | Prune | Replace


@dataclass(slots=True)
class _Branch:
    """A neighbour.  eager: it is in the tree.  late: who brought a message instead of it; None: it did, in time."""

    eager: bool = True
    repeats: int = 0
    strikes: int = 0
    late: deque[bytes | None] = field(default_factory=lambda: deque(maxlen=WINDOW))
    told: TokenBucket = field(default_factory=lambda: TokenBucket(TOLD_RATE, TOLD_BURST))
    missing: OrderedDict[bytes, None] = field(default_factory=OrderedDict)  # what it told of, and did not come yet
    empty: int = 0
    deaf_until: float = 0.0


@dataclass(slots=True)
class _Kept:
    """A message that may be asked for.  given: to whom, each once."""

    at: float
    data: bytes
    given: set[bytes] = field(default_factory=set)


@dataclass(slots=True)
class _Missing:
    """A message that this node was told of.  asked: whether GRAFT went out for it."""

    tellers: list[bytes]
    ask_at: float
    asked: bool = False


def id_of(envelope: bytes) -> bytes:
    """Return the eight bytes by which neighbours speak of an encoded envelope."""
    return sha256(envelope)[:ID_BYTES]


class Spreading:
    """One node's part of the tree of one LAN.  Neighbours are named by any bytes."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._branches: dict[bytes, _Branch] = {}
        self._seen: OrderedDict[bytes, float] = OrderedDict()
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        self._kept_bytes = 0
        self._missing: OrderedDict[bytes, _Missing] = OrderedDict()
        self._notices: dict[bytes, list[bytes]] = {}
        self._notices_at: float | None = None
        self._refused: OrderedDict[bytes, set[bytes]] = OrderedDict()  # over budget → who brought it
        self._bringers: OrderedDict[bytes, bytes] = OrderedDict()  # sender → who brought its last message
        self._outs: deque[Out] = deque()

    # ── neighbours ────────────────────────────────────────────────────────────────────────────────────────────────────

    def join(self, node: bytes) -> None:
        """Take note of a new neighbour; it is in the tree until it proves to be one too many."""
        self._branches.setdefault(node, _Branch())

    def leave(self, node: bytes) -> None:
        """Take note that a neighbour is none any more."""
        self._notices.pop(node, None)
        branch = self._branches.pop(node, None)
        for id_ in () if branch is None else tuple(branch.missing):
            self._tells_no_more(id_, node)

    def __contains__(self, node: bytes) -> bool:
        return node in self._branches

    @property
    def tree(self) -> frozenset[bytes]:
        """The neighbours that get every message whole."""
        return frozenset(node for node, branch in self._branches.items() if branch.eager)

    # ── inputs ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def has(self, id_: bytes) -> bool:
        """Say whether a message was here."""
        return id_ in self._seen

    def spread(
        self,
        id_: bytes,
        data: bytes,
        *,
        now: float,
        via: bytes | None = None,
        sender: bytes = b"",
        told: int | None = 2,
    ) -> bool:
        """Take a message: of this node, or from the neighbour via.  False: it was here before.

        data: what to send on.  sender: names who made it, if that is certain; else empty.  told: how many of those
        beside the tree are told; None: all.
        """
        self._forget(now)
        branch = None if via is None else self._branches.get(via)
        if id_ in self._seen:
            if branch is not None and via is not None:
                self._repeated(via, branch)
            return False
        self._seen[id_] = now
        self._keep(id_, data, now)
        missing, refused = self._came(id_), self._refused.pop(id_, set())
        if branch is not None and via is not None:
            branch.eager = True
            branch.repeats = branch.empty = 0
            branch.late.append(None)
            if sender:
                if missing is not None and missing.asked and self._bringers.get(sender) not in refused:
                    self._blame(sender, via)
                self._bringers.pop(sender, None)
                self._bringers[sender] = via
                if len(self._bringers) > SENDER_COUNT_MAX:
                    self._bringers.popitem(last=False)
        beside = [node for node, each in self._branches.items() if node != via and not each.eager]
        for node, each in self._branches.items():
            if node != via and each.eager:
                self._outs.append(Push(node, data))
        count = len(beside) if told is None else min(told, len(beside))
        for node in self._rng.sample(beside, count):
            self._notices.setdefault(node, []).append(id_)
            if self._notices_at is None:
                self._notices_at = now + NOTICE_S
        return True

    def refuse(self, id_: bytes, via: bytes) -> None:
        """Take note that a neighbour brought a message that is over budget.

        It did bring it, so it is neither asked for it nor held to be late; the copy of another neighbour is welcome.
        """
        refused = self._refused.pop(id_, set())
        refused.add(via)
        self._refused[id_] = refused
        if len(self._refused) > REFUSED_COUNT_MAX:
            self._refused.popitem(last=False)
        self._tells_no_more(id_, via)
        if via in self._branches:
            self._branches[via].empty = 0

    def told(self, ids: Sequence[bytes], via: bytes, *, now: float) -> bool:
        """Take note that a neighbour has these messages; False: it tells too much, or what it told of never came."""
        branch = self._branches.get(via)
        if branch is None:
            return True
        if now < branch.deaf_until or not branch.told.take(now, len(ids)):
            return False
        for id_ in ids:
            if id_ in self._seen or id_ in branch.missing or via in self._refused.get(id_, ()):
                continue
            missing = self._missing.get(id_)
            if missing is None:
                self._missing[id_] = _Missing([via], now + GRAFT_S)
            elif len(missing.tellers) < TELLER_COUNT_MAX:
                missing.tellers.append(via)
            else:
                continue
            branch.missing[id_] = None
            if len(branch.missing) > MISSING_EACH_MAX:
                self._tells_no_more(next(iter(branch.missing)), via)
        return True

    def grafted(self, id_: bytes, via: bytes, *, now: float) -> None:
        """Send a neighbour what it asks for, and all that comes after it."""
        branch = self._branches.get(via)
        if branch is None:
            return
        branch.eager = True
        kept = self._kept.get(id_)
        if kept is not None and via not in kept.given:
            kept.given.add(via)
            self._outs.append(Push(via, kept.data))

    def pruned(self, via: bytes) -> None:
        """Send a neighbour no more whole messages."""
        if via in self._branches:
            self._branches[via].eager = False

    # ── doors of a machine ────────────────────────────────────────────────────────────────────────────────────────────

    def next_out(self) -> Out | None:
        """Return the next thing to send."""
        return self._outs.popleft() if self._outs else None

    def next_timeout(self) -> float | None:
        """Return when handle_timeout() has something to do; None: nothing is due."""
        dues = [missing.ask_at for missing in self._missing.values()]
        if self._notices_at is not None:
            dues.append(self._notices_at)
        return min(dues, default=None)

    def handle_timeout(self, *, now: float) -> None:
        """Tell what is to be told, and ask for what does not come."""
        if self._notices_at is not None and self._notices_at <= now:
            notices, self._notices, self._notices_at = self._notices, {}, None
            for node, ids in notices.items():
                if node in self._branches:
                    for first in range(0, len(ids), NOTICE_ID_COUNT_MAX):
                        self._outs.append(Tell(node, tuple(ids[first : first + NOTICE_ID_COUNT_MAX])))
        for id_, missing in [each for each in self._missing.items() if each[1].ask_at <= now]:
            if not missing.tellers:
                del self._missing[id_]
                continue
            teller = missing.tellers.pop(0)
            branch = self._branches[teller]
            branch.missing.pop(id_, None)
            missing.asked = True
            missing.ask_at = now + GRAFT_AGAIN_S
            branch.eager = True
            branch.empty += 1
            if branch.empty > EMPTY_MAX:
                branch.empty, branch.deaf_until = 0, now + DEAF_S
            self._outs.append(Graft(teller, id_))

    # ── inside ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _repeated(self, via: bytes, branch: _Branch) -> None:
        branch.repeats += 1
        if branch.repeats >= REPEAT_COUNT:
            branch.repeats = 0
            branch.eager = False
            self._outs.append(Prune(via))

    def _came(self, id_: bytes) -> _Missing | None:
        """Forget that a message is missing; return what was known of that."""
        missing = self._missing.pop(id_, None)
        for teller in () if missing is None else missing.tellers:
            self._branches[teller].missing.pop(id_, None)
        return missing

    def _tells_no_more(self, id_: bytes, node: bytes) -> None:
        """Forget that a neighbour told of a message."""
        branch, missing = self._branches.get(node), self._missing.get(id_)
        if branch is not None:
            branch.missing.pop(id_, None)
        if missing is not None and node in missing.tellers:
            missing.tellers.remove(node)
            if not missing.tellers and not missing.asked:
                del self._missing[id_]

    def _blame(self, sender: bytes, bringer: bytes) -> None:
        """Hold a message that came by GRAFT against the neighbour that was expected to bring it."""
        expected = self._bringers.get(sender)
        branch = None if expected is None else self._branches.get(expected)
        if expected is None or branch is None or expected == bringer:
            return
        branch.late.append(bringer)
        others = [each for each in branch.late if each is not None]
        if len(others) < LATE_MAX or len(set(others)) < BRINGER_COUNT_MIN:
            return
        branch.late.clear()
        branch.eager = False
        branch.strikes += 1
        self._outs.append(Replace(expected) if branch.strikes >= STRIKE_MAX else Prune(expected))

    def _keep(self, id_: bytes, data: bytes, now: float) -> None:
        earlier = self._kept.pop(id_, None)
        self._kept_bytes += len(data) - (0 if earlier is None else len(earlier.data))
        self._kept[id_] = _Kept(now, data)
        while self._kept_bytes > KEPT_BYTES_MAX:
            self._kept_bytes -= len(self._kept.popitem(last=False)[1].data)

    def _forget(self, now: float) -> None:
        while self._seen and (len(self._seen) >= ID_COUNT_MAX or next(iter(self._seen.values())) <= now - ID_S):
            self._seen.popitem(last=False)
        while self._kept and next(iter(self._kept.values())).at <= now - KEPT_S:
            self._kept_bytes -= len(self._kept.popitem(last=False)[1].data)
