"""One link over aiortc: SCTP and data channels are in Python, as ICE and DTLS are."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast

from conflux.carrier import lean
from conflux.carrier.context import LinkContext
from conflux.carrier.drop import Drop
from conflux.carrier.interface import (
    MESSAGE_BYTES_MAX,
    SCTP_PORT,
    CarrierEnd,
    ControlArrived,
    Description,
    Measured,
    OutFrame,
)
from conflux.carrier.link import Link
from conflux.carrier.tether import LINK_LABEL, TETHER_LABEL, channel_protocol
from conflux.ids import LinkId, TetherId

lean.load()

from aiortc.rtcdatachannel import RTCDataChannel, RTCDataChannelParameters  # noqa: E402  # only findable now
from aiortc.rtcdtlstransport import RTCCertificate, RTCDtlsTransport  # noqa: E402
from aiortc.rtcicetransport import RTCIceTransport  # noqa: E402
from aiortc.rtcsctptransport import RTCSctpCapabilities  # noqa: E402

from conflux.carrier.rtc.association import Association  # noqa: E402
from conflux.carrier.rtc.tether import Tether  # noqa: E402

BUFFERED_BYTES_MAX = 4 << 20  # per tether; more means that frames are written without draining


class RtcLink(Link[Tether, RTCDataChannel]):
    """See Link.  frame: gets every message that comes on a tether."""

    def __init__(self, context: LinkContext, *, frame: Callable[[LinkId, bytes, int], None]) -> None:
        super().__init__(context)
        self._frame = frame
        self._buffered_bytes_most = 0  # at most this much waits: the last sum, and what was written since
        # One certificate per link: an observer cannot tell by it that two links are one node's.  It costs 0.2 ms.
        self._dtls = RTCDtlsTransport(cast(RTCIceTransport, self._ice), [RTCCertificate.generateCertificate()])
        self._dtls.on("statechange", self._dtls_changed)
        self._sctp = Association(
            self._dtls, SCTP_PORT, drop_counts=context.drop_counts, broken=lambda: self.end(CarrierEnd.SCTP_MALFORMED)
        )
        self._sctp.on("datachannel", self._channel_untrusted)
        self._sctp.on("error", self._report)

    @property
    def _handshake(self) -> RTCDtlsTransport:
        return self._dtls

    async def _carry(self, remote: Description) -> None:
        if self._initiator:
            self._take_control(RTCDataChannel(self._sctp, RTCDataChannelParameters(label=LINK_LABEL)))
        self._sctp.fit(self._ice.receive_buffer_bytes)
        await self._sctp.start(RTCSctpCapabilities(maxMessageSize=remote.message_bytes_max), remote.sctp_port)

    async def _stop_carrying(self) -> None:
        await self._sctp.stop()

    def _dtls_changed(self) -> None:
        if self._dtls.state == "closed":
            self.end(CarrierEnd.PEER)

    def _report(self, error: Exception) -> None:
        """Report an exception that our code raised inside a callback of aiortc; the link goes on."""
        self._loop.call_exception_handler({"message": f"carrier callback of link {self.link}", "exception": error})

    # ── conflux.link.1 ───────────────────────────────────────────────────────────────────────────────────────────────

    def _take_control(self, channel: RTCDataChannel) -> None:
        self._control = channel
        channel.on("message", self._control_message_untrusted)
        channel.on("close", lambda: self.end(CarrierEnd.PEER))
        channel.on("error", self._report)
        if channel.readyState == "open":
            self._opened()
        else:
            channel.on("open", self._opened)

    def _control_message_untrusted(self, data: bytes | str) -> None:
        if self._check_untrusted(data) and isinstance(data, bytes):
            self._emit(ControlArrived(self.link, data))

    def _check_untrusted(self, data: bytes | str) -> bool:
        if isinstance(data, str):
            self._drop_counts[Drop.TEXT_MESSAGE] += 1
        elif len(data) > MESSAGE_BYTES_MAX:
            self._drop_counts[Drop.OVERSIZED] += 1
        else:
            return not self._over.done()
        return False

    def send_control(self, data: bytes) -> None:
        """Send one message on conflux.link.1; what cannot be sent is a counted drop."""
        if self._control is None or self._control.readyState != "open" or len(data) > MESSAGE_BYTES_MAX:
            self._drop_counts[Drop.CONTROL_UNSENDABLE] += 1
            return
        self._control.send(data)

    # ── tethers ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def measured(self) -> Measured:
        """Return what is known of the hop: aiortc measures its round-trip time."""
        return Measured(self._sctp.rtt_s)

    def _open_channels(self, tether: Tether, lifetime_ms: int) -> None:
        for index in range(len(tether.channels)):
            parameters = RTCDataChannelParameters(
                label=TETHER_LABEL,
                protocol=channel_protocol(tether.id, index, len(tether.channels)),
                ordered=False,
                maxPacketLifeTime=lifetime_ms,
            )
            self._take_channel(tether, index, RTCDataChannel(self._sctp, parameters))

    def write(self, frame: OutFrame) -> None:
        """Queue one frame; a tether that is gone or overfull is a counted drop."""
        tether = self._tethers.get(frame.tether)
        channel = (
            tether.channels[frame.channel] if tether is not None and frame.channel < len(tether.channels) else None
        )
        if tether is None or channel is None or channel.readyState != "open" or self._over.done():
            self._drop_counts[Drop.NO_TETHER] += 1
        elif len(frame.data) > MESSAGE_BYTES_MAX or tether.buffered_bytes > BUFFERED_BYTES_MAX:
            self._drop_counts[Drop.CARRIER_FULL] += 1
        else:
            channel.send(frame.data)
            self._buffered_bytes_most += len(frame.data)

    async def drain(self, bytes_max: int) -> None:
        """Return when at most bytes_max wait to be sent on all tethers together, or when the link is over."""
        while not self.has_room(bytes_max):
            fullest = max(self._tethers.values(), key=lambda tether: tether.buffered_bytes)
            await fullest.drain(bytes_max // len(self._tethers))

    def has_room(self, bytes_max: int) -> bool:
        """Say whether at most bytes_max wait on all tethers together, or the link is over."""
        if self._buffered_bytes_most > bytes_max:
            self._buffered_bytes_most = sum(tether.buffered_bytes for tether in self._tethers.values())
        return self._over.done() or self._buffered_bytes_most <= bytes_max

    def _new_tether(self, tether_id: TetherId, channel_count: int) -> Tether:
        return Tether(
            tether_id, channel_count, partial(self._tether_up, tether_id), partial(self._tether_down, tether_id)
        )

    def _take_channel(self, tether: Tether, index: int, channel: RTCDataChannel) -> None:
        channel.on("message", partial(self._frame_untrusted, index))
        channel.on("error", self._report)
        tether.add(index, channel)

    def _frame_untrusted(self, index: int, data: bytes | str) -> None:
        if self._check_untrusted(data) and isinstance(data, bytes):
            self._frame(self.link, data, index)

    def _channel_untrusted(self, channel: RTCDataChannel) -> None:
        self._offered_untrusted(channel, channel.label, channel.protocol)

    def _refuse_channel(self, channel: RTCDataChannel) -> None:
        channel.close()
