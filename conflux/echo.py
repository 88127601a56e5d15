"""Echo requests from the daemon itself: `conflux ping` through the overlay, without raw sockets and without the TUN.

Requests enter where the TUN's packets enter, so they cause searches, handshakes and links like any packet.  Replies are
taken out of what was delivered, by a cookie in their payload; all others go to the kernel as ever.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv6Address

IPV6_HEADER_BYTES = 40
ICMP_HEADER_BYTES = 8
COOKIE_BYTES = 8
OVERHEAD_BYTES = IPV6_HEADER_BYTES + ICMP_HEADER_BYTES
SESSION_COUNT_MAX = 64  # `conflux ping` running at the same moment

ICMPV6 = 58
ECHO_REQUEST = 128
ECHO_REPLY = 129
HOP_LIMIT = 64


@dataclass(slots=True)
class Session:
    """One run of `conflux ping`: who is asked, and what became of each request."""

    source: IPv6Address
    destination: IPv6Address
    identifier: int
    cookie: bytes
    answered: Callable[[int, float], None]  # (sequence number, round trip in seconds)
    sent_at: dict[int, float] = field(default_factory=dict)  # bounded by the requests of one run

    def request(self, sequence: int, size: int, *, now: float) -> bytes:
        """Return echo request number sequence with size bytes of payload (at least the cookie), as an IPv6 packet."""
        self.sent_at[sequence] = now
        payload = self.cookie.ljust(max(size, COOKIE_BYTES), b"\0")
        header = struct.pack("!BBHHH", ECHO_REQUEST, 0, 0, self.identifier, sequence & 0xFFFF)
        checksum = _checksum(self.source, self.destination, header + payload)
        message = header[:2] + struct.pack("!H", checksum) + header[4:] + payload
        head = struct.pack("!IHBB", 6 << 28, len(message), ICMPV6, HOP_LIMIT)
        return head + self.source.packed + self.destination.packed + message


class Echo:
    """Every ping under way."""

    def __init__(self, entropy: Callable[[int], bytes]) -> None:
        self.on_change: Callable[[bool], None] = lambda waiting: None  # called when the first came or the last went
        self._entropy = entropy
        self._sessions: dict[bytes, Session] = {}  # by cookie

    def open(
        self, source: IPv6Address, destination: IPv6Address, answered: Callable[[int, float], None]
    ) -> Session | None:
        """Return a session whose replies call answered, or None if too many run."""
        if len(self._sessions) >= SESSION_COUNT_MAX:
            return None
        identifier = int.from_bytes(self._entropy(2), "big")
        session = Session(source, destination, identifier, self._entropy(COOKIE_BYTES), answered)
        self._sessions[session.cookie] = session
        self.on_change(True)
        return session

    def close(self, session: Session) -> None:
        """Forget a session; replies that still come go to the kernel, which drops them."""
        self._sessions.pop(session.cookie, None)
        self.on_change(bool(self._sessions))

    def take(self, packet: bytes, *, now: float) -> bool:
        """Say whether packet is a reply to one of our requests; it is then reported, once."""
        if not self._sessions or len(packet) < OVERHEAD_BYTES + COOKIE_BYTES:
            return False
        if packet[0] >> 4 != 6 or packet[6] != ICMPV6 or packet[IPV6_HEADER_BYTES] != ECHO_REPLY:
            return False
        session = self._sessions.get(packet[OVERHEAD_BYTES : OVERHEAD_BYTES + COOKIE_BYTES])
        if session is None or packet[8:24] != session.destination.packed:
            return False
        identifier, low = struct.unpack_from("!HH", packet, IPV6_HEADER_BYTES + 4)
        sequence = next((number for number in session.sent_at if number & 0xFFFF == low), None)
        if identifier != session.identifier:
            return False
        if sequence is not None:  # else: the second answer to one request
            session.answered(sequence, now - session.sent_at.pop(sequence))
        return True


def _checksum(source: IPv6Address, destination: IPv6Address, message: bytes) -> int:
    """RFC 4443, section 2.3: over the pseudo-header of RFC 8200, section 8.1, and the message."""
    data = source.packed + destination.packed + struct.pack("!I3xB", len(message), ICMPV6) + message
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
