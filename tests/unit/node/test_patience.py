"""How long a stream without packets stays open follows what staying and opening again cost."""

from __future__ import annotations

import random

import pytest

from conflux.ids import NodeId
from conflux.node.patience import (
    FIRST_S,
    HALVED_EVERY_S,
    KEEP_BYTES_PER_S,
    LENGTHS_S,
    NODE_COUNT_MAX,
    OPEN_BYTES,
    RESUME_BYTES,
    Bounds,
    Patience,
)

NODE = NodeId(bytes(16))
DEFAULT = Bounds()


def taught(pauses_s, bounds: Bounds = DEFAULT) -> Patience:
    patience = Patience(bounds)
    now = 0.0
    patience.active(NODE, now=now)
    for pause_s in pauses_s:
        now += pause_s
        patience.active(NODE, now=now)
    return patience


def cost(pauses_s, timeout_s: float) -> float:
    """Bytes that pauses cost with one timeout."""
    return sum(
        KEEP_BYTES_PER_S * min(pause_s, timeout_s) + (OPEN_BYTES if pause_s > timeout_s else 0) for pause_s in pauses_s
    )


def learnt_cost(pauses_s, bounds: Bounds = DEFAULT) -> float:
    """Bytes that pauses cost with what is learnt on the way."""
    patience, now, total = Patience(bounds), 0.0, 0.0
    patience.active(NODE, now=now)
    for pause_s in pauses_s:
        total += cost([pause_s], patience.timeout_s(NODE))
        now += pause_s
        patience.active(NODE, now=now)
    return total


def test_nothing_is_known_at_first():
    assert taught([]).timeout_s(NODE) == FIRST_S
    assert taught([0.1] * 100).timeout_s(NODE) == FIRST_S, "packets of one conversation are no pauses"
    assert Patience(Bounds(least_s=5.0, most_s=12.0)).timeout_s(NODE) == 12.0


@pytest.mark.parametrize("rhythm_s", [10.0, 20.0, 60.0, 100.0])
def test_a_rhythm_is_waited_for_from_its_second_beat_on(rhythm_s):
    assert rhythm_s < taught([rhythm_s]).timeout_s(NODE) <= 120.0


def test_pauses_that_are_longer_than_may_be_waited_for_end_the_stream_ever_sooner():
    assert taught([600.0] * 3).timeout_s(NODE) < FIRST_S
    assert taught([600.0] * 12).timeout_s(NODE) == 5.0


def test_bounds_hold_and_a_fixed_time_is_taken_as_it_is():
    for pauses_s in ([], [60.0], [600.0] * 9):
        assert 7.0 <= taught(pauses_s, Bounds(least_s=7.0, most_s=40.0)).timeout_s(NODE) <= 40.0
        assert taught(pauses_s, Bounds(fixed_s=2.0)).timeout_s(NODE) == 2.0


def test_a_metered_uplink_closes_where_a_cheap_one_stays():
    few_short = [100.0] + [2000.0] * 9
    cheap, metered = (taught(few_short, Bounds(weight=weight)).timeout_s(NODE) for weight in (1.0, 2.0))
    assert cheap > 100.0
    assert metered == 5.0


def test_a_node_without_a_past_is_waited_for_less_where_bytes_cost_money():
    assert Patience(Bounds(weight=2.0)).timeout_s(NODE) == FIRST_S / 2
    assert Patience(Bounds(weight=100.0)).timeout_s(NODE) == DEFAULT.least_s


def test_what_is_cheap_to_open_closes_sooner():
    few_short = [100.0] + [2000.0] * 6
    assert taught(few_short, Bounds(open_bytes=RESUME_BYTES)).timeout_s(NODE) < taught(few_short).timeout_s(NODE)


def test_what_was_learnt_is_halved_daily():
    patience = taught([60.0])
    for day in range(1, 12):
        patience.active(NODE, now=60.0 + day * HALVED_EVERY_S)
    assert patience.timeout_s(NODE) < FIRST_S, "the pauses of a day each count now, and the minute no longer"


@pytest.mark.parametrize("seed", range(5))
def test_it_costs_little_more_than_the_best_single_timeout(seed):
    rng = random.Random(seed)
    for mean_s in (15.0, 60.0, 300.0, 3000.0):
        pauses_s = [rng.expovariate(1 / mean_s) for _ in range(300)]
        best = min(cost(pauses_s, timeout_s) for timeout_s in (5.0, *(each for each in LENGTHS_S if each <= 120.0)))
        assert learnt_cost(pauses_s) <= 1.15 * best + 2 * OPEN_BYTES


def test_so_many_nodes_are_known_and_the_one_silent_for_longest_is_forgotten():
    patience = taught([60.0])
    for number in range(1, NODE_COUNT_MAX):
        patience.active(NodeId(number.to_bytes(16)), now=100.0)
    assert patience.timeout_s(NODE) > FIRST_S
    patience.active(NodeId(NODE_COUNT_MAX.to_bytes(16)), now=100.0)
    assert patience.timeout_s(NODE) == FIRST_S
    patience.forget(NODE)
