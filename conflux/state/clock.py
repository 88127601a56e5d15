"""The realm's clock of a node that keeps its state on disk."""

from __future__ import annotations

import logging
import time

from conflux.errors import StateError
from conflux.realm.clock import RealmClock
from conflux.state.directory import StateDir

log = logging.getLogger(__name__)


def realm_clock(state: StateDir) -> RealmClock:
    """Return the realm's clock, whose floor is kept in state."""

    def keep(date_unix: int) -> None:
        try:
            state.save_floor(date_unix)
        except StateError as error:
            # The disk is full or damaged.  The peer whose message brought the date did nothing wrong, so the message
            # is not refused.
            log.error("the newest date the realm signed is not kept: %s", error)

    return RealmClock(state.floor_unix(), system=time.time, save=keep)
