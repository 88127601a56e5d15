"""Destinations and addresses that were given up, and for how long nothing is tried for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from conflux.ids import IPAddress, NodeId

PAUSE_S_MIN = 1.0  # the first pause; doubles
PAUSE_S_MAX = 30.0  # as long as the longest wait between two tries (destination.py)
PAUSE_COUNT_MAX = 4096  # destinations and addresses remembered as not there; the oldest goes first


@dataclass(slots=True)
class _Pause:
    until: float
    pause_s: float


class Pauses:
    """The nodes and addresses that were given up, each with a pause that doubles with every time in a row."""

    def __init__(self) -> None:
        self._pauses: dict[NodeId | IPAddress, _Pause] = {}

    def holds(self, who: NodeId | IPAddress, now: float) -> bool:
        """Say whether a pause lasts now."""
        pause = self._pauses.get(who)
        return pause is not None and pause.until > now

    def until(self, who: NodeId | IPAddress, now: float) -> float | None:
        """Return when the pause ends that lasts now; None if none does."""
        return self._pauses[who].until if self.holds(who, now) else None

    def begin(self, who: NodeId | IPAddress, now: float) -> None:
        """Begin a pause, twice as long as the one before."""
        old = self._pauses.pop(who, None)
        pause_s = PAUSE_S_MIN if old is None else min(2 * old.pause_s, PAUSE_S_MAX)
        self._pauses[who] = _Pause(now + pause_s, pause_s)
        if len(self._pauses) > PAUSE_COUNT_MAX:
            del self._pauses[next(iter(self._pauses))]

    def cut_short(self, applies: Callable[[NodeId | IPAddress], bool], now: float) -> None:
        """End the pauses that the test applies to now; the next ones are as long as if these had run their time."""
        for who, pause in self._pauses.items():
            if pause.until > now and applies(who):
                pause.until = now

    def end(self, who: NodeId | IPAddress) -> None:
        """Forget the pauses: the node answered, or was heard of."""
        self._pauses.pop(who, None)
