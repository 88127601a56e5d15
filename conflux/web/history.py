"""The last hour, as samples in a ring: what the page plots.  Counters become rates; a restart is no negative rate."""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

STEP_S: Final = 15.0  # chosen: 240 points are as many as a phone can show
SAMPLE_COUNT_MAX: Final = 240  # an hour
LATE_FACTOR: Final = 3  # a sample that is later than so many steps begins anew: the board slept


class Counters(NamedTuple):
    """What the board has counted at one instant.

    at: Unix seconds.  boot_at: when the daemon started, on the same clock; another one begins its counts anew.
    received_bytes, sent_bytes: of packets that came out of the overlay and went into it; None: there is no device.
    """

    at: float
    boot_at: float
    received_bytes: int | None
    sent_bytes: int | None
    drops: int
    links: int
    nodes: int


class Sample(NamedTuple):
    """What is plotted at one instant; None: not known.

    received_mbit, sent_mbit: the mean since the sample before.  drops: since the sample before.
    """

    at: float
    received_mbit: float | None
    sent_mbit: float | None
    drops: int | None
    links: int | None
    nodes: int | None


class History:
    """A ring of samples, the oldest first."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque(maxlen=SAMPLE_COUNT_MAX)
        self._before: Counters | None = None

    def add(self, counters: Counters | None, *, at: float) -> None:
        """Add a sample.  counters: None if the daemon did not answer: the plot has a gap there."""
        if self._samples and at <= self._samples[-1].at:  # the clock was set back
            self._samples.clear()
            self._before = None
        if counters is None:
            self._samples.append(Sample(at, None, None, None, None, None))
        else:
            self._samples.append(_sample(counters, self._since(counters)))
        self._before = counters

    def _since(self, counters: Counters) -> Counters | None:
        """Return what a rate can be counted from, or None."""
        before = self._before
        if before is None or counters.at - before.at > LATE_FACTOR * STEP_S:
            return None
        is_same_daemon = abs(counters.boot_at - before.boot_at) < STEP_S  # a clock drifts, and is set by a little
        return before if is_same_daemon else None

    @property
    def samples(self) -> tuple[Sample, ...]:
        """The samples of the last hour, the oldest first."""
        return tuple(self._samples)


def _sample(now: Counters, before: Counters | None) -> Sample:
    return Sample(
        at=now.at,
        received_mbit=None if before is None else _mbit(now.received_bytes, before.received_bytes, now.at - before.at),
        sent_mbit=None if before is None else _mbit(now.sent_bytes, before.sent_bytes, now.at - before.at),
        drops=None if before is None else max(0, now.drops - before.drops),
        links=now.links,
        nodes=now.nodes,
    )


def _mbit(now: int | None, before: int | None, seconds: float) -> float | None:
    if now is None or before is None or now < before or seconds <= 0:
        return None
    return round((now - before) * 8e-6 / seconds, 4)
