"""What a carrier may ask of the engine for its links, and what the engine reports of them.  Plain data.

The carrier brings a link up (ICE, the DTLS handshake), then hands socket and keys over.  From there on the engine moves
the link's datagrams: it opens and seals DTLS records, runs SCTP, and carries every message of a mapped stream without
asking anybody.  What it does not know comes back up: STUN, handshake records, messages on unmapped streams.

    add ─► WireOpened ─► (send | map | reset ─► WireMessage | WireReset)* ─► close ─► WireClosed ─► remove
                         WireDatagram, WireError at any time
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from conflux.ids import LinkId, TetherId

# cext/dtls.h
AES_128_GCM: Final = 1
AES_256_GCM: Final = 2
CHACHA20_POLY1305: Final = 3


@dataclass(frozen=True, slots=True)
class DtlsKeys:
    """What a finished DTLS 1.2 handshake leaves: keys and nonces of epoch 1, each way."""

    cipher: int
    key_out: bytes  # 16 or 32 bytes
    key_in: bytes
    iv_out: bytes  # 4 bytes with AES-GCM, 12 with ChaCha20-Poly1305
    iv_in: bytes
    sequence_out: int  # the first we may use: above all that the handshake's library used

    def __repr__(self) -> str:
        return f"DtlsKeys(cipher={self.cipher})"  # never the keys


@dataclass(frozen=True, slots=True)
class Measured:
    """What a link's association knows of its hop."""

    rtt_s: float | None  # smoothed; None before the first measurement
    rate_bytes_s: int  # at which it sends at most
    packet_bytes: int  # the path's MTU as found, less IP, UDP and DTLS
    sent_bytes: int  # of SCTP packets, ever
    received_bytes: int
    repaired_count: int  # chunks sent again


@dataclass(frozen=True, slots=True)
class WireOpened:
    """The SCTP association is up."""

    link: LinkId


@dataclass(frozen=True, slots=True)
class WireClosed:
    """The association is over; the socket is not touched any more after remove().

    reason: asked, shutdown, aborted, timeout, malformed, memory (SCTP); alert (a DTLS alert); socket (our error).
    """

    link: LinkId
    reason: str


@dataclass(frozen=True, slots=True)
class WireMessage:
    """A message came on a stream that is mapped to no tether."""

    link: LinkId
    stream: int
    ppid: int
    data: bytes


@dataclass(frozen=True, slots=True)
class WireReset:
    """Streams were reset: incoming by the peer; else ours, as asked, or refused by the peer."""

    link: LinkId
    incoming: bool
    accepted: bool
    streams: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class WireDatagram:
    """A datagram that is no application record: STUN, or a record of the handshake.  address: who sent it, if known."""

    link: LinkId
    data: bytes
    address: tuple[str, int] | None


@dataclass(frozen=True, slots=True)
class WireError:
    """The kernel could not deliver what was sent to address (an ICMP error, or the like)."""

    link: LinkId
    address: tuple[str, int] | None


WireUpcall = WireOpened | WireClosed | WireMessage | WireReset | WireDatagram | WireError


class Wire(Protocol):
    """The engine, as a carrier sees it.  Every method is synchronous and cheap; upcalls come later, in order."""

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
        """Take over a link's socket: non-blocking, datagrams, kept open by the caller until remove() has returned.

        address: where datagrams go; None: the socket is connected, or one of a socket pair.  datagram_bytes_max: the
        largest UDP payload worth probing for, from the interface's MTU.  SCTP connects at once.
        Raises LocalProtocolError for keys that fit no cipher, or a link that is there.
        """

    def send(self, link: LinkId, stream: int, ppid: int, data: bytes) -> bool:
        """Send one message, reliable and ordered; False if the link is gone or too much waits."""

    def reset(self, link: LinkId, streams: tuple[int, ...]) -> None:
        """Close our side of streams once what was sent on them is through; WireReset follows."""

    def map(self, link: LinkId, stream: int, tether: TetherId, index: int, *, lifetime_ms: int) -> None:
        """Binary messages on the stream are frames of the tether's channel of that index, both ways, from now on."""

    def unmap(self, link: LinkId, tether: TetherId) -> None:
        """The tether is no more: frames for it are dropped, messages on its streams come up.  No-op if unknown."""

    def close(self, link: LinkId) -> None:
        """Say goodbye: SCTP's and DTLS's, each in a datagram of its own, at once; WireClosed("asked") follows."""

    def remove(self, link: LinkId) -> None:
        """Forget the link: keys wiped, socket not touched any more when this returns.  No-op if unknown."""

    def measured(self, link: LinkId) -> Measured | None:
        """What is known of the hop; None if the link is gone."""
