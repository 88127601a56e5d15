"""TCP and UDP packets and super-packets as a stack makes them, written from their fields."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from ipaddress import ip_address

TCP, UDP = 6, 17
NEEDS_CHECKSUM, DATA_VALID = 1, 2
NONE, TCP4, TCP6, UDP_SEGMENTS, ECN = 0, 1, 4, 5, 0x80
FIN, SYN, PSH, ACK, CWR = 0x01, 0x02, 0x08, 0x10, 0x80
HEADER = struct.Struct("<BBHHHH")  # flags, type, header bytes, segment bytes, checksum's start and offset
PLAIN = HEADER.pack(0, 0, 0, 0, 0, 0)


def folded(data: bytes) -> int:
    """Return the ones' complement sum of 16-bit words."""
    total: int = sum(struct.unpack(f">{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@dataclass(frozen=True)
class Packet:
    """One packet of a connection.  protocol: TCP or UDP."""

    payload: bytes
    protocol: int = TCP
    source: str = "10.0.0.1"
    destination: str = "10.0.0.2"
    ports: tuple[int, int] = (1000, 2000)
    identification: int = 7
    sequence: int = 1
    acknowledgement: int = 0
    flags: int = ACK
    window: int = 65535
    ip_options: bytes = b""  # IPv4 options, or whole extension headers of one kind: destination options
    tcp_options: bytes = b""
    tos: int = 0

    @property
    def is_ipv4(self) -> bool:
        return "." in self.source

    @property
    def transport_at(self) -> int:
        return (20 if self.is_ipv4 else 40) + len(self.ip_options)

    @property
    def header_bytes(self) -> int:
        return self.transport_at + (20 + len(self.tcp_options) if self.protocol == TCP else 8)

    @property
    def type(self) -> int:
        return UDP_SEGMENTS if self.protocol == UDP else TCP4 if self.is_ipv4 else TCP6

    def pseudo(self, length: int) -> bytes:
        addresses = ip_address(self.source).packed + ip_address(self.destination).packed
        if self.is_ipv4:
            return addresses + struct.pack(">BBH", 0, self.protocol, length)
        return addresses + struct.pack(">II", length, self.protocol)

    def pack(self, *, complete: bool) -> bytes:
        """Return its bytes.  complete: with its checksum; else with what NEEDS_CSUM wants in its place."""
        before_checksum, behind_checksum = self._transport()
        length = len(before_checksum) + 2 + len(behind_checksum) + len(self.payload)
        checksum = folded(self.pseudo(length))
        if complete:
            whole = before_checksum + struct.pack(">H", checksum) + behind_checksum + self.payload
            checksum = ~folded(whole) & 0xFFFF
            if checksum == 0 and self.protocol == UDP:
                checksum = 0xFFFF
        transport = before_checksum + struct.pack(">H", checksum) + behind_checksum + self.payload
        return self._network(length) + transport

    def _transport(self) -> tuple[bytes, bytes]:
        if self.protocol == UDP:
            return struct.pack(">HHH", *self.ports, 8 + len(self.payload)), b""
        offset = (20 + len(self.tcp_options)) // 4 << 4
        numbers = (self.sequence % 2**32, self.acknowledgement)
        head = struct.pack(">HHIIBBH", *self.ports, *numbers, offset, self.flags, self.window)
        return head, struct.pack(">H", 0) + self.tcp_options

    def _network(self, length: int) -> bytes:
        addresses = ip_address(self.source).packed + ip_address(self.destination).packed
        if self.is_ipv4:
            words = (20 + len(self.ip_options)) // 4
            identification = self.identification % 65536
            total = 4 * words + length
            head = struct.pack(">BBHHHBBH", 0x40 | words, self.tos, total, identification, 0x4000, 64, self.protocol, 0)
            checksum = ~folded(head + addresses + self.ip_options) & 0xFFFF
            return head[:10] + struct.pack(">H", checksum) + addresses + self.ip_options
        following = 60 if self.ip_options else self.protocol
        options = bytes([self.protocol]) + self.ip_options[1:] if self.ip_options else b""
        head = struct.pack(">IHBB", 0x60000000 | self.tos << 20, length + len(options), following, 64)
        return head + addresses + options

    def offload(self, segment_bytes: int = 0, *, ecn: bool = False) -> bytes:
        """Return the header the kernel gives with it; segment_bytes: 0 if it is no super-packet."""
        kind = self.type | (ECN if ecn else 0) if segment_bytes else NONE
        field = 16 if self.protocol == TCP else 6
        return HEADER.pack(NEEDS_CHECKSUM, kind, self.header_bytes, segment_bytes, self.transport_at, field)

    def pieces(self, payload_bytes: int, segment_bytes: int, *, ecn: bool = False) -> list[Packet]:
        """Return what a stack would have sent instead, in pieces of so many bytes of payload."""
        found = []
        for at in range(0, len(self.payload), payload_bytes):
            payload = self.payload[at : at + payload_bytes]
            flags = self.flags
            if at + len(payload) < len(self.payload):
                flags &= ~(FIN | PSH)
            if at > 0 and ecn:
                flags &= ~CWR
            number = self.identification + at // segment_bytes
            found.append(
                replace(self, payload=payload, sequence=self.sequence + at, identification=number, flags=flags)
            )
        return found
