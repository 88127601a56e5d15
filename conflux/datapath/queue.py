"""One destination's packets, in order within every flow, bounded in bytes, packets and, while they wait, age.

The bound in bytes is what leaves the queue in 50 ms, within limits (served.py).  All queues together are bounded as the
relay's are: each may have waiting as much as is still free.

    push ─► bucket 0 ▯▯▯▯▯ ┐
            bucket 1 ▯     ├─ taken in turn, one bundle each ─► take
            …              ┘

A bucket holds the flows of one hash; a bundle holds packets of one bucket, so that pinning a bucket to a channel keeps
a flow's order, and a bulk transfer delays a ping by one bundle and not by its whole backlog.  The queue knows no stream
and no route: it is told when packets have somewhere to go.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from conflux.anchor.frame import ENTRY_HEADER_BYTES, PACKET
from conflux.datapath.codel import CoDel
from conflux.datapath.packet import mark_congestion
from conflux.datapath.served import Served

BUCKET_COUNT: Final = 8  # a tether has at most a handful of channels, and a board a handful of flows to one destination


class Bucket:
    """The packets of some flows, oldest first."""

    __slots__ = ("bytes", "codel", "entries", "index", "times")

    def __init__(self, index: int) -> None:
        self.index = index
        # Two deques, so that what is queued is what is sealed: no object is made per packet on the way out.
        self.entries: deque[tuple[int, bytes]] = deque()  # (PACKET, packet)
        self.times: deque[float] = deque()  # when each was queued
        self.bytes = 0
        self.codel = CoDel()


class AllQueues:
    """What the queues of all destinations have waiting."""

    __slots__ = ("bytes", "bytes_max")

    def __init__(self, bytes_max: int) -> None:
        self.bytes = 0
        self.bytes_max = bytes_max


class FlowQueue:
    """All buckets of one destination.

    drop(reason) is called once per dropped packet: queue-full (the oldest packet of the largest bucket goes, RFC 8290,
    section 4.1.2, so that a flood costs the flood), aged, codel, and what clear() is given.
    """

    def __init__(
        self,
        *,
        bytes_max: int,
        packets_max: int,
        bundle_bytes_max: int,
        together: AllQueues,
        drop: Callable[[str], None],
    ) -> None:
        self._bytes_max = bytes_max
        self._packets_max = packets_max
        self._bundle_bytes_max = bundle_bytes_max
        self._together = together
        self._drop = drop
        self._served = Served()
        self._buckets: dict[int, Bucket] = {}  # by index, made when first used: most destinations have one flow
        self._turns: deque[Bucket] = deque()  # those with packets, next to be served first
        self._moving_since: float | None = None
        self.bytes = 0
        self.packet_count = 0
        self.marked_count = 0

    def push(self, entry: tuple[int, bytes], flow: int, now: float) -> None:
        """Queue one (PACKET, packet) of a flow."""
        index = flow % BUCKET_COUNT
        bucket = self._buckets.get(index)
        if bucket is None:
            bucket = self._buckets[index] = Bucket(index)
        size = len(entry[1])
        if not bucket.entries:
            self._turns.append(bucket)
        bucket.entries.append(entry)
        bucket.times.append(now)
        bucket.bytes += size
        self.bytes += size
        self._together.bytes += size
        self.packet_count += 1
        while self.bytes > self._room(now) or self.packet_count > self._packets_max:
            self._shorten(max(self._turns, key=lambda each: each.bytes), "queue-full")

    def _room(self, now: float) -> int:
        """Return how many bytes may wait: no more than are left for all others."""
        free = max(self._together.bytes_max - self._together.bytes, 0)
        return min(self._served.bound(self._bytes_max, now), free)

    def move(self, now: float | None) -> None:
        """Say since when packets have somewhere to go; None: they wait.

        What queued before is never CoDel's to drop: it waited for a link, not behind a standing queue.
        """
        if now is None or self._moving_since is None:
            for bucket in self._buckets.values():
                bucket.codel = CoDel()
            self._moving_since = now

    def take(self, bytes_max: int, now: float) -> tuple[int, list[tuple[int, bytes]]]:
        """Return the index and the packets of the bucket whose turn it is, up to bytes_max of bundle.

        The first packet is returned even if it is larger, unless bytes_max is below the bundle size already: then
        somebody else has the room.  At least one packet remains of whatever CoDel drops.
        """
        bucket = self._turns[0]
        entries, times, codel = bucket.entries, bucket.times, bucket.codel
        moving_since = now if self._moving_since is None else self._moving_since
        backlog_bytes_min = self._bundle_bytes_max  # what the next frame takes anyway is no standing queue
        taken: list[tuple[int, bytes]] = []
        room = bytes_max
        while entries:
            entry = entries[0]
            size = len(entry[1])
            room -= ENTRY_HEADER_BYTES + size
            if room < 0 and (taken or bytes_max < self._bundle_bytes_max):
                break
            entries.popleft()
            queued_at = times.popleft()
            bucket.bytes -= size
            self.bytes -= size
            self._together.bytes -= size
            self.packet_count -= 1
            sojourn_s = 0.0 if queued_at <= moving_since else now - queued_at
            if codel.signal(sojourn_s, bucket.bytes, backlog_bytes_min, now):
                marked = mark_congestion(entry[1])
                if marked is None:
                    room += ENTRY_HEADER_BYTES + size
                    self._drop("codel")
                    continue
                entry = (PACKET, marked)
                self.marked_count += 1
            taken.append(entry)
            self._served.add(size, now)
        self._turns.popleft()
        if entries:
            self._turns.append(bucket)
        return bucket.index, taken

    def oldest_at(self) -> float | None:
        """When the oldest packet was queued; None if there is none."""
        return min((bucket.times[0] for bucket in self._turns), default=None)

    def drop_aged(self, age_s_max: float, now: float) -> None:
        """Drop as "aged" every packet that has waited for age_s_max."""
        for bucket in tuple(self._turns):
            while bucket.times and bucket.times[0] + age_s_max <= now:
                self._shorten(bucket, "aged")

    def clear(self, reason: str) -> None:
        """Drop everything under reason."""
        for bucket in tuple(self._turns):
            while bucket.entries:
                self._shorten(bucket, reason)

    def _shorten(self, bucket: Bucket, reason: str) -> None:
        """Drop the bucket's oldest packet."""
        size = len(bucket.entries.popleft()[1])
        bucket.times.popleft()
        bucket.bytes -= size
        self.bytes -= size
        self._together.bytes -= size
        self.packet_count -= 1
        if not bucket.entries:
            self._turns.remove(bucket)
        self._drop(reason)
