"""The realm's clock: never earlier than the newest date that the realm has signed.

A board without a battery starts in 1970, where every credential is not yet valid.  A thief who sets a clock back would
make expired credentials valid again.  So the newest signed date is a floor under the clock, and it survives restarts.
"""

from __future__ import annotations

from collections.abc import Callable

from conflux.realm.anchor import RealmAnchor
from conflux.realm.credential import Chain
from conflux.realm.dates import utc

BEHIND_S_MIN = 60  # a smaller difference needs no warning


class RealmClock:
    """Unix seconds for judging dates, and for nothing else."""

    def __init__(self, floor_unix: int, *, system: Callable[[], float], save: Callable[[int], None]) -> None:
        """floor_unix: the newest date on disk, 0 if none.  system: the host's clock.  save: keeps a newer date."""
        self._floor_unix = floor_unix
        self._system = system
        self._save = save

    @property
    def floor_unix(self) -> int:
        """The newest date that the realm has signed, as far as this node knows."""
        return self._floor_unix

    def now_unix(self) -> int:
        """Return the system's time, or the floor if that is later."""
        return max(int(self._system()), self._floor_unix)

    def observe(self, date_unix: int) -> None:
        """Raise the floor to a date whose signature is verified; an older date changes nothing."""
        if date_unix > self._floor_unix:
            self._save(date_unix)
            self._floor_unix = date_unix

    def judge(self, chain: Chain, anchor: RealmAnchor) -> None:
        """Raise RemoteProtocolError unless the chain makes a member now; its own dates may raise the floor first."""
        chain.verify_signatures(anchor)
        self.observe(chain.newest_date)
        chain.verify_dates(self.now_unix())

    def warning(self) -> str | None:
        """Return "clock-behind: …" if the host's clock is behind a date that the realm has signed, else None."""
        behind_s = self._floor_unix - int(self._system())
        if behind_s < BEHIND_S_MIN:
            return None
        return (
            f"clock-behind: this device's clock is behind {utc(self._floor_unix)}, which the realm has signed: "
            "sudo timedatectl set-ntp true; if this clock is right, nothing has to be done, and this ends on that day"
        )
