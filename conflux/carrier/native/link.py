"""One link whose records and messages the engine carries.  ICE, the handshake and the opening of channels are here.

Ice ─socket─►  engine  ◄─keys─ Handshake
Ice ◄─ STUN ─┘ │    └─ records of the handshake ─► Handshake
               └─ DCEP, conflux.link.1, resets ─► Channels ─► tethers
"""

from __future__ import annotations

import asyncio
import os
from typing import Final

from conflux.carrier.context import LinkContext
from conflux.carrier.drop import Drop
from conflux.carrier.ice.datagrams import is_dtls
from conflux.carrier.interface import (
    MESSAGE_BYTES_MAX,
    SCTP_PORT,
    SCTP_START_BYTES,
    CarrierEnd,
    ControlArrived,
    Description,
    Measured,
)
from conflux.carrier.link import Link
from conflux.carrier.native import dtls_keys
from conflux.carrier.native.channels import (
    ChannelDown,
    ChannelEvent,
    ChannelMessage,
    ChannelOffered,
    Channels,
    ChannelUp,
    Reset,
    Send,
)
from conflux.carrier.native.dcep import PPID_DCEP, Reliability
from conflux.carrier.native.handshake import Handshake
from conflux.carrier.native.share import EngineShare
from conflux.carrier.native.tether import StreamTether
from conflux.carrier.tether import LINK_LABEL, TETHER_LABEL, channel_protocol
from conflux.carrier.wire import (
    CHANNEL_ASKED,
    CHANNEL_OFFERED,
    Start,
    StunKeys,
    Wire,
    WireClosed,
    WireDatagram,
    WireEnd,
    WireError,
    WireMessage,
    WireOpened,
    WireReset,
    WireUpcall,
)
from conflux.errors import LocalProtocolError, RemoteProtocolError
from conflux.ids import TetherId

# How long streams wait to be reset that this side closes.  As a rule the link ends with its last route, two seconds
# later, and the streams with it: twelve packets less.  A peer learns by the route's TEARDOWN what ends.
RESETS_WAIT_S: Final = 5.0
RESETS_WAITING_MAX: Final = 64  # streams; then they are reset at once, so that a link never runs out of them

CARRIER_ENDS = {  # what the engine's words mean for a link
    WireEnd.ASKED: CarrierEnd.ASKED,
    WireEnd.SHUTDOWN: CarrierEnd.PEER,
    WireEnd.ABORTED: CarrierEnd.PEER,
    WireEnd.TIMEOUT: CarrierEnd.TIMEOUT,
    WireEnd.MALFORMED: CarrierEnd.SCTP_MALFORMED,
    WireEnd.MEMORY: CarrierEnd.MEMORY,
    WireEnd.ALERT: CarrierEnd.PEER,
    WireEnd.SOCKET: CarrierEnd.SOCKET,
    WireEnd.FLOOD: CarrierEnd.FLOOD,
}


