"""What the machines may ask of a carrier, and what a carrier reports.  Plain data: the simulator has a carrier too.

Life of a link, seen from the carrier:

    Describe ─► Described ─► Connect ─► Opened ─► (OpenTether ─► TetherUp | SendControl | ControlArrived)* ─► Disconnect
        └────────────┴──────────┴─────────┴──── Closed(end) at any time; Closed is always the last event of a link
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from conflux.anchor.frame import FRAME_BYTES_MAX
from conflux.ids import LinkId, TetherId
from conflux.record import Record, octets, optional, sequence, text, uint

SCTP_START_BYTES = 8  # of cext/sctp/sctp.h
SCTP_PORT = 5000  # inside DTLS any port will do (RFC 8831, section 6.2); browsers use this one
MESSAGE_BYTES_MAX = FRAME_BYTES_MAX  # of a control message or a frame; also the default of RFC 8841, section 6.1
CANDIDATE_COUNT_MAX = 16  # of one side: in its description, and in all that we try of it
# Of them, addresses of the host itself; the rest is for what STUN and TURN servers see, which comes later.
HOST_COUNT_MAX = 12
CANDIDATE_CHARS_MAX = 200  # of one candidate attribute

LIFETIME_MS_MIN = 250  # of a frame on a tether: long enough for one retransmission on a slow hop
LIFETIME_MS_MAX = 65535  # DCEP has 32 bits for it, aiortc 16

# Data channels that we open for a tether: the flows of a destination are spread over them.  Chosen.
TETHER_CHANNEL_COUNT = 4
# Data channels that a peer may ask for in one tether: twice as many as we open.  Chosen; the engine keeps an array of
# this size per tether (ENGINE_CHANNEL_COUNT_MAX).
TETHER_CHANNEL_COUNT_MAX = 8
# Tethers of one link: a relay between two busy LANs has a route each way for every pair of nodes
# (ENGINE_TETHER_COUNT_MAX).
TETHER_COUNT_MAX = 256


@dataclass(frozen=True, slots=True)
class Description(Record):
    """One side of a link, as an SDP offer or answer describes it.

    candidates are the values of SDP candidate attributes ("1 1 udp 2130706431 192.0.2.1 50000 typ host").  sctp_start:
    tag and first TSN of this side's SCTP association; if both sides give theirs, SCTP needs no handshake.
    """

    BYTES_MAX = 4096
    SHAPES = (
        text(256),
        text(256),
        octets(32),
        uint(65535),
        uint(2**32 - 1),
        sequence(text(CANDIDATE_CHARS_MAX), CANDIDATE_COUNT_MAX),
        optional(octets(SCTP_START_BYTES)),
    )

    ice_ufrag: str
    ice_pwd: str
    dtls_sha256: bytes  # fingerprint of the DTLS certificate
    sctp_port: int
    message_bytes_max: int
    candidates: tuple[str, ...]
    sctp_start: bytes | None = None


# ── frames ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class Hop(NamedTuple):
    """One end of a route as seen from here: how to reach the neighbour, and under which labels."""

    link: LinkId
    tether: TetherId
    channel_count: int  # 1 to TETHER_CHANNEL_COUNT_MAX
    label_out: int  # the neighbour's label: written into what we send
    label_in: int  # our label: what we receive carries it


class OutFrame(NamedTuple):
    """A frame for the carrier."""

    link: LinkId
    tether: TetherId
    channel: int  # 0 to Hop.channel_count - 1
    data: bytes


# ── commands ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Describe:
    """Make our side of a new link; initiator: we made the offer (ICE controlling, DTLS server)."""

    link: LinkId
    initiator: bool


class LinkKeys(NamedTuple):
    """Keys of a link that its two ends have agreed on: its records are those that a DTLS handshake would lead to.

    aead: AES_256_GCM or CHACHA20_POLY1305 of anchor.frame.  keys of 32 bytes, nonces of 12, of which AES takes four.
    """

    aead: int
    key_out: bytes
    key_in: bytes
    iv_out: bytes
    iv_in: bytes

    def __repr__(self) -> str:
        return f"LinkKeys(aead={self.aead})"  # never the keys


@dataclass(frozen=True, slots=True)
class Connect:
    """Connect the described link to the far side.  keys: for a carrier that takes them; None: by a DTLS handshake."""

    link: LinkId
    remote: Description
    keys: LinkKeys | None = None


@dataclass(frozen=True, slots=True)
class AddCandidates:
    """Try these addresses of the far side too; they came after its description."""

    link: LinkId
    candidates: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Close the link and every socket of it, in any state."""

    link: LinkId


