"""The carrier of the reference datapath: links as WebRTC data channels, all of it over aiortc."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING

from conflux.carrier.carrier import Carrier
from conflux.carrier.context import LinkContext
from conflux.carrier.drop import Drop
from conflux.carrier.ice.server import IceServer
from conflux.carrier.interface import CarrierEvent, OutFrame
from conflux.ids import LinkId, TetherId

if TYPE_CHECKING:
    from conflux.carrier.rtc.link import RtcLink

DRAINED_BYTES = 128 * 1024  # this much may wait in a tether when drain() returns: two frames of the largest size


class RtcCarrier(Carrier["RtcLink"]):
    """See Carrier.  on_frame(link, data, channel index) is called for every message on a tether, as on_event is."""

    def __init__(
        self,
        *,
        on_event: Callable[[CarrierEvent], None],
        on_frame: Callable[[LinkId, bytes, int], None],
        ice_servers: Sequence[IceServer] = (),
        excluded: Sequence[IPv4Network | IPv6Network] = (),
        addresses: Callable[[], Sequence[str]] | None = None,
    ) -> None:
        super().__init__(on_event=on_event, ice_servers=ice_servers, excluded=excluded, addresses=addresses)
        self._on_frame = on_frame

    @staticmethod
    def prepare() -> None:
        """Load aiortc now, so that the first link does not wait for it.  Raises ImportError."""
        import conflux.carrier.rtc.link

        assert conflux.carrier.rtc.link

    def _new_link(self, context: LinkContext) -> RtcLink:
        from conflux.carrier.rtc.link import RtcLink

        return RtcLink(context, frame=self._on_frame)

    def write(self, frame: OutFrame) -> None:
        """Queue one frame.  Drain after every few, or frames are dropped and counted."""
        link = self._links.get(frame.link)
        if link is None:
            self.drop_counts[Drop.NO_TETHER] += 1
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
