"""IP packets for the reader of flows, by Hypothesis: right ones, and some that are nearly right."""

from __future__ import annotations

import struct
from ipaddress import ip_address
from itertools import pairwise

from hypothesis import strategies as st

EXTENSIONS = (0, 43, 44, 51, 60)
PROTOCOLS = (1, 6, 17, 47, 50, 58, 59, 132, 255)
V4 = tuple(ip_address(text).packed for text in ("10.0.0.1", "8.8.8.8", "224.0.0.1"))
V6 = tuple(ip_address(text).packed for text in ("fd00::1", "2606:4700::1", "::ffff:10.0.0.1", "::ffff:0:0:1"))
OPTIONS = (
    *(b"", bytes(4), bytes(40), b"\x01\x01\x94\x04\0\0\0\0", b"\x83\x07\x04\x0a\0\0\x01\0", b"\x01\x89\x03\x04"),
    *(b"\x94\x00\0\0", b"\x94\x01\0\0", b"\x94\x05\0\0", b"\x01\x01\x01\x94", b"\0\x83\x03\x04"),
)


def ipv4(
    payload: bytes, protocol: int, *, bits: int = 0, options: bytes = b"", ends: tuple[bytes, ...] = V4[:2]
) -> bytes:
    """Return an IPv4 packet.  bits: flags and offset of a piece.  Its checksum is none."""
    words = 5 + len(options) // 4
    size = words * 4 + len(payload)
    head = struct.pack(">BBHHHBBH", 0x40 | words, 0, size, 0xBEEF, bits, 64, protocol, 0)
    return head + ends[0] + ends[1] + options + payload


def ipv6(payload: bytes, first: int, *, ends: tuple[bytes, ...] = V6[:2]) -> bytes:
    """Return an IPv6 packet.  first: the protocol or extension header that payload begins with."""
    return struct.pack(">IHBB", 6 << 28, len(payload), first, 64) + ends[0] + ends[1] + payload


def extension(kind: int, following: int, *, size: int = 8, third: int = 4, bits: int = 0, fragment: int = 7) -> bytes:
    """Return an extension header of IPv6.  size: in bytes, of 44 always 8.  third: its third byte, of 43 the type."""
    if kind == 44:
        return struct.pack(">BBHI", following, 0, bits, fragment)
    length = size // 4 - 2 if kind == 51 else size // 8 - 1
    return bytes((following, length, third)).ljust(size, b"\0")


@st.composite
def _ipv6(draw: st.DrawFn) -> bytes:
    kinds = draw(st.lists(st.sampled_from(EXTENSIONS), max_size=8))
    protocol = draw(st.sampled_from(PROTOCOLS))
    payload = draw(_PAYLOADS)
    for kind, following in reversed(list(pairwise([*kinds, protocol]))):
        size = draw(st.sampled_from((8, 16, 64) if kind != 51 else (8, 12, 24)))
        bits = draw(st.sampled_from((0, 1, 8, 16, 24, 9, 0xFFF8, 0xFFF9)))
        payload = extension(kind, following, size=size, third=draw(st.integers(0, 4)), bits=bits) + payload
    ends = draw(st.sampled_from(V6)), draw(st.sampled_from(V6))
    return ipv6(payload, [*kinds, protocol][0], ends=ends)


_PAYLOADS = st.sampled_from([bytes(range(size)) for size in (0, 1, 7, 8, 11, 12, 19, 20, 40)]) | st.builds(
    lambda kind, rest: bytes((kind,)) + rest,
    st.sampled_from((0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 128, 129, 130, 133, 137, 138, 143, 144)),
    st.binary(min_size=7, max_size=40),
)
_IPV4 = st.builds(
    lambda payload, protocol, bits, words, ends: ipv4(
        payload, protocol, bits=bits, options=bytes(4 * words), ends=ends
    ),
    _PAYLOADS,
    st.sampled_from(PROTOCOLS),
    st.sampled_from((0, 0x4000, 0x2000, 0x2001, 0x2002, 0x2003, 1, 2, 3, 0x1FFF, 0x8000)),
    st.sampled_from(OPTIONS),
    st.tuples(st.sampled_from(V4), st.sampled_from(V4)),
)


@st.composite
def _spoilt(draw: st.DrawFn) -> bytes:
    """Draw a packet with a byte changed, or cut, its size mended or not."""
    packet = bytearray(draw(_IPV4 | _ipv6()))
    if draw(st.booleans()):
        packet[draw(st.integers(0, len(packet) - 1))] = draw(st.integers(0, 255))
    packet = packet[: draw(st.integers(0, len(packet)))]
    if draw(st.booleans()) and len(packet) >= 40:
        size = len(packet) if packet[0] >> 4 == 4 else len(packet) - 40
        place = 2 if packet[0] >> 4 == 4 else 4
        packet[place : place + 2] = size.to_bytes(2)
    return bytes(packet)


PACKETS = _IPV4 | _ipv6() | _spoilt() | st.binary(max_size=80)
