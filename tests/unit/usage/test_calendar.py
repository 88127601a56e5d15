"""Days and months of a bill."""

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest

from conflux.usage.calendar import iso, local_day, month_first

BERLIN = ZoneInfo("Europe/Berlin")


def day(text: str) -> int:
    return date.fromisoformat(text).toordinal()


def at(text: str, zone: ZoneInfo | None = None) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone or UTC).timestamp()


@pytest.mark.parametrize(
    ("instant", "expected"),
    [
        ("2026-03-29 00:00:00", "2026-03-29"),  # a day of 23 hours
        ("2026-03-29 03:00:00", "2026-03-29"),
        ("2026-03-29 23:59:59", "2026-03-29"),
        ("2026-03-30 00:00:00", "2026-03-30"),
        ("2026-10-25 00:00:00", "2026-10-25"),  # of 25
        ("2026-10-25 23:59:59", "2026-10-25"),
        ("2026-10-26 00:00:00", "2026-10-26"),
    ],
)
def test_a_day_is_that_of_the_local_clock_also_when_clocks_are_changed(instant: str, expected: str) -> None:
    assert iso(local_day(at(instant, BERLIN), BERLIN)) == expected


def test_the_hour_that_comes_twice_is_of_one_day() -> None:
    first = datetime(2026, 10, 25, 2, 30, fold=0, tzinfo=BERLIN).timestamp()
    second = datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=BERLIN).timestamp()
    assert second - first == 3600
    assert local_day(first, BERLIN) == local_day(second, BERLIN) == day("2026-10-25")


def test_a_day_of_one_zone_is_another_elsewhere() -> None:
    assert local_day(at("2026-11-30 23:30:00"), BERLIN) == day("2026-12-01")
    assert local_day(at("2026-11-30 23:30:00"), UTC) == day("2026-11-30")


def test_an_instant_out_of_the_calendar_is_refused() -> None:
    for instant in (1e18, -1e18, 1e300):
        with pytest.raises(ValueError):  # noqa: PT011  # the text is the library's
            local_day(instant, UTC)


@pytest.mark.parametrize(
    ("today", "starts", "first"),
    [
        ("2026-12-01", 1, "2026-12-01"),
        ("2026-12-31", 1, "2026-12-01"),
        ("2026-12-14", 15, "2026-11-15"),
        ("2026-12-15", 15, "2026-12-15"),
        ("2027-01-03", 28, "2026-12-28"),
        ("2028-02-29", 28, "2028-02-28"),
        ("2028-03-01", 28, "2028-02-28"),
        ("0001-01-01", 15, "0001-01-01"),
    ],
)
def test_a_month_begins_on_the_day_that_a_person_says(today: str, starts: int, first: str) -> None:
    assert iso(month_first(day(today), starts)) == first
