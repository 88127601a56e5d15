"""The carrier of the daemon: links as WebRTC data channels, over aiortc.

Takes the commands of interface.py and reports its events.  No exception leaves it: what goes wrong with a link ends the
link, and Closed says why.  aiortc is loaded by prepare() or by the first link, whichever is first.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING

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
from conflux.datapath.interface import OutFrame
from conflux.errors import LocalProtocolError
from conflux.ids import LinkId, TetherId

if TYPE_CHECKING:
    from conflux.carrier.rtc_link import RtcLink

DRAINED_BYTES = 128 * 1024  # what may wait in a tether when drain() returns: two frames of the largest size


class RtcCarrier:
    """Every link of one process.

    on_event and on_frame(link, data, channel index) are called in the event loop's thread and must not block.
    excluded: the overlay's own networks; a link through the overlay would carry itself.  addresses: which local
    addresses to use, asked anew for every link; None for every address of the machine outside excluded.
    """

    def __init__(
        self,
        *,
        on_event: Callable[[CarrierEvent], None],
        on_frame: Callable[[LinkId, bytes, int], None],
        ice_servers: Sequence[IceServer] = (),
        excluded: Sequence[IPv4Network | IPv6Network] = (),
        addresses: Callable[[], Sequence[str]] | None = None,
    ) -> None:
        self.drop_counts: Counter[str] = Counter()
        self._on_event = on_event
        self._on_frame = on_frame
        self._ice_servers = ice_servers
        self._excluded = excluded
        self._addresses = addresses
        self._links: dict[LinkId, RtcLink] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @staticmethod
    def prepare() -> None:
        """Load aiortc now, so that the first link need not wait for it.  Raises ImportError."""
        import conflux.carrier.rtc_link

        assert conflux.carrier.rtc_link

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
        from conflux.carrier.rtc_link import RtcLink

        if command.link in self._links:
            raise LocalProtocolError(f"link {command.link} is described already")
        try:
            link = RtcLink(
                command.link,
                initiator=command.initiator,
                emit=self._event,
                frame=self._on_frame,
                addresses=self._addresses,
                excluded=self._excluded,
                ice_servers=self._ice_servers,
                drop_counts=self.drop_counts,
            )
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

    def write(self, frame: OutFrame) -> None:
        """Queue one frame.  Who sends more than a few drains in between, or frames are dropped and counted."""
        link = self._links.get(frame.link)
        if link is None:
            self.drop_counts["no-tether"] += 1
        else:
            link.write(frame)

    async def drain(self, link: LinkId, tether: TetherId) -> None:
        """Wait until little of the tether waits to be sent; returns at once if the tether is gone."""
        known = self._links.get(link)
        channels = known.tether(tether) if known is not None else None
        if channels is not None:
            await channels.drain(DRAINED_BYTES)

    def has_room(self, link: LinkId) -> bool:
        """Say whether drain_link() would return at once."""
        known = self._links.get(link)
        return known is None or known.has_room(DRAINED_BYTES)

    async def drain_link(self, link: LinkId) -> None:
        """Wait until little of all the link's tethers waits to be sent; returns at once if the link is gone."""
        known = self._links.get(link)
        if known is not None:
            await known.drain(DRAINED_BYTES)

    def buffered(self, link: LinkId, tether: TetherId) -> int:
        """Return how many bytes of the tether wait to be sent; 0 if it is gone."""
        known = self._links.get(link)
        channels = known.tether(tether) if known is not None else None
        return channels.buffered_bytes if channels is not None else 0

    def socket_count(self) -> int:
        """Return how many data-plane sockets are open: 0 when there is no link."""
        return sum(link.socket_count for link in self._links.values())

    async def close(self) -> None:
        """End every link; afterwards no socket is open and every Closed has been reported."""
        for link in self._links.values():
            link.end("asked")
        while self._tasks:
            await asyncio.wait(tuple(self._tasks))
