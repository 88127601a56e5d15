"""Dates and spans of time, as a person reads them."""

from __future__ import annotations

from datetime import UTC, datetime


def utc(unix_s: int) -> str:
    """Return a date to the minute, as "2026-12-31 13:25 UTC"; beyond the year 9999, the seconds since 1970."""
    try:
        return f"{datetime.fromtimestamp(unix_s, UTC):%Y-%m-%d %H:%M} UTC"
    except (ValueError, OverflowError):
        return f"{unix_s} s after 1970"


def span(seconds: int) -> str:
    """Return "3 days", "1 hour", "5 minutes" or "4 s"."""
    for unit_s, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= unit_s:
            count = seconds // unit_s
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return f"{seconds} s"
