"""The check of the clock: against the realm's dates, the battery clock, NTP, and what peers' dates say."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from conflux.doctor.finding import Check, Finding, bad, good
from conflux.doctor.subject import Subject
from conflux.errors import StateError
from conflux.realm.clock import BEHIND_S_MIN
from conflux.realm.dates import span, utc

REMEDY = "sudo timedatectl set-ntp true"
RTC = Path("/sys/class/rtc/rtc0/since_epoch")
RTC_OFF_S_MIN = 26 * 3600  # it may keep local time, which is 14 hours away at the most

# linux/timex.h
_TIMEX_BYTES, _STATUS_AT = 208, 40
_STA_UNSYNC = 0x40


class Clock(NamedTuple):
    """now_unix: this host's time.  floor_unix: the newest date that the realm signed, 0 if none is known.

    synchronised: by NTP; None: not known.  rtc_unix: the battery clock's time; None: there is none.
    refused_early: credentials of peers that were not yet valid by this clock.
    """

    now_unix: int
    floor_unix: int
    synchronised: bool | None
    rtc_unix: int | None
    refused_early: int


def look(seen: Subject) -> Clock:
    """Look at the clocks of this host, and at what the node knows of dates."""
    floor = 0
    if seen.state is not None:
        try:
            floor = seen.state.floor_unix()
        except StateError:
            floor = 0
    if seen.member is not None:
        floor = max(floor, seen.member.chain.newest_date)
    drops = seen.daemon.status.get("drops") or {}
    refused = drops.get("not-yet-valid", 0) if isinstance(drops, dict) else 0
    return Clock(int(time.time()), floor, _synchronised(), _rtc(), refused if isinstance(refused, int) else 0)


def judge(seen: Clock) -> Iterator[Finding]:
    """Judge the clock."""
    behind = seen.floor_unix - seen.now_unix
    if behind >= BEHIND_S_MIN:
        said = f"{utc(seen.now_unix)} is {span(behind)} behind: the realm signed something at {utc(seen.floor_unix)}"
        yield bad(Check.CLOCK, said, REMEDY)
        return
    if seen.refused_early:
        said = f"{utc(seen.now_unix)}: {seen.refused_early} dates of other nodes are to come by this clock"
        yield bad(Check.CLOCK, f"{said}; theirs or this one is wrong", "date -u    # on both boards")
        return
    if seen.rtc_unix is not None and abs(seen.rtc_unix - seen.now_unix) >= RTC_OFF_S_MIN:
        said = f"{utc(seen.now_unix)}, and the battery clock says {utc(seen.rtc_unix)}: the next start begins there"
        yield bad(Check.CLOCK, said, "sudo hwclock --systohc")
        return
    by = "" if seen.synchronised is None else f", {'' if seen.synchronised else 'not '}synchronised by NTP"
    battery = "" if seen.rtc_unix is not None else ", no battery clock"
    yield good(Check.CLOCK, f"{utc(seen.now_unix)}{by}{battery}")


def _synchronised() -> bool | None:
    """Return whether the kernel's clock is kept by NTP, as adjtimex(2) says; None: it may not be asked."""
    buffer = ctypes.create_string_buffer(_TIMEX_BYTES)
    if ctypes.CDLL(None).adjtimex(buffer) < 0:
        return None
    return not int.from_bytes(buffer.raw[_STATUS_AT : _STATUS_AT + 4], "little") & _STA_UNSYNC


def _rtc() -> int | None:
    try:
        return int(RTC.read_text("ascii"))
    except (OSError, ValueError):
        return None
