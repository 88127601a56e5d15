"""The first search: which path comes first, when a stream changes paths, and which relays peers are told of."""

from __future__ import annotations

import pytest

from conflux.ids import NodeId
from conflux.search.first import (
    FAILURE_PAUSE_S_MIN,
    LASTED_S,
    PATIENCE_DIRECT_S,
    PATIENCE_S,
    PUBLIC_RELAY_COUNT_MAX,
    SILENT_S,
    UNANSWERED_S,
    FirstSearch,
)
from conflux.search.interface import Measured, Path

ME, FAR, ROD, RUTH = (NodeId(bytes([letter]) * 16) for letter in b"mfru")
DIRECT, BY_ROD, BY_RUTH = Path((FAR,)), Path((ROD, FAR)), Path((RUTH, FAR))


def search(**rtt_ms: float) -> FirstSearch:
    """Return a search with two neighbours that join LANs and reach FAR; the paths named have been measured."""
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
        (BY_ROD, 76, DIRECT, 100, False),  # better by less than a quarter
        (BY_ROD, 2, DIRECT, 6, False),  # better by more than a quarter, but by too little time
        (DIRECT, 139, BY_ROD, 100, True),
        (DIRECT, 141, BY_ROD, 100, False),
        (BY_RUTH, 89, BY_ROD, 100, True),
        (BY_RUTH, 91, BY_ROD, 100, False),
    ],
)
def test_a_stream_changes_over_for_a_clear_win_and_to_the_direct_path_for_less(new, new_ms, old, old_ms, changes):
    names = {DIRECT: "direct", BY_ROD: "rod", BY_RUTH: "ruth"}
    assert search(**{names[old]: old_ms}).prefers(new, new_ms / 1e3, old) is changes


def test_the_direct_path_comes_first_then_the_shortest_by_measurement():
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


def test_a_peer_is_told_first_of_the_relay_that_it_is_heard_through_and_never_of_itself():
    made = search()
    made.heard(FAR, RUTH)
    assert made.vantage(FAR) == (RUTH, ROD)
    assert made.vantage(ROD) == (RUTH,)


def test_a_public_relay_is_a_way_to_any_node_and_the_newest_comes_first():
    made = FirstSearch(ME)
    assert made.paths(FAR, now=0.0) == (DIRECT,)
    made.relay_found(ROD)
    made.relay_found(RUTH)
    assert made.paths(FAR, now=0.0) == (DIRECT, BY_RUTH, BY_ROD)
    assert made.paths(RUTH, now=0.0) == (Path((RUTH,)), Path((ROD, RUTH)))
    made.vantage_of(FAR, (NodeId(b"x" * 16),))  # the destination need not know of it
    assert made.paths(FAR, now=0.0) == (DIRECT, BY_RUTH, BY_ROD)


def test_the_neighbour_that_a_node_was_heard_through_is_tried_too_where_it_named_another_neighbour():
    made = search()
    made.vantage_of(FAR, (ROD,))  # before it heard that rod is gone
    made.heard(FAR, RUTH)
    assert made.paths(FAR, now=0.0) == (BY_ROD, DIRECT, BY_RUTH)
    far_relay = NodeId(b"x" * 16)
    made.vantage_of(FAR, (far_relay,))
    assert BY_RUTH not in made.paths(FAR, now=0.0), "where two are needed, neither learns of both ends"


def test_a_peer_is_told_of_public_relays():
    made = FirstSearch(ME)
    made.relay_found(ROD)
    made.relay_found(FAR)
    assert made.vantage(FAR) == (ROD,)


def test_few_public_relays_are_remembered():
    made = FirstSearch(ME)
    relays = [NodeId(bytes([number]) * 16) for number in range(1, 9)]
    for relay in relays:
        made.relay_found(relay)
    assert made.vantage(FAR) == tuple(reversed(relays[-PUBLIC_RELAY_COUNT_MAX:]))


def test_a_node_that_its_router_keeps_out_of_reach_is_dialled_by_relays_first_from_then_on():
    made = FirstSearch(ME)
    made.relay_found(ROD)
    made.failed(DIRECT, "timeout", now=0.0)
    assert made.paths(FAR, now=FAILURE_PAUSE_S_MIN) == (BY_ROD, DIRECT)


def test_a_direct_path_is_tried_again_beside_a_relay_after_each_pause_until_they_are_as_long_as_can_be():
    made, at = FirstSearch(ME), 100.0
    assert made.direct_at(FAR, now=at) == at
    pauses = []
    while True:
        made.failed(DIRECT, "timeout", now=at)
        again = made.direct_at(FAR, now=at)
        if again is None:
            break
        pauses.append(again - at)
        at = again
    assert pauses == [2.0, 4.0, 8.0, 16.0, 32.0, 64.0]
    made.opened(DIRECT, 0.1, now=at)
    assert made.direct_at(FAR, now=at) == at


