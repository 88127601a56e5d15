"""Days and months as a bill has them: by the local date, a month from the day on that a person says.

A day is a number: that of datetime.date.toordinal().  A day that is 23 or 25 hours long, as the clocks are changed, is
a day like any other.
"""

from __future__ import annotations

from datetime import date, datetime, tzinfo
from typing import Final

DAY_MAX: Final = date.max.toordinal()
MONTH_STARTS_MAX: Final = 28  # a day that every month has


def local_day(at_unix: float, zone: tzinfo | None = None) -> int:
    """Return the day of an instant.  zone: None: this host's.  Raises ValueError out of the calendar's range."""
    try:
        return datetime.fromtimestamp(at_unix, zone).toordinal()
    except (OverflowError, OSError) as error:
        raise ValueError(str(error)) from None


def month_first(day: int, starts: int) -> int:
    """Return the first day of the month that a day is in.  starts: 1 to 28, the day of the calendar's month."""
    there = date.fromordinal(day)
    if there.day >= starts:
        return there.replace(day=starts).toordinal()
    if there.year == date.min.year and there.month == 1:
        return 1
    before = there.replace(year=there.year - 1, month=12) if there.month == 1 else None
    return (before or there.replace(day=1, month=there.month - 1)).replace(day=starts).toordinal()


def iso(day: int) -> str:
    """Return "2026-12-01"."""
    return date.fromordinal(day).isoformat()
