"""The answer to a program whose packet has no way: ICMP "destination unreachable" (RFC 792, RFC 4443, section 3.1).

Without it `ssh` to a board that is off waits for minutes.  The answer comes from the address that is not reached: the
kernel would take one from this host's own address for forged.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from conflux.datapath.packet import IPV4_HEADER_BYTES, IPV6_HEADER_BYTES

ICMP: Final = 1
ICMPV6: Final = 58
TYPE_IPV4: Final = 3
TYPE_IPV6: Final = 1
ERRORS_IPV4: Final = frozenset((3, 4, 5, 11, 12))  # no error is answered with an error
INFORMATION_IPV6_MIN: Final = 128  # types below are errors
QUOTED_IPV4_MAX: Final = 548  # RFC 1812, section 4.3.2.3: the whole has at most 576 bytes
QUOTED_IPV6_MAX: Final = 1232  # of the least MTU, 1280
HOP_LIMIT: Final = 64
OFFSET_MASK: Final = 0x1FFF


class Codes(NamedTuple):
    """What a reason is called in both families."""

    ipv4: int
    ipv6: int


CODES: Final = {
    "unknown-destination": Codes(1, 3),  # no node has the address: host unreachable, "No route to host"
    "unreachable": Codes(0, 0),  # the node is known and no path leads there: net unreachable, "Network is unreachable"
    "revoked": Codes(13, 1),  # administratively prohibited
    "policy-sent": Codes(13, 1),
}


def unreachable(packet: bytes, reason: str) -> bytes | None:
    """Return the packet that tells the sender of a packet why it was dropped.

    None: nobody is told of that reason, or of a packet such as this one.  parse() accepted the packet before.
    """
    codes = CODES.get(reason)
    if codes is None:
        return None
    return _ipv4(packet, codes.ipv4) if packet[0] >> 4 == 4 else _ipv6(packet, codes.ipv6)


def _ipv4(packet: bytes, code: int) -> bytes | None:
    at = (packet[0] & 15) * 4
    if (packet[6] << 8 | packet[7]) & OFFSET_MASK:
        return None  # only the first fragment is answered
    if packet[9] == ICMP and (len(packet) <= at or packet[at] in ERRORS_IPV4):
        return None
    quoted = packet[:QUOTED_IPV4_MAX]
    message = _with_checksum(struct.pack("!BBHI", TYPE_IPV4, code, 0, 0) + quoted)
    size = IPV4_HEADER_BYTES + len(message)
    head = struct.pack("!BBHHHBBH", 0x45, 0, size, 0, 0, HOP_LIMIT, ICMP, 0) + packet[16:20] + packet[12:16]
    return head[:10] + checksum(head) + head[12:] + message


def _ipv6(packet: bytes, code: int) -> bytes | None:
    # Behind another header an error may hide; but then it is one of a program's own making.
    if packet[6] == ICMPV6 and (len(packet) <= IPV6_HEADER_BYTES or packet[IPV6_HEADER_BYTES] < INFORMATION_IPV6_MIN):
        return None
    quoted = packet[:QUOTED_IPV6_MAX]
    ends = packet[24:40] + packet[8:24]
    message = struct.pack("!BBHI", TYPE_IPV6, code, 0, 0) + quoted
    pseudo = ends + struct.pack("!I3xB", len(message), ICMPV6)
    message = _with_checksum(message, pseudo)
    return struct.pack("!IHBB", 6 << 28, len(message), ICMPV6, HOP_LIMIT) + ends + message


def _with_checksum(message: bytes, pseudo: bytes = b"") -> bytes:
    return message[:2] + checksum(pseudo + message) + message[4:]


def checksum(data: bytes) -> bytes:
    """Return the Internet checksum of RFC 1071, two bytes."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~total & 0xFFFF)
