"""What the daemon's sockets moved, day by day, compared with what a person allows; and who is told when that is near.

Counts are in memory, and on the disk every KEEP_S and at the end: a crash loses what passed since.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from typing import Final, Protocol, runtime_checkable

from conflux.api import usage as rows
from conflux.config.settings import Config
from conflux.daemon.limits import patience_bounds
from conflux.errors import StateError
from conflux.ids import LinkId, NodeId
from conflux.realm.clock import RealmClock
from conflux.shell.mover import Carrier
from conflux.shell.pump import Pump
from conflux.state.usage_files import UsageFiles
from conflux.usage.book import Book, total
from conflux.usage.bound import PACES, Bound, Pace, State, share, state_of
from conflux.usage.calendar import local_day
from conflux.usage.tally import TALLY, Counts, Other, Tally

LOOK_S: Final = 10.0  # between two looks at the sockets
KEEP_S: Final = 900.0  # between two writes: 96 a day, of 2 to 20 kB, which a card takes for decades

log = logging.getLogger(__name__)


@runtime_checkable
class Stretching(Protocol):
    """A control channel whose pings can be rarer."""

    def stretch(self, factor: float) -> None:
        """Ping so much more seldom than usual."""


def slow_down(pace: Pace, config: Config, pump: Pump, channels: Iterable[object]) -> None:
    """Have everything stretch by a pace that can."""
    node = pump.node
    if node.plane.presences.stretch != pace.stretch:
        node.plane.presences.stretch = pace.stretch
        node.set_patience(patience_bounds(config, pace))
        pump.touch()
    for channel in channels:
        if isinstance(channel, Stretching):
            channel.stretch(pace.stretch)


class Usage:
    """Counts what passes.

    carrier: of the links.  peers: returns which node is at the other end of each link.  clock: says whether the date
    can be believed.  slow_down: takes the pace, again and again.
    """

    def __init__(
        self,
        files: UsageFiles,
        bound: Bound,
        clock: RealmClock,
        *,
        carrier: Callable[[], Carrier],
        peers: Callable[[], dict[LinkId, NodeId]],
        name_of: Callable[[NodeId], str],
        slow_down: Callable[[Pace], None],
        tally: Tally = TALLY,
        system: Callable[[], float] = time.time,
    ) -> None:
        self._files = files
        self._bound = bound
        self._clock = clock
        self._carrier = carrier
        self._peers = peers
        self._name_of = name_of
        self._slow_down = slow_down
        self._tally = tally
        self._system = system
        self._book = Book(files.load(), starts=bound.month_starts)
        self._is_changed = False
        self.state = State.UNDER
        self._trouble: str | None = None
        if files.warning is not None:
            log.warning("%s", files.warning)

    @property
    def pace(self) -> Pace:
        """What stretches now."""
        return PACES[self.state]

    def set_bound(self, bound: Bound) -> None:
        """Take another bound."""
        self._bound = bound
        self._book.begin_months_on(bound.month_starts)
        self._judge()

    def link_ends(self) -> None:
        """Count what passed on a link that ended, while it is known who was at its other end."""
        self._count(self._carrier().take_ended())

    def _count(self, traffic: Iterable[tuple[LinkId, Counts]]) -> None:
        peers = self._peers()
        for link, counts in traffic:
            self._tally.add_all(peers.get(link, Other.UNKNOWN), counts)

    def look(self) -> None:
        """Count what passed since the last time, and judge it."""
        self._count(self._carrier().take_traffic())
        passed = self._tally.take()
        self._is_changed |= bool(passed)
        self._book.add(passed, day=self._today())
        self._judge()
        self._slow_down(self.pace)  # each time: a channel may be new

    def _today(self) -> int | None:
        """Return the day; None while the host's clock is behind a date that the realm has signed."""
        now = self._system()
        if now < self._clock.floor_unix:
            return None
        try:
            return local_day(now)
        except ValueError:
            return None

    def _share(self) -> float | None:
        return share(self._bound, day=total(self._book.today()).total, month=total(self._book.month()).total)

    def _judge(self) -> None:
        before, self.state = self.state, state_of(self._share(), self.state)
        if self.state is before:
            return
        log.log(logging.WARNING if self.state is State.OVER else logging.INFO, "budget: %s", self._words())

    def _words(self) -> str:
        used = self._share()
        if used is None:
            return "there is none any more"
        more = {
            State.UNDER: "all is as usual",
            State.NEAR: "what can wait a little, waits longer",
            State.OVER: "what can wait, waits longer; nothing is stopped",
        }
        return f"{used:.0%} of the bytes allowed are used; {more[self.state]}"

    # ── the disk ──

    def keep(self) -> None:
        """Write the book, if something passed since.  That it cannot be written is a warning."""
        if not self._is_changed:
            return
        try:
            self._files.save(self._book.kept())
        except StateError as error:
            if self._trouble is None:
                log.warning("bytes are counted, and not kept: %s", error)
            self._trouble = f"usage-not-kept: {error}"
        else:
            self._trouble, self._is_changed = None, False

    async def run(self) -> None:
        """Look and keep, for ever."""
        kept_at = time.monotonic()
        while True:
            self.look()
            if time.monotonic() - kept_at >= KEEP_S:
                kept_at = time.monotonic()
                self.keep()
            await asyncio.sleep(LOOK_S)

    # ── what it says ──

    def warnings(self) -> list[str]:
        """Return what a person should know."""
        found = [text for text in (self._files.warning, self._trouble) if text is not None]
        if self.state is State.OVER:
            found.append(f"budget-over: {self._words()}; `conflux usage` says by whom")
        return found

    def shown(self) -> rows.Usage:
        """Return what passed, up to now."""
        self.look()
        return rows.usage(self._book, self._bound, self.state, self._name_of)

    def budget(self) -> rows.BudgetRow:
        """Return the bound, and how much of it is used."""
        return rows.budget(self._book, self._bound, self.state)
