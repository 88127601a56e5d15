"""Known answers of offload entries: what of an offload header is believed, which segments a super-packet stands for.

offload.json is our own.  It is made by this file from docs/reference/protocol.md, "Offload entries", and from packets
written field by field (tests/kit/packets.py), without cext/packet/packet.c, which then has to say the same.  Made again
(the same bytes) by

    PYTHONPATH=tests python tests/vectors/test_offload_vectors.py
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kit.driven import Driven, build
from kit.packets import (
    ACK,
    CWR,
    DATA_VALID,
    ECN,
    FIN,
    HEADER,
    NEEDS_CHECKSUM,
    PLAIN,
    PSH,
    TCP,
    TCP4,
    TCP6,
    UDP,
    UDP_SEGMENTS,
    Packet,
    folded,
)

OFFLOAD = Path(__file__).with_name("offload.json")

V4, V6 = ("100.64.0.1", "100.64.0.2"), ("fd00::1", "fd00::2")
PAYLOAD = bytes(range(25))  # three segments of ten, the last one short
TIMESTAMPS = bytes([1, 1, 8, 10]) + bytes(range(8))
DESTINATION_OPTIONS = bytes([0, 0, 1, 4, 0, 0, 0, 0])


def taken(name: str, header: bytes, packet: bytes, passed_on: bytes, segments: list[bytes]) -> dict[str, Any]:
    """One vector.  passed_on: the header with which it goes on.  segments: what goes on a wire in the end."""
    return {
        "name": name,
        "header": header.hex(),
        "packet": packet.hex(),
        "passed_on": passed_on.hex(),
        "segments": [each.hex() for each in segments],
    }


def refused(name: str, header: bytes, packet: bytes, reason: str = "packet-offload") -> dict[str, Any]:
    return {"name": name, "header": header.hex(), "packet": packet.hex(), "reason": reason}


def changed(header: bytes, **fields: int) -> bytes:
    names = ("flags", "type", "header_bytes", "segment_bytes", "start", "offset")
    return HEADER.pack(*({**dict(zip(names, HEADER.unpack(header), strict=True)), **fields}[name] for name in names))


def whole(name: str, packet: Packet) -> dict[str, Any]:
    """A packet of which only the checksum is open."""
    header = packet.offload()
    return taken(name, header, packet.pack(complete=False), header, [packet.pack(complete=True)])


def cut(name: str, packet: Packet, segment_bytes: int = 10, *, ecn: bool = False) -> dict[str, Any]:
    """A super-packet."""
    header = packet.offload(segment_bytes, ecn=ecn)
    segments = [each.pack(complete=True) for each in packet.pieces(segment_bytes, segment_bytes, ecn=ecn)]
    return taken(name, header, packet.pack(complete=False), header, segments)


def silent() -> Packet:
    """Return a datagram whose checksum comes out as zero, which is sent as its other zero."""
    packet = Packet(bytes(2), UDP, *V4)
    sum_ = folded(packet.pseudo(10) + packet.pack(complete=False)[20:26] + bytes(4))
    return replace(packet, payload=(0xFFFF - sum_).to_bytes(2))


def tunnel(addresses: tuple[str, str]) -> tuple[Packet, bytes, bytes]:
    """Return a tunnel's datagram that holds a TCP packet, as it is without the inner checksum and with it."""
    inner = Packet(b"inside", TCP, "10.0.0.1", "10.0.0.2")
    open_, complete = inner.pack(complete=False), inner.pack(complete=True)
    outer = Packet(bytes(22) + open_, UDP, *addresses)
    before = outer.pack(complete=False)
    return outer, before, before[: -len(complete)] + complete


