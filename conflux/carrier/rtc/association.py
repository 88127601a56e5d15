"""SCTP for one link: aiortc's association, with timers for a single hop and bounds on what a peer can make it hold."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable

from conflux.carrier import lean
from conflux.carrier.drop import Drop

lean.load()

from aiortc.rtcdtlstransport import RTCDtlsTransport  # noqa: E402  # only findable now
from aiortc.rtcsctptransport import SCTP_RTO_MAX, DataChunk, RTCSctpTransport  # noqa: E402

# RFC 9260 suggests 3 s and 1 s for any path; a hop is shorter.  dcSCTP, in every Chrome, starts with 0.5 s.  Linux
# allows TCP 0.2 s.  That is below the lifetime of a frame, so the last frame of a burst is sent again in time too,
# although no later packet's acknowledgement shows its loss.
RTO_INITIAL_S = 0.5
RTO_MIN_S = 0.2

WINDOW_BYTES_MAX = 1 << 20  # aiortc's own; we advertise less where the kernel gives less

# The most that may be in flight.  Slow start ends only with a loss, and on a fast hop the first loss comes when the far
# socket's buffer is full: aiortc's holds about 220 packets, a browser's 90.  A long path holds packets itself, so there
# this association may have in flight what it can send in one bare round trip, up to an aiortc peer's window.
FLIGHT_BYTES_MIN = 128 * 1024
RATE_BYTES_S_MAX = 40_000_000  # measured on two x86 cores with uvloop: 35 MB/s; too low costs long paths their rate

PACKET_OVERHEAD = 2  # the kernel counts a full packet at this multiple of its bytes

OVERDRAFT_BYTES = 256 * 1024  # a peer that exceeds our advertised window by more has its data dropped

# aiortc raises these on packets that are well framed and wrong inside.
_MALFORMED = (ValueError, KeyError, IndexError, AssertionError, AttributeError, TypeError, struct.error)


class Association(RTCSctpTransport):
    """The SCTP association of one link.  broken: called on a malformed packet of the peer."""

    def __init__(
        self, transport: RTCDtlsTransport, port: int, *, drop_counts: Counter[str], broken: Callable[[], None]
    ) -> None:
        super().__init__(transport, port)
        self._drop_counts = drop_counts
        self._broken = broken
        self._rto = RTO_INITIAL_S
        self._rtt_s_min: float | None = None

    def fit(self, socket_buffer_bytes: int) -> None:
        """Advertise no more than the receiving socket can hold.  Before start()."""
        self._advertised_rwnd = min(WINDOW_BYTES_MAX, max(FLIGHT_BYTES_MIN, socket_buffer_bytes // PACKET_OVERHEAD))

    @property
    def rtt_s(self) -> float | None:
        """The smoothed round-trip time, or None before the first measurement."""
        return self._srtt

    async def _handle_data(self, data: bytes) -> None:
        try:
            await super()._handle_data(data)
        except _MALFORMED:
            self._drop_counts[Drop.SCTP_MALFORMED] += 1
            self._broken()

    async def _receive_data_chunk(self, chunk: DataChunk) -> None:
        if self._advertised_rwnd < -OVERDRAFT_BYTES:
            self._drop_counts[Drop.SCTP_WINDOW_IGNORED] += 1
            return
        await super()._receive_data_chunk(chunk)

    def _update_rto(self, R: float) -> None:
        super()._update_rto(R)
        assert self._srtt is not None
        assert self._rttvar is not None
        self._rto = max(RTO_MIN_S, min(self._srtt + 4 * self._rttvar, SCTP_RTO_MAX))
        self._rtt_s_min = R if self._rtt_s_min is None else min(R, self._rtt_s_min)

    async def _transmit(self) -> None:
        path_bytes = int(RATE_BYTES_S_MAX * (self._rtt_s_min or 0))
        self._cwnd = min(self._cwnd, max(FLIGHT_BYTES_MIN, min(path_bytes, WINDOW_BYTES_MAX)))
        await super()._transmit()
