"""What passed, as `conflux usage` shows it: frozen values, whose fields are the keys of the JSON.

Bytes are those of IP packets, headers estimated; see conflux/usage/tally.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from conflux.ids import NodeId, format_node_id
from conflux.usage.book import Book, total
from conflux.usage.bound import Bound, State
from conflux.usage.calendar import iso
from conflux.usage.tally import KINDS, NOTHING, Counts, Other

PLOTTED_DAYS_MAX = 31


class KindRow(NamedTuple):
    """What passed of one kind: data, control, set-up or keep-alive."""

    kind: str
    sent_bytes: int
    received_bytes: int


class SpanRow(NamedTuple):
    """What passed on a day, or since a day.  date: its first, as 2026-12-01; None: the date is not known."""

    date: str | None
    sent_bytes: int
    received_bytes: int
    kinds: tuple[KindRow, ...]


class DayRow(NamedTuple):
    """What passed on one day."""

    date: str
    sent_bytes: int
    received_bytes: int


class UsagePeerRow(NamedTuple):
    """What passed with who is at the other end of links and connections.

    node: its id; None: name says what it is: broker, multicast, unknown, or others, who are all that the table has no
    room for.
    """

    node: str | None
    name: str
    today_bytes: int
    month_bytes: int
    kinds: tuple[KindRow, ...]


class BudgetRow(NamedTuple):
    """[budget] and how much of it is used.  None: no bound is set.  state: under, near or over.

    days: the last on which something passed, the oldest first.
    """

    state: str
    day_limit_bytes: int | None
    month_limit_bytes: int | None
    month_starts: int
    today_bytes: int
    month_bytes: int
    days: tuple[DayRow, ...]


class Usage(NamedTuple):
    """The answer to `conflux usage`.  undated_bytes: passed while the date is not known; part of today and month."""

    today: SpanRow
    month: SpanRow
    undated_bytes: int
    peers: tuple[UsagePeerRow, ...]
    budget: BudgetRow


def usage(book: Book, bound: Bound, state: State, name_of: Callable[[NodeId], str]) -> Usage:
    """Return what a book says."""
    today, month = book.others()
    others = (("others", None, today, month),) if total(month).total or total(today).total else ()
    listed = (
        (str(who) if isinstance(who, Other) else name_of(who), None if isinstance(who, Other) else who, *counts)
        for who, *counts in book.peers()
    )
    return Usage(
        today=_span(book.day, book.today()),
        month=_span(book.month_first, book.month()),
        undated_bytes=total(book.undated).total,
        peers=tuple(
            UsagePeerRow(
                None if node is None else format_node_id(node),
                name,
                total(of_today).total,
                total(of_month).total,
                _kinds(of_month),
            )
            for name, node, of_today, of_month in (*listed, *others)
        ),
        budget=budget(book, bound, state),
    )


def budget(book: Book, bound: Bound, state: State) -> BudgetRow:
    """Return a bound, and how much of it is used."""
    return BudgetRow(
        state=state,
        day_limit_bytes=bound.day_bytes,
        month_limit_bytes=bound.month_bytes,
        month_starts=bound.month_starts,
        today_bytes=total(book.today()).total,
        month_bytes=total(book.month()).total,
        days=tuple(DayRow(iso(day), *total(counts)) for day, counts in book.days()[-PLOTTED_DAYS_MAX:]),
    )


def _span(first: int | None, counts: Counts) -> SpanRow:
    return SpanRow(None if first is None else iso(first), *total(counts), _kinds(counts))


def _kinds(counts: Counts) -> tuple[KindRow, ...]:
    return tuple(KindRow(kind, *counts.get(kind, NOTHING)) for kind in KINDS)
