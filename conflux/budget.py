"""How much of something one peer may cause per second: token buckets, asked before any expensive work."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import NamedTuple


class TokenBucket:
    """rate_per_s tokens flow in; burst of them fit, and are there at the start."""

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

    def wait_s(self, now: float, count: float = 1.0) -> float:
        """Return in how many seconds there will be count tokens; 0 if they are there."""
        self._fill(now)
        return max(0.0, (count - self._level) / self.rate_per_s)

    def _fill(self, now: float) -> None:
        if now > self._at:
            self._level = min(self.burst, self._level + (now - self._at) * self.rate_per_s)
            self._at = now


class BudgetTable:
    """One bucket per key.  Above count_max the key not used for longest is forgotten; it starts again with a full one.

    A key should be expensive to multiply for an attacker: an authenticated neighbour, or a source address.
    """

    def __init__(self, rate_per_s: float, burst: float, count_max: int) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._count_max = count_max
        self._buckets: OrderedDict[Hashable, TokenBucket] = OrderedDict()

    def take(self, key: Hashable, now: float, count: float = 1.0) -> bool:
        """Take count tokens of the key's bucket and return True; take none and return False if there are fewer."""
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= self._count_max:
                self._buckets.popitem(last=False)
            bucket = self._buckets[key] = TokenBucket(self._rate_per_s, self._burst)
        else:
            self._buckets.move_to_end(key)
        return bucket.take(now, count)

    def forget(self, key: Hashable) -> None:
        """Forget a key that will not be used again.  No-op if unknown."""
        self._buckets.pop(key, None)


class Ration(NamedTuple):
    """What a bucket holds: so many flow in per second, and so many are there at once."""

    rate_per_s: float
    burst: float


class SharedBudget:
    """A budget of each source, and one of all sources of a group.

    The first keeps one source from using up what is there for others; the second bounds what many do together.  A
    source of one group takes nothing from another group.
    """

    def __init__(self, *, each: Ration, total: Ration, count_max: int) -> None:
        """count_max: sources remembered, of all groups."""
        self._each = BudgetTable(*each, count_max)
        self._total = BudgetTable(*total, count_max)

    def take(self, group: Hashable, source: Hashable, now: float) -> bool:
        """Take a token of the source, then one of its group; False if either has none."""
        return self._each.take((group, source), now) and self._total.take(group, now)
