"""Echo requests of the daemon itself: `conflux ping` through the overlay, without raw sockets and without the TUN.

Requests enter where the TUN's packets enter, so they cause searches, handshakes and links like any packet.  A reply is
recognised among the delivered packets by identifier, sequence number, and a cookie in its payload.  All other packets
go to the kernel: other programs ping too.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import NamedTuple

from conflux.datapath.unreachable import checksum
from conflux.ids import IPAddress


class Family(NamedTuple):
    """Where an echo request and its reply have what: in IPv6, RFC 4443, or in IPv4 without options, RFC 792."""

    version: int
    header_bytes: int
    protocol: int
    protocol_at: int
    source_at: int
    request: int
    reply: int


IPV6 = Family(6, 40, 58, 6, 8, 128, 129)
IPV4 = Family(4, 20, 1, 9, 12, 8, 0)
ICMP_HEADER_BYTES = 8
COOKIE_BYTES = 8
OVERHEAD_BYTES = IPV6.header_bytes + ICMP_HEADER_BYTES
SESSION_COUNT_MAX = 64  # chosen: `conflux ping` that run at the same time
HOP_LIMIT = 64


@dataclass(slots=True)
class Session:
    """One run of `conflux ping`: its addresses, and the requests that are not answered yet."""

    source: IPAddress
    destination: IPAddress  # of the same family
    identifier: int
    cookie: bytes
    answered: Callable[[int, float], None]  # (sequence number, round trip in seconds)
    sent_at: dict[int, float] = field(default_factory=dict)  # by sequence number; as many as one run has requests

    def request(self, sequence: int, size: int, *, now: float) -> bytes:
        """Return echo request number sequence with size bytes of payload (at least the cookie), as an IP packet."""
        self.sent_at[sequence] = now
        payload = self.cookie.ljust(max(size, COOKIE_BYTES), b"\0")
        is_ipv6 = isinstance(self.source, IPv6Address)
        kind = (IPV6 if is_ipv6 else IPV4).request
        message = struct.pack("!BBHHH", kind, 0, 0, self.identifier, sequence & 0xFFFF) + payload
        ends = self.source.packed + self.destination.packed
        pseudo = ends + struct.pack("!I3xB", len(message), IPV6.protocol) if is_ipv6 else b""
        message = message[:2] + checksum(pseudo + message) + message[4:]
        if is_ipv6:
            return struct.pack("!IHBB", 6 << 28, len(message), IPV6.protocol, HOP_LIMIT) + ends + message
        size = IPV4.header_bytes + len(message)
        head = struct.pack("!BBHHHBBH", 0x45, 0, size, 0, 0x4000, HOP_LIMIT, IPV4.protocol, 0)  # may not be cut
        return head[:10] + checksum(head + ends) + ends + message


class Echo:
    """The sessions that run now; the datapath asks it first about every packet it would deliver."""

    def __init__(self, entropy: Callable[[int], bytes]) -> None:
        self.on_change: Callable[[tuple[int, ...]], None] = lambda identifiers: None
        self._entropy = entropy
        self._sessions: dict[bytes, Session] = {}  # by cookie

    def open(self, source: IPAddress, destination: IPAddress, answered: Callable[[int, float], None]) -> Session | None:
        """Return a session whose replies call answered, or None if too many run."""
        if len(self._sessions) >= SESSION_COUNT_MAX:
            return None
        identifier = int.from_bytes(self._entropy(2), "big")
        session = Session(source, destination, identifier, self._entropy(COOKIE_BYTES), answered)
        self._sessions[session.cookie] = session
        self._changed()
        return session

    def close(self, session: Session) -> None:
        """Forget a session; its late replies go to the kernel, where nobody waits for them."""
        self._sessions.pop(session.cookie, None)
        self._changed()

    def take(self, packet: bytes, *, now: float) -> bool:
        """Return whether packet is the first reply to one of our requests, and report it."""
        family = IPV4 if packet[:1] == b"\x45" else IPV6
        at = family.header_bytes
        cookie_at = at + ICMP_HEADER_BYTES
        if not self._sessions or len(packet) < cookie_at + COOKIE_BYTES or packet[0] >> 4 != family.version:
            return False
        if packet[family.protocol_at] != family.protocol or packet[at] != family.reply:
            return False
        session = self._sessions.get(packet[cookie_at : cookie_at + COOKIE_BYTES])
        if session is None or not packet.startswith(session.destination.packed, family.source_at):
            return False
        identifier, low = struct.unpack_from("!HH", packet, at + 4)
        sequence = next((number for number in session.sent_at if number & 0xFFFF == low), None)
        if identifier != session.identifier or sequence is None:
            return False
        session.answered(sequence, now - session.sent_at.pop(sequence))
        return True

    def _changed(self) -> None:
        self.on_change(tuple(session.identifier for session in self._sessions.values()))
