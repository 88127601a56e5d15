from __future__ import annotations

import random

from conflux.control.nats.back_off import BackOff
from conflux.control.nats.config import BACK_OFF_S_MAX, BACK_OFF_S_MIN, LOST_S_MAX, REFUSED_S, START_S_MAX


def many(draw) -> list[float]:
    return [draw(BackOff(random.Random(seed))) for seed in range(500)]


def test_nodes_that_start_or_lose_a_server_at_once_come_back_spread():
    for draw, most in ((BackOff.start_s, START_S_MAX), (lambda each: each.lost_s(steady=True), LOST_S_MAX)):
        waits = many(draw)
        assert 0 <= min(waits) < 0.02 * most
        assert 0.98 * most < max(waits) <= most
        assert 0.4 * most < sum(waits) / len(waits) < 0.6 * most


def test_rounds_that_fail_come_more_rarely_up_to_a_bound():
    back_off = BackOff(random.Random(1))
    bounds = [max(back_off.failed_s(round_s=0.0) for _ in range(1)) for _ in range(500)]
    assert bounds[0] <= BACK_OFF_S_MIN
    assert 0.9 * BACK_OFF_S_MAX < max(bounds) <= BACK_OFF_S_MAX


def test_rounds_begin_no_further_apart_than_the_bound_however_long_they_take():
    back_off = BackOff(random.Random(1))
    for round_s in (0.0, 1.0, 3.0, BACK_OFF_S_MAX) * 100:
        assert 0.0 <= back_off.failed_s(round_s=round_s) <= BACK_OFF_S_MAX - round_s


def test_server_that_closes_at_once_is_dialled_more_and_more_rarely():
    back_off = BackOff(random.Random(1))
    waits = [back_off.lost_s(steady=False) for _ in range(200)]
    assert sum(waits[20:]) / 180 > 1.5
    assert back_off.lost_s(steady=True) <= LOST_S_MAX
    assert back_off.failed_s(round_s=0.0) <= BACK_OFF_S_MIN


def test_refused_node_asks_rarely():
    least, most = REFUSED_S
    assert all(least <= wait <= most for wait in many(BackOff.refused_s))
