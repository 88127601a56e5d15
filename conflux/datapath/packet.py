"""What the datapath reads of an IP packet: addresses, flow, congestion marks.

It checks what it uses (version, lengths) and nothing else: the kernels check checksums and transport headers.
"""

from __future__ import annotations

from zlib import crc32

from conflux.datapath.drop import Drop
from conflux.errors import RemoteProtocolError

IPV4_HEADER_BYTES = 20
IPV6_HEADER_BYTES = 40
_TCP = 6
_UDP = 17
_SCTP = 132
_UDP_LITE = 136
_WITH_PORTS = frozenset((_TCP, _UDP, _SCTP, _UDP_LITE))  # their ports stand in the same place
_FRAGMENT = 0x3FFF  # more-fragments flag and offset
_ECN = 3


def parse(packet: bytes) -> tuple[bytes, bytes, int]:
    """Return source and destination address (4 or 16 bytes each) and the 32-bit hash of the packet's flow.

    Packets of the same addresses, protocol and ports are one flow.  The ports of a fragment are not read, not even of
    the first, so that all fragments of a datagram are one flow.
    Raises RemoteProtocolError: packet-short, packet-version, packet-length.
    """
    size = len(packet)
    if size < IPV4_HEADER_BYTES:
        raise RemoteProtocolError(Drop.PACKET_SHORT)
    first = packet[0]
    version = first >> 4
    if version == 4:
        header_size = (first & 15) * 4
        if header_size < IPV4_HEADER_BYTES or (packet[2] << 8 | packet[3]) != size or header_size > size:
            raise RemoteProtocolError(Drop.PACKET_LENGTH)
        protocol = packet[9]
        if protocol not in _WITH_PORTS or (packet[6] << 8 | packet[7]) & _FRAGMENT:
            flow = crc32(packet[12:20], protocol)
        elif header_size == IPV4_HEADER_BYTES:
            flow = crc32(packet[12:24], protocol)
        else:
            flow = crc32(packet[header_size : header_size + 4], crc32(packet[12:20], protocol))
        return packet[12:16], packet[16:20], flow
    if version == 6:
        if size < IPV6_HEADER_BYTES:
            raise RemoteProtocolError(Drop.PACKET_SHORT)
        if (packet[4] << 8 | packet[5]) + IPV6_HEADER_BYTES != size:
            raise RemoteProtocolError(Drop.PACKET_LENGTH)
        # Behind an extension header, ports are not looked for: a walk along the headers of every packet costs more than
        # it gains.  The fragment header is one of them, so all fragments of a datagram are one flow.
        protocol = packet[6]
        flow = crc32(packet[8:44] if protocol in _WITH_PORTS else packet[8:40], protocol)
        return packet[8:24], packet[24:40], flow
    raise RemoteProtocolError(Drop.PACKET_VERSION)


def mark_congestion(packet: bytes) -> bytes | None:
    """Return the packet marked "congestion experienced" (RFC 3168), or None if its sender does not support marks.

    parse() accepted the packet before.
    """
    if packet[0] >> 4 == 4:
        ecn = packet[1] & _ECN
        if ecn == 0:
            return None
        if ecn == _ECN:
            return packet
        before = packet[0] << 8 | packet[1]
        after = before | _ECN
        # RFC 1624, equation 3: the checksum is updated, not recomputed, so that a wrong one stays wrong.
        total = (~(packet[10] << 8 | packet[11]) & 0xFFFF) + (~before & 0xFFFF) + after
        total = (total & 0xFFFF) + (total >> 16)
        total = (total & 0xFFFF) + (total >> 16)
        checksum = ~total & 0xFFFF
        marked = bytearray(packet)
        marked[1] = after & 0xFF
        marked[10] = checksum >> 8
        marked[11] = checksum & 0xFF
        return bytes(marked)
    ecn = packet[1] >> 4 & _ECN
    if ecn == 0:
        return None
    if ecn == _ECN:
        return packet
    marked = bytearray(packet)
    marked[1] |= _ECN << 4
    return bytes(marked)
