"""What `conflux usage` prints, at 80 and at 40 columns."""

from __future__ import annotations

from typing import Any

import pytest

from conflux.api.scheme import plain
from conflux.api.usage import usage
from conflux.cli.observe import describe_budget
from conflux.cli.usage import describe_usage
from conflux.ids import NodeId
from conflux.usage.book import Book
from conflux.usage.bound import Bound, State
from conflux.usage.tally import Both, Counts, Kind, Other, Who

DAY = 740_000
BOUND = Bound(50_000_000, 10**9)


def got(count: int = 2, bound: Bound = BOUND, state: State = State.UNDER, day: int | None = DAY) -> Any:
    """The daemon's answer, after a day with some peers."""
    book = Book()
    names = {NodeId(number.to_bytes(16, "big")): f"node-{number}" for number in range(count)}
    passed: dict[Who, Counts] = {
        node: {Kind.DATA: Both(1_000_000, 500_000), Kind.SET_UP: Both(40_000, 40_000)} for node in names
    }
    passed[Other.BROKER] = {Kind.KEEP_ALIVE: Both(2_000, 2_000)}
    book.add(passed, day=day)
    return plain(usage(book, bound, state, names.__getitem__))


@pytest.mark.parametrize("columns", [80, 40])
@pytest.mark.parametrize("state", State)
def test_no_line_is_wider_than_the_terminal(columns: int, state: State) -> None:
    text = "\n\n".join(describe_usage(got(70, state=state), columns=columns))
    assert max(map(len, text.splitlines())) <= columns
    assert "node-1" in text


def test_the_sums_stand_first_with_their_dates() -> None:
    first = describe_usage(got())[0]
    assert "today 2027-01-19" in first
    assert "3.2 MB: 2.1 MB sent, 1.1 MB received" in first
    assert "50 MB a day, 3.2 MB used; 1.0 GB a month, 3.2 MB used; that is enough so far" in " ".join(first.split())


def test_what_passed_without_a_date_is_told_and_no_date_is_made_up() -> None:
    first = describe_usage(got(day=None))[0]
    assert first.splitlines()[0].startswith("today ")
    assert "20" not in first.splitlines()[0]
    assert "this board does not know the date yet" in first


def test_a_long_list_ends_with_what_the_rest_had() -> None:
    table = describe_usage(got(30))[2].splitlines()
    assert table[-1].startswith("19 more")
    assert len(table) == 1 + 12 + 1


@pytest.mark.parametrize(
    ("bound", "state", "words"),
    [
        (Bound(), State.UNDER, "none"),
        (Bound(month_bytes=10**9), State.NEAR, "1.0 GB a month, 3.2 MB used; nearly used up"),
        (Bound(10**6), State.OVER, "1.0 MB a day, 3.2 MB used; USED UP: nothing stops, much waits longer"),
    ],
)
def test_a_budget_is_told_in_words(bound: Bound, state: State, words: str) -> None:
    assert describe_budget(got(bound=bound, state=state)["budget"]) == words
