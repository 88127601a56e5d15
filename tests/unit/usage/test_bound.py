"""When a bound is near, and over."""

import pytest

from conflux.usage.bound import PACES, Bound, State, share, state_of

UNDER, NEAR, OVER = State


@pytest.mark.parametrize(
    ("used", "before", "after"),
    [
        (None, OVER, UNDER),  # the bound was taken away
        (0.0, UNDER, UNDER),
        (0.79, UNDER, UNDER),
        (0.8, UNDER, NEAR),
        (0.76, NEAR, NEAR),
        (0.74, NEAR, UNDER),
        (1.0, NEAR, OVER),
        (1.5, UNDER, OVER),
        (0.96, OVER, OVER),
        (0.94, OVER, NEAR),
        (0.76, OVER, NEAR),
        (0.0, OVER, UNDER),  # a new day
    ],
)
def test_a_state_begins_at_its_threshold_and_ends_below_it(used: float | None, before: State, after: State) -> None:
    assert state_of(used, before) is after


def test_of_day_and_month_the_one_counts_that_is_used_up_more() -> None:
    assert share(Bound(), day=5, month=5) is None
    assert share(Bound(day_bytes=10), day=5, month=100) == 0.5
    assert share(Bound(month_bytes=1000), day=5, month=100) == 0.1
    assert share(Bound(10, 1000), day=5, month=900) == 0.9


def test_more_stretches_the_nearer_the_bound() -> None:
    paces = [PACES[state] for state in State]
    assert paces == sorted(paces)
    assert paces[0] == (1.0, 1.0)
