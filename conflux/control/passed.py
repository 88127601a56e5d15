"""The envelopes that passed by a node of late: none goes the same way twice, so loops come to an end.  Sans-IO."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

from conflux.control.envelope import HOP_LIMIT_MAX, Envelope
from conflux.crypto.kdf import sha256

# Copies of an envelope arrive within a second; the hop limit ends later ones.  About 200 B each.
SEEN_S = 60.0
SEEN_COUNT_MAX = 4096
DIGEST_BYTES = 16


class Passed:
    """Digests of envelopes, and nothing of who sent them to whom."""

    def __init__(self) -> None:
        # digest → when it first came, and the largest hop limit it came with
        self._seen: OrderedDict[bytes, tuple[float, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._seen)

    def note_own(self, envelope: Envelope, now: float) -> None:
        """Remember an envelope of this node with the largest hop limit there is: no copy that comes back is news."""
        self.seen_before(replace(envelope, hop_limit=HOP_LIMIT_MAX), now)

    def seen_before(self, envelope: Envelope, now: float) -> int:
        """Remember an envelope; return the largest hop limit that it came with before, -1 if it is new.

        Two envelopes are the same if all but the hop limit is.  The id alone would not do: a neighbour that sees an
        envelope first could keep it out with rubbish under the same id.  A copy with more hops left goes on again:
        otherwise a neighbour could keep the envelope out further on, with a copy that has no hops left.
        """
        digest = _digest(envelope)
        self._forget(now)
        first_at, known = self._seen.get(digest, (now, -1))
        if envelope.hop_limit > known:
            if known < 0 and len(self._seen) >= SEEN_COUNT_MAX:
                self._seen.popitem(last=False)
            self._seen[digest] = (first_at, envelope.hop_limit)
        return known

    def take_back(self, envelope: Envelope, known: int) -> None:
        """Forget that an envelope came, as it went nowhere: another neighbour's copy is to go on.

        known: what seen_before() returned.
        """
        digest = _digest(envelope)
        seen = self._seen.get(digest)
        if seen is None:
            return
        if known < 0:
            del self._seen[digest]
        else:
            self._seen[digest] = (seen[0], known)

    def _forget(self, now: float) -> None:
        while self._seen:
            oldest = next(iter(self._seen))
            if self._seen[oldest][0] > now - SEEN_S:
                return
            del self._seen[oldest]


def _digest(envelope: Envelope) -> bytes:
    return sha256(replace(envelope, hop_limit=0).encode())[:DIGEST_BYTES]
