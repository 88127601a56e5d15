"""What a receiver reports, and what the sender computes from it.

     0                8                16               24               32               40       44       48
     +----------------+----------------+----------------+----------------+----------------+--------+--------+
     | counter_highest| received_count | marked_count   | received_bytes | arrived_us     | held_us| int._us|
     +----------------+----------------+----------------+----------------+----------------+--------+--------+

Frames carry no timestamp.  The sender remembers when it sent which counter.  A report says when the newest counter
arrived on the receiver's clock (arrived_us, from an origin that the receiver chooses) and how long ago that was
(held_us).  From these the sender computes the round trip and the change of the one-way delay: the offset of the two
clocks is the same in every sample and cancels out.  In the other direction, a REPORT entry of four bytes asks the
receiver for another interval.
"""

from __future__ import annotations

import struct
from collections import deque
from math import nan
from typing import Final, NamedTuple

from conflux.datapath.drop import Drop
from conflux.errors import RemoteProtocolError

_REPORT: Final = struct.Struct(">QQQQQII")
_INTERVAL: Final = struct.Struct(">I")
_U32_MAX: Final = 2**32 - 1
_U64_MASK: Final = 2**64 - 1

SENT_COUNT_MAX: Final = 8192  # counters remembered until they are reported: as many as a replay window
DELAY_BASE_S: Final = 60.0  # RFC 6817, section 4.2: minima per minute, so that clock drift and old routes age out


class Report(NamedTuple):
    """What the receiver saw of one epoch; every count is since the epoch's first frame."""

    counter_highest: int
    received_count: int
    marked_count: int  # frames that carried congestion experienced
    received_bytes: int  # of bundles
    arrived_us: int  # when counter_highest arrived, on the receiver's clock
    held_us: int  # from then until this report was sealed
    interval_us: int  # the receiver's present reporting interval

    def encode(self) -> bytes:
        """Return the 48 bytes of a REPORT body."""
        return _REPORT.pack(
            self.counter_highest,
            self.received_count,
            self.marked_count,
            self.received_bytes & _U64_MASK,
            self.arrived_us & _U64_MASK,
            min(self.held_us, _U32_MAX),
            min(self.interval_us, _U32_MAX),
        )

    @classmethod
    def decode_untrusted(cls, body: bytes) -> Report:
        """Return the report.  Raises RemoteProtocolError("bad-report") for a wrong size or impossible counts."""
        if len(body) != _REPORT.size:
            raise RemoteProtocolError(Drop.BAD_REPORT, f"{len(body)} bytes")
        report = cls(*_REPORT.unpack(body))
        if not 0 < report.received_count <= report.counter_highest + 1 or report.marked_count > report.received_count:
            raise RemoteProtocolError(Drop.BAD_REPORT, "counts")
        return report


def encode_interval(interval_s: float) -> bytes:
    """Return the body of the REPORT entry with which a sender asks for an interval."""
    return _INTERVAL.pack(min(round(interval_s * 1e6), _U32_MAX))


def decode_interval_untrusted(body: bytes) -> float:
    """Return the seconds asked for.  Raises RemoteProtocolError("bad-report")."""
    if len(body) != _INTERVAL.size:
        raise RemoteProtocolError(Drop.BAD_REPORT, f"{len(body)} bytes")
    return float(_INTERVAL.unpack(body)[0]) / 1e6


class SentTimes:
    """When each counter was sent that is not reported yet; beyond SENT_COUNT_MAX the oldest are forgotten."""

    __slots__ = ("_first", "_times")

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=SENT_COUNT_MAX)
        self._first = 0  # counter of the leftmost

    def sent(self, now: float) -> None:
        """Take the next counter as sent at this time; NaN: unknown."""
        if len(self._times) == SENT_COUNT_MAX:
            self._first += 1
        self._times.append(now)

    def reported(self, counter: int) -> float | None:
        """Return when a counter was sent, or None if unknown; forget it and all before it.

        Raises RemoteProtocolError("bad-report") for a counter that was never sent.
        """
        times = self._times
        if counter >= self._first + len(times):
            raise RemoteProtocolError(Drop.BAD_REPORT, "a counter never sent")
        at = nan
        while self._first <= counter:
            at = times.popleft()
            self._first += 1
        return None if at != at else at

    @property
    def count(self) -> int:
        """How many counters are not reported yet."""
        return len(self._times)


class DelayChange:
    """The one-way delay, compared with the least of this minute and the minute before."""

    __slots__ = ("_least", "_least_before", "_minute_end")

    def __init__(self) -> None:
        self._least: int | None = None
        self._least_before: int | None = None
        self._minute_end = 0.0

    def update(self, delay_us: int, now: float) -> int:
        """Return how much larger delay_us is than the least, in microseconds.  delay_us may have a constant offset."""
        if self._least is None or now >= self._minute_end:
            self._least_before = self._least
            self._least = delay_us
            self._minute_end = now + DELAY_BASE_S
        else:
            self._least = min(self._least, delay_us)
        least = self._least if self._least_before is None else min(self._least, self._least_before)
        return delay_us - least
