"""The engine as a carrier sees it: carrier.wire.Wire, method for method."""

from __future__ import annotations

from conflux.carrier.interface import Measured
from conflux.carrier.wire import (
    CHANNEL_UP,
    DtlsKeys,
    Moved,
    Start,
    StunKeys,
    WireClosed,
    WireDatagram,
    WireEnd,
    WireError,
    WireMessage,
    WireOpened,
    WireReset,
    WireUpcall,
)
from conflux.datapath.native import _engine
from conflux.datapath.native.door import EngineUpcall
from conflux.ids import LinkId, TetherId


class NativeWire:
    """The Wire of the engine; the contracts stand in conflux.carrier.wire."""

    def __init__(self, engine: _engine.Engine) -> None:
        self._engine = engine

    def add(
        self,
        link: LinkId,
        fd: int,
        address: tuple[str, int] | None,
        keys: DtlsKeys,
        stun: StunKeys,
        *,
        port_local: int,
        port_remote: int,
        datagram_bytes_max: int,
        start: Start | None = None,
    ) -> None:
        """Take over a link's socket."""
        self._engine.add_link(link, fd, address, keys, stun, port_local, port_remote, datagram_bytes_max, start)

    def send(self, link: LinkId, stream: int, ppid: int, data: bytes) -> bool:
        """Send one message, reliable and ordered."""
        return self._engine.send(link, stream, ppid, data)

    def receive(self, link: LinkId, stream: int, frame: bytes) -> bool:
        """Take a frame that came up before its stream was mapped."""
        return self._engine.receive_frame(link, stream, frame)

    def reset(self, link: LinkId, streams: tuple[int, ...]) -> None:
        """Reset our side of streams."""
        self._engine.reset_streams(link, streams)

    def map(
        self, link: LinkId, stream: int, tether: TetherId, index: int, *, lifetime_ms: int, how: int = CHANNEL_UP
    ) -> None:
        """Take messages on a stream as frames of a tether's channel."""
        self._engine.map(link, stream, tether, index, lifetime_ms, how)

    def unmap(self, link: LinkId, tether: TetherId) -> None:
        """Take no more frames of a tether."""
        self._engine.unmap(link, tether)

    def close(self, link: LinkId) -> None:
        """Say goodbye."""
        self._engine.close_link(link)

    def remove(self, link: LinkId) -> None:
        """Forget a link; its socket is not touched any more."""
        self._engine.remove_link(link)

    def measured(self, link: LinkId) -> Measured | None:
        """Return what is known of a link's hop; None if the link is gone."""
        state = self._engine.link(link)
        if state is None:
            return None
        return Measured(
            rtt_s=state["rtt_ns"] / 1e9 if state["rtt_ns"] else None,
            rate_bytes_s=state["rate_bytes_s"],
            packet_bytes=state["packet_bytes"],
            sent_bytes=state["bytes_sent"],
            received_bytes=state["bytes_received"],
            repaired_count=state["chunks_retransmitted"],
        )

    def moved(self, link: LinkId) -> Moved | None:
        """Return what a link's socket moved; None if the link is gone."""
        state = self._engine.link(link)
        if state is None:
            return None
        return Moved(
            state["udp_bytes_sent"],
            state["udp_sent"],
            state["udp_bytes_received"],
            state["udp_received"],
            state["stun_bytes_received"],
            state["stun_received"],
        )


def wire_upcall(upcall: EngineUpcall) -> WireUpcall:
    """Return an upcall of a WIRE_ kind in the carrier's terms."""
    link = LinkId(upcall.link)
    match upcall.kind:
        case _engine.WIRE_OPENED:
            return WireOpened(link)
        case _engine.WIRE_CLOSED:
            return WireClosed(link, WireEnd(upcall.data.decode()))
        case _engine.WIRE_MESSAGE:
            return WireMessage(link, upcall.a, upcall.b, upcall.data)
        case _engine.WIRE_RESET:
            return WireReset(link, bool(upcall.a), bool(upcall.b), tuple(memoryview(upcall.data).cast("H")))
        case _engine.WIRE_DATAGRAM:
            return WireDatagram(link, upcall.data, upcall.address)
        case _:
            return WireError(link, upcall.address)
