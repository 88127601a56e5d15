"""Whether an update is good: the daemon is ready, no unit failed, and the overlay works as it did before.

Nothing more is asked of it than of what ran before: a unit that had failed then may fail, a board that was in no realm
need not be ready, and one that reached nobody need not reach anybody.
"""

from __future__ import annotations

from typing import NamedTuple

from conflux.board.trial import Trial

READY_S = 300.0  # chosen: an emulated board takes a third of it
SETTLED_S = 420.0  # chosen: units may wait for a network that is not there
ANSWER_S = 120.0  # since the daemon is ready: peers may restart too
NAMES_MAX = 4  # in a sentence


class Seen(NamedTuple):
    """What a look at the board found.

    runs: the daemon answers.  lacks: what keeps its packets from passing, or "".  settled: systemd has started what it
    starts.  failed: units that failed.  answered: a peer of the trial has answered since the boot.
    """

    runs: bool
    lacks: str
    settled: bool
    failed: tuple[str, ...]
    answered: bool


class Verdict(NamedTuple):
    """Whether the update is good; if not, why."""

    good: bool
    why: str


class Goodness:
    """Judges one update.  now: monotonic seconds, as everywhere here.

    waits_for: for a person.
    """

    def __init__(self, trial: Trial, *, now: float) -> None:
        self._trial = trial
        self._began = now
        self._ready_at: float | None = None
        self.waits_for = "its start"

    @property
    def asks_peers(self) -> bool:
        """Whether it is time to ask the peers of the trial for an answer."""
        return self._ready_at is not None and bool(self._trial.peers)

    def look(self, seen: Seen, *, now: float) -> Verdict | None:
        """Take in what was seen.  Return the verdict, or None if it is too early for one."""
        lacks = self._lacks(seen)
        if lacks:
            self.waits_for = f"the daemon: {lacks}"
            if now - self._began >= READY_S:
                return Verdict(False, f"the daemon was not ready within {READY_S:.0f} s: {lacks}")
            return None
        if self._ready_at is None:
            self._ready_at = now
        if new := sorted(set(seen.failed) - set(self._trial.failed)):
            return Verdict(False, f"failed: {_some(new)}")
        if not seen.settled:
            self.waits_for = "units that are still starting"
            if now - self._began >= SETTLED_S:
                return Verdict(False, f"units were still starting after {SETTLED_S:.0f} s")
            return None
        if self._trial.peers and not seen.answered:
            self.waits_for = f"an answer of {_some([peer.name for peer in self._trial.peers])}"
            if now - self._ready_at >= ANSWER_S:
                return Verdict(False, self._silence())
            return None
        return Verdict(True, "")

    def _lacks(self, seen: Seen) -> str:
        if not seen.runs:
            return seen.lacks or "it does not answer"
        return seen.lacks if self._trial.was_ready else ""

    def _silence(self) -> str:
        names = [peer.name for peer in self._trial.peers]
        if len(names) == 1:
            return f"{names[0]} answered before the update, and not within {ANSWER_S:.0f} s after it"
        return f"none of those who answered before ({_some(names)}) answered within {ANSWER_S:.0f} s after the update"


def _some(names: list[str]) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - NAMES_MAX} more" if len(names) > NAMES_MAX else ""
    return ", ".join(names[:NAMES_MAX]) + more
