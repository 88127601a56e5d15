"""SCTP for one link: aiortc's association with timers fit for one hop and bounds on what a peer can make it hold."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable

from conflux.carrier import lean

lean.load()

from aiortc.rtcdtlstransport import RTCDtlsTransport  # noqa: E402  # only findable now
from aiortc.rtcsctptransport import SCTP_RTO_MAX, DataChunk, RTCSctpTransport  # noqa: E402

# RFC 9260 leaves both to the implementation and suggests 1 s for the whole Internet of 2000.  A lost packet at the
# end of a burst, or during set-up, waits this long; dcSCTP, in every Chrome, uses the same two values.
RTO_INITIAL_S = 0.5
RTO_MIN_S = 0.4

OVERDRAFT_BYTES = 256 * 1024  # how far a peer may run over the window we advertised before its data is dropped

# What aiortc raises on packets that are well framed and wrong inside.
_MALFORMED = (ValueError, KeyError, IndexError, AssertionError, AttributeError, TypeError, struct.error)


class Association(RTCSctpTransport):
    """The SCTP association of one link.  broken: called when the peer's packets cannot be made sense of."""

    def __init__(
        self, transport: RTCDtlsTransport, port: int, *, drop_counts: Counter[str], broken: Callable[[], None]
    ) -> None:
        super().__init__(transport, port)
        self._drop_counts = drop_counts
        self._broken = broken
        self._rto = RTO_INITIAL_S

    @property
    def rtt_s(self) -> float | None:
        """The smoothed round-trip time, or None before the first measurement."""
        return self._srtt

    async def _handle_data(self, data: bytes) -> None:
        try:
            await super()._handle_data(data)
        except _MALFORMED:
            self._drop_counts["sctp-malformed"] += 1
            self._broken()

    async def _receive_data_chunk(self, chunk: DataChunk) -> None:
        if self._advertised_rwnd < -OVERDRAFT_BYTES:
            self._drop_counts["sctp-window-ignored"] += 1
            return
        await super()._receive_data_chunk(chunk)

    def _update_rto(self, R: float) -> None:
        super()._update_rto(R)
        assert self._srtt is not None
        assert self._rttvar is not None
        self._rto = max(RTO_MIN_S, min(self._srtt + 4 * self._rttvar, SCTP_RTO_MAX))
