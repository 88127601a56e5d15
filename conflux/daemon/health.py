"""Looks after what other programs may do to the host, and says what is wrong without being asked.

The daemon has given up what it would need to configure the device or the fence again.  So if addresses or routes are
taken off the device, as network managers do when they start, or a lease comes that the fence cuts off, the daemon ends
with an exit code that has it started anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable

from conflux.host.changes import ADDRESSES, LINKS, ROUTES, Changes

log = logging.getLogger(__name__)

CHECK_S = 60.0  # between two looks without a sign of change
SETTLE_S = 0.5  # a change has several steps
CONFIRM_S = 1.0  # who takes something away may put it back: the trouble counts if it is there twice
PAUSE_S = 2.0  # between two looks on a host whose routes change all the time: a look reads all of them


class Health:
    """Watches one daemon's host.

    trouble: says why the daemon has to start anew, or None; may raise OSError.  warnings: for a person, those
    of `conflux status`.  lost: is told of trouble that stays.
    """

    def __init__(
        self,
        *,
        trouble: Callable[[], str | None],
        warnings: Callable[[], Iterable[str]],
        lost: Callable[[str], None],
    ) -> None:
        self._trouble = trouble
        self._warnings = warnings
        self._lost = lost
        self._said: set[str] = set()
        self._looked_at = 0.0

    async def run(self) -> None:
        """Watch until the trouble is one that stays."""
        changes = None
        with contextlib.suppress(OSError):  # then it looks by the clock alone
            changes = Changes(LINKS | ADDRESSES | ROUTES)
        try:
            while True:
                self._looked_at = asyncio.get_running_loop().time()
                self._say()
                if self._look() is not None:
                    await asyncio.sleep(CONFIRM_S)
                    if (why := self._look()) is not None:
                        self._lost(why)
                        return
                await self._wait(changes)
        finally:
            if changes is not None:
                changes.close()

    def _look(self) -> str | None:
        """Return the trouble, or None; also if it cannot be looked for."""
        try:
            return self._trouble()
        except OSError as error:  # no descriptor left, or the like: the next look has to do
            log.warning("cannot look at the device: %s", error)
            return None

    async def _wait(self, changes: Changes | None) -> None:
        if changes is None:
            await asyncio.sleep(CHECK_S)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CHECK_S):
                await changes.changed.wait()
        await asyncio.sleep(max(SETTLE_S, self._looked_at + PAUSE_S - asyncio.get_running_loop().time()))
        changes.changed.clear()

    def _say(self) -> None:
        """Log every warning that is new; the first word names it, the rest may have figures that change."""
        found = {text.partition(":")[0]: text for text in self._warnings()}
        for name in found.keys() - self._said:
            log.warning("%s", found[name])
        self._said = set(found)
