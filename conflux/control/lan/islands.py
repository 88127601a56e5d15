"""Neighbours that multicast does not show: named in a configuration, on a Wi-Fi that keeps its clients apart. Sans-IO.

Such a neighbour found this node, or this node found it, by a name in a configuration; nobody else sees it.  So it
counts as a LAN of its own: then this node is a bridge, and passes questions on between it and all the others.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

ISLAND_S: Final = 5.0  # chosen: announcements are repeated within 2 s, and looked up in 3
SEEN_COUNT_MAX: Final = 1024  # instances; one is forgotten with its boot
# Instances of neighbours, which proved who they are.  Those that anybody announces cannot push these out.
HELD_COUNT_MAX: Final = 256
FLOOD_S: Final = 60.0  # chosen: for so long after announcements went unread, nobody else is taken for an island


class Islands:
    """Which neighbours are seen by multicast.  listens: whether this node looks for announcements at all."""

    def __init__(self, *, listens: bool) -> None:
        self._listens = listens
        self._seen: OrderedDict[bytes, None] = OrderedDict()
        self._held: OrderedDict[bytes, None] = OrderedDict()
        self._alone: OrderedDict[bytes, None] = OrderedDict()  # instances of islands
        self._flooded_at = -FLOOD_S
        self._doubts = False  # since the last look_again()
        self._look_at = 0.0

    def saw(self, instance: bytes) -> bool:
        """Take note of an announcement; say whether it is the first of its node."""
        is_new = instance not in self._seen
        _keep(self._seen, instance, SEEN_COUNT_MAX)
        return is_new

    def flooded(self, now: float) -> None:
        """Take note that announcements went unread: there were too many."""
        self._flooded_at = now

    def look_again(self, now: float) -> bool:
        """Say whether to ask for every neighbour's LAN again FLOOD_S from now: a flood left doubts."""
        doubts, self._doubts = self._doubts and now >= self._look_at, False
        if doubts:
            self._look_at = now + FLOOD_S
        return doubts

    def lan(self, lan: str | None, name: str, instance: bytes, up_s: float, now: float) -> str | None:
        """Return the LAN that a neighbour counts to: lan, or one of its own.

        lan: where its connection is; None if unknown.  up_s: for how long it is a neighbour.  now: seconds.
        """
        if instance in self._seen or instance in self._held:
            _keep(self._held, instance, HELD_COUNT_MAX)
            return lan
        if lan is None or not self._listens or up_s < ISLAND_S:
            return lan
        if instance not in self._alone and now < self._flooded_at + FLOOD_S:
            self._doubts = True
            return lan
        _keep(self._alone, instance, HELD_COUNT_MAX)
        return f"{name}, which multicast does not show"


def _keep(table: OrderedDict[bytes, None], instance: bytes, count_max: int) -> None:
    table[instance] = None
    table.move_to_end(instance)
    while len(table) > count_max:
        table.popitem(last=False)
