"""Passing frames on: label switching, and one fair queue per link.  It holds no key and knows no stream and no node.

    frame under before.label_in ─► Way ahead ─┐
                                   Way ahead ─┼─► LinkQueue ─► next, under label_out, on the same channel
    feedback under ahead.label_in ► Way back ─┘

Data frames go ahead and feedback comes back; a frame that goes the other way is under no label we know.  A neighbour
that throws our frames back at us therefore gets nothing passed on.

What waits is bounded three times: per route, per link, and for all.  Those of a route and a link grow with what leaves
over the link in 50 ms (served.py), that of all does not.  On a link, a route may queue as much as is still free
(dynamic thresholds, Choudhury and Hahne 1998): one route alone gets half of the room and n get 1/(n + 1) each, so
that a flood costs the flood, and a newcomer finds room without anybody looking for the largest queue.  A route that
has no more room loses its own oldest frames: what its ends want most is the news.

Links are served by deficit round robin over bytes, routes that were quiet first (RFC 8290, section 4.2): a ping among
a hundred transfers waits for one frame and not for a hundred.

Drop reasons: relay-full, relay-rate (a neighbour's allowance is spent), relay-aged (waited too long), relay-gone (the
route ended while frames waited).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from conflux.anchor.codec import relabel
from conflux.anchor.frame import FRAME_BYTES_MAX
from conflux.control.budget import TokenBucket
from conflux.datapath.config import DatapathConfig
from conflux.datapath.interface import Hop, OutFrame
from conflux.datapath.served import Served
from conflux.errors import LocalProtocolError
from conflux.ids import LinkId

# What a waiting frame costs beside its bytes: objects here, a chunk of its own and an acknowledgement on the wire.
# Charged in bounds and in turns, or many small frames would be cheap.
FRAME_COST_BYTES: Final = 256
QUANTUM_BYTES: Final = 16384 + FRAME_COST_BYTES  # a full bundle per turn: DatapathConfig.bundle_bytes_max

Label = tuple[int, int]  # link, label_in
Waiting = tuple[float, int, bytes]  # when it came, its channel, the frame as it came


class LinkQueue:
    """What waits to leave over one link.  At most one of the two lists holds a way, and only once."""

    __slots__ = ("cost", "quiet", "served", "turns", "way_count")

    def __init__(self) -> None:
        self.quiet: deque[Way] = deque()  # had nothing to send until now: served first, for one quantum
        self.turns: deque[Way] = deque()
        self.cost = 0  # bytes, and FRAME_COST_BYTES per frame
        self.served = Served()  # the same of what left
        self.way_count = 0


class Way:
    """One direction of a route: where its frames go, those that wait to, and how many went."""

    __slots__ = ("back", "bytes_sent", "cost", "deficit", "frame_count", "hop", "out", "waiting")

    def __init__(self, hop: Hop, out: LinkQueue) -> None:
        self.hop = hop
        self.out = out
        self.back: Way | None = None  # the other direction
        # Made with the first frame and let go with the last turn: an empty deque is 760 bytes, a quiet route 0.
        self.waiting: deque[Waiting] | None = None
        self.cost = 0
        self.deficit = 0
        self.frame_count = 0
        self.bytes_sent = 0


class RelayTable:
    """Every route that passes through, and every frame of theirs that waits."""

    def __init__(self, config: DatapathConfig, drop: Callable[[str], None]) -> None:
        self._config = config
        self._drop = drop
        self._ahead: dict[Label, Way] = {}  # by the side before, for data
        self._back: dict[Label, Way] = {}  # by the side ahead, for feedback
        self._queues: dict[LinkId, LinkQueue] = {}
        self._ready: dict[LinkId, LinkQueue] = {}  # those with frames, the longest unserved first
        self._allowances: dict[LinkId, TokenBucket] = {}  # outlive their link's routes until full again
        self._cost = 0

    # ── tables ──

    def holds(self, label: Label, *, feedback: bool) -> bool:
        """Say whether frames under a label are passed on."""
        return label in (self._back if feedback else self._ahead)

    def add(self, before: Hop, ahead: Hop, now: float) -> None:
        """Pass frames on between two hops.  Raises LocalProtocolError if they share a link or a label is taken."""
        label_before, label_ahead = (before.link, before.label_in), (ahead.link, ahead.label_in)
        if before.link == ahead.link:
            raise LocalProtocolError("a relay back over the link it comes from")
        for label in (label_before, label_ahead):
            if label in self._ahead or label in self._back:
                raise LocalProtocolError("the label is taken")
        self._forget_allowances(now)
        way_ahead, way_back = Way(ahead, self._queue(ahead.link)), Way(before, self._queue(before.link))
        way_ahead.back, way_back.back = way_back, way_ahead
        self._ahead[label_before] = way_ahead
        self._back[label_ahead] = way_back

    def remove(self, label: Label) -> None:
        """Pass nothing on any more, in either direction; what waits is dropped.  No-op if unknown."""
        way = self._ahead.get(label) or self._back.get(label)
        if way is None or way.back is None:
            return
        pair = (way, way.back)
        for one, other in (pair, pair[::-1]):
            other_label = (other.hop.link, other.hop.label_in)  # what comes from the other side goes out here
            for table in (self._ahead, self._back):
                if table.get(other_label) is one:
                    del table[other_label]
            self._clear(one)
            one.back = None  # no cycle: the memory is free at once
            one.out.way_count -= 1
            if not one.out.way_count:
                del self._queues[one.hop.link]

    def _queue(self, link: LinkId) -> LinkQueue:
        queue = self._queues.setdefault(link, LinkQueue())
        queue.way_count += 1
        return queue

    def _clear(self, way: Way) -> None:
        while way.waiting:
            self._take(way, way.waiting)
            self._drop("relay-gone")
        if way.waiting is not None:
            (way.out.quiet if way in way.out.quiet else way.out.turns).remove(way)
            way.waiting = None
        if not way.out.cost:
            self._ready.pop(way.hop.link, None)

    # ── in ──

    def receive_untrusted(self, label: Label, feedback: bool, channel: int, frame: bytes, now: float) -> bool:
        """Take a frame that came under a label; False if none is passed on under it.  Its header is well-formed."""
        way = (self._back if feedback else self._ahead).get(label)
        if way is None:
            return False
        rate = self._config.relay_bytes_per_s
        if rate is not None and not self._allowance(LinkId(label[0]), rate).take(now, len(frame)):
            self._drop("relay-rate")
            return True
        cost = len(frame) + FRAME_COST_BYTES
        out = way.out
        if way.cost + cost > self._room(way, 0, now) and not self._make_room(way, cost, now):
            return True
        if way.waiting is None:
            way.waiting = deque()
            way.deficit = QUANTUM_BYTES
            out.quiet.append(way)
        if not out.cost:
            self._ready[way.hop.link] = out
        way.waiting.append((now, channel, frame))
        way.cost += cost
        out.cost += cost
        self._cost += cost
        return True

    def _room(self, way: Way, freed: int, now: float) -> int:
        """Return how much the way may have waiting, once so many bytes of it are freed."""
        config = self._config
        route_bytes_max = way.out.served.bound(config.relay_route_bytes_max, now)
        grown = route_bytes_max - config.relay_route_bytes_max
        link_bytes_max = config.relay_link_bytes_max + 2 * grown  # alone, a way has half of the link's room
        free = min(link_bytes_max - way.out.cost, config.relay_bytes_max - self._cost)
        return min(route_bytes_max, free + freed)

    def _make_room(self, way: Way, cost: int, now: float) -> bool:
        """Drop the way's oldest frames until one of that cost fits; False if none would help, and it is dropped."""
        if cost > self._room(way, way.cost, now):
            self._drop("relay-full")
            return False
        while way.waiting and way.cost + cost > self._room(way, 0, now):
            self._take(way, way.waiting)
            self._drop("relay-full")
        return True

    def _allowance(self, link: LinkId, rate: int) -> TokenBucket:
        allowance = self._allowances.get(link)
        if allowance is None:
            # A quarter of a second at once, and never less than the largest frame.
            allowance = self._allowances[link] = TokenBucket(rate, max(rate / 4, FRAME_BYTES_MAX))
        return allowance

    def _forget_allowances(self, now: float) -> None:
        """Forget those of links without routes, once full: setting a route up anew must not refill one."""
        for link, allowance in tuple(self._allowances.items()):
            if link not in self._queues and allowance.take(now, allowance.burst):
                del self._allowances[link]

    # ── out ──

    def ready(self) -> tuple[LinkId, ...]:
        """Return the links that frames wait for, the longest unserved first."""
        return tuple(self._ready)

    def next(self, link: LinkId, now: float) -> OutFrame | None:
        """Return the next frame for a link, or None."""
        out = self._ready.pop(link, None)
        if out is None:
            return None
        frame = None
        while out.cost and frame is None:
            frame = self._turn(out, now)
        if out.cost:
            self._ready[link] = out  # behind all others
        else:
            for ways in (out.quiet, out.turns):
                while ways:
                    ways.popleft().waiting = None
        return frame

    def _turn(self, out: LinkQueue, now: float) -> OutFrame | None:
        """Look at the way whose turn it is: return its frame, or see to it that another's turn comes."""
        ways = out.quiet or out.turns
        way = ways[0]
        if way.deficit <= 0:
            way.deficit += QUANTUM_BYTES
            ways.popleft()
            out.turns.append(way)
            return None
        if not way.waiting:
            ways.popleft()
            if ways is out.turns:
                way.waiting = None
            else:
                out.turns.append(way)  # before it counts as quiet again, everybody else has a turn
            return None
        came_at, channel, frame = way.waiting[0]
        cost = self._take(way, way.waiting)
        if came_at + self._config.relay_age_s_max < now:
            self._drop("relay-aged")
            return None
        out.served.add(cost, now)
        way.deficit -= cost
        way.frame_count += 1
        way.bytes_sent += len(frame)
        # A way with nothing left behind this frame is not the one that made the queue.
        congestion = way.cost > 0 and out.cost > self._config.relay_mark_bytes
        hop = way.hop
        return OutFrame(hop.link, hop.tether, channel % hop.channel_count, relabel(frame, hop.label_out, congestion))

    def _take(self, way: Way, waiting: deque[Waiting]) -> int:
        """Take the way's oldest frame out of every sum; return its cost."""
        cost = len(waiting.popleft()[2]) + FRAME_COST_BYTES
        way.cost -= cost
        way.out.cost -= cost
        self._cost -= cost
        return cost

    # ── what came of it ──

    def status(self) -> list[dict[str, object]]:
        """Every route: two links with their labels, and what went each way.  There is nothing else to show."""
        return [
            {
                "before": _side(ahead.back),
                "ahead": _side(ahead),
                "frames_ahead": ahead.frame_count,
                "bytes_ahead": ahead.bytes_sent,
                "frames_back": ahead.back.frame_count,
                "bytes_back": ahead.back.bytes_sent,
            }
            for ahead in self._ahead.values()
            if ahead.back is not None
        ]


def _side(way: Way) -> dict[str, int]:
    return {"link": way.hop.link, "label_in": way.hop.label_in, "label_out": way.hop.label_out}
