"""What ICE asks of the kernel: UDP sockets, and socket options that Python does not name."""

from __future__ import annotations

import socket

SOCKET_BUFFER_BYTES = 1 << 20  # asked for; the system's limit may be lower
ENGINE_BUFFER_BYTES = 8 << 20  # asked for once an engine reads the socket: 25 ms of 2.5 Gbit/s

MTU_BYTES_MIN = 1280  # RFC 8200, section 5
# aiortc takes 1500 bytes of a record at a time and the rest for the next packet; a browser drops a larger datagram than
# 2048 bytes.  A probe must not cost the peer the packets that follow it, so no path is probed for more, even where the
# interface has jumbo frames.
DATAGRAM_BYTES_PROBED_MAX = 1500
DATAGRAM_BYTES_RELAYED = 1280  # fits a path of 1500 bytes with TURN's headers added, over TCP and TLS too

# asm-generic/socket.h: above the system's limit; needs CAP_NET_ADMIN.
_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33
_IP_RECVERR = 11  # linux/in.h
_IPV6_RECVERR = 25  # linux/in6.h
_IP_MTU_DISCOVER, _IP_MTU = 10, 14
_IPV6_MTU_DISCOVER, _IPV6_MTU = 23, 24
_PMTUDISC_PROBE = 3  # never fragment, and ignore the kernel's own idea of the path's MTU
_IPV4_UDP_BYTES, _IPV6_UDP_BYTES = 28, 48


def mtu_towards(sock: socket.socket, remote: tuple[str, int]) -> int:
    """Return the MTU of the interface that carries packets of a socket to remote; MTU_BYTES_MIN if unknown."""
    with socket.socket(sock.family, socket.SOCK_DGRAM) as probe:
        host, _, *scope = sock.getsockname()
        try:
            probe.bind((host, 0, *scope))
            probe.connect((*remote, *scope))
            if probe.family == socket.AF_INET6:
                return probe.getsockopt(socket.IPPROTO_IPV6, _IPV6_MTU)
            return probe.getsockopt(socket.IPPROTO_IP, _IP_MTU)
        except OSError:
            return MTU_BYTES_MIN


def probed_bytes_max(sock: socket.socket, remote: tuple[str, int]) -> int:
    """Return the largest UDP payload worth probing for on the way to remote."""
    overhead = _IPV6_UDP_BYTES if sock.family == socket.AF_INET6 else _IPV4_UDP_BYTES
    return min(mtu_towards(sock, remote) - overhead, DATAGRAM_BYTES_PROBED_MAX)


def bind(address: str) -> socket.socket | None:
    """Return a non-blocking UDP socket on a free port of address; None if the address is gone.

    One of a link-local address, as "fe80::1%eth0", sends and hears on that interface alone: a remote address needs no
    scope there.
    """
    host, _, scope = address.partition("%")
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        set_buffers(sock, SOCKET_BUFFER_BYTES)
        sock.bind((host, 0, 0, socket.if_nametoindex(scope)) if scope else (host, 0))
    except OSError:
        sock.close()
        return None
    return sock


def set_buffers(sock: socket.socket, size: int) -> None:
    """Ask for buffers of that size both ways; without CAP_NET_ADMIN the system's limit applies."""
    for option, force in ((socket.SO_RCVBUF, _SO_RCVBUFFORCE), (socket.SO_SNDBUF, _SO_SNDBUFFORCE)):
        try:
            sock.setsockopt(socket.SOL_SOCKET, force, size)
        except PermissionError:
            sock.setsockopt(socket.SOL_SOCKET, option, size)


def report_errors(sock: socket.socket) -> None:
    """Have the kernel queue ICMP errors on the socket."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)


def forbid_fragments(sock: socket.socket) -> None:
    """Send every datagram whole or not at all, whatever MTU the kernel believes in: its sender looks for the MTU."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE)
    else:
        sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_PROBE)