def test_a_path_that_opens_and_is_lost_at_once_pauses_longer_each_time_until_it_lasts():
    made, at = FirstSearch(ME), 100.0
    pauses = []
    for lasts_s in (0.0, 0.1, 0.1, 0.1, LASTED_S, 0.1):
        made.opened(DIRECT, 0.1, now=at)
        assert made.paths(FAR, now=at) == (DIRECT,)
        at += lasts_s
        made.opened(DIRECT, 0.1, now=at)  # a refresh
        made.failed(DIRECT, "torn-down", now=at)
        pauses.append(round(made.direct_at(FAR, now=at) - at, 3))
        at += pauses[-1]
    assert pauses == [2.0, 4.0, 8.0, 16.0, 2.0, 4.0]


def test_a_direct_path_is_not_tried_again_beside_a_neighbour_that_leads_there():
    made = search()
    made.heard(FAR, ROD)
    assert made.direct_at(FAR, now=0.0) is None
    made.neighbour_changed(FAR, True)
    assert made.direct_at(FAR, now=0.0) == 0.0


def test_dials_that_end_with_their_streams_count_as_a_failure_only_together():
    made = FirstSearch(ME)
    made.unanswered(DIRECT, 0.9 * UNANSWERED_S, now=0.0)
    made.opened(DIRECT, 0.1, now=0.0)  # it was slow
    made.unanswered(DIRECT, 0.9 * UNANSWERED_S, now=0.0)
    assert made.paths(FAR, now=0.0) == (DIRECT,)
    made.unanswered(DIRECT, 0.1 * UNANSWERED_S, now=0.0)
    assert made.paths(FAR, now=0.0) == ()
    made.unanswered(DIRECT, 0.9 * UNANSWERED_S, now=FAILURE_PAUSE_S_MIN)
    assert made.paths(FAR, now=FAILURE_PAUSE_S_MIN) == (DIRECT,)


def test_a_direct_path_that_was_silent_has_less_patience_until_it_opens():
    made = FirstSearch(ME)
    made.unanswered(DIRECT, 0.9 * SILENT_S, now=0.0)
    assert made.patience_s(DIRECT) == PATIENCE_DIRECT_S
    made.unanswered(DIRECT, 0.1 * SILENT_S, now=0.0)
    assert made.patience_s(DIRECT) == PATIENCE_S
    assert made.paths(FAR, now=0.0) == (DIRECT,), "it is still the first that is tried"
    made.opened(DIRECT, 0.1, now=0.0)
    assert made.patience_s(DIRECT) == PATIENCE_DIRECT_S


def test_only_a_node_that_no_neighbour_leads_to_wants_a_public_relay():
    made = search()
    assert made.wants_relay(FAR)
    made.heard(FAR, ROD)
    assert not made.wants_relay(FAR)
    assert not made.wants_relay(ROD)


def test_a_public_relay_is_wanted_beside_one_that_carries_and_instead_of_one_that_failed():
    made = FirstSearch(ME)
    made.heard(FAR, ROD)  # behind it, at a broker
    assert not made.wants_relay(FAR)
    made.failed(BY_ROD, "link-down", now=0.0)
    assert made.wants_relay(FAR)
    made.opened(BY_ROD, 0.1, now=0.0)
    assert not made.wants_relay(FAR)
    made.relay_found(ROD)  # so it was found by asking
    assert made.wants_relay(FAR)


def test_a_revoked_node_leads_nowhere():
    made = search()
    made.heard(FAR, ROD)
    made.relay_found(ROD)
    made.revoked(ROD)
    assert made.paths(FAR, now=0.0) == (DIRECT, BY_RUTH)
    assert made.vantage(FAR) == (RUTH,)
    assert made.wants_relay(FAR)


def test_the_direct_path_to_a_node_behind_another_one_has_less_patience():
    made = search()
    made.heard(FAR, ROD)
    assert made.patience_s(DIRECT) == made.patience_s(BY_ROD) == PATIENCE_S
    assert made.patience_s(Path((ROD,))) == made.patience_s(Path((NodeId(b"x" * 16),))) == PATIENCE_DIRECT_S


def test_a_neighbour_is_no_farther_than_that_whoever_brings_its_messages():
    made = search()
    made.neighbour_changed(FAR, True)
    made.heard(FAR, RUTH)
    assert made.paths(FAR, now=0.0)[0] == DIRECT
    assert made.vantage(FAR) == (ROD, RUTH)  # as if nothing had been heard
    made.neighbour_changed(FAR, False)
    made.heard(FAR, RUTH)
    assert made.vantage(FAR) == (RUTH, ROD)
