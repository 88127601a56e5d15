"""What a TCP connection costs on the wire, as the kernel counts it."""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

# Of one segment, beside what TCP carries: Ethernet 14, IPv4 20, TCP with timestamps 32.
SEGMENT_BYTES = 66
TCP_INFO_BYTES = 144


class Wire(NamedTuple):
    """What went over connections since they were made, both ways.  bytes: with the headers of TCP, IP and Ethernet."""

    bytes: int
    segments: int

    def since(self, earlier: Wire) -> Wire:
        """Return what went since an earlier reading."""
        return Wire(self.bytes - earlier.bytes, self.segments - earlier.segments)


def wire_of(sock: socket.socket) -> Wire:
    """Return what went over a connection, as the kernel counts it.  See struct tcp_info in linux/tcp.h."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES)
    acked, received, segments_out, segments_in = struct.unpack_from("=QQII", info, 120)
    segments = segments_out + segments_in
    return Wire(acked + received + SEGMENT_BYTES * segments, segments)
