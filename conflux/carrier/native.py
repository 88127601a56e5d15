"""The carrier of the native datapath: aiortc brings a link up, the engine carries its DTLS and SCTP from then on.

No frame passes here.  The engine reports by wire_upcall() what is not a frame: messages of conflux.link.1 and of DCEP,
resets of streams, connectivity checks, and the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING

from conflux.carrier.carrier import Carrier
from conflux.carrier.interface import CarrierEvent, Describe
from conflux.carrier.server import IceServer
from conflux.carrier.wire import Wire, WireUpcall

if TYPE_CHECKING:
    from conflux.carrier.native_link import NativeLink


class NativeCarrier(Carrier["NativeLink"]):
    """See Carrier.  wire: the engine; it must outlive close()."""

    def __init__(
        self,
        *,
        wire: Wire,
        on_event: Callable[[CarrierEvent], None],
        ice_servers: Sequence[IceServer] = (),
        excluded: Sequence[IPv4Network | IPv6Network] = (),
        addresses: Callable[[], Sequence[str]] | None = None,
    ) -> None:
        super().__init__(on_event=on_event, ice_servers=ice_servers, excluded=excluded, addresses=addresses)
        self._wire = wire

    @staticmethod
    def prepare() -> None:
        """Load aiortc now, so that the first link need not wait for it.  Raises ImportError."""
        import conflux.carrier.native_link

        assert conflux.carrier.native_link

    def wire_upcall(self, upcall: WireUpcall) -> None:
        """Take one upcall of the engine, in the event loop's thread."""
        link = self._links.get(upcall.link)
        if link is not None:  # else it went while the upcall was on its way
            link.upcall(upcall)

    def _new_link(self, command: Describe) -> NativeLink:
        from conflux.carrier.native_link import NativeLink

        return NativeLink(
            command.link,
            initiator=command.initiator,
            emit=self._event,
            wire=self._wire,
            addresses=self._addresses,
            excluded=self._excluded,
            ice_servers=self._ice_servers,
            drop_counts=self.drop_counts,
        )
