"""What time it is for the realm: never earlier than the newest date the realm has signed.

A board without a battery wakes in 1970 and would call every credential not yet valid; a thief who turns a clock back
would make expired ones hold again.  The newest signed date seen is a floor under the clock, and it survives restarts.
"""

from __future__ import annotations

from collections.abc import Callable

from conflux.realm.anchor import RealmAnchor
from conflux.realm.credential import Chain

BEHIND_S_MIN = 60  # clocks that differ by less need no word


class RealmClock:
    """Unix seconds for judging dates, and for nothing else."""

    def __init__(self, floor_unix: int, *, system: Callable[[], float], save: Callable[[int], None]) -> None:
        """floor_unix: the newest date kept, 0 if none.  save: keep a newer one."""
        self._floor_unix = floor_unix
        self._system = system
        self._save = save

    @property
    def floor_unix(self) -> int:
        return self._floor_unix

    def now_unix(self) -> int:
        """Return the system's time, or the floor if that is later."""
        return max(int(self._system()), self._floor_unix)

    def observe(self, date_unix: int) -> None:
        """Raise the floor to a date whose signature has been verified; an older one changes nothing."""
        if date_unix > self._floor_unix:
            self._save(date_unix)
            self._floor_unix = date_unix

    def judge(self, chain: Chain, anchor: RealmAnchor) -> None:
        """Chain.verify(), believing the chain's own dates once its signatures are verified."""
        chain.verify_signatures(anchor)
        self.observe(chain.newest_date)
        chain.verify_dates(self.now_unix())

    def warning(self) -> str | None:
        """Return "clock-behind: …" if the system's clock is behind what the realm has already signed, else None."""
        behind_s = self._floor_unix - int(self._system())
        if behind_s < BEHIND_S_MIN:
            return None
        return f"clock-behind: this device's clock is {behind_s} s behind a date the realm has signed"