@dataclass(frozen=True, slots=True)
class SendControl:
    """Send one message on conflux.link.1, reliable and ordered."""

    link: LinkId
    data: bytes


@dataclass(frozen=True, slots=True)
class OpenTether:
    """Open channel_count data channels of label conflux.tether.1, unordered, for one route."""

    link: LinkId
    tether: TetherId
    channel_count: int


@dataclass(frozen=True, slots=True)
class CloseTether:
    """Close the tether's data channels; the far side sees TetherDown."""

    link: LinkId
    tether: TetherId


Command = Describe | Connect | AddCandidates | Disconnect | SendControl | OpenTether | CloseTether

# ── events ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class CarrierEnd(StrEnum):
    """Why a link is gone."""

    ASKED = "asked"  # Disconnect, or the carrier closes
    PEER = "peer"  # the far side closed it
    FAILED = "failed"  # an error of this machine: Closed.error says which
    UNREACHABLE = "unreachable"  # the network reported errors, and the peer no longer answers
    CONSENT = "consent"  # the peer has not answered connectivity checks for half a minute (RFC 7675)
    SOCKET = "socket"  # the socket broke
    TIMEOUT = "timeout"  # SCTP gave up repeating
    STALLED = "stalled"  # too much waits for a peer that does not read
    FLOOD = "flood"  # the peer sent more than could be looked at
    NO_ADDRESS = "no-address"  # this host has none that a link can use
    ADDRESS_GONE = "address-gone"  # this host no longer has the address that the link ran from
    MEMORY = "memory"  # no memory was left for the association
    # The peer broke a rule:
    MALFORMED = "malformed"  # ICE credentials outside the grammar
    DTLS = "dtls"  # the handshake failed, or the certificate is not the one described
    DTLS_VERSION = "dtls-version"
    DTLS_CIPHER = "dtls-cipher"
    MESSAGE_SIZE = "message-size"  # it does not take a whole frame
    SCTP_MALFORMED = "sctp-malformed"
    DCEP = "dcep"  # of how data channels are opened


@dataclass(frozen=True, slots=True)
class Described:
    """Our side of the link has its sockets, and the peer may have its description."""

    link: LinkId
    local: Description


@dataclass(frozen=True, slots=True)
class CandidatesFound:
    """More addresses of ours, found by STUN or TURN after the description."""

    link: LinkId
    candidates: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Opened:
    """ICE, DTLS and SCTP are up, the far certificate matched, and conflux.link.1 is open."""

    link: LinkId


@dataclass(frozen=True, slots=True)
class Closed:
    """The link is gone and its sockets are closed.  error: the class of the exception, if it was one of ours."""

    link: LinkId
    end: CarrierEnd
    error: str | None = None

    @property
    def words(self) -> str:
        """The reason as a person reads it."""
        return self.end if self.error is None else f"{self.end}: {self.error}"


@dataclass(frozen=True, slots=True)
class ControlArrived:
    """A message came on conflux.link.1."""

    link: LinkId
    data: bytes


@dataclass(frozen=True, slots=True)
class TetherUp:
    """Every channel of the tether is open; either side may have opened it."""

    link: LinkId
    tether: TetherId


@dataclass(frozen=True, slots=True)
class TetherDown:
    """The far side closed the tether or one of its channels, or ours could not be opened."""

    link: LinkId
    tether: TetherId


CarrierEvent = Described | CandidatesFound | Opened | Closed | ControlArrived | TetherUp | TetherDown

# ── figures ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Measured(NamedTuple):
    """What a link knows of its hop.  None: not measured yet, or not by this kind of carrier."""

    rtt_s: float | None  # smoothed
    rate_bytes_s: int | None = None  # the most it sends
    packet_bytes: int | None = None  # the path's MTU as found, less IP, UDP and DTLS
    sent_bytes: int | None = None  # of SCTP packets, ever
    received_bytes: int | None = None
    repaired_count: int | None = None  # chunks sent again
