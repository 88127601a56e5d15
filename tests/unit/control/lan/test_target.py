"""Places that are left alone."""

from __future__ import annotations

from conflux.control.lan.config import SHUN_S_MAX, TARGET_COUNT_MAX
from conflux.control.lan.target import Shunned

PLACE = ("192.0.2.1", 7464)


def test_place_that_proves_nothing_is_left_alone_twice_as_long_each_time() -> None:
    shunned, now, lasted = Shunned(), 0.0, []
    for _ in range(12):
        shunned.failed(PLACE, now)
        begun = now
        while shunned.holds(PLACE, now):
            now += 0.5
        lasted.append(now - begun)
    assert lasted[:4] == [1.0, 2.0, 4.0, 8.0]
    assert lasted[-3:] == [SHUN_S_MAX] * 3
    assert not shunned.holds(("192.0.2.1", 7465), 0.0)


def test_member_is_dialled_at_once_where_others_failed() -> None:
    shunned = Shunned()
    for _ in range(5):
        shunned.failed(PLACE, 0.0)
    shunned.proved(PLACE)
    assert not shunned.holds(PLACE, 0.0)
    shunned.failed(PLACE, 0.0)
    assert not shunned.holds(PLACE, 1.0)


def test_places_left_alone_are_bounded_and_the_oldest_is_forgotten() -> None:
    shunned = Shunned()
    for port in range(TARGET_COUNT_MAX + 1):
        shunned.failed(("192.0.2.1", port), 0.0)
    assert not shunned.holds(("192.0.2.1", 0), 0.5)
    assert shunned.holds(("192.0.2.1", TARGET_COUNT_MAX), 0.5)
    assert len(shunned._places) == TARGET_COUNT_MAX
