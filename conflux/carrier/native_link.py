"""One link whose records and messages the engine carries: ICE, the handshake and the data channels' names are here.

Ice ─socket─►  engine  ◄─keys─ Handshake
Ice ◄─ STUN ─┘ │    └─ records of the handshake ─► Handshake
               └─ DCEP, conflux.link.1, resets ─► Channels ─► tethers
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from conflux.carrier.channels import (
    PPID_DCEP,
    ChannelDown,
    ChannelEvent,
    ChannelMessage,
    ChannelOffered,
    Channels,
    ChannelUp,
    Reliability,
    Send,
)
from conflux.carrier.handshake import Handshake
from conflux.carrier.interface import CarrierEvent, ControlArrived, Description
from conflux.carrier.link import MESSAGE_BYTES_MAX, SCTP_PORT, Link
from conflux.carrier.server import IceServer
from conflux.carrier.tether import LINK_LABEL, TETHER_LABEL, channel_protocol
from conflux.carrier.wire import (
    Wire,
    WireClosed,
    WireDatagram,
    WireError,
    WireMessage,
    WireOpened,
    WireReset,
    WireUpcall,
)
from conflux.errors import LocalProtocolError, RemoteProtocolError
from conflux.ids import LinkId, TetherId

# The engine's reasons in the words of all carriers; those not named here stay as they are.
_REASONS = {"shutdown": "peer", "aborted": "peer", "alert": "peer", "malformed": "sctp-malformed"}


class StreamTether:
    """One tether: the stream of each channel, and how many of them are open."""

    def __init__(self, id: TetherId, channel_count: int, *, shut: Callable[[StreamTether], None]) -> None:
        self.id = id
        self.channels: list[int | None] = [None] * channel_count
        self.up_count = 0
        self._shut = shut

    @property
    def streams(self) -> tuple[int, ...]:
        return tuple(stream for stream in self.channels if stream is not None)

    def close(self) -> None:
        """Close every channel."""
        self._shut(self)


class NativeLink(Link[StreamTether]):
    """See Link.  wire: the engine."""

    def __init__(
        self,
        link: LinkId,
        *,
        initiator: bool,
        emit: Callable[[CarrierEvent], None],
        wire: Wire,
        addresses: Callable[[], Sequence[str]] | None,
        excluded: Sequence[IPv4Network | IPv6Network],
        ice_servers: Sequence[IceServer],
        drop_counts: Counter[str],
    ) -> None:
        super().__init__(
            link,
            initiator=initiator,
            emit=emit,
            addresses=addresses,
            excluded=excluded,
            ice_servers=ice_servers,
            drop_counts=drop_counts,
        )
        self._wire = wire
        self._is_added = False
        self._dtls = Handshake(self._ice, is_client=not initiator, drop_counts=drop_counts)
        self._channels = Channels(is_client=not initiator, drop_counts=drop_counts)
        self._control: int | None = None  # the stream of conflux.link.1
        self._tether_of: dict[int, StreamTether] = {}  # by stream

    @property
    def _handshake(self) -> Handshake:
        return self._dtls

    async def _carry(self, remote: Description) -> None:
        if 0 < remote.message_bytes_max < MESSAGE_BYTES_MAX:  # 0: as large as one likes (RFC 8841, section 6.1)
            raise RemoteProtocolError("message-size", "the peer does not take a whole frame")
        handed_over = self._ice.hand_over()
        try:
            self._wire.add(
                self.link,
                handed_over.fd,
                handed_over.address,
                self._dtls.take_keys(),
                port_local=SCTP_PORT,
                port_remote=remote.sctp_port,
                datagram_bytes_max=handed_over.datagram_bytes_max,
            )
        except LocalProtocolError as error:  # the engine has no room for another
            raise ConnectionError(str(error)) from error
        self._is_added = True

    async def _stop_carrying(self) -> None:
        if self._is_added:
            self._wire.close(self.link)
            self._wire.remove(self.link)  # before the socket is closed

    @property
    def rtt_s(self) -> float | None:
        """The hop's smoothed round-trip time, or None before the first measurement."""
        measured = self._wire.measured(self.link)
        return None if measured is None else measured.rtt_s

    def measured(self) -> dict[str, Any]:
        measured = self._wire.measured(self.link)
        if measured is None:
            return {}
        return {
            "rtt_ms": None if measured.rtt_s is None else round(measured.rtt_s * 1e3, 3),
            "rate_mbit": round(measured.rate_bytes_s * 8e-6, 3),
            "packet_bytes": measured.packet_bytes,
            "sent_bytes": measured.sent_bytes,
            "received_bytes": measured.received_bytes,
            "repaired_chunks": measured.repaired_count,
        }

    # ── upcalls ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def upcall(self, upcall: WireUpcall) -> None:
        """Take one upcall of the engine."""
        if self._over.done():
            return
        try:
            self._upcall_untrusted(upcall)
        except RemoteProtocolError as error:
            self.end(error.reason)
        except Exception as error:  # noqa: BLE001  # aioice's or OpenSSL's most likely: judged like any in a callback
            context = {"message": f"{type(upcall).__name__} on link {self.link}", "exception": error}
            self._loop.call_exception_handler(context)

    def _upcall_untrusted(self, upcall: WireUpcall) -> None:
        match upcall:
            case WireOpened():
                self._dtls.forget()  # a peer that speaks SCTP has our last flight
                if self._initiator:
                    self._control = self._channels.open(LINK_LABEL)
                    self._settle()
            case WireClosed(reason=reason):
                self.end(_REASONS.get(reason, reason))
            case WireMessage(stream=stream, ppid=ppid, data=data):
                self._channels.message_untrusted(stream, ppid, data)
                self._settle()
            case WireReset(incoming=incoming, accepted=accepted, streams=streams):
                self._channels.reset_untrusted(streams, incoming=incoming, accepted=accepted)
                self._settle()
            case WireDatagram(data=data, address=address):
                if data and 20 <= data[0] <= 63:
                    self._dtls.received_untrusted(data)
                else:
                    self._ice.engine_received(data, address)
            case WireError(address=address):
                self._ice.engine_error(address)

    # ── channels ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _settle(self) -> None:
        """Carry out what the channels want, and act on what became of them, until nothing is left."""
        channels = self._channels
        while True:
            while (command := channels.next_command()) is not None:
                if not isinstance(command, Send):
                    self._wire.reset(self.link, command.streams)
                elif not self._wire.send(self.link, command.stream, command.ppid, command.data):
                    if command.ppid == PPID_DCEP:
                        self.end("stalled")  # nobody would ever say it again
                    else:
                        self._drop_counts["control-unsendable"] += 1
            event = channels.next_event()
            if event is None:
                return
            self._channel_event_untrusted(event)

    def _channel_event_untrusted(self, event: ChannelEvent) -> None:
        match event:
            case ChannelOffered():
                self._offered_untrusted(event)
            case ChannelUp(stream=stream) if stream == self._control:
                self._opened()
            case ChannelUp(stream=stream):
                self._channel_up(self._tether_of[stream])
            case ChannelDown(stream=stream) if stream == self._control:
                self.end("peer")
            case ChannelDown(stream=stream):
                tether = self._tether_of.get(stream)
                if tether is not None:
                    self._shut(tether)
                    self._tether_down(tether.id)
            case ChannelMessage(stream=stream, data=data):
                self._message_untrusted(stream, data)

    def _offered_untrusted(self, offer: ChannelOffered) -> None:
        """The far side opened a channel: take it if it is one we know and there is room, or close it."""
        if offer.label == LINK_LABEL and self._control is None and not self._initiator:
            self._control = offer.stream
            self._channels.accept(offer.stream)
            self._opened()
            return
        place = self._place_untrusted(offer.label, offer.protocol)
        if place is None:
            self._drop_counts["channel-refused"] += 1
            self._channels.close(offer.stream)
            return
        tether, index = place
        self._map(tether, index, offer.stream, self._lifetime_ms)
        self._channels.accept(offer.stream)
        self._channel_up(tether)

    def _message_untrusted(self, stream: int, data: bytes | str) -> None:
        if isinstance(data, str):
            self._drop_counts["text-message"] += 1
        elif stream == self._control:
            self._emit(ControlArrived(self.link, data))
        else:
            self._drop_counts["no-tether"] += 1  # an empty message, or one that came up before its stream was mapped

    def send_control(self, data: bytes) -> None:
        """Send one message on conflux.link.1; what cannot be sent is a counted drop."""
        if self._control is None or len(data) > MESSAGE_BYTES_MAX or not self._channels.send(self._control, data):
            self._drop_counts["control-unsendable"] += 1
        self._settle()

    # ── tethers ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def open_tether(self, tether_id: TetherId, channel_count: int) -> None:
        """Open a tether; TetherUp follows, or TetherDown if it cannot be."""
        super().open_tether(tether_id, channel_count)
        self._settle()

    def close_tether(self, tether_id: TetherId) -> None:
        """Close a tether, whoever opened it; no event follows here.  No-op if unknown."""
        super().close_tether(tether_id)
        self._settle()

    def _new_tether(self, tether_id: TetherId, channel_count: int) -> StreamTether:
        return StreamTether(tether_id, channel_count, shut=self._shut)

    def _open_channels(self, tether: StreamTether, lifetime_ms: int) -> None:
        count = len(tether.channels)
        reliability = Reliability(ordered=False, lifetime_ms_max=lifetime_ms)
        try:
            for index in range(count):
                # Mapped before the peer hears of it: it may send as soon as it has.
                stream = self._channels.open(TETHER_LABEL, channel_protocol(tether.id, index, count), reliability)
                self._map(tether, index, stream, lifetime_ms)
        except LocalProtocolError:  # the peer has taken all there are, or has not reset what we gave back
            self._drop_counts["tether-unopenable"] += 1
            self._shut(tether)
            self._tether_down(tether.id)

    def _map(self, tether: StreamTether, index: int, stream: int, lifetime_ms: int) -> None:
        tether.channels[index] = stream
        self._tether_of[stream] = tether
        self._wire.map(self.link, stream, tether.id, index, lifetime_ms=lifetime_ms)

    def _channel_up(self, tether: StreamTether) -> None:
        tether.up_count += 1
        if tether.up_count == len(tether.channels):
            self._tether_up(tether.id)

    def _shut(self, tether: StreamTether) -> None:
        """Take a tether's streams from the engine and give them back."""
        self._wire.unmap(self.link, tether.id)
        for stream in tether.streams:
            del self._tether_of[stream]
        self._channels.close(*tether.streams)
