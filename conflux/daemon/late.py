"""Renewal where the issuer does not answer as a member: its credential or ours has ended, or another is in its place.

Members refuse whoever has expired, so there is no control channel to ask over.  The issuer is then looked for as a
joining node looks for it, on the LAN and at the broker, and asked with the chain and a signature of its node.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from random import Random

from conflux.daemon.renewal import Renewal
from conflux.errors import RemoteProtocolError, StateError, UserError
from conflux.realm.member import Member

log = logging.getLogger(__name__)

LOOK_S = 5.0  # between two looks whether it is necessary; the first one is at the start
AGAIN_S_MIN = 60.0  # between two searches: each asks the LAN for seconds
AGAIN_S_MAX = 120.0


class LateRenewal:
    """search: return us with another chain, or raise UserError."""

    def __init__(self, renewal: Renewal, search: Callable[[Member], Awaitable[Member]], *, rng: Random) -> None:
        self._renewal = renewal
        self._search = search
        self._rng = rng

    async def run(self) -> None:
        """Search whenever the credential is lost otherwise.  Runs until it is cancelled."""
        while True:
            wait_s = LOOK_S
            if self._renewal.is_lost():
                wait_s = self._rng.uniform(AGAIN_S_MIN, AGAIN_S_MAX)
                await self.search()
            await asyncio.sleep(wait_s)

    async def search(self) -> None:
        """Search once."""
        try:
            found = await self._search(self._renewal.member)
            if self._renewal.is_lost():  # no answer came meanwhile on another way
                self._renewal.adopt(found.chain)
        except StateError as error:
            log.error("renewal: %s", error)
        except UserError as error:
            self._renewal.refuse(str(error))
        except RemoteProtocolError as error:
            log.info("a renewal that was found does not hold: %s", error)
