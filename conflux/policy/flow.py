"""Reads of a packet what rules speak of: ends, protocol and port.  The twin of cext/policy/flow.c, rule for rule.

It reads strictly: where a host behind us might see another port than we do, the packet is unfit.  Of a fragmented
datagram the first piece alone has a port; it has its whole transport header, and no later piece begins within that.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from conflux.policy.terms import (
    AUTHENTICATION,
    EXTENSIONS,
    FRAGMENT,
    ICMP,
    ICMPV6,
    ROUTING,
    SCTP,
    TCP,
    UDP,
    key_of,
)

IPV4_HEADER_BYTES, IPV6_HEADER_BYTES = 20, 40
EXTENSION_COUNT_MAX = 6  # chosen: RFC 8200 recommends an order of five kinds before the transport header
MAPPED = bytes(10) + b"\xff\xff"  # before an IPv4 address; no packet has it on the wire

_SOURCE_ROUTE = 0  # a routing header's type, withdrawn by RFC 5095: it sends a packet on to where no rule was asked
_END, _NO_OPERATION, _SOURCE_ROUTES = 0, 1, frozenset({131, 137})  # options of IPv4; a gateway would send on likewise
_TRANSPORT_BYTES = {TCP: 20, UDP: 8, SCTP: 12, ICMP: 8, ICMPV6: 8}
_PORTS = frozenset({TCP, UDP, SCTP})
_ECHOES = frozenset({(ICMP, 8), (ICMP, 0), (ICMPV6, 128), (ICMPV6, 129)})
_ERRORS = frozenset({(ICMP, 3), (ICMP, 11), (ICMP, 12), (ICMPV6, 1), (ICMPV6, 2), (ICMPV6, 3), (ICMPV6, 4)})
# Redirects, routers, neighbours and listeners of a link: the overlay is none.
_OF_A_LINK = frozenset({(ICMP, 5), (ICMP, 9), (ICMP, 10), (ICMPV6, 143), *((ICMPV6, each) for each in range(130, 138))})


class Unfit(IntEnum):
    """Why a packet is not judged but dropped; the numbers are those of enum flow_unfit."""

    SHORT = 1  # it ends within a header
    VERSION = 2
    LENGTH = 3  # its header says another size
    MAPPED = 4  # an IPv6 address that stands for an IPv4 one
    HEADERS = 5  # more extension headers than are read, or some within a datagram in pieces
    ROUTING = 6
    PIECE = 7  # a piece that begins within a header of its datagram
    LINK = 8  # of neighbours on a link, or ICMP of the other family


class Piece(IntEnum):
    """What a packet is of its datagram."""

    WHOLE = 0
    FIRST = 1
    LATER = 2


class Flow(NamedTuple):
    """What rules speak of.  source, destination: 16 bytes, an IPv4 address behind MAPPED.

    key: as in terms.key_of(); of a later piece the protocol alone.
    source_port: of TCP, UDP and SCTP, and the identifier of an echo; else 0.  fragment: identifies the datagram.
    tcp_flags: 0 of any other protocol.  error_at: where the packet begins that an ICMP error quotes; 0: it is no error.
    """

    source: bytes
    destination: bytes
    key: int
    source_port: int
    piece: Piece
    tcp_flags: int
    fragment: int
    error_at: int


class _Network(NamedTuple):
    """What the network layer says.  at: where the transport header begins.  offset: of a piece, in bytes."""

    source: bytes
    destination: bytes
    protocol: int
    at: int
    offset: int = 0
    has_more: bool = False
    fragment: int = 0


def read_flow_untrusted(packet: bytes) -> Flow | Unfit:
    """Return what rules speak of, or why the packet is dropped."""
    if not packet:
        return Unfit.SHORT
    version = packet[0] >> 4
    network = _ipv4(packet) if version == 4 else _ipv6(packet) if version == 6 else Unfit.VERSION
    return network if isinstance(network, Unfit) else _transport(packet, network)


def _be16(packet: bytes, at: int) -> int:
    return int.from_bytes(packet[at : at + 2])


def _ipv4(packet: bytes) -> _Network | Unfit:
    if len(packet) < IPV4_HEADER_BYTES:
        return Unfit.SHORT
    header_bytes = (packet[0] & 15) * 4
    if header_bytes < IPV4_HEADER_BYTES or header_bytes > len(packet) or _be16(packet, 2) != len(packet):
        return Unfit.LENGTH
    unfit = _options(packet[IPV4_HEADER_BYTES:header_bytes])
    if unfit is not None:
        return unfit
    bits = _be16(packet, 6)
    return _Network(
        MAPPED + packet[12:16],
        MAPPED + packet[16:20],
        packet[9],
        header_bytes,
        (bits & 0x1FFF) * 8,
        bool(bits & 0x2000),
        _be16(packet, 4),
    )


def _options(options: bytes) -> Unfit | None:
    """Return why a packet with these options of IPv4 is unfit; None if it is not."""
    at = 0
    while at < len(options) and options[at] != _END:
        if options[at] in _SOURCE_ROUTES:
            return Unfit.ROUTING
        if options[at] == _NO_OPERATION:
            at += 1
            continue
        size = options[at + 1] if at + 1 < len(options) else 0
        if size < 2 or size > len(options) - at:
            return Unfit.LENGTH
        at += size
    return None


def _ipv6(packet: bytes) -> _Network | Unfit:
    if len(packet) < IPV6_HEADER_BYTES:
        return Unfit.SHORT
    if _be16(packet, 4) + IPV6_HEADER_BYTES != len(packet):
        return Unfit.LENGTH
    source, destination = packet[8:24], packet[24:40]
    if source.startswith(MAPPED) or destination.startswith(MAPPED):
        return Unfit.MAPPED
    network = _Network(source, destination, packet[6], IPV6_HEADER_BYTES)
    is_fragment = False
    for _ in range(EXTENSION_COUNT_MAX):
        protocol, at = network.protocol, network.at
        if protocol not in EXTENSIONS:
            return network
        if len(packet) - at < 8:
            return Unfit.SHORT
        size = (packet[at + 1] + 1) * 8
        if protocol == FRAGMENT:
            if is_fragment:
                return Unfit.HEADERS
            is_fragment, size = True, 8
            bits = _be16(packet, at + 2)
            fragment = int.from_bytes(packet[at + 4 : at + 8])
            network = network._replace(offset=bits & 0xFFF8, has_more=bool(bits & 1), fragment=fragment)
            if (network.offset or network.has_more) and packet[at] in EXTENSIONS:
                return Unfit.HEADERS  # where the transport header ends is known of the first piece alone
        elif protocol == AUTHENTICATION:
            size = (packet[at + 1] + 2) * 4
        elif protocol == ROUTING and packet[at + 2] == _SOURCE_ROUTE:
            return Unfit.ROUTING
        if len(packet) - at < size:
            return Unfit.SHORT
        network = network._replace(protocol=packet[at], at=at + size)
    return Unfit.HEADERS if network.protocol in EXTENSIONS else network


def _transport(packet: bytes, network: _Network) -> Flow | Unfit:
    protocol, at = network.protocol, network.at
    is_ipv4 = packet[0] >> 4 == 4
    if protocol == (ICMPV6 if is_ipv4 else ICMP):
        return Unfit.LINK
    header_bytes = _TRANSPORT_BYTES.get(protocol, 0)
    ends = network.source, network.destination
    if network.offset > 0:
        if network.offset < header_bytes:
            return Unfit.PIECE
        return Flow(*ends, key_of(protocol, 0), 0, Piece.LATER, 0, network.fragment, 0)
    if len(packet) - at < header_bytes:
        return Unfit.SHORT
    piece, fragment = (Piece.FIRST, network.fragment) if network.has_more else (Piece.WHOLE, 0)
    if protocol in _PORTS:
        flags = packet[at + 13] if protocol == TCP else 0
        return Flow(*ends, key_of(protocol, _be16(packet, at + 2)), _be16(packet, at), piece, flags, fragment, 0)
    if protocol not in (ICMP, ICMPV6):
        return Flow(*ends, key_of(protocol, 0), 0, piece, 0, fragment, 0)
    kind = protocol, packet[at]
    if kind in _OF_A_LINK:
        return Unfit.LINK
    identifier = _be16(packet, at + 4) if kind in _ECHOES else 0
    return Flow(*ends, key_of(*kind), identifier, piece, 0, fragment, at + 8 if kind in _ERRORS else 0)
