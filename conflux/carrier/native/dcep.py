"""DCEP: the message that opens a data channel (RFC 8832), and the kinds of message on one (RFC 8831, section 8).

OPEN   03 | channel type 1 | priority 2 | reliability 4 | label size 2 | protocol size 2 | label | protocol
ACK    02
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, NamedTuple

from conflux.carrier.interface import CarrierEnd
from conflux.errors import LocalProtocolError, RemoteProtocolError

PPID_DCEP: Final = 50
PPID_STRING: Final = 51
PPID_BINARY: Final = 53
PPID_STRING_EMPTY: Final = 56
PPID_BINARY_EMPTY: Final = 57

NAME_BYTES_MAX = 256  # of a label or a protocol that we send; chosen

ACK, OPEN = 0x02, 0x03  # the first byte of a message
_UNORDERED = 0x80
_RELIABLE, _RETRANSMITS, _LIFETIME = 0x00, 0x01, 0x02
_OPEN_HEADER = struct.Struct("!BBHIHH")  # type, channel type, priority, reliability, label size, protocol size


@dataclass(frozen=True, slots=True)
class Reliability:
    """How a channel delivers.  At most one of the two bounds may be set; with neither, every message arrives."""

    ordered: bool = True
    retransmits_max: int | None = None
    lifetime_ms_max: int | None = None


class Open(NamedTuple):
    """A channel as its DATA_CHANNEL_OPEN describes it."""

    label: str
    protocol: str
    reliability: Reliability


def encode_open(label: str, protocol: str, reliability: Reliability) -> bytes:
    """Return a DATA_CHANNEL_OPEN (RFC 8832, section 5.1).  Raises LocalProtocolError for what does not fit one."""
    if reliability.retransmits_max is not None and reliability.lifetime_ms_max is not None:
        raise LocalProtocolError("a channel has one bound on reliability at most")
    kind, value = _RELIABLE, 0
    if reliability.retransmits_max is not None:
        kind, value = _RETRANSMITS, reliability.retransmits_max
    elif reliability.lifetime_ms_max is not None:
        kind, value = _LIFETIME, reliability.lifetime_ms_max
    if not reliability.ordered:
        kind |= _UNORDERED
    named = label.encode(), protocol.encode()
    if max(map(len, named)) > NAME_BYTES_MAX:
        raise LocalProtocolError("label or protocol of a channel is too long")
    return _OPEN_HEADER.pack(OPEN, kind, 0, value, len(named[0]), len(named[1])) + b"".join(named)


def decode_open_untrusted(data: bytes) -> Open:
    """Return what a DATA_CHANNEL_OPEN says.  Raises RemoteProtocolError("dcep")."""
    if len(data) < _OPEN_HEADER.size or data[0] != OPEN:
        raise RemoteProtocolError(CarrierEnd.DCEP, "no OPEN, or too short for one")
    _, kind, _, value, label_size, protocol_size = _OPEN_HEADER.unpack_from(data)
    if len(data) != _OPEN_HEADER.size + label_size + protocol_size:
        raise RemoteProtocolError(CarrierEnd.DCEP, "OPEN is not as long as it says")
    ordered = not kind & _UNORDERED
    match kind & ~_UNORDERED:
        case 0x00:
            reliability = Reliability(ordered)
        case 0x01:
            reliability = Reliability(ordered, retransmits_max=value)
        case 0x02:
            reliability = Reliability(ordered, lifetime_ms_max=value)
        case _:
            raise RemoteProtocolError(CarrierEnd.DCEP, f"channel type {kind:#x}")
    at = _OPEN_HEADER.size + label_size
    try:
        return Open(data[_OPEN_HEADER.size : at].decode(), data[at:].decode(), reliability)
    except UnicodeDecodeError:
        raise RemoteProtocolError(CarrierEnd.DCEP, "a name that is no UTF-8") from None
