"""Which messages of a source have been seen: by boot id and sequence number, as boards may have no clock."""

from __future__ import annotations

import enum
from collections import OrderedDict

from conflux.control.envelope import Envelope
from conflux.crypto.kdf import sha256
from conflux.ids import BootId, NodeId

WINDOW_SIZE = 1024  # the last retry is 4 s after the first try, and no node sends 256 messages a second for long
SOURCE_COUNT_MAX = 4096  # about 300 B each; the source not heard of for longest goes first
# A second channel is at most seconds behind the first.  A later repetition is found by the window of its source.
ENVELOPE_S = 60.0
ENVELOPE_COUNT_MAX = 2048
DIGEST_BYTES = 16


class Verdict(enum.Enum):
    """What is known of a message."""

    FRESH = "fresh"
    REPEATED = "repeated"  # seen: a retry, a second copy or a replay
    TOO_OLD = "too-old"  # below the window: whether it was seen is not known any more
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

    def is_newest(self, seq: int) -> bool:
        """Say whether no higher number was seen."""
        return seq > self._top

    def accept(self, seq: int) -> None:
        """Mark seq as seen.  Only after its signature verified: otherwise a forger could shut the sender out."""
        if seq > self._top:
            ahead = seq - self._top
            self._bits = 1 if ahead >= WINDOW_SIZE else (self._bits << ahead | 1) & ((1 << WINDOW_SIZE) - 1)
            self._top = seq
        elif self._top - seq < WINDOW_SIZE:
            self._bits |= 1 << (self._top - seq)


class Sources:
    """The window of every source.  The boot ids of a source only grow."""

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

    def is_newest(self, src: NodeId, boot: BootId, seq: int) -> bool:
        """Say whether the source sent this message after all that were accepted of it."""
        known = self._windows.get(src)
        return known is None or boot > known[0] or (boot == known[0] and known[1].is_newest(seq))

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
    """The envelopes that verified: a second copy, over another channel, is the same transmission.

    They are told apart by a digest of the id and of all that is authenticated: who is it for, and the payload.  The id
    alone would not do: whoever passes an envelope on sees it, and could send a message of its own under it first.
    """

    def __init__(self) -> None:
        self._digests: OrderedDict[bytes, float] = OrderedDict()  # digest → when it arrived

    def __contains__(self, envelope: Envelope) -> bool:
        return _digest(envelope) in self._digests

    def __len__(self) -> int:
        return len(self._digests)

    def add(self, envelope: Envelope, now: float) -> None:
        """Remember an envelope.  Those older than ENVELOPE_S are forgotten, and the oldest if there are too many."""
        while self._digests:
            oldest = next(iter(self._digests))
            if self._digests[oldest] > now - ENVELOPE_S and len(self._digests) < ENVELOPE_COUNT_MAX:
                break
            del self._digests[oldest]
        self._digests[_digest(envelope)] = now


def _digest(envelope: Envelope) -> bytes:
    """Return what an envelope is known by.  A copy that came another way may have less hops left."""
    to, key_id = envelope.to or b"", envelope.key_id or b""  # neither is ever empty, and each has one length
    lengths = bytes((len(to), len(key_id)))
    return sha256(envelope.id + lengths + to + key_id + envelope.payload)[:DIGEST_BYTES]
