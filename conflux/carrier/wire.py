"""What a carrier may ask of the engine for its links, and what the engine reports of them.  Plain data.

The carrier brings a link up (ICE, the DTLS handshake), then hands socket and keys over.  From then on the engine moves
the link's datagrams: it opens and seals DTLS records, runs SCTP, and carries every message of a mapped stream by
itself.  Everything else comes up: the peer's STUN, handshake records, messages on unmapped streams.

    add ─► WireOpened ─► (send | map | reset ─► WireMessage | WireReset)* ─► close ─► WireClosed ─► remove
                         WireDatagram, WireError at any time
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple, Protocol

from conflux.carrier.interface import Measured
from conflux.ids import LinkId, TetherId

# cext/dtls/dtls.h
AES_128_GCM: Final = 1
AES_256_GCM: Final = 2
CHACHA20_POLY1305: Final = 3

# cext/engine/engine.h: who opened a channel that is mapped
CHANNEL_UP: Final = 0  # both ends know it
CHANNEL_ASKED: Final = 1  # this end: frames follow its OPEN, in order until the peer has acknowledged it
CHANNEL_OFFERED: Final = 2  # the peer: its first frames may come before their label is known


@dataclass(frozen=True, slots=True)
class DtlsKeys:
    """What a finished DTLS 1.2 handshake leaves: keys and nonces of epoch 1, each way."""

    cipher: int
    key_out: bytes  # 16 or 32 bytes
    key_in: bytes
    iv_out: bytes  # 4 bytes with AES-GCM, 12 with ChaCha20-Poly1305
    iv_in: bytes
    sequence_out: int  # the first that the engine uses: above those of the handshake's library

    def __repr__(self) -> str:
        return f"DtlsKeys(cipher={self.cipher})"  # never the keys


@dataclass(frozen=True, slots=True)
class StunKeys:
    """The ICE passwords of a link, 22 to 256 bytes each: STUN that proves neither never reaches Python."""

    ours: bytes  # the peer's requests come under it
    peers: bytes  # its responses do

    def __repr__(self) -> str:
        return "StunKeys()"  # never the passwords


@dataclass(frozen=True, slots=True)
class Start:
    """Both ends of an SCTP association that begins open: 8 random bytes each."""

    ours: bytes
    theirs: bytes


@dataclass(frozen=True, slots=True)
class WireOpened:
    """The SCTP association is up.  If it began so, the peer need not have said anything yet."""

    link: LinkId


class WireEnd(StrEnum):
    """Why an association is over, in the engine's words (sctp_end_name() and links_end() in cext/)."""

    ASKED = "asked"  # close()
    SHUTDOWN = "shutdown"  # SCTP: the peer ended it in order
    ABORTED = "aborted"  # SCTP: the peer broke it off
    TIMEOUT = "timeout"  # SCTP gave up repeating
    MALFORMED = "malformed"  # SCTP: the peer broke a rule
    MEMORY = "memory"  # none was left
    ALERT = "alert"  # DTLS: the peer closed, or a fatal alert
    SOCKET = "socket"  # the socket broke
    FLOOD = "flood"  # more streams were reset than the upcalls hold


@dataclass(frozen=True, slots=True)
class WireClosed:
    """The association is over.  The engine uses the socket until remove()."""

    link: LinkId
    end: WireEnd


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
    """A datagram that is no application record: STUN, or a handshake record.  address: of its sender, if known."""

    link: LinkId
    data: bytes
    address: tuple[str, int] | None


@dataclass(frozen=True, slots=True)
class WireError:
    """The kernel could not deliver a datagram to address, after an ICMP error for one; None: to the link's peer."""

    link: LinkId
    address: tuple[str, int] | None


WireUpcall = WireOpened | WireClosed | WireMessage | WireReset | WireDatagram | WireError


class Moved(NamedTuple):
    """What a link's socket moved since the engine has it: payload of UDP, and datagrams.  STUN's is part of it."""

    bytes_sent: int
    sent: int
    bytes_received: int
    received: int
    stun_bytes_received: int
    stun_received: int


class Wire(Protocol):
    """The engine, as a carrier sees it.  Every method is synchronous and cheap; upcalls come later, in order."""

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
        """Take over a link's socket: non-blocking, datagrams, kept open by the caller until remove() has returned.

        address: where datagrams go; None: the socket is connected, or one of a socket pair.  datagram_bytes_max: the
        largest UDP payload worth probing for, from the interface's MTU.  SCTP connects at once, or with a start
        is open at once.
        Raises LocalProtocolError for keys or passwords that do not fit, or a link that is there.
        """

    def send(self, link: LinkId, stream: int, ppid: int, data: bytes) -> bool:
        """Send one message, reliable and ordered; False if the link is gone or too much waits."""

    def receive(self, link: LinkId, stream: int, frame: bytes) -> bool:
        """Take a frame that came up as WireMessage, as it came before map(); False if the stream is not mapped."""

    def reset(self, link: LinkId, streams: tuple[int, ...]) -> None:
        """Reset our side of streams once everything sent on them has arrived; WireReset follows."""

    def map(
        self, link: LinkId, stream: int, tether: TetherId, index: int, *, lifetime_ms: int, how: int = CHANNEL_UP
    ) -> None:
        """From now on take binary messages on the stream, both ways, for frames of that channel of the tether."""

    def unmap(self, link: LinkId, tether: TetherId) -> None:
        """Forget a tether: frames for it are dropped, messages on its streams come up.  No-op if unknown."""

    def close(self, link: LinkId) -> None:
        """Say goodbye in SCTP and in DTLS, each in a datagram of its own; WireClosed(ASKED) follows."""

    def remove(self, link: LinkId) -> None:
        """Forget the link: when this returns, its keys are wiped and its socket is not used.  No-op if unknown."""

    def measured(self, link: LinkId) -> Measured | None:
        """Return what is known of the hop; None if the link is gone."""

    def moved(self, link: LinkId) -> Moved | None:
        """Return what its socket moved; None if the link is gone."""
