"""The bytes of a report, and what a sender computes from them."""

from __future__ import annotations

from math import nan

import pytest

from conflux.datapath.feedback import (
    DELAY_BASE_S,
    SENT_COUNT_MAX,
    DelayChange,
    Report,
    SentTimes,
    decode_interval_untrusted,
    encode_interval,
)
from conflux.errors import RemoteProtocolError

REPORT = Report(
    counter_highest=0x0102,
    received_count=0x0101,
    marked_count=3,
    received_bytes=0x0A0B0C,
    arrived_us=1_000_000,
    held_us=2_000,
    interval_us=100_000,
)
BYTES = bytes.fromhex(
    "0000000000000102 0000000000000101 0000000000000003 00000000000a0b0c 00000000000f4240 000007d0 000186a0"
)


def test_a_report_is_these_bytes() -> None:
    assert REPORT.encode() == BYTES
    assert Report.decode_untrusted(BYTES) == REPORT


@pytest.mark.parametrize("body", [b"", BYTES[:-1], BYTES + b"\0"])
def test_a_report_of_another_size_is_refused(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="bad-report"):
        Report.decode_untrusted(body)


@pytest.mark.parametrize(
    "report",
    [
        REPORT._replace(received_count=0),
        REPORT._replace(received_count=0x0104),
        REPORT._replace(marked_count=0x0102),
    ],
)
def test_impossible_counts_are_refused(report: Report) -> None:
    with pytest.raises(RemoteProtocolError, match="bad-report"):
        Report.decode_untrusted(report.encode())


def test_times_too_long_for_their_field_are_capped_and_do_not_wrap() -> None:
    report = Report.decode_untrusted(REPORT._replace(held_us=2**40, interval_us=2**40).encode())
    assert report.held_us == report.interval_us == 2**32 - 1


def test_an_interval_survives_its_bytes() -> None:
    assert encode_interval(0.25).hex(" ") == "00 03 d0 90"
    assert decode_interval_untrusted(encode_interval(0.25)) == 0.25
    assert decode_interval_untrusted(encode_interval(1e9)) == (2**32 - 1) / 1e6
    for data in (bytes(4), b"\0\0\0\xf9", b"\0\7\xe1\x20", b"\xff\xff\xff\xff"):
        assert encode_interval(decode_interval_untrusted(data)) == data
    with pytest.raises(RemoteProtocolError, match="bad-report"):
        decode_interval_untrusted(b"\0\0\0")


def test_a_counter_is_timed_once_and_those_before_are_forgotten() -> None:
    sent = SentTimes()
    for counter in range(10):
        sent.sent(float(counter))
    assert sent.reported(4) == 4.0
    assert sent.count == 5
    assert sent.reported(4) is None
    assert sent.reported(2) is None
    assert sent.reported(9) == 9.0


def test_a_counter_that_was_never_sent_is_refused() -> None:
    sent = SentTimes()
    sent.sent(1.0)
    with pytest.raises(RemoteProtocolError, match="bad-report"):
        sent.reported(1)
    assert sent.count == 1


def test_a_frame_sent_at_an_unknown_time_is_not_timed() -> None:
    sent = SentTimes()
    sent.sent(nan)
    assert sent.reported(0) is None


def test_only_so_many_counters_are_remembered() -> None:
    sent = SentTimes()
    for counter in range(SENT_COUNT_MAX + 5):
        sent.sent(float(counter))
    assert sent.count == SENT_COUNT_MAX
    assert sent.reported(4) is None
    assert sent.reported(5) == 5.0
    assert sent.reported(SENT_COUNT_MAX + 4) == SENT_COUNT_MAX + 4


def test_delay_change_is_measured_from_the_least_whatever_the_clocks() -> None:
    offset_us = -(10**12)  # the far clock has another origin
    delay = DelayChange()
    assert [delay.update(offset_us + us, 0.1) for us in (5000, 4000, 9000)] == [0, 0, 5000]


def test_a_least_delay_ages_out_within_two_minutes() -> None:
    delay = DelayChange()
    delay.update(1000, 0.0)
    assert delay.update(3000, DELAY_BASE_S) == 2000
    assert delay.update(3000, 2 * DELAY_BASE_S) == 0
