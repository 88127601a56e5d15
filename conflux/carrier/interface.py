"""What the machines may ask of a carrier, and what a carrier reports.  Plain data: the simulator has a carrier too.

Life of a link, seen from the carrier:

    Describe ─► Described ─► Connect ─► Opened ─► (OpenTether ─► TetherUp | SendControl | ControlArrived)* ─► Disconnect
        └────────────┴──────────┴─────────┴──── Closed(reason) at any time; Closed is always the last event of a link
"""

from __future__ import annotations

from dataclasses import dataclass

from conflux.ids import LinkId, TetherId
from conflux.wire import Record, octets, sequence, text, uint


@dataclass(frozen=True, slots=True)
class Description(Record):
    """One side of a link: what an SDP offer or answer says, and nothing else.

    candidates are the values of SDP candidate attributes ("1 1 udp 2130706431 192.0.2.1 50000 typ host").
    """

    BYTES_MAX = 4096
    SHAPES = (text(256), text(256), octets(32), uint(65535), uint(2**32 - 1), sequence(text(200), 16))

    ice_ufrag: str
    ice_pwd: str
    dtls_sha256: bytes  # fingerprint of the DTLS certificate
    sctp_port: int
    message_bytes_max: int
    candidates: tuple[str, ...]


# ── commands ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Describe:
    """Make our side of a new link; initiator: we made the offer (ICE controlling, DTLS server)."""

    link: LinkId
    initiator: bool


@dataclass(frozen=True, slots=True)
class Connect:
    """Connect the described link to the far side."""

    link: LinkId
    remote: Description


@dataclass(frozen=True, slots=True)
class AddCandidates:
    """Try these addresses of the far side too; it found them after its description was made."""

    link: LinkId
    candidates: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Close the link and every socket of it, in whatever state it is."""

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


@dataclass(frozen=True, slots=True)
class Described:
    link: LinkId
    local: Description


@dataclass(frozen=True, slots=True)
class CandidatesFound:
    """More addresses of ours (STUN, TURN), which the description did not wait for."""

    link: LinkId
    candidates: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Opened:
    """ICE, DTLS and SCTP are up, the far certificate matched, and conflux.link.1 is open."""

    link: LinkId


@dataclass(frozen=True, slots=True)
class Closed:
    """The link is gone and its sockets are closed.  reason: "asked", "failed", "peer", "timeout", ..."""

    link: LinkId
    reason: str


@dataclass(frozen=True, slots=True)
class ControlArrived:
    link: LinkId
    data: bytes


@dataclass(frozen=True, slots=True)
class TetherUp:
    """Every channel of the tether is open, whoever opened it."""

    link: LinkId
    tether: TetherId


@dataclass(frozen=True, slots=True)
class TetherDown:
    link: LinkId
    tether: TetherId


CarrierEvent = Described | CandidatesFound | Opened | Closed | ControlArrived | TetherUp | TetherDown
