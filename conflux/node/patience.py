"""How long a stream without packets stays open: as long as that costs less than opening it again.

It is the question of whether to rent skis or to buy them: a link that stays costs some bytes a second, one that is
opened anew costs many at once.  Staying for as long as these weigh the same never costs more than twice what foresight
would.  Past pauses tell more: of each destination their lengths are counted, and the time is taken that would have
cost least.  Nothing is known of a destination at first; then it is FIRST_S.

Sans-IO.  Bytes are both directions' on the wire, as docs/explanation/cost.md counts them.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from conflux.ids import NodeId

# An exchange between nodes that met before, less its packets: by signatures, and by a secret of the last stream, which
# is `cold_again_kb` of make cost.
OPEN_BYTES: Final = 30_000
RESUME_BYTES: Final = 6_000
KEEP_BYTES_PER_S: Final = 24.0  # a link on which nothing is sent: `kept_idle_kb_min` of make cost
FIRST_S: Final = 30.0
PAUSE_S_MIN: Final = 5.0  # shorter ones end no stream whatever the bounds are
LENGTH_COUNT: Final = 16
# Lengths are counted up to these, each the root of two times the one before; the last stands for all that are longer.
LENGTHS_S: Final = tuple(PAUSE_S_MIN * 2 ** ((number + 1) / 2) for number in range(LENGTH_COUNT))
UNSEEN_COUNT: Final = 0.02  # every length counts as much before it was seen: a pause may be a little longer than all
HALVED_EVERY_S: Final = 86_400.0  # counts are: what a node did last week says little of today
NODE_COUNT_MAX: Final = 1024  # the node whose packets are the longest ago is forgotten first


class Bounds(NamedTuple):
    """fixed_s: take this, and learn nothing.  weight: by how much more what stays open weighs, as bytes cost money.

    open_bytes: what opening a stream anew costs.
    """

    least_s: float = 5.0
    most_s: float = 120.0
    fixed_s: float | None = None
    weight: float = 1.0
    open_bytes: int = OPEN_BYTES


class _Pauses:
    """What is known of one destination.  counts: of pauses, by length; halved daily, so no whole numbers."""

    __slots__ = ("active_at", "counts", "halved_at")

    def __init__(self, now: float) -> None:
        self.active_at = now
        self.halved_at = now
        self.counts = [0.0] * LENGTH_COUNT


class Patience:
    """The idle timeout of every destination."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds  # may change
        self._nodes: dict[NodeId, _Pauses] = {}

    def active(self, node: NodeId, *, now: float) -> bool:
        """Take note that packets go to a node, or arrive there; say whether a pause ended with them."""
        known = self._nodes.pop(node, None)
        if known is None:
            known = _Pauses(now)
            if len(self._nodes) >= NODE_COUNT_MAX:
                del self._nodes[next(iter(self._nodes))]
        self._nodes[node] = known
        pause_s, known.active_at = now - known.active_at, now
        while now - known.halved_at >= HALVED_EVERY_S and any(known.counts):
            known.halved_at += HALVED_EVERY_S
            known.counts = [count / 2 if count > 0.01 else 0.0 for count in known.counts]
        if not any(known.counts):
            known.halved_at = now
        if pause_s < PAUSE_S_MIN:
            return False
        known.counts[_length_of(pause_s)] += 1.0
        return True

    def timeout_s(self, node: NodeId) -> float:
        """Return how long a stream to a node stays open without packets."""
        if self.bounds.fixed_s is not None:
            return self.bounds.fixed_s
        known = self._nodes.get(node)
        if known is None or not any(known.counts):
            return self._bounded(FIRST_S / self.bounds.weight)
        candidates = {self._bounded(length_s) for length_s in (0.0, *LENGTHS_S)}
        return min(sorted(candidates), key=lambda timeout_s: self._bytes(known, timeout_s))

    def forget(self, node: NodeId) -> None:
        """Forget a node.  No-op if it is unknown."""
        self._nodes.pop(node, None)

    def _bounded(self, timeout_s: float) -> float:
        return min(max(timeout_s, self.bounds.least_s), self.bounds.most_s)

    def _bytes(self, known: _Pauses, timeout_s: float) -> float:
        """Return what the pauses would have cost with a timeout."""
        per_s, open_bytes = KEEP_BYTES_PER_S * self.bounds.weight, self.bounds.open_bytes
        total = 0.0
        for number, count in enumerate(known.counts):
            is_kept = number < LENGTH_COUNT - 1 and LENGTHS_S[number] <= timeout_s
            total += (count + UNSEEN_COUNT) * (per_s * LENGTHS_S[number] if is_kept else per_s * timeout_s + open_bytes)
        return total


def _length_of(pause_s: float) -> int:
    """Return the place of a pause among LENGTHS_S."""
    return next((number for number, length_s in enumerate(LENGTHS_S) if pause_s < length_s), LENGTH_COUNT - 1)
