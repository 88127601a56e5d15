"""How much of something one party may cause per second: token buckets, checked before any expensive work."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable


class TokenBucket:
    """rate_per_s tokens flow in, burst fit."""

    __slots__ = ("_at", "_level", "burst", "rate_per_s")

    def __init__(self, rate_per_s: float, burst: float) -> None:
        self.rate_per_s = rate_per_s
        self.burst = burst
        self._level = burst
        self._at = float("-inf")

    def take(self, now: float, count: float = 1.0) -> bool:
        """Take count tokens and return True, or leave the bucket alone and return False."""
        self._fill(now)
        if self._level < count:
            return False
        self._level -= count
        return True

    def wait_s(self, now: float) -> float:
        """Return in how many seconds one token is there."""
        self._fill(now)
        return max(0.0, (1.0 - self._level) / self.rate_per_s)

    def _fill(self, now: float) -> None:
        if now > self._at:
            self._level = min(self.burst, self._level + (now - self._at) * self.rate_per_s)
            self._at = now


class BudgetTable:
    """One bucket per key; above count_max the key unheard of longest is forgotten, and starts anew with a full bucket.

    Keys should be something that costs an attacker to multiply (an authenticated neighbour, a source address).
    """

    def __init__(self, rate_per_s: float, burst: float, count_max: int) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._count_max = count_max
        self._buckets: OrderedDict[Hashable, TokenBucket] = OrderedDict()

    def take(self, key: Hashable, now: float, count: float = 1.0) -> bool:
        """Take count tokens of the key's bucket; False if there are fewer."""
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= self._count_max:
                self._buckets.popitem(last=False)
            bucket = self._buckets[key] = TokenBucket(self._rate_per_s, self._burst)
        else:
            self._buckets.move_to_end(key)
        return bucket.take(now, count)

    def forget(self, key: Hashable) -> None:
        """Drop a key that never comes again.  No-op if unknown."""
        self._buckets.pop(key, None)
