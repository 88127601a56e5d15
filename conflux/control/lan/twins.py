"""One identity on two boards: a card that was copied, a backup or snapshot that runs beside its original.

Two boards that meet on a LAN know it for certain: the other proves to have this node's key, and runs as another boot.
Other nodes follow the newer of the two boots, and take every word of the older one for a replay.  So once the newer
board is gone, the older one has to start again before others hear it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from conflux.control.lan.lans import SocketAddress
from conflux.ids import BootId, NodeId, format_node_id

log = logging.getLogger(__name__)

LOOK_S: Final = 20.0  # between two looks whether the other board is there still
QUIET_S: Final = 60.0  # chosen: a board that was not met for so long is asked for
LOOK_COUNT: Final = 3  # in a row that find no such board: one may fail because that board is busy, or restarts
PROBE_S: Final = 3.0
SAY_S: Final = 600.0  # between two lines of the log
REST_S: Final = 3600.0  # chosen: who has our key can come and go at will, and each start ends our links
KEPT_S: Final = 300.0  # chosen: how long a warning about two other boards stays after they were met
OTHER_COUNT_MAX: Final = 16

Place = tuple[str, int]


class Twin(NamedTuple):
    """Another board with this node's identity.  place: where it listens, or did.  met_at: seconds."""

    boot: BootId
    place: Place
    met_at: float


class Twins:
    """What is known of boards that share an identity.

    boot: ours.  now: monotonic seconds.  again(boot): called when the newer board is gone, so that this daemon is
    started again as a boot that is newer still; False: it is not, and may be asked again later.  rests: this start is
    one of those, so the next one comes in an hour at the soonest.

    is_there: says whether the board at a place has our key still.  That something listens there is not enough: a copy
    that was made a new node is at the same address, and the original has to be heard again.
    """

    is_there: Callable[[Place], Awaitable[bool]]

    def __init__(
        self, boot: BootId, now: Callable[[], float], again: Callable[[BootId], bool], *, rests: bool = False
    ) -> None:
        self._boot = boot
        self._now = now
        self._again = again
        self._rests_until = now() + REST_S if rests else now()
        self.is_there = _listens
        self._twin: Twin | None = None
        self._missed_count = 0  # looks in a row that did not find it
        self._others: dict[NodeId, tuple[str, float]] = {}  # by node: what to say, and when it was met
        self._said: dict[NodeId | None, float] = {}

    def met(self, boot: BootId, place: Place) -> None:
        """Take note of a board that proved to have our key, at a place where it listens."""
        newest = boot if self._twin is None else max(boot, self._twin.boot)
        self._twin = Twin(newest, place, self._now())
        self._missed_count = 0
        self._say(None, self._words(self._twin))

    def met_others(self, node: NodeId, name: str, older: str, newer: str) -> None:
        """Take note of two other boards with one identity, at these addresses."""
        words = f"twins: two boards have the identity of {name} ({format_node_id(node)}): {older} and {newer}"
        if node in self._others or len(self._others) < OTHER_COUNT_MAX:
            self._others[node] = words, self._now()
            self._say(node, words)

    def warnings(self) -> list[str]:
        """Return what a person should know now."""
        now = self._now()
        self._others = {node: said for node, said in self._others.items() if now < said[1] + KEPT_S}
        own = [] if self._twin is None else [self._words(self._twin)]
        return own + [words for words, _ in self._others.values()]

    async def watch(self) -> None:
        """Look again and again whether the other board is there still."""
        while True:
            await asyncio.sleep(LOOK_S)
            twin = self._twin
            if twin is None or self._now() < twin.met_at + QUIET_S:
                continue
            is_newer = twin.boot > self._boot
            if is_newer and self._now() < self._rests_until:
                continue
            if await self.is_there(twin.place):
                self._missed_count = 0
                continue
            self._missed_count += 1
            if self._missed_count < LOOK_COUNT:
                continue
            self._missed_count = 0
            log.warning("the other board with this node's identity is gone")
            if not is_newer:
                self._twin = None
            elif self._again(twin.boot):
                self._twin = None
                return
            else:
                self._rests_until = self._now() + REST_S

    def _words(self, twin: Twin) -> str:
        hears = "" if twin.boot < self._boot else "; other nodes hear that board, and not this one"
        return (
            f"twin: the board at {twin.place[0]} has this node's identity too, as a copied card has{hears}: on the "
            "copy, `conflux board renew` makes a new node of it; until then, switch one of them off"
        )

    def _say(self, node: NodeId | None, words: str) -> None:
        if self._now() >= self._said.get(node, -SAY_S) + SAY_S:
            self._said[node] = self._now()
            log.error("%s", words)


def place_of(remote: SocketAddress, port: int) -> Place:
    """Return the place of a port at the other end of a connection; an address of one link says which link."""
    scope = remote[3] if len(remote) == 4 else 0
    return (f"{remote[0]}%{scope}" if scope and "%" not in remote[0] else remote[0]), port


async def _listens(place: Place) -> bool:
    try:
        async with asyncio.timeout(PROBE_S):
            _, writer = await asyncio.open_connection(*place)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
