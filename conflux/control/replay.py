"""Which messages of a source have been seen: by boot id and sequence, not by clocks, which boards do not have."""

from __future__ import annotations

import enum
from collections import OrderedDict

from conflux.ids import BootId, NodeId

WINDOW_SIZE = 1024  # a retry comes 4 s after the first try; no node sends 256 messages a second for long
SOURCE_COUNT_MAX = 4096  # about 300 B each; the source unheard of longest goes first
# A second channel is seconds behind the first at most; what is repeated later, the window of its source knows.
ENVELOPE_S = 60.0
ENVELOPE_COUNT_MAX = 2048


class Verdict(enum.Enum):
    """What the window says of a message."""

    FRESH = "fresh"
    REPEATED = "repeated"  # seen: a retry, a second copy or a replay
    TOO_OLD = "replayed"  # below the window: seen or not, nobody can tell
    OLD_BOOT = "old-boot"  # sent before the source restarted


class ReplayWindow:
    """The last WINDOW_SIZE sequence numbers of one boot of one source."""

    __slots__ = ("_bits", "_top")

    def __init__(self) -> None:
        self._top = -1  # highest number seen
        self._bits = 0  # bit i: number _top - i was seen

    def check(self, seq: int) -> Verdict:
        """Say what seq is; changes nothing."""
        if seq > self._top:
            return Verdict.FRESH
        behind = self._top - seq
        if behind >= WINDOW_SIZE:
            return Verdict.TOO_OLD
        return Verdict.REPEATED if self._bits >> behind & 1 else Verdict.FRESH

    def accept(self, seq: int) -> None:
        """Mark seq as seen.  Only after the signature verified: else a forger could shut the sender out."""
        if seq > self._top:
            ahead = seq - self._top
            self._bits = 1 if ahead >= WINDOW_SIZE else (self._bits << ahead | 1) & ((1 << WINDOW_SIZE) - 1)
            self._top = seq
        elif self._top - seq < WINDOW_SIZE:
            self._bits |= 1 << (self._top - seq)


class Sources:
    """The window of every source; a source's boots only ever grow."""

    def __init__(self) -> None:
        self._windows: OrderedDict[NodeId, tuple[BootId, ReplayWindow]] = OrderedDict()

    def check(self, src: NodeId, boot: BootId, seq: int) -> Verdict:
        """Say what a message is; changes nothing."""
        known = self._windows.get(src)
        if known is None or boot > known[0]:
            return Verdict.FRESH
        if boot < known[0]:
            return Verdict.OLD_BOOT
        return known[1].check(seq)

    def accept(self, src: NodeId, boot: BootId, seq: int) -> None:
        """Mark a message whose signature verified and that check() did not refuse."""
        known = self._windows.get(src)
        if known is None or boot > known[0]:
            if known is None and len(self._windows) >= SOURCE_COUNT_MAX:
                self._windows.popitem(last=False)
            known = self._windows[src] = (boot, ReplayWindow())
        self._windows.move_to_end(src)
        known[1].accept(seq)


class SeenEnvelopes:
    """Ids of the envelopes that came and verified: the same transmission over a second channel is one transmission."""

    def __init__(self) -> None:
        self._ids: OrderedDict[bytes, float] = OrderedDict()  # id → when it came

    def __contains__(self, envelope_id: bytes) -> bool:
        return envelope_id in self._ids

    def add(self, envelope_id: bytes, now: float) -> None:
        """Remember an id; the old go, and the oldest if there are too many."""
        while self._ids:
            oldest = next(iter(self._ids))
            if self._ids[oldest] > now - ENVELOPE_S and len(self._ids) < ENVELOPE_COUNT_MAX:
                break
            del self._ids[oldest]
        self._ids[envelope_id] = now
