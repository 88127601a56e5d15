"""One heap of deadlines, so that next_timeout() is cheap with a thousand streams.

A timer asks its owner for the deadline twice: when it is armed and when it is due.  So an owner whose deadline moves
later, as every packet moves the idle deadline, need not say so: the timer finds out when it is due, and sleeps on.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush


class Timer:
    """One reason to be woken.

    deadline() is the only computation of when.  fire(now) runs once now has reached the deadline, and must move it
    later or to None.
    """

    __slots__ = ("at", "deadline", "fire")

    def __init__(self, deadline: Callable[[], float | None], fire: Callable[[float], None]) -> None:
        self.deadline = deadline
        self.fire = fire
        self.at: float | None = None  # when the heap looks at it; None: it is not in the heap


def _never() -> None:
    """The deadline of a timer that has ended."""


def _nothing(now: float) -> None:
    """What a timer that has ended does."""


class Timers:
    """The heap.  The entry of a timer that was cancelled or moved earlier stays until its time has come."""

    __slots__ = ("_heap", "_serial")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._serial = 0  # equal deadlines fire in the order they were armed

    def arm(self, timer: Timer) -> None:
        """Look at the timer at its deadline, or earlier."""
        at = timer.deadline()
        if at is None or (timer.at is not None and timer.at <= at):
            return
        timer.at = at
        self._serial += 1
        heappush(self._heap, (at, self._serial, timer))

    def cancel(self, timer: Timer) -> None:
        """Do not fire the timer unless it is armed again."""
        timer.at = None

    def end(self, timer: Timer) -> None:
        """Never fire the timer again, and release its owner: the heap may keep the entry for minutes."""
        timer.at = None
        timer.deadline, timer.fire = _never, _nothing

    def next_timeout(self) -> float | None:
        """Return when handle_timeout() is due, or None for never."""
        heap = self._heap
        while heap and heap[0][2].at != heap[0][0]:
            heappop(heap)
        return heap[0][0] if heap else None

    def handle_timeout(self, *, now: float) -> None:
        """Fire every timer whose deadline has come."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            at, _, timer = heappop(heap)
            if timer.at != at:
                continue
            timer.at = None
            deadline = timer.deadline()
            if deadline is not None and deadline <= now:
                timer.fire(now)
            self.arm(timer)
