"""What every carrier of the daemon has: its links by number, their tasks, and commands that find their link.

Takes the commands of interface.py and reports its events.  No exception leaves it: what goes wrong with a link ends the
link, and Closed says why.  aiortc is loaded by prepare() or by the first link, whichever is first.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from conflux.carrier.interface import (
    AddCandidates,
    CarrierEvent,
    Closed,
    CloseTether,
    Command,
    Connect,
    Describe,
    Disconnect,
    OpenTether,
    SendControl,
)
from conflux.carrier.server import IceServer
from conflux.errors import LocalProtocolError
from conflux.ids import LinkId

if TYPE_CHECKING:
    from conflux.carrier.link import Link

L = TypeVar("L", bound="Link[Any]")


class Carrier(ABC, Generic[L]):
    """Every link of one process.

    on_event is called in the event loop's thread and must not block.  excluded: the overlay's own networks; a link
    through the overlay would carry itself.  addresses: which local addresses to use, asked anew for every link; None
    for every address of the machine outside excluded.
    """

    def __init__(
        self,
        *,
        on_event: Callable[[CarrierEvent], None],
        ice_servers: Sequence[IceServer] = (),
        excluded: Sequence[IPv4Network | IPv6Network] = (),
        addresses: Callable[[], Sequence[str]] | None = None,
    ) -> None:
        self.drop_counts: Counter[str] = Counter()
        self._on_event = on_event
        self._ice_servers = ice_servers
        self._excluded = excluded
        self._addresses = addresses
        self._links: dict[LinkId, L] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @abstractmethod
    def _new_link(self, command: Describe) -> L:
        """Make a link.  Raises OSError."""

    def perform(self, command: Command) -> None:
        """Start what the command asks for; its outcome arrives as events.  A link that is gone is a counted drop."""
        if isinstance(command, Describe):
            self._describe(command)
            return
        link = self._links.get(command.link)
        if link is None:
            self.drop_counts["command-without-link"] += 1
            return
        match command:
            case Connect(remote=remote):
                link.connect(remote)
            case AddCandidates(candidates=candidates):
                link.add_candidates(candidates)
            case Disconnect():
                link.end("asked")
            case SendControl(data=data):
                link.send_control(data)
            case OpenTether(tether=tether, channel_count=count):
                link.open_tether(tether, count)
            case CloseTether(tether=tether):
                link.close_tether(tether)

    def _describe(self, command: Describe) -> None:
        if command.link in self._links:
            raise LocalProtocolError(f"link {command.link} is described already")
        try:
            link = self._new_link(command)
        except OSError as error:  # no descriptor left to look at the interfaces with, or the like
            closed = Closed(command.link, f"failed: {type(error).__name__}")
            asyncio.get_running_loop().call_soon(self._event, closed)  # an outcome, like all others: later
            return
        self._links[command.link] = link
        task = asyncio.create_task(link.run(), name=f"link-{command.link}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _event(self, event: CarrierEvent) -> None:
        if isinstance(event, Closed):
            self._links.pop(event.link, None)
        self._on_event(event)

    def measured(self, link: LinkId | None) -> dict[str, Any]:
        """Return what is known of a link's hop, for people; nothing of one that is gone."""
        known = None if link is None else self._links.get(link)
        return {} if known is None else known.measured()

    def socket_count(self) -> int:
        """Return how many data-plane sockets are open: 0 when there is no link."""
        return sum(link.socket_count for link in self._links.values())

    async def close(self) -> None:
        """End every link; afterwards no socket is open and every Closed has been reported."""
        for link in self._links.values():
            link.end("asked")
        while self._tasks:
            await asyncio.wait(tuple(self._tasks))
