"""What passed on which day, and who was at the other end: today, and this month.

Sans-IO.  The sums of days are exact.  Peers are a table of PEER_COUNT_MAX; what those had that are not in it is the
rest of the sum.

The date is not always known: a board without a clock of its own starts in the past.  What passes until its clock is
believed waits, and counts for the day on which it first is.  What was counted for a day that has not come yet, because
a clock ran ahead or this board travels west, counts for today.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from conflux.ids import NODE_ID_BYTES, NodeId
from conflux.record import Record, nested, octets, sequence, text, uint
from conflux.usage.calendar import DAY_MAX, MONTH_STARTS_MAX, month_first
from conflux.usage.tally import KINDS, NOTHING, Both, Counts, Other, Who

PEER_COUNT_MAX: Final = 64  # chosen: 10 kB on the disk; more than that many neighbours are a table that no person reads
DAY_COUNT_MAX: Final = 62  # this month and the one before
BYTES_MAX: Final = 2**60  # of one count; a file that says more is none of ours


@dataclass(frozen=True, slots=True)
class Sums(Record):
    """Bytes by kind, each sent and received, in the order of KINDS."""

    SHAPES = (uint(BYTES_MAX),) * (2 * len(KINDS))

    data_sent: int = 0
    data_received: int = 0
    control_sent: int = 0
    control_received: int = 0
    set_up_sent: int = 0
    set_up_received: int = 0
    keep_alive_sent: int = 0
    keep_alive_received: int = 0

    @classmethod
    def of(cls, counts: Counts) -> Sums:
        """Return counts as a record."""
        both = (counts.get(kind, NOTHING) for kind in KINDS)
        return cls(*(min(max(each, 0), BYTES_MAX) for pair in both for each in pair))

    def counts(self) -> Counts:
        """Return the record as counts, without what is 0."""
        values = (
            self.data_sent,
            self.data_received,
            self.control_sent,
            self.control_received,
            self.set_up_sent,
            self.set_up_received,
            self.keep_alive_sent,
            self.keep_alive_received,
        )
        pairs = zip(KINDS, values[::2], values[1::2], strict=True)
        return {kind: Both(sent, received) for kind, sent, received in pairs if sent or received}


@dataclass(frozen=True, slots=True)
class DayRow(Record):
    """What passed on one day.  day: see calendar.py."""

    SHAPES = (uint(DAY_MAX), nested(Sums))

    day: int
    sums: Sums


@dataclass(frozen=True, slots=True)
class PeerRow(Record):
    """What passed with one peer.  node: its id; empty: word says what it is."""

    SHAPES = (octets(0, NODE_ID_BYTES), text(16), nested(Sums), nested(Sums))

    node: bytes
    word: str
    today: Sums
    month: Sums


@dataclass(frozen=True, slots=True)
class UsageFile(Record):
    """The book as it is kept.  day: of `today` of the peers, 0: none; month: the first of theirs.  undated: waits."""

    BYTES_MAX = 48 << 10
    SHAPES = (
        uint(DAY_MAX),
        uint(DAY_MAX),
        nested(Sums),
        sequence(nested(DayRow), DAY_COUNT_MAX),
        sequence(nested(PeerRow), PEER_COUNT_MAX),
    )

    day: int
    month: int
    undated: Sums
    days: tuple[DayRow, ...] = ()
    peers: tuple[PeerRow, ...] = ()


@dataclass(slots=True)
class Peer:
    """What passed with one peer, by kind."""

    today: Counts = field(default_factory=dict)
    month: Counts = field(default_factory=dict)


class Book:
    """The counts of this node, day by day.

    starts: the day of the calendar's month on which a month begins.
    """

    def __init__(self, kept: UsageFile | None = None, *, starts: int = 1) -> None:
        self._starts = min(max(1, starts), MONTH_STARTS_MAX)
        self.day: int | None = None  # today; None: the date is not known
        self._month = 0
        self._days: dict[int, Counts] = {}
        self._peers: dict[Who, Peer] = {}
        self._undated: Counts = {}
        if kept is not None:
            self._take(kept)

    def _take(self, kept: UsageFile) -> None:
        self._undated = kept.undated.counts()
        for row in kept.days:
            if row.day:
                merge(self._days.setdefault(row.day, {}), row.sums.counts())
        for peer in kept.peers:
            who = _who(peer)
            if who is not None:
                self._peers[who] = Peer(peer.today.counts(), peer.month.counts())
        self.day, self._month = kept.day or None, kept.month

    def kept(self) -> UsageFile:
        """Return the book as a record."""
        return UsageFile(
            self.day or 0,
            self._month,
            Sums.of(self._undated),
            tuple(DayRow(day, Sums.of(counts)) for day, counts in sorted(self._days.items())),
            tuple(
                PeerRow(
                    b"" if isinstance(who, Other) else who,
                    who if isinstance(who, Other) else "",
                    Sums.of(peer.today),
                    Sums.of(peer.month),
                )
                for who, peer in self._peers.items()
            ),
        )

    def begin_months_on(self, starts: int) -> None:
        """Take another first day of a month.  What peers had this month then begins anew; the sums of days stay."""
        self._starts = min(max(1, starts), MONTH_STARTS_MAX)
        if self.day is not None:
            self._turn(self.day)

    def add(self, passed: Mapping[Who, Counts], *, day: int | None) -> None:
        """Count what passed.  day: today; None: the date is not known now."""
        if day is None:
            for who, counts in passed.items():
                merge(self._undated, counts)
                self._add_peer(who, counts)
            return
        self._turn(day)
        today = self._days.setdefault(day, {})
        for who, counts in passed.items():
            merge(today, counts)
            self._add_peer(who, counts)

    def _turn(self, day: int) -> None:
        """Begin a day, if it is another than before; and a month."""
        if self.day is not None and day > self.day:
            for peer in self._peers.values():
                peer.today = {}
        month = month_first(day, self._starts)
        if month > self._month:  # not if a clock that ran ahead is right again
            for peer in self._peers.values():
                peer.month = dict(peer.today)
        self.day, self._month = day, month
        today = self._days.setdefault(day, {})
        for ahead in [each for each in self._days if each > day]:
            merge(today, self._days.pop(ahead))
        merge(today, self._undated)
        self._undated = {}
        for old in sorted(self._days)[:-DAY_COUNT_MAX]:
            del self._days[old]
        for who in [who for who, peer in self._peers.items() if not peer.month]:
            del self._peers[who]

    def _add_peer(self, who: Who, counts: Counts) -> None:
        peer = self._peers.get(who)
        if peer is None:
            if len(self._peers) >= PEER_COUNT_MAX:
                del self._peers[min(self._peers, key=lambda each: total(self._peers[each].month).total)]
            peer = self._peers[who] = Peer()
        merge(peer.today, counts)
        merge(peer.month, counts)

    # ── what it says ──

    @property
    def undated(self) -> Counts:
        """What waits for a date."""
        return dict(self._undated)

    def today(self) -> Counts:
        """Return what passed today; while the date is not known, on the last day that was, and since."""
        return dict(self._undated) if self.day is None else self._with_undated(self._days.get(self.day, {}))

    def month(self) -> Counts:
        """Return what passed this month."""
        found: Counts = {}
        for day, counts in self._days.items():
            if self._month <= day <= (self.day or 0):
                merge(found, counts)
        return self._with_undated(found)

    def _with_undated(self, counts: Counts) -> Counts:
        found = dict(counts)
        merge(found, self._undated)
        return found

    @property
    def month_first(self) -> int | None:
        """The first day of this month; None: the date was never known."""
        return self._month or None

    def days(self) -> list[tuple[int, Counts]]:
        """Return what passed on each day that is kept, the oldest first."""
        return sorted(self._days.items())

    def peers(self) -> list[tuple[Who, Counts, Counts]]:
        """Return who was at the other end, today and this month: who had the most this month first."""
        found = [(who, dict(peer.today), dict(peer.month)) for who, peer in self._peers.items()]
        return sorted(found, key=lambda each: -total(each[2]).total)

    def others(self) -> tuple[Counts, Counts]:
        """Return what those had, today and this month, that are not in the table."""
        listed_today: Counts = {}
        listed_month: Counts = {}
        for peer in self._peers.values():
            merge(listed_today, peer.today)
            merge(listed_month, peer.month)
        return _rest(self.today(), listed_today), _rest(self.month(), listed_month)


def merge(into: Counts, more: Counts) -> None:
    """Add counts to others."""
    for kind, both in more.items():
        into[kind] = into.get(kind, NOTHING).plus(both)


def total(counts: Counts) -> Both:
    """Return the sum of all kinds."""
    return _sum(counts.values())


def _sum(each: Iterable[Both]) -> Both:
    found = NOTHING
    for both in each:
        found = found.plus(both)
    return found


def _rest(whole: Counts, listed: Counts) -> Counts:
    found = {kind: both.less(listed.get(kind, NOTHING)) for kind, both in whole.items()}
    return {kind: both for kind, both in found.items() if both.total}


def _who(row: PeerRow) -> Who | None:
    if len(row.node) == NODE_ID_BYTES:
        return NodeId(row.node)
    try:
        return Other(row.word)
    except ValueError:  # of another version
        return None