class NativeLink(Link[StreamTether, int]):
    """See Link.  wire: the engine.  resets_wait_s: see RESETS_WAIT_S."""

    def __init__(self, context: LinkContext, *, wire: Wire, resets_wait_s: float = RESETS_WAIT_S) -> None:
        super().__init__(context)
        self._resets_wait_s = resets_wait_s
        self._resets: list[int] = []  # streams to reset, unless the association ends before
        self._resetting: asyncio.TimerHandle | None = None
        self._wire = wire
        self._is_added = False
        self._dtls = Handshake(self._ice, is_client=not self._initiator, drop_counts=context.drop_counts)
        self._channels = Channels(is_client=not self._initiator, drop_counts=context.drop_counts)
        self._tether_of: dict[int, StreamTether] = {}  # by stream
        self._start = os.urandom(SCTP_START_BYTES)
        self._share: EngineShare | None = None  # once the engine has the link

    @property
    def _takes_keys(self) -> bool:
        return True

    @property
    def _secures_early(self) -> bool:
        return True

    @property
    def _sctp_start(self) -> bytes:
        return self._start

    @property
    def _handshake(self) -> Handshake:
        return self._dtls

    async def _carry(self, remote: Description) -> None:
        if 0 < remote.message_bytes_max < MESSAGE_BYTES_MAX:  # 0: any size (RFC 8841, section 6.1)
            raise RemoteProtocolError(CarrierEnd.MESSAGE_SIZE, "the peer does not take a whole frame")
        handed_over = self._ice.hand_over()
        keys, self._keys = self._keys, None
        try:
            self._wire.add(
                self.link,
                handed_over.fd,
                handed_over.address,
                self._dtls.take_keys() if keys is None else dtls_keys.given_keys(keys),
                StunKeys(self._ice.local_password.encode(), remote.ice_pwd.encode()),
                port_local=SCTP_PORT,
                port_remote=remote.sctp_port,
                datagram_bytes_max=handed_over.datagram_bytes_max,
                start=None if remote.sctp_start is None else Start(self._start, remote.sctp_start),
            )
        except LocalProtocolError as error:  # the engine has no room for another link
            raise ConnectionError(str(error)) from error
        self._is_added = True
        self._share = EngineShare(self.traffic, handed_over.address)

    async def _stop_carrying(self) -> None:
        if self._resetting is not None:
            self._resetting.cancel()
        if self._is_added:
            self._wire.close(self.link)
            self.count()
            self._wire.remove(self.link)  # before the socket is closed

    def measured(self) -> Measured | None:
        """Return what the engine knows of the hop; None before it has the link."""
        return self._wire.measured(self.link)

    def count(self) -> None:
        """See Link."""
        moved = self._wire.moved(self.link) if self._share is not None else None
        if self._share is not None and moved is not None:
            self._share.count(moved)

    # ── upcalls ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def upcall(self, upcall: WireUpcall) -> None:
        """Take one upcall of the engine."""
        if self._over.done():
            return
        try:
            self._upcall_untrusted(upcall)
        except RemoteProtocolError as error:
            self.end(CarrierEnd(error.reason))
        except Exception as error:  # noqa: BLE001  # most likely of aioice or OpenSSL; goes where those of callbacks go
            context = {"message": f"what came on link {self.link} made a library fail", "exception": error}
            self._loop.call_exception_handler(context)

    def _upcall_untrusted(self, upcall: WireUpcall) -> None:
        match upcall:
            case WireOpened():
                if self._initiator:
                    self._control = self._channels.open(LINK_LABEL)
                    self._settle()
                    self._opened()
            case WireClosed(end=end):
                self.end(CARRIER_ENDS[end])
            case WireMessage(stream=stream, ppid=ppid, data=data):
                if self._share is not None:
                    self._share.message(received=len(data))
                self._dtls.forget()  # a peer that speaks SCTP has our last flight
                self._channels.message_untrusted(stream, ppid, data)
                self._settle()
            case WireReset(incoming=incoming, accepted=accepted, streams=streams):
                self._channels.reset_untrusted(streams, incoming=incoming, accepted=accepted)
                self._settle()
                if incoming and self._resets:  # the peer closes too, and waits for ours
                    self._reset_now()
            case WireDatagram(data=data, address=address):
                if is_dtls(data):
                    self._dtls.received_untrusted(data)
                else:
                    self._ice.engine_received(data, address)
            case WireError(address=address):
                self._ice.engine_error(address)

    # ── channels ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _settle(self) -> None:
        """Carry out the commands of the channels and act on their events, until none is left."""
        channels = self._channels
        while True:
            while (command := channels.next_command()) is not None:
                if not isinstance(command, Send):
                    self._reset(command)
                elif self._wire.send(self.link, command.stream, command.ppid, command.data):
                    if self._share is not None:
                        self._share.message(sent=len(command.data))
                elif command.ppid == PPID_DCEP:
                    self.end(CarrierEnd.STALLED)  # it would never be sent again
                else:
                    self._drop_counts[Drop.CONTROL_UNSENDABLE] += 1
            event = channels.next_event()
            if event is None:
                return
            self._channel_event_untrusted(event)

    def _reset(self, command: Reset) -> None:
        self._resets += command.streams
        if command.is_answer or self._resets_wait_s == 0 or len(self._resets) >= RESETS_WAITING_MAX:
            self._reset_now()
        elif self._resetting is None:
            self._resetting = self._loop.call_later(self._resets_wait_s, self._reset_now)

    def _reset_now(self) -> None:
        if self._resetting is not None:
            self._resetting.cancel()
            self._resetting = None
        streams, self._resets = tuple(self._resets), []
        self._wire.reset(self.link, streams)

    def _channel_event_untrusted(self, event: ChannelEvent) -> None:
        match event:
            case ChannelOffered(stream=stream, label=label, protocol=protocol):
                self._offered_untrusted(stream, label, protocol)
            case ChannelUp(stream=stream) if stream == self._control:
                pass  # it is in use since it was opened
            case ChannelUp(stream=stream):
                self._channel_up(self._tether_of[stream])
            case ChannelDown(stream=stream) if stream == self._control:
                self.end(CarrierEnd.PEER)
            case ChannelDown(stream=stream):
                self._offers.pop(stream, None)
                tether = self._tether_of.get(stream)
                if tether is not None:
                    self._shut(tether)
                    self._tether_down(tether.id)
            case ChannelMessage(stream=stream, data=data):
                self._message_untrusted(stream, data)

    def _take_control(self, channel: int) -> None:
        self._control = channel
        self._channels.accept(channel)
        self._opened()

    def _take_channel(self, tether: StreamTether, index: int, channel: int) -> None:
        self._map(tether, index, channel, self._lifetime_ms, CHANNEL_OFFERED)
        self._channels.accept(channel)
        self._channel_up(tether)

    def _refuse_channel(self, channel: int) -> None:
        self._channels.close(channel)

    def _message_untrusted(self, stream: int, data: bytes | str) -> None:
        if isinstance(data, str):
            self._drop_counts[Drop.TEXT_MESSAGE] += 1
        elif stream == self._control:
            self._emit(ControlArrived(self.link, data))
        elif not data or stream not in self._tether_of or not self._wire.receive(self.link, stream, data):
            self._drop_counts[Drop.NO_TETHER] += 1

    def send_control(self, data: bytes) -> None:
        """Send one message on conflux.link.1; what cannot be sent is a counted drop."""
        if self._control is None or len(data) > MESSAGE_BYTES_MAX or not self._channels.send(self._control, data):
            self._drop_counts[Drop.CONTROL_UNSENDABLE] += 1
        self._settle()

    # ── tethers ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def open_tether(self, tether_id: TetherId, channel_count: int) -> None:
        """Open a tether; TetherUp follows, or TetherDown if it cannot be."""
        super().open_tether(tether_id, channel_count)
        self._settle()

    def close_tether(self, tether_id: TetherId) -> None:
        """Close a tether that either side opened; no event follows here.  No-op if unknown."""
        super().close_tether(tether_id)
        self._settle()

    def _new_tether(self, tether_id: TetherId, channel_count: int) -> StreamTether:
        return StreamTether(tether_id, channel_count, shut=self._shut)

    def _open_channels(self, tether: StreamTether, lifetime_ms: int) -> None:
        count = len(tether.channels)
        reliability = Reliability(ordered=False, lifetime_ms_max=lifetime_ms)
        try:
            for index in range(count):
                # Mapped before OPEN leaves: the peer may send as soon as it has it.
                stream = self._channels.open(TETHER_LABEL, channel_protocol(tether.id, index, count), reliability)
                self._map(tether, index, stream, lifetime_ms, CHANNEL_ASKED)
        except LocalProtocolError:  # no stream is free: the peer uses them, or has yet to reset those we closed
            self._drop_counts[Drop.TETHER_UNOPENABLE] += 1
            self._shut(tether)
            self._tether_down(tether.id)

    def _map(self, tether: StreamTether, index: int, stream: int, lifetime_ms: int, how: int) -> None:
        tether.channels[index] = stream
        self._tether_of[stream] = tether
        self._wire.map(self.link, stream, tether.id, index, lifetime_ms=lifetime_ms, how=how)

    def _channel_up(self, tether: StreamTether) -> None:
        tether.up_count += 1
        if tether.up_count == len(tether.channels):
            self._tether_up(tether.id)

    def _shut(self, tether: StreamTether) -> None:
        """Take a tether's streams from the engine, and close their channels."""
        self._wire.unmap(self.link, tether.id)
        for stream in tether.streams:
            del self._tether_of[stream]
        self._channels.close(*tether.streams)
