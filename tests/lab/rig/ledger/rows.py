"""From a capture to rows: each is the bytes of one packet that belong to one message, with the message's name."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from rig.gauge import MDNS_PORT
from rig.ledger.capture import Packet
from rig.ledger.keys import Keys
from rig.ledger.links import Links
from rig.ledger.tls import Connection, Direction

CONTROL, ACKS, LINK, MDNS, NETWORK = "control", "TCP", "link", "mDNS", "network"
UNNAMED: Final = "cut short"

_ETHERNET_BYTES: Final = 14
_IPV4, _IPV6, _ARP = b"\x08\x00", b"\x86\xdd", b"\x08\x06"
_HOP_BY_HOP, _ICMP, _IGMP, _TCP, _UDP, _ICMPV6 = 0, 1, 2, 6, 17, 58
_UNREACHABLE: Final = {(_ICMP, 3), (_ICMPV6, 1)}
_FIN, _SYN, _RST, _ACK = 1, 2, 4, 16


@dataclass(slots=True)
class Row:
    """Bytes of one packet.  index: of the packet, from 0.  name: of their message.  group: CONTROL and its like."""

    index: int
    out: bool
    name: str
    group: str
    wire_bytes: float


class Flows:
    """Names packets, all of one capture in order."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._links = Links(keys)
        self._sides: dict[tuple[bytes, int, bytes, int], _Side] = {}  # of TCP, by source and target
        self.rows: list[Row] = []

    def add(self, index: int, packet: Packet) -> None:
        """Append the rows of a packet."""
        data = packet.data
        head = _head(data)
        if head is None:
            self._row(index, packet, "ARP" if data[12:14] == _ARP else "other protocols", NETWORK, len(data))
        elif head.protocol == _UDP:
            self._udp(index, packet, head)
        elif head.protocol == _TCP:
            self._tcp(index, packet, head)
        else:
            unreachable = (head.protocol, data[head.at]) in _UNREACHABLE
            name = "ICMP unreachable" if unreachable else "IGMP" if head.protocol == _IGMP else "ICMP of others"
            self._row(index, packet, name, NETWORK, len(data))

    def _row(self, index: int, packet: Packet, name: str, group: str, wire_bytes: float) -> Row:
        row = Row(index, packet.out, name, group, wire_bytes)
        self.rows.append(row)
        return row

    def _udp(self, index: int, packet: Packet, head: Head) -> None:
        wire, (source, target) = len(packet.data), struct.unpack_from("!HH", packet.data, head.at)
        body = packet.data[head.at + 8 : head.end]
        if MDNS_PORT in (source, target) or not body:
            self._row(index, packet, "mDNS" if body else "UDP of others", MDNS if body else NETWORK, wire)
            return
        for part in self._links.parts((head.source, source, head.target, target), body):
            self._row(index, packet, part.name, LINK, wire * part.size / len(body))

    def _tcp(self, index: int, packet: Packet, head: Head) -> None:
        wire, (source, target) = len(packet.data), struct.unpack_from("!HH", packet.data, head.at)
        flags = packet.data[head.at + 13]
        sequence = int.from_bytes(packet.data[head.at + 4 : head.at + 8], "big")
        body = packet.data[head.at + (packet.data[head.at + 12] >> 4) * 4 : head.end]
        way, back = (head.source, source, head.target, target), (head.target, target, head.source, source)
        if flags & _SYN:
            if not flags & _ACK:
                connection = Connection(self._keys)
                self._sides[way] = _Side(Direction(connection, "CLIENT"))
                self._sides[back] = _Side(Direction(connection, "SERVER"))
            if way in self._sides:
                self._sides[way].next = sequence + 1 & 0xFFFFFFFF
        side = self._sides.get(way)
        if not body or side is None:
            self._row(index, packet, "TCP without data", ACKS, wire)
        elif sequence != side.next:
            self._row(index, packet, "TCP repeated", ACKS, wire)
        else:
            side.next = sequence + len(body) & 0xFFFFFFFF
            rest = len(body)
            for size, name in [*side.direction.feed(body), (0, None)]:
                # What is left belongs to a record to come.
                size = size or rest
                if size:
                    side.open.append(self._row(index, packet, UNNAMED, CONTROL, wire * size / len(body)))
                    rest -= size
                if name is not None:
                    side.name(name)


class Head(NamedTuple):
    """Of an IP packet.  at: where the transport header begins.  end: where the packet ends."""

    protocol: int
    at: int
    end: int
    source: bytes
    target: bytes


class _Side:
    """One direction of TCP.  open: rows of a message that has not ended."""

    def __init__(self, direction: Direction) -> None:
        self.direction = direction
        self.next: int | None = None
        self.open: list[Row] = []

    def name(self, name: str) -> None:
        for row in self.open:
            row.name = name
        self.open.clear()


def _head(data: bytes) -> Head | None:
    if data[12:14] == _IPV4:
        at = _ETHERNET_BYTES + (data[14] & 15) * 4
        return Head(data[23], at, _ETHERNET_BYTES + int.from_bytes(data[16:18], "big"), data[26:30], data[30:34])
    if data[12:14] == _IPV6:
        protocol, at = data[20], _ETHERNET_BYTES + 40
        if protocol == _HOP_BY_HOP:
            protocol, at = data[at], at + 8
        return Head(protocol, at, _ETHERNET_BYTES + 40 + int.from_bytes(data[18:20], "big"), data[22:38], data[38:54])
    return None


def rows(captured: Iterable[Packet], keys: Keys) -> list[Row]:
    """Name every packet of a capture."""
    flows = Flows(keys)
    for index, packet in enumerate(captured):
        flows.add(index, packet)
    return flows.rows


@dataclass(slots=True)
class Sum:
    """Of one message: packets in which it was, and bytes."""

    group: str
    packets: int = 0
    out_bytes: float = 0.0
    back_bytes: float = 0.0

    @property
    def wire_bytes(self) -> float:
        """Both directions."""
        return self.out_bytes + self.back_bytes


def sums(found: Iterable[Row]) -> dict[str, Sum]:
    """Add rows up by name, in the order of their first appearance."""
    added: dict[str, Sum] = {}
    for row in found:
        entry = added.setdefault(row.name, Sum(row.group))
        entry.packets += 1
        if row.out:
            entry.out_bytes += row.wire_bytes
        else:
            entry.back_bytes += row.wire_bytes
    return added
