"""The engine as a carrier sees it: carrier.wire.Wire, word for word."""

from __future__ import annotations

from conflux.carrier.wire import (
    DtlsKeys,
    Measured,
    WireClosed,
    WireDatagram,
    WireError,
    WireMessage,
    WireOpened,
    WireReset,
    WireUpcall,
)
from conflux.datapath import _engine
from conflux.ids import LinkId, TetherId


class NativeWire:
    """See conflux.carrier.wire.Wire, which says what every method promises."""

    def __init__(self, engine: _engine.Engine) -> None:
        self._engine = engine

    def add(
        self,
        link: LinkId,
        fd: int,
        address: tuple[str, int] | None,
        keys: DtlsKeys,
        *,
        port_local: int,
        port_remote: int,
        datagram_bytes_max: int,
    ) -> None:
        self._engine.add_link(link, fd, address, keys, port_local, port_remote, datagram_bytes_max)

    def send(self, link: LinkId, stream: int, ppid: int, data: bytes) -> bool:
        return self._engine.send(link, stream, ppid, data)

    def reset(self, link: LinkId, streams: tuple[int, ...]) -> None:
        self._engine.reset_streams(link, streams)

    def map(self, link: LinkId, stream: int, tether: TetherId, index: int, *, lifetime_ms: int) -> None:
        self._engine.map(link, stream, tether, index, lifetime_ms)

    def unmap(self, link: LinkId, tether: TetherId) -> None:
        self._engine.unmap(link, tether)

    def close(self, link: LinkId) -> None:
        self._engine.close_link(link)

    def remove(self, link: LinkId) -> None:
        self._engine.remove_link(link)

    def measured(self, link: LinkId) -> Measured | None:
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


def wire_upcall(kind: int, link: LinkId, a: int, b: int, data: bytes, address: tuple[str, int] | None) -> WireUpcall:
    """Return one of the engine's upcalls about a link as what a carrier understands."""
    match kind:
        case _engine.WIRE_OPENED:
            return WireOpened(link)
        case _engine.WIRE_CLOSED:
            return WireClosed(link, data.decode())
        case _engine.WIRE_MESSAGE:
            return WireMessage(link, a, b, data)
        case _engine.WIRE_RESET:
            return WireReset(link, bool(a), bool(b), tuple(memoryview(data).cast("H")))
        case _engine.WIRE_DATAGRAM:
            return WireDatagram(link, data, address)
        case _:
            return WireError(link, address)
