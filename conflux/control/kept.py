"""Sealed messages that came before the card of their sender, which is asked for: the last one of each sender.

Without this the sender would have to repeat itself, which it does after a quarter of a second at the earliest.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from conflux.control.channel import Arrival
from conflux.control.envelope import Inner
from conflux.ids import NodeId

KEPT_COUNT_MAX = 16  # chosen: each up to 28 kB; who claims to be many senders makes honest ones repeat themselves
KEPT_LIFETIME_S = 3.0  # for so long the question for a card is repeated


class Kept(NamedTuple):
    """A message whose signature nobody could verify yet, and how it came.  ends_at: when it is forgotten."""

    inner: Inner
    arrival: Arrival
    ends_at: float


class KeptMessages:
    """The last message of each sender whose card is not here; above KEPT_COUNT_MAX the oldest is forgotten."""

    def __init__(self) -> None:
        self._kept: OrderedDict[NodeId, Kept] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, inner: Inner, arrival: Arrival, now: float) -> None:
        """Keep a message in place of the one before it of the same claimed sender."""
        self._kept.pop(inner.src, None)
        self._kept[inner.src] = Kept(inner, arrival, now + KEPT_LIFETIME_S)
        if len(self._kept) > KEPT_COUNT_MAX:
            self._kept.popitem(last=False)

    def take(self, src: NodeId, now: float) -> Kept | None:
        """Return what waits for the card of that sender, and forget it."""
        kept = self._kept.pop(src, None)
        return kept if kept is not None and now < kept.ends_at else None
