"""One destination's packets, in order within every flow; bounded in bytes and packets and, without a route, in age.

The bound in bytes is what leaves the queue in 50 ms, within limits (served.py).  All queues together are bounded too,
as a relay's are: each may hold as much as is still free.

    push ─► bucket 0 ▯▯▯▯▯ ┐
            bucket 1 ▯     ├─ taken in turn, one bundle each ─► take
            …              ┘

A bucket holds the flows of one hash, and a bundle holds packets of one bucket.  A bucket always uses the same channel,
so a flow stays in order.  A bulk transfer delays a ping by one bundle, not by all that it has queued.  The queue knows
no stream and no route; move() says when there is a route.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from conflux.anchor.frame import ENTRY_HEADER_BYTES, PACKET
from conflux.datapath.drop import Drop
from conflux.datapath.packet import mark_congestion
from conflux.datapath.reference.codel import CoDel
from conflux.datapath.reference.served import Served

BUCKET_COUNT: Final = 8  # a tether has 4 to 8 channels, and a board few flows to one destination


class Bucket:
    """The packets of the flows of one hash, oldest first."""

    __slots__ = ("bytes", "codel", "entries", "index", "times")

    def __init__(self, index: int) -> None:
        self.index = index
        # Two deques, so that the queued entry is the sealed entry: no object is made when a packet leaves.
        self.entries: deque[tuple[int, bytes]] = deque()  # (PACKET, packet)
        self.times: deque[float] = deque()  # when each was queued
        self.bytes = 0
        self.codel = CoDel()


class AllQueues:
    """What the queues of all destinations hold."""

    __slots__ = ("bytes", "bytes_max")

    def __init__(self, bytes_max: int) -> None:
        self.bytes = 0
        self.bytes_max = bytes_max


class FlowQueue:
    """All buckets of one destination.

    drop(reason) is called once per dropped packet: queue-full, aged, codel, and what clear() is given.  If the queue is
    full, the oldest packet of the largest bucket goes (RFC 8290, section 4.1.2): a flood drops its own packets.
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
        self._buckets: dict[int, Bucket] = {}  # by index, made at first use: most destinations have one flow
        self._turns: deque[Bucket] = deque()  # buckets with packets; the first is served next
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
            self._shorten(max(self._turns, key=lambda each: each.bytes), Drop.QUEUE_FULL)

    def _room(self, now: float) -> int:
        """Return how many bytes may wait: no more than all queues together leave free."""
        free = max(self._together.bytes_max - self._together.bytes, 0)
        return min(self._served.bound(self._bytes_max, now), free)

    def move(self, now: float | None) -> None:
        """Say since when there is a route; None: there is none, and packets wait.

        CoDel drops no packet that was queued before: it waited for a link, not behind a standing queue.
        """
        if now is None or self._moving_since is None:
            for bucket in self._buckets.values():
                bucket.codel = CoDel()
            self._moving_since = now

    def take(self, bytes_max: int, now: float) -> tuple[int, list[tuple[int, bytes]]]:
        """Return the index and the packets of the bucket whose turn it is, up to bytes_max of bundle.

        The first packet is returned even if it is larger, unless bytes_max is below the bundle size: then entries took
        the room.  CoDel leaves at least one packet.
        """
        bucket = self._turns[0]
        entries, times, codel = bucket.entries, bucket.times, bucket.codel
        moving_since = now if self._moving_since is None else self._moving_since
        backlog_bytes_min = self._bundle_bytes_max  # what fits the next frame is not a standing queue
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
                    self._drop(Drop.CODEL)
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
        """Return when the oldest packet was queued; None if there is none."""
        return min((bucket.times[0] for bucket in self._turns), default=None)

    def drop_aged(self, age_s_max: float, now: float) -> None:
        """Drop as "aged" every packet that has waited for age_s_max."""
        for bucket in tuple(self._turns):
            while bucket.times and bucket.times[0] + age_s_max <= now:
                self._shorten(bucket, Drop.AGED)

    def clear(self, reason: str) -> None:
        """Drop everything, counted under reason."""
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
