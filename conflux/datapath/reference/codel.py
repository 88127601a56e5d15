"""CoDel (RFC 8289): when to signal a standing queue.  It decides; the queue drops or marks.

It is called per packet, where the RFC has a loop; states and arithmetic are the RFC's.
"""

from __future__ import annotations

from math import sqrt

TARGET_S = 0.005  # RFC 8289, section 4.3: 5 to 10 % of the interval
INTERVAL_S = 0.1  # RFC 8289, section 4.4: the RTT of most flows is shorter


class CoDel:
    """The state of one queue."""

    __slots__ = ("_count", "_count_before", "_drop_next", "_first_above", "dropping")

    def __init__(self) -> None:
        self.dropping = False
        self._first_above: float | None = None  # from then on, if no sojourn was below target, the queue stands
        self._drop_next = 0.0
        self._count = 0  # signals since dropping began
        self._count_before = 0

    def signal(self, sojourn_s: float, backlog_bytes: int, backlog_bytes_min: int, now: float) -> bool:
        """Say whether to drop or mark the packet that just left the queue, after sojourn_s in it.

        backlog_bytes: what is queued behind it.  A queue of at most backlog_bytes_min is never a standing queue, so the
        last packet of a queue is never dropped.
        """
        if sojourn_s < TARGET_S or backlog_bytes <= backlog_bytes_min:
            self._first_above = None
            self.dropping = False
            return False
        if self._first_above is None:
            self._first_above = now + INTERVAL_S
            self.dropping = False
            return False
        if now < self._first_above:
            return False
        if self.dropping:
            if now < self._drop_next:
                return False
            self._count += 1
            self._drop_next += INTERVAL_S / sqrt(self._count)
            return True
        self.dropping = True
        # If dropping stopped only a short time ago, start near the rate that controlled the queue then.
        since_last = self._count - self._count_before
        recently = now - self._drop_next < 16 * INTERVAL_S
        self._count = since_last if since_last > 1 and recently else 1
        self._count_before = self._count
        self._drop_next = now + INTERVAL_S / sqrt(self._count)
        return True
