"""Passes frames on: label switching, and one fair queue per link.  It holds no key and knows no stream and no node.

    frame under before.label_in ─► Way ahead ─┐
                                   Way ahead ─┼─► LinkQueue ─► next, under label_out, on the same channel
    feedback under ahead.label_in ► Way back ─┘

Data frames go ahead and feedback goes back.  A frame in the other direction is under no known label, so a neighbour
that sends our own frames back to us gets nothing passed on.

What waits is bounded three times: per route, per link, and in all.  The bounds of a route and of a link grow with what
leaves over the link in 50 ms (served.py); the bound of all does not.  On a link, a route may queue as much as is still
free (dynamic thresholds, Choudhury and Hahne 1998): one route alone gets half of the room, n routes get 1/(n + 1)
each.  So a flood drops its own frames, and a new route finds room without a search for the largest queue.  A route
without room loses its oldest frames: the newest are worth most to its ends.

A link is served by deficit round robin over bytes, routes that were quiet first (RFC 8290, section 4.2): a ping among
a hundred transfers waits for one frame and not for a hundred.

Drops: relay-full, relay-rate (a neighbour's allowance is spent), relay-aged (it waited too long), relay-gone (the
route ended while it waited).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from conflux.anchor.codec import relabel
from conflux.anchor.frame import FRAME_BYTES_MAX
from conflux.budget import TokenBucket
from conflux.carrier.interface import Hop, OutFrame
from conflux.datapath.config import DatapathConfig
from conflux.datapath.drop import Drop
from conflux.datapath.interface import Label
from conflux.datapath.reference.served import Served
from conflux.datapath.status import RelaySideStatus, RelayStatus
from conflux.errors import LocalProtocolError
from conflux.ids import LinkId

# What a waiting frame costs beside its bytes: objects here, a chunk of its own and an acknowledgement on the wire.
# Bounds and turns count it, or many small frames would be too cheap.
FRAME_COST_BYTES: Final = 256
QUANTUM_BYTES: Final = 16384 + FRAME_COST_BYTES  # a full bundle per turn: DatapathConfig.bundle_bytes_max

Waiting = tuple[float, int, bytes]  # when the frame came, its channel, the frame as it came


class LinkQueue:
    """What waits to leave over one link.  A way is in at most one of the two lists, once."""

    __slots__ = ("cost", "quiet", "served", "turns", "way_count")

    def __init__(self) -> None:
        self.quiet: deque[Way] = deque()  # ways that had nothing to send until now: served first, for one quantum
        self.turns: deque[Way] = deque()
        self.cost = 0  # of what waits: its bytes, and FRAME_COST_BYTES per frame
        self.served = Served()  # the cost of what left
        self.way_count = 0


class Way:
    """One direction of a route: where its frames go, which of them wait, and how many went."""

    __slots__ = ("back", "bytes_sent", "cost", "deficit", "frame_count", "hop", "out", "waiting")

    def __init__(self, hop: Hop, out: LinkQueue) -> None:
        self.hop = hop
        self.out = out
        self.back: Way | None = None  # the other direction
        # Made for the first frame and dropped after the last turn: an empty deque takes 760 bytes, a quiet route none.
        self.waiting: deque[Waiting] | None = None
        self.cost = 0
        self.deficit = 0
        self.frame_count = 0
        self.bytes_sent = 0


class RelayTable:
    """Every route that passes through this node, and every frame of theirs that waits."""

    def __init__(self, config: DatapathConfig, drop: Callable[[str], None]) -> None:
        self._config = config
        self._drop = drop
        self._ahead: dict[Label, Way] = {}  # by the label of the hop before: data
        self._back: dict[Label, Way] = {}  # by the label of the hop ahead: feedback
        self._queues: dict[LinkId, LinkQueue] = {}
        self._ready: dict[LinkId, LinkQueue] = {}  # links with frames, the longest unserved first
        self._allowances: dict[LinkId, TokenBucket] = {}  # kept until full again, even if the link has no route left
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
        """Pass nothing on any more, in either direction, and drop what waits.  No-op if unknown."""
        way = self._ahead.get(label) or self._back.get(label)
        if way is None or way.back is None:
            return
        pair = (way, way.back)
        for one, other in (pair, pair[::-1]):
            other_label = (other.hop.link, other.hop.label_in)  # what comes under it leaves by this way
            for table in (self._ahead, self._back):
                if table.get(other_label) is one:
                    del table[other_label]
            self._clear(one)
            one.back = None  # breaks the cycle, so that the memory is free at once
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
            self._drop(Drop.RELAY_GONE)
        if way.waiting is not None:
            (way.out.quiet if way in way.out.quiet else way.out.turns).remove(way)
            way.waiting = None
        if not way.out.cost:
            self._ready.pop(way.hop.link, None)

    # ── in ──

    def receive_untrusted(self, label: Label, feedback: bool, channel: int, frame: bytes, now: float) -> bool:
        """Take a frame that came under a label; False if nothing is passed on under it.  peek() accepted the frame."""
        way = (self._back if feedback else self._ahead).get(label)
        if way is None:
            return False
        rate = self._config.relay_bytes_per_s
        if rate is not None and not self._allowance(LinkId(label[0]), rate).take(now, len(frame)):
            self._drop(Drop.RELAY_RATE)
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
        """Return how many bytes of the way may wait, once it has freed so many."""
        config = self._config
        route_bytes_max = way.out.served.bound(config.relay_route_bytes_max, now)
        grown = route_bytes_max - config.relay_route_bytes_max
        link_bytes_max = config.relay_link_bytes_max + 2 * grown  # a way alone has half of the link's room
        free = min(link_bytes_max - way.out.cost, config.relay_bytes_max - self._cost)
        return min(route_bytes_max, free + freed)

    def _make_room(self, way: Way, cost: int, now: float) -> bool:
        """Drop the way's oldest frames until one of that cost fits; if it never would, drop it and return False."""
        if cost > self._room(way, way.cost, now):
            self._drop(Drop.RELAY_FULL)
            return False
        while way.waiting and way.cost + cost > self._room(way, 0, now):
            self._take(way, way.waiting)
            self._drop(Drop.RELAY_FULL)
        return True

    def _allowance(self, link: LinkId, rate: int) -> TokenBucket:
        allowance = self._allowances.get(link)
        if allowance is None:
            # The burst is a quarter of a second, and never less than the largest frame.
            allowance = self._allowances[link] = TokenBucket(rate, max(rate / 4, FRAME_BYTES_MAX))
        return allowance

    def _forget_allowances(self, now: float) -> None:
        """Forget full allowances of links without routes.  Others stay: a new set-up must not refill an allowance."""
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
            self._ready[link] = out  # behind all other links
        else:
            for ways in (out.quiet, out.turns):
                while ways:
                    ways.popleft().waiting = None
        return frame

    def _turn(self, out: LinkQueue, now: float) -> OutFrame | None:
        """Return the frame of the way whose turn it is, or None after giving the turn to another."""
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
                out.turns.append(way)  # every other way has a turn before this one counts as quiet again
            return None
        came_at, channel, frame = way.waiting[0]
        cost = self._take(way, way.waiting)
        if came_at + self._config.relay_age_s_max < now:
            self._drop(Drop.RELAY_AGED)
            return None
        out.served.add(cost, now)
        way.deficit -= cost
        way.frame_count += 1
        way.bytes_sent += len(frame)
        # Mark only a way with more frames behind this one: a way without them did not make the queue.
        congestion = way.cost > 0 and out.cost > self._config.relay_mark_bytes
        hop = way.hop
        return OutFrame(hop.link, hop.tether, channel % hop.channel_count, relabel(frame, hop.label_out, congestion))

    def _take(self, way: Way, waiting: deque[Waiting]) -> int:
        """Remove the way's oldest frame, and its cost from every sum; return the cost."""
        cost = len(waiting.popleft()[2]) + FRAME_COST_BYTES
        way.cost -= cost
        way.out.cost -= cost
        self._cost -= cost
        return cost

    # ── what came of it ──

    def status(self) -> tuple[RelayStatus, ...]:
        """Return every route: two links with their labels, and what went each way.  A relay knows no more."""
        return tuple(
            RelayStatus(
                before=_side(ahead.back),
                ahead=_side(ahead),
                frames_ahead=ahead.frame_count,
                bytes_ahead=ahead.bytes_sent,
                frames_back=ahead.back.frame_count,
                bytes_back=ahead.back.bytes_sent,
            )
            for ahead in self._ahead.values()
            if ahead.back is not None
        )


def _side(way: Way) -> RelaySideStatus:
    return RelaySideStatus(way.hop.link, way.hop.label_in, way.hop.label_out)
