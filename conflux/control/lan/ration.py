"""How much of one connection is read: charged by a frame's head, before anything is done with its body.  Sans-IO."""

from __future__ import annotations

from conflux.budget import TokenBucket
from conflux.control.drop import Drop
from conflux.control.lan.frame import FrameType, Head
from conflux.errors import RemoteProtocolError

# Twice what the plane and the bridge would look at (bridge.py): what they would drop by the thousand waits in the
# peer's own buffers, at the cost of a comparison.  Bytes: the largest envelopes at the rate of the bridge.
FRAME_RATE, FRAME_BURST = 200.0, 800.0
BYTE_RATE, BYTE_BURST = 4e6, 16e6

# Pings, what a connection is for, and whether the peer joins LANs: an honest peer says one in half a minute, and a few
# when something changes.
TALK_RATE, TALK_BURST = 10.0, 64.0

TALK = frozenset({FrameType.PING, FrameType.PONG, FrameType.BRIDGE, FrameType.NEAR})

HELD_S_MAX = 30.0  # of a peer that always has more for us than it may: not even a bridge under attack needs to


class Ration:
    """The budget of one connection."""

    def __init__(self) -> None:
        self._frames = TokenBucket(FRAME_RATE, FRAME_BURST)
        self._bytes = TokenBucket(BYTE_RATE, BYTE_BURST)
        self._talk = TokenBucket(TALK_RATE, TALK_BURST)
        self._held_since: float | None = None

    def hold_s(self, head: Head, now: float) -> float:
        """Return for how long the frame has to wait; 0: it is charged, take it.

        Raises RemoteProtocolError("flood") if the connection has to end.
        """
        wait_s = max(self._frames.wait_s(now), self._bytes.wait_s(now, head.size))
        if wait_s <= 0.0:
            if head.kind in TALK and not self._talk.take(now):
                raise RemoteProtocolError(Drop.FLOOD, "small talk")
            self._frames.take(now)
            self._bytes.take(now, head.size)
            return 0.0
        if self._held_since is None:
            self._held_since = now
        elif now - self._held_since > HELD_S_MAX:
            raise RemoteProtocolError(Drop.FLOOD, f"more than it may send for {HELD_S_MAX:.0f} s")
        return wait_s

    def ran_dry(self) -> None:
        """Take note that nothing of the peer waits any more."""
        self._held_since = None
