"""The last hour: rates from counters, gaps where nothing is known, and never more than an hour."""

from __future__ import annotations

from conflux.web.history import SAMPLE_COUNT_MAX, STEP_S, Counters, History

BOOT = 1000.0


def counters(step: int, *, received: int | None = 0, sent: int | None = 0, drops: int = 0, boot_at: float = BOOT):
    return Counters(BOOT + step * STEP_S, boot_at, received, sent, drops, links=2, nodes=3)


def filled(*samples: Counters | None) -> History:
    history = History()
    for step, sample in enumerate(samples):
        history.add(sample, at=BOOT + step * STEP_S)
    return history


def test_a_rate_is_the_mean_since_the_sample_before():
    second = filled(counters(0), counters(1, received=3_750_000, sent=1875, drops=4)).samples[1]
    assert (second.received_mbit, second.sent_mbit, second.drops) == (2.0, 0.001, 4)
    assert (second.links, second.nodes) == (2, 3)


def test_a_first_sample_has_no_rate():
    first = filled(counters(0, received=10**9)).samples[0]
    assert (first.received_mbit, first.sent_mbit, first.drops) == (None, None, None)


def test_a_daemon_that_does_not_answer_leaves_a_gap_and_no_rate_across_it():
    _, gap, after = filled(counters(0), None, counters(2, received=10**6)).samples
    assert (gap.received_mbit, gap.links) == (None, None)
    assert (after.received_mbit, after.links) == (None, 2)


def test_a_restart_is_no_negative_rate_and_no_fewer_drops():
    second = filled(counters(0, received=10**9, drops=50), counters(1, boot_at=BOOT + STEP_S)).samples[1]
    assert (second.received_mbit, second.drops) == (None, None)


def test_a_device_that_was_made_anew_is_no_negative_rate():
    assert filled(counters(0, received=10**9), counters(1, received=5)).samples[1].received_mbit is None


def test_a_board_without_a_device_has_no_rate():
    assert filled(counters(0, received=None), counters(1, received=None)).samples[1].received_mbit is None


def test_a_board_that_slept_begins_anew():
    assert filled(counters(0), *[]).samples[0].received_mbit is None
    history = filled(counters(0))
    history.add(counters(100, received=10**9), at=BOOT + 100 * STEP_S)
    assert history.samples[1].received_mbit is None


def test_a_clock_that_was_set_back_begins_the_hour_anew():
    history = filled(counters(0), counters(1))
    history.add(counters(0), at=BOOT)
    assert [sample.at for sample in history.samples] == [BOOT]


def test_no_more_than_an_hour_is_kept():
    history = filled(*(counters(step) for step in range(SAMPLE_COUNT_MAX + 10)))
    assert len(history.samples) == SAMPLE_COUNT_MAX
    assert history.samples[-1].at - history.samples[0].at <= 3600
