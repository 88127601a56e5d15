"""What every carrier of the daemon has: its links by number, their tasks, and commands that find their link.

Takes the commands of interface.py and reports its events.  No exception leaves it: an error on a link ends the link,
and Closed says why.  prepare() or the first link loads aiortc.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from conflux.carrier.context import LinkContext
from conflux.carrier.drop import Drop
from conflux.carrier.ice.server import IceServer
from conflux.carrier.interface import (
    HOST_COUNT_MAX,
    AddCandidates,
    CarrierEnd,
    CarrierEvent,
    Closed,
    CloseTether,
    Command,
    Connect,
    Describe,
    Disconnect,
    Measured,
    OpenTether,
    SendControl,
)
from conflux.errors import LocalProtocolError, words_of
from conflux.host.underlay import Underlay
from conflux.ids import LinkId
from conflux.usage.tally import Counts

if TYPE_CHECKING:
    from conflux.carrier.link import Link

LEFT_COUNT_MAX = 256  # links that ended and whose traffic nobody took; a daemon takes it at each end

L = TypeVar("L", bound="Link[Any, Any]")


class Carrier(ABC, Generic[L]):
    """Every link of one process.

    on_event is called in the event loop's thread and must not block.  excluded: the overlay's own networks; a link
    through the overlay would carry itself.  addresses: returns the local addresses to use, and is called for every
    link; None for every address of the machine outside excluded.
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
        self._addresses = addresses or Underlay(count_max=HOST_COUNT_MAX, excluded=excluded).addresses
        self._links: dict[LinkId, L] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._left: deque[tuple[LinkId, Counts]] = deque(maxlen=LEFT_COUNT_MAX)

    @abstractmethod
    def _new_link(self, context: LinkContext) -> L:
        """Make a link.  Raises OSError."""

    def perform(self, command: Command) -> None:
        """Start a command; its outcome arrives as events.  A command for a link that is gone is a counted drop."""
        if isinstance(command, Describe):
            self._describe(command)
            return
        link = self._links.get(command.link)
        if link is None:
            self.drop_counts[Drop.COMMAND_WITHOUT_LINK] += 1
            return
        match command:
            case Connect(remote=remote, keys=keys):
                link.connect(remote, keys)
            case AddCandidates(candidates=candidates):
                link.add_candidates(candidates)
            case Disconnect():
                link.end(CarrierEnd.ASKED)
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
            link = self._new_link(
                LinkContext(
                    link=command.link,
                    initiator=command.initiator,
                    emit=self._event,
                    drop_counts=self.drop_counts,
                    addresses=self._addresses,
                    excluded=self._excluded,
                    ice_servers=self._ice_servers,
                )
            )
        except OSError as error:  # such as no descriptor left to read the interfaces with
            closed = Closed(command.link, CarrierEnd.FAILED, words_of(error))
            asyncio.get_running_loop().call_soon(self._event, closed)  # after perform(), as every event
            return
        self._links[command.link] = link
        task = asyncio.create_task(link.run(), name=f"link-{command.link}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _event(self, event: CarrierEvent) -> None:
        if isinstance(event, Closed):
            ended = self._links.pop(event.link, None)
            if ended is not None:
                self._left.append((event.link, ended.traffic.take()))
        self._on_event(event)

    def measured(self, link: LinkId | None) -> Measured | None:
        """Return what is known of a link's hop; None if the link is gone."""
        known = None if link is None else self._links.get(link)
        return None if known is None else known.measured()

    def take_ended(self) -> Iterator[tuple[LinkId, Counts]]:
        """Yield what passed last on each link that ended meanwhile."""
        while self._left:
            yield self._left.popleft()

    def take_traffic(self) -> Iterator[tuple[LinkId, Counts]]:
        """Yield what passed on each link since the last time, also on those that ended meanwhile."""
        yield from self.take_ended()
        for number, link in list(self._links.items()):
            link.count()
            yield number, link.traffic.take()

    def address_changed(self) -> None:
        """End every link whose local address is gone: to be called some time after one changed."""
        for link in list(self._links.values()):
            link.address_changed()

    def socket_count(self) -> int:
        """Return how many data-plane sockets are open: 0 when there is no link."""
        return sum(link.socket_count for link in self._links.values())

    async def close(self) -> None:
        """End every link; afterwards no socket is open and every Closed has been reported."""
        for link in self._links.values():
            link.end(CarrierEnd.ASKED)
        while self._tasks:
            await asyncio.wait(tuple(self._tasks))
