"""Addresses of this host that go: what ran from them ends at once, and is opened anew from those that are left.

Else a stream waits until its feedback is missed and a set-up over the dead link has had its time, which is seconds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from conflux.host.changes import ADDRESSES, Changes

log = logging.getLogger(__name__)

GONE_S = 0.2  # some programs take an address away and give it back: what ran from it goes on then


async def watch(looks: Callable[[], Iterable[Callable[[], None]]]) -> None:
    """Some time after each change of an address, call what looks() returns."""
    try:
        changes = Changes(ADDRESSES)
    except OSError as error:
        log.warning("changes of addresses are noticed late: %s", error)
        return
    try:
        while True:
            await changes.changed.wait()
            await asyncio.sleep(GONE_S)
            changes.changed.clear()
            for look in looks():
                look()
    finally:
        changes.close()
