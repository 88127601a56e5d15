"""The first search: which path comes first, when a stream changes over, and what peers are told of."""

from __future__ import annotations

import pytest

from conflux.ids import NodeId
from conflux.search.first import FAILURE_PAUSE_S_MIN, FirstSearch
from conflux.search.interface import Measured, Path

ME, FAR, ROD, RUTH = (NodeId(bytes([letter]) * 16) for letter in b"mfru")
DIRECT, BY_ROD, BY_RUTH = Path((FAR,)), Path((ROD, FAR)), Path((RUTH, FAR))


def search(**rtt_ms: float) -> FirstSearch:
    """Two neighbours join LANs, and both reach FAR; what is named has been measured."""
    made = FirstSearch(ME)
    for relay in (ROD, RUTH):
        made.neighbour_changed(relay, True)
        made.bridge_changed(relay, True)
    made.vantage_of(FAR, (ROD, RUTH))
    for path, name in ((DIRECT, "direct"), (BY_ROD, "rod"), (BY_RUTH, "ruth")):
        if name in rtt_ms:
            made.measured(path, Measured(rtt_ms[name] / 1e3, 1, 0, 0), now=0.0)
    return made


@pytest.mark.parametrize(
    ("new", "new_ms", "old", "old_ms", "changes"),
    [
        (BY_ROD, 74, DIRECT, 100, True),
        (BY_ROD, 76, DIRECT, 100, False),  # not by a quarter
        (BY_ROD, 2, DIRECT, 6, False),  # by more than a quarter, and by no time worth a change
        (DIRECT, 139, BY_ROD, 100, True),
        (DIRECT, 141, BY_ROD, 100, False),
        (BY_RUTH, 89, BY_ROD, 100, True),
        (BY_RUTH, 91, BY_ROD, 100, False),
    ],
)
def test_a_stream_changes_over_for_a_clear_win_and_to_the_direct_path_for_less(new, new_ms, old, old_ms, changes):
    names = {DIRECT: "direct", BY_ROD: "rod", BY_RUTH: "ruth"}
    assert search(**{names[old]: old_ms}).prefers(new, new_ms / 1e3, old) is changes


def test_direct_comes_first_then_what_was_measured_to_be_shorter():
    assert search(rod=50, ruth=20).paths(FAR, now=0.0) == (DIRECT, BY_RUTH, BY_ROD)


def test_a_path_that_failed_is_not_offered_before_its_pause_is_over_and_each_pause_is_longer():
    made = search()
    made.failed(DIRECT, "timeout", now=0.0)
    assert DIRECT not in made.paths(FAR, now=0.99 * FAILURE_PAUSE_S_MIN)
    assert DIRECT in made.paths(FAR, now=FAILURE_PAUSE_S_MIN)
    made.failed(DIRECT, "timeout", now=10.0)
    assert DIRECT not in made.paths(FAR, now=10.0 + 1.5 * FAILURE_PAUSE_S_MIN)
    made.returned(FAR)
    assert DIRECT in made.paths(FAR, now=10.0)


def test_a_peer_is_told_first_of_whom_its_messages_come_by_and_never_of_itself():
    made = search()
    made.heard(FAR, RUTH)
    assert made.vantage(FAR) == (RUTH, ROD)
    assert made.vantage(ROD) == (RUTH,)
