"""What every TCP socket of ours has: segments that fit the smallest path that IPv6 allows.

A path that takes less than both ends believe, and says nothing, lets small segments through and loses the large ones:
connections open, and the first certificate never comes.  Linux would look for the size itself (tcp_mtu_probing), but
only the whole host can be told to.  Links look for it themselves (RFC 8899).
"""

from __future__ import annotations

import socket
from collections import OrderedDict
from typing import Final

# An IPv6 packet of 1280 bytes, which every IPv6 path takes (RFC 8200, section 5), and an IPv4 packet of 1260.  The
# headers of a TCP packet have 60 and 40 bytes; its options are taken off the segment.
SEGMENT_BYTES_MAX = 1280 - 60


def bound_segments(sock: socket.socket) -> None:
    """Have both directions send small segments.  Call it before connect() or listen()."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT_BYTES_MAX)


class LossyPaths:
    """Remote hosts that whole packets do not reach, as far as this process saw.

    A broker is far away, and each ten segments cost a round trip when a connection was idle.  So its connections begin
    with whole ones, and have small ones once a handshake stood still.
    """

    HOST_COUNT_MAX: Final = 64  # the oldest goes first

    def __init__(self) -> None:
        self._hosts: OrderedDict[str, None] = OrderedDict()

    def note(self, host: str) -> None:
        """Take note that a handshake with an address stood still."""
        self._hosts[host] = None
        if len(self._hosts) > self.HOST_COUNT_MAX:
            self._hosts.popitem(last=False)

    def __contains__(self, host: str) -> bool:
        return host in self._hosts


LOSSY_PATHS = LossyPaths()


def connect(host: str, port: int, *, timeout_s: float) -> socket.socket:
    """Return a connected socket: the first address of host that answers within timeout_s.  Raises OSError."""
    failure: OSError = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        try:
            sock = socket.socket(family, kind, protocol)
        except OSError as error:
            failure = error
            continue
        try:
            bound_segments(sock)
            sock.settimeout(timeout_s)
            sock.connect(address)
        except OSError as error:
            sock.close()
            failure = error
        else:
            return sock
    raise failure
