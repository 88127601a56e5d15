"""The carrier of the native datapath: aiortc brings a link up, then the engine carries its DTLS and SCTP.

No frame passes here.  By wire_upcall() the engine reports everything else: messages of conflux.link.1 and of DCEP,
resets of streams, connectivity checks, and the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING

from conflux.carrier.carrier import Carrier
from conflux.carrier.context import LinkContext
from conflux.carrier.ice.server import IceServer
from conflux.carrier.interface import CarrierEvent
from conflux.carrier.wire import Wire, WireUpcall

if TYPE_CHECKING:
    from conflux.carrier.native.link import NativeLink


class NativeCarrier(Carrier["NativeLink"]):
    """See Carrier.  wire: the engine; it must outlive close().

    resets_wait_s: how long streams that this side closes wait to be reset; None: as long as link.py says.
    """

    def __init__(
        self,
        *,
        wire: Wire,
        on_event: Callable[[CarrierEvent], None],
        ice_servers: Sequence[IceServer] = (),
        excluded: Sequence[IPv4Network | IPv6Network] = (),
        addresses: Callable[[], Sequence[str]] | None = None,
        resets_wait_s: float | None = None,
    ) -> None:
        super().__init__(on_event=on_event, ice_servers=ice_servers, excluded=excluded, addresses=addresses)
        self._wire = wire
        self._resets_wait_s = resets_wait_s

    @staticmethod
    def prepare() -> None:
        """Load aiortc now, so that the first link does not wait for it.  Raises ImportError."""
        import conflux.carrier.native.link

        assert conflux.carrier.native.link

    def wire_upcall(self, upcall: WireUpcall) -> None:
        """Take one upcall of the engine, in the event loop's thread."""
        link = self._links.get(upcall.link)
        if link is not None:  # it may have ended while the upcall was on its way
            link.upcall(upcall)

    def _new_link(self, context: LinkContext) -> NativeLink:
        from conflux.carrier.native.link import RESETS_WAIT_S, NativeLink

        wait_s = RESETS_WAIT_S if self._resets_wait_s is None else self._resets_wait_s
        return NativeLink(context, wire=self._wire, resets_wait_s=wait_s)