def good() -> Iterator[dict[str, Any]]:
    for name, packet in (("TCP", Packet(PAYLOAD, TCP, *V4)), ("ICMPv6", Packet(PAYLOAD, 58, *V6))):
        complete = packet.pack(complete=True)
        yield taken(f"nothing is left to do: {name}", PLAIN, complete, PLAIN, [complete])
        yield taken(f"verified already: {name}", changed(PLAIN, flags=DATA_VALID), complete, PLAIN, [complete])
    complete = Packet(PAYLOAD, TCP, *V4).pack(complete=True)
    ignored = HEADER.pack(0, 0, 1, 2, 3, 4)
    yield taken("without a flag the other fields mean nothing", ignored, complete, PLAIN, [complete])

    of = {
        "TCP in IPv4": Packet(PAYLOAD, TCP, *V4, identification=65535, flags=FIN | PSH | ACK, tcp_options=TIMESTAMPS),
        "TCP in IPv6": Packet(PAYLOAD, TCP, *V6, sequence=2**32 - 5, flags=FIN | PSH | ACK),
        "UDP in IPv4": Packet(PAYLOAD, UDP, *V4, ip_options=bytes([1, 1, 1, 0])),
        "UDP in IPv6": Packet(PAYLOAD, UDP, *V6, ip_options=DESTINATION_OPTIONS),
    }
    for name, packet in of.items():
        yield whole(f"a checksum: {name}", packet)
        yield cut(f"a super-packet: {name}", packet)
    yield whole("a UDP checksum of zero", silent())
    for name, addresses, kind in (("IPv4", V4, TCP4), ("IPv6", V6, TCP6)):
        packet = Packet(PAYLOAD, TCP, *addresses, flags=CWR | ACK)
        assert packet.type == kind
        yield cut(f"CWR in the first segment alone: {name}", packet, ecn=True)
        yield cut(f"CWR in every segment: {name}", packet)
    yield cut("the smallest TCP segments", Packet(PAYLOAD, TCP, *V4), 8)
    yield cut("128 UDP segments", Packet(bytes(128), UDP, *V4), 1)

    packet = Packet(PAYLOAD, TCP, *V4)
    open_ = packet.pack(complete=False)
    for claim in (0, 65535):
        vector = cut(f"the header's length is not believed: {claim}", packet)
        yield {**vector, "header": changed(packet.offload(10), header_bytes=claim).hex()}
    one = [packet.pack(complete=True)]
    yield taken("one segment is no super-packet", packet.offload(25), open_, packet.offload(), one)
    for name, addresses in (("IPv4", V4), ("IPv6", V6)):
        outer, before, after = tunnel(addresses)
        start = outer.header_bytes + 22 + 20
        header = HEADER.pack(NEEDS_CHECKSUM, 0, start + 18, 0, start, 16)
        yield taken(f"a checksum inside a tunnel: {name}", header, before, header, [after])


