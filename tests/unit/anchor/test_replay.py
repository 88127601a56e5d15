"""The replay window at its edges, compiled and twin; the cases are modelled on wireguard-go's replay_test.go."""

from __future__ import annotations

from typing import Any

import pytest

from conflux.anchor import _codec, _codec_py, frame

WIDTH = frame.REPLAY_WINDOW_COUNT
END = frame.COUNTER_END


@pytest.fixture(params=[_codec.ReplayWindow, _codec_py.ReplayWindow], ids=["compiled", "twin"])
def window(request: pytest.FixtureRequest) -> Any:
    """A new window of either codec."""
    return request.param()


def accept(window: Any, counter: int) -> bool:
    """Take a counter if it is fresh; say whether it was."""
    fresh = window.check(counter)
    highest = window.highest
    window.update(counter)
    assert window.highest == (max(highest, counter) if fresh else highest)
    assert not window.check(counter)
    return fresh


def test_edges_in_one_long_life(window: Any) -> None:
    for step, (counter, fresh) in enumerate(
        [
            (0, True),
            (1, True),
            (1, False),
            (9, True),
            (8, True),
            (7, True),
            (7, False),
            (WIDTH, True),
            (WIDTH - 1, True),
            (WIDTH - 1, False),
            (WIDTH - 2, True),
            (2, True),
            (2, False),
            (WIDTH + 16, True),
            (3, False),  # behind the window, never seen
            (16, False),  # the newest counter behind the window
            (17, True),  # the oldest counter inside
            (WIDTH + 16, False),
            (WIDTH * 4, True),
            (WIDTH * 4 - (WIDTH - 1), True),
            (10, False),
            (WIDTH * 4 - WIDTH, False),
            (WIDTH * 4 - (WIDTH + 1), False),
            (WIDTH * 4 - (WIDTH - 2), True),
            (WIDTH * 4 - (WIDTH - 1), False),
            (0, False),
            (2**63, True),  # a jump further than the ring
            (2**63 - 1, True),
            (2**63 - WIDTH, False),
            (2**63 - WIDTH + 1, True),
            (END, False),
            (END - 1, True),
            (END, False),
            (END - 1, False),
            (END - 2, True),
            (END - 2, False),
            (END - 3, True),
            (END - WIDTH, True),
            (END - WIDTH - 1, False),
            (2**63, False),
            (0, False),
        ]
    ):
        assert accept(window, counter) is fresh, f"step {step}: counter {counter}"


def test_empty_window_has_seen_nothing(window: Any) -> None:
    assert window.highest == -1
    assert window.check(0)
    assert window.check(END - 1)
    assert not window.check(END)


def test_check_changes_nothing(window: Any) -> None:
    for counter in (0, 5, 2**40):
        assert window.check(counter)
        assert window.check(counter)
    assert window.highest == -1


def test_whole_window_upwards_leaves_room_for_its_oldest_only(window: Any) -> None:
    assert all(accept(window, counter) for counter in range(1, WIDTH))
    assert accept(window, 0)
    assert not accept(window, 0)
    assert accept(window, WIDTH)
    assert not accept(window, 0)


def test_whole_window_upwards_from_two_closes_zero(window: Any) -> None:
    assert all(accept(window, counter) for counter in range(2, WIDTH + 1))
    assert accept(window, 1)
    assert not accept(window, 0)


def test_whole_window_downwards_is_accepted(window: Any) -> None:
    assert all(accept(window, counter) for counter in range(WIDTH - 1, -1, -1))
    assert not any(window.check(counter) for counter in range(WIDTH))


@pytest.mark.parametrize("start", [0, 1, 63, 64, 100, WIDTH - 1, WIDTH, WIDTH + 63])
@pytest.mark.parametrize(
    "step", [1, 63, 64, 65, WIDTH - 64, WIDTH - 1, WIDTH, WIDTH + 1, WIDTH + 63, WIDTH + 64, WIDTH + 65]
)
def test_a_jump_of_any_size_leaves_no_old_bit_behind(window: Any, start: int, step: int) -> None:
    """Counters that were seen stay seen, those between are fresh, and those behind are refused."""
    window.update(start)
    window.update(start + step)
    for counter in range(max(0, start + step - WIDTH - 70), start + step + 1):
        inside = counter > start + step - WIDTH
        assert window.check(counter) is (inside and counter not in (start, start + step))


def test_counters_beyond_64_bits_are_an_error(window: Any) -> None:
    for counter in (-1, 2**64):
        with pytest.raises(OverflowError):
            window.check(counter)
        with pytest.raises(OverflowError):
            window.update(counter)
    assert window.highest == -1
