"""What is on its way in a simulated network: it arrives when it is due, if the weather lets it.  Sans-IO."""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Weather:
    """What a simulated network does to messages: delays per hop, and chances from 0 to 1.  Jitter reorders."""

    delay_s: float = 0.001
    jitter_s: float = 0.0005  # at most, added to delay_s
    control_loss: float = 0.0
    control_repeat: float = 0.0
    frame_loss: float = 0.0
    frame_repeat: float = 0.0

    def latency_s(self, rng: random.Random) -> float:
        """Return the delay of one hop, drawn anew."""
        return self.delay_s + rng.random() * self.jitter_s


class Flights(Generic[T]):
    """Control messages under way."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._flying: list[tuple[float, int, T]] = []
        self._count = 0

    def launch(self, item: T, hop_count: int, weather: Weather, *, now: float) -> None:
        """Send something over that many hops; it may be lost, or repeated."""
        copy_count = 1 + (self._rng.random() < weather.control_repeat)
        for _ in range(copy_count):
            if self._rng.random() >= weather.control_loss:
                self._count += 1
                at = now + sum(weather.latency_s(self._rng) for _ in range(hop_count))
                heapq.heappush(self._flying, (at, self._count, item))

    def land(self, now: float) -> T | None:
        """Return the next of what is due."""
        if self._flying and self._flying[0][0] <= now:
            return heapq.heappop(self._flying)[2]
        return None

    def next_timeout(self) -> float | None:
        """Return when land() has something to return; None: nothing is on its way."""
        return self._flying[0][0] if self._flying else None