def bad() -> Iterator[dict[str, Any]]:
    tcp, udp = Packet(PAYLOAD, TCP, *V4), Packet(PAYLOAD, UDP, *V4)
    six = Packet(PAYLOAD, TCP, *V6)
    super_tcp, super_udp = tcp.offload(10), udp.offload(10)
    open_tcp, open_udp, open_six = (each.pack(complete=False) for each in (tcp, udp, six))
    yield refused("a super-packet whose checksum is not wanted", changed(super_tcp, flags=0), open_tcp)
    yield refused("the same, verified", changed(super_tcp, flags=DATA_VALID), open_tcp)
    yield refused("an unknown flag", changed(super_tcp, flags=NEEDS_CHECKSUM | 4), open_tcp)
    yield refused("IPv6's type on IPv4", changed(super_tcp, type=TCP6), open_tcp)
    yield refused("IPv4's type on IPv6", changed(six.offload(10), type=TCP4), open_six)
    yield refused("UDP's type on TCP", changed(super_tcp, type=UDP_SEGMENTS), open_tcp)
    yield refused("TCP's type on UDP", changed(super_udp, type=TCP4), open_udp)
    yield refused("UDP fragmentation, as old kernels had it", changed(super_udp, type=3), open_udp)
    yield refused("CWR without segments", changed(super_tcp, type=ECN), open_tcp)
    yield refused("CWR of UDP", changed(super_udp, type=ECN | UDP_SEGMENTS), open_udp)
    yield refused("TCP segments too small", changed(super_tcp, segment_bytes=7), open_tcp)
    yield refused("UDP segments of nothing", changed(super_udp, segment_bytes=0), open_udp)
    many = Packet(bytes(129), UDP, *V4)
    yield refused("129 UDP segments", many.offload(1), many.pack(complete=False))
    yield refused("a fragment", udp.offload(), open_udp[:6] + b"\x20\0" + open_udp[8:])
    chain = bytes([60, 0, 1, 4, 0, 0, 0, 0]) * 3 + bytes([6, 0, 1, 4, 0, 0, 0, 0])
    body = chain + open_tcp[20:]
    deep = struct.pack(">IHBB", 0x60000000, len(body), 60, 64) + bytes(32) + body
    yield refused("a fourth extension header", HEADER.pack(NEEDS_CHECKSUM, 0, 0, 0, 72, 16), deep)
    yield refused("a checksum in the IP header", changed(tcp.offload(), start=0, offset=10), open_tcp)
    yield refused("UDP's place in TCP", changed(tcp.offload(), offset=6), open_tcp)
    yield refused(
        "a protocol without a known checksum",
        HEADER.pack(1, 0, 0, 0, 40, 2),
        Packet(PAYLOAD, 58, *V6).pack(complete=True),
    )
    outer, before, _ = tunnel(V4)
    yield refused(
        "a tunnel's checksum in front of UDP's end", HEADER.pack(1, 0, 0, 0, outer.header_bytes - 1, 0), before
    )
    yield refused("a tunnel's checksum outside the packet", HEADER.pack(1, 0, 0, 0, len(before) - 1, 0), before)
    yield refused("a tunnel's super-packet", HEADER.pack(1, UDP_SEGMENTS, 0, 10, outer.header_bytes + 42, 16), before)
    yield refused("a UDP length that is not the packet's", udp.offload(), open_udp[:24] + b"\0\x08" + open_udp[26:])
    yield refused("a data offset outside the packet", tcp.offload(), open_tcp[:32] + b"\xf0" + open_tcp[33:])
    yield refused("a length that is not the packet's", tcp.offload(), open_tcp[:-1], "packet-length")
    yield refused("no IP packet", PLAIN, b"\x50" + bytes(39), "packet-version")
    yield refused("no packet's size", PLAIN, bytes(19), "packet-short")


def make() -> dict[str, Any]:
    return {
        "source": "Conflux's own; made by tests/vectors/test_offload_vectors.py, 2026-11-22",
        "passed_on": "the header as it is written when the packet goes on, also to a kernel",
        "segments": "what goes on a wire in the end; a vector with a reason instead is dropped for it",
        "vectors": [*good(), *bad()],
    }


VECTORS: list[dict[str, Any]] = json.loads(OFFLOAD.read_text())["vectors"] if OFFLOAD.exists() else []


@pytest.fixture(scope="module")
def driver() -> Iterator[Driven]:
    with Driven(build("packet/packet_driver.c", "packet/packet.c")) as driven:
        yield driven


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_an_offload_header_is_believed_or_its_packet_is_refused(driver: Driven, vector: dict[str, Any]) -> None:
    header, packet = vector["header"], vector["packet"]
    parsed = driver.ask(f"p {packet}").split()[0]
    answer = parsed if parsed != "ok" else driver.ask(f"o {header} {packet}")
    if "reason" in vector:
        assert answer == vector["reason"].replace("packet-offload", "offload")
    else:
        assert answer == f"ok {vector['passed_on'] == PLAIN.hex():d} {vector['passed_on']}"


@pytest.mark.parametrize(
    "vector", [vector for vector in VECTORS if "segments" in vector], ids=lambda vector: vector["name"]
)
def test_a_super_packet_stands_for_these_segments(driver: Driven, vector: dict[str, Any]) -> None:
    words = driver.ask(f"s {vector['header']} {vector['packet']} 0 1").split()
    assert words[1::2] == vector["segments"]
    assert set(words[::2]) == {PLAIN.hex()}


def test_vectors_are_what_their_maker_makes() -> None:
    assert json.loads(OFFLOAD.read_text()) == make()


if __name__ == "__main__":
    OFFLOAD.write_text(json.dumps(make(), indent=1) + "\n")
