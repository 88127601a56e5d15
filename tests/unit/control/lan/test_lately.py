"""A trouble that lasts is said once a minute."""

from __future__ import annotations

from conflux.control.lan.lately import KEY_COUNT_MAX, Lately

SAY_S = 60.0


def test_the_same_is_said_again_after_a_minute_and_another_at_once() -> None:
    lately = Lately(SAY_S)
    assert [lately.is_new("a", now) for now in (0.0, 1.0, SAY_S - 0.1, SAY_S, SAY_S + 1)] == [
        True,
        False,
        False,
        True,
        False,
    ]
    assert lately.is_new("b", 1.0)


def test_what_is_remembered_is_bounded_and_the_oldest_goes() -> None:
    lately = Lately(SAY_S)
    for key in range(KEY_COUNT_MAX + 1):
        assert lately.is_new(key, 0.0)
    assert lately.is_new(0, 0.0)
    assert not lately.is_new(KEY_COUNT_MAX, 0.0)
