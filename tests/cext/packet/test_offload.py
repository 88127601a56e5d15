"""Offload headers and super-packets: which are accepted, and what their pieces are."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
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

V4, V6 = ("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")
OPTIONS = bytes([1, 1, 8, 10]) + bytes(range(8))  # TCP timestamps
DESTINATION_OPTIONS = bytes([0, 0, 1, 4, 0, 0, 0, 0])


@pytest.fixture(scope="module")
def driver() -> Iterator[Driven]:
    with Driven(build("packet/packet_driver.c", "packet/packet.c")) as driven:
        yield driven


def check(driver: Driven, header: bytes, packet: bytes) -> str:
    return driver.ask(f"o {header.hex()} {packet.hex()}")


def split(driver: Driven, header: bytes, packet: bytes, most: int, *, plain: bool) -> list[tuple[bytes, bytes]]:
    """Return the offload header and the bytes of every piece."""
    words = [bytes.fromhex(word) for word in driver.ask(f"s {header.hex()} {packet.hex()} {most} {plain:d}").split()]
    return list(zip(words[::2], words[1::2], strict=True))


def changed(header: bytes, **fields: int) -> bytes:
    names = ("flags", "type", "header_bytes", "segment_bytes", "start", "offset")
    return HEADER.pack(*({**dict(zip(names, HEADER.unpack(header), strict=True)), **fields}[name] for name in names))


SUPER = [
    pytest.param(Packet(bytes(3000), TCP, *V4), id="TCP4"),
    pytest.param(Packet(bytes(3000), TCP, *V6), id="TCP6"),
    pytest.param(Packet(bytes(3000), UDP, *V4), id="UDP4"),
    pytest.param(Packet(bytes(3000), UDP, *V6), id="UDP6"),
    pytest.param(Packet(bytes(3000), TCP, *V4, ip_options=bytes([1, 1, 1, 0]), tcp_options=OPTIONS), id="TCP4 options"),
    pytest.param(Packet(bytes(3000), TCP, *V6, ip_options=DESTINATION_OPTIONS, tcp_options=OPTIONS), id="TCP6 options"),
]

# ── what is accepted ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("packet", SUPER)
def test_what_the_kernel_gives_is_taken_and_given_back_the_same(driver: Driven, packet: Packet) -> None:
    header = packet.offload(1000)
    assert check(driver, header, packet.pack(complete=False)) == f"ok 0 {header.hex()}"


@pytest.mark.parametrize("packet", SUPER)
def test_the_claimed_header_length_is_not_believed(driver: Driven, packet: Packet) -> None:
    header = packet.offload(1000)
    for claim in (0, 1, 65535):
        claimed = changed(header, header_bytes=claim)
        assert check(driver, claimed, packet.pack(complete=False)) == f"ok 0 {header.hex()}"


@pytest.mark.parametrize("packet", SUPER)
@pytest.mark.parametrize("segment_bytes", [3000, 3001, 65535])
def test_a_super_packet_of_one_segment_is_none(driver: Driven, packet: Packet, segment_bytes: int) -> None:
    expected = packet.offload(0)
    assert check(driver, packet.offload(segment_bytes), packet.pack(complete=False)) == f"ok 0 {expected.hex()}"


def test_a_packet_with_nothing_left_to_do_is_plain(driver: Driven) -> None:
    for data in (Packet(b"x").pack(complete=True), Packet(b"x", 58, *V6).pack(complete=True)):
        for flags in (0, DATA_VALID):
            assert check(driver, changed(PLAIN, flags=flags), data) == f"ok 1 {PLAIN.hex()}"


@pytest.mark.parametrize("packet", SUPER)
@pytest.mark.parametrize(
    "lie",
    [
        {"flags": 0},
        {"flags": DATA_VALID},
        {"flags": NEEDS_CHECKSUM | 4},
        {"flags": 0x81},
        {"type": 2},
        {"type": 3},
        {"type": 6},
        {"type": 0x20},
        {"type": 0x40 | TCP4},
        {"type": ECN},
        {"segment_bytes": 0},
        {"start": 0},
        {"start": 65535},
        {"offset": 0},
        {"offset": 65535},
        {"offset": 8},
    ],
    ids=str,
)
def test_a_header_that_does_not_fit_its_packet_is_refused(driver: Driven, packet: Packet, lie: dict[str, int]) -> None:
    header = changed(packet.offload(1000), **lie)
    assert check(driver, header, packet.pack(complete=False)) == "offload"


@pytest.mark.parametrize("packet", SUPER)
def test_a_type_of_another_version_or_protocol_is_refused(driver: Driven, packet: Packet) -> None:
    for kind in {TCP4, TCP6, UDP_SEGMENTS} - {packet.type}:
        header = changed(packet.offload(1000), type=kind)
        assert check(driver, header, packet.pack(complete=False)) == "offload"


@pytest.mark.parametrize("following", [TCP, UDP, 0, 4, 43, 60])
def test_an_extension_header_reaches_no_further_than_its_packet(driver: Driven, following: int) -> None:
    packet = Packet(b"", UDP, *V6, ip_options=DESTINATION_OPTIONS)
    data = packet.pack(complete=False)
    assert check(driver, packet.offload(), data) == f"ok 0 {packet.offload().hex()}"
    for length in (
        1,
        2,
    ):  # to the packet's end, and 8 bytes further: there the sanitizer sees a read
        extension = bytes([following, length])
        assert check(driver, changed(packet.offload(), start=len(data)), data[:40] + extension + data[42:]) == "offload"


def test_udp_has_no_congestion_window_to_reduce(driver: Driven) -> None:
    packet = Packet(bytes(3000), UDP)
    assert check(driver, packet.offload(1000, ecn=True), packet.pack(complete=False)) == "offload"


def test_more_segments_than_the_kernel_makes_are_refused(driver: Driven) -> None:
    tcp, udp = Packet(bytes(60_000), TCP), Packet(bytes(128 * 100), UDP)
    assert check(driver, tcp.offload(8), tcp.pack(complete=False)).startswith("ok")
    assert check(driver, tcp.offload(7), tcp.pack(complete=False)) == "offload"
    assert check(driver, udp.offload(100), udp.pack(complete=False)).startswith("ok")
    assert check(driver, udp.offload(99), udp.pack(complete=False)) == "offload"


@pytest.mark.parametrize("fragment", [0x2000, 0x0001])
@pytest.mark.parametrize("segment_bytes", [0, 1000])
def test_a_fragment_has_no_offloads(driver: Driven, fragment: int, segment_bytes: int) -> None:
    packet = Packet(bytes(3000), UDP)
    data = bytearray(packet.pack(complete=False))
    data[6:8] = fragment.to_bytes(2)
    assert check(driver, packet.offload(segment_bytes), bytes(data)) == "offload"
    assert check(driver, PLAIN, bytes(data)).startswith("ok 1")


def test_an_ipv6_fragment_has_no_offloads(driver: Driven) -> None:
    packet = Packet(bytes(3000), UDP, *V6, ip_options=DESTINATION_OPTIONS)
    data = bytearray(packet.pack(complete=False))
    data[6] = 44
    assert check(driver, packet.offload(1000), bytes(data)) == "offload"


def test_extension_headers_without_end_are_refused(driver: Driven) -> None:
    body = bytes([60, 0, 1, 4, 0, 0, 0, 0]) * 1000
    data = struct.pack(">IHBB", 0x60000000, len(body), 60, 64) + bytes(32) + body
    for start in (40, 48, 40 + 8 * 4, 40 + 8 * 1000):
        assert check(driver, HEADER.pack(NEEDS_CHECKSUM, TCP6, 0, 100, start, 16), data) == "offload"


@pytest.mark.parametrize("packet", SUPER)
def test_headers_cut_short_are_refused(driver: Driven, packet: Packet) -> None:
    whole = packet.pack(complete=False)
    minimum = packet.transport_at if packet.is_ipv4 else 40  # packet_parse() refuses shorter ones
    for size in range(max(minimum, packet.transport_at - 12), packet.header_bytes):
        data = bytearray(whole[:size])
        data[2:4] = size.to_bytes(2) if packet.is_ipv4 else data[2:4]
        data[4:6] = data[4:6] if packet.is_ipv4 else (size - 40).to_bytes(2)
        assert check(driver, packet.offload(1000), bytes(data)) == "offload"


@pytest.mark.parametrize("words", [0, 4, 15])
def test_a_data_offset_outside_the_packet_is_refused(driver: Driven, words: int) -> None:
    packet = Packet(bytes(20), TCP)
    data = bytearray(packet.pack(complete=False))
    data[20 + 12] = words << 4
    assert check(driver, packet.offload(10), bytes(data)) == "offload"


def test_a_udp_length_that_is_not_the_packets_is_refused(driver: Driven) -> None:
    packet = Packet(bytes(3000), UDP)
    for length in (0, 8, 3007, 3009, 65535):
        data = bytearray(packet.pack(complete=False))
        data[24:26] = length.to_bytes(2)
        assert check(driver, packet.offload(1000), bytes(data)) == "offload"


def tunnelled(protocol: int, addresses: tuple[str, str]) -> tuple[bytes, int]:
    """Return a tunnel's packet around a TCP packet without a checksum, and where the inner TCP header begins."""
    inner = Packet(b"inside", TCP).pack(complete=False)
    outer = Packet(b"vxlan and Ethernet    " + inner, protocol, *addresses)
    return outer.pack(complete=False), outer.header_bytes + 22 + 20


@pytest.mark.parametrize("addresses", [V4, V6])
def test_the_checksum_of_a_packet_in_a_tunnel_is_completed_where_it_stands(
    driver: Driven, addresses: tuple[str, str]
) -> None:
    data, start = tunnelled(UDP, addresses)
    header = HEADER.pack(NEEDS_CHECKSUM, 0, start + 18, 0, start, 16)
    assert check(driver, header, data) == f"ok 0 {header.hex()}"
    completed = bytes.fromhex(driver.ask(f"c {header.hex()} {data.hex()}").split()[1])
    inner = Packet(b"inside", TCP)
    assert completed == data[: -len(inner.pack(complete=True))] + inner.pack(complete=True)


def test_a_checksum_that_would_change_what_policy_reads_is_refused(driver: Driven) -> None:
    for packet in (Packet(bytes(100), UDP), Packet(bytes(100), TCP), Packet(bytes(100), UDP, *V6)):
        data, right = packet.pack(complete=False), packet.offload()
        for start in range(packet.header_bytes + 20):
            for offset in range(24):
                exact = HEADER.unpack(right)[4:] == (start, offset)
                behind = packet.protocol == UDP and start >= packet.header_bytes
                answer = check(driver, changed(right, start=start, offset=offset), data)
                assert answer.startswith("ok") == (exact or behind), (start, offset)


def test_a_tunnelled_checksum_outside_the_packet_or_of_a_super_packet_is_refused(driver: Driven) -> None:
    data, start = tunnelled(UDP, V4)
    for place in ((start, len(data) - start - 1), (len(data) - 1, 0), (65535, 65535), (start, 65535)):
        assert check(driver, HEADER.pack(NEEDS_CHECKSUM, 0, 0, 0, *place), data) == "offload"
    assert check(driver, HEADER.pack(NEEDS_CHECKSUM, UDP_SEGMENTS, 0, 20, start, 16), data) == "offload"


@given(
    header=st.binary(min_size=10, max_size=10),
    packet=st.sampled_from([each.values[0] for each in SUPER]),
    flips=st.lists(st.tuples(st.integers(0, 90), st.integers(0, 255)), max_size=3),
    most=st.integers(0, 70_000),
    plain=st.booleans(),
    mended=st.sets(st.integers(0, 9)),
)
def test_any_header_on_any_packet_is_refused_or_splits_within_bounds(
    driver: Driven,
    header: bytes,
    packet: Packet,
    flips: list[tuple[int, int]],
    most: int,
    plain: bool,
    mended: set[int],
) -> None:
    right = packet.offload(1000)
    header = bytes(right[at] if at in mended else header[at] for at in range(10))
    data = bytearray(packet.pack(complete=False))
    for at, value in flips:
        data[at] = value
    if driver.ask(f"p {data.hex()}").split()[0] != "ok":
        return
    verdict = check(driver, header, bytes(data))
    pieces = split(driver, header, bytes(data), most, plain=plain)
    assert (verdict == "offload") == (pieces == [])
    assert len(pieces) <= len(data) // 8
    for piece_header, piece in pieces:
        assert driver.ask(f"p {piece.hex()}").split()[0] == "ok"
        assert check(driver, piece_header, piece).startswith("ok 1" if plain else "ok")


# ── checksums ────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(
    payload=st.binary(max_size=200),
    protocol=st.sampled_from([TCP, UDP]),
    addresses=st.sampled_from([V4, V6]),
    odd=st.booleans(),
)
def test_a_completed_checksum_is_the_stacks_own(
    driver: Driven, payload: bytes, protocol: int, addresses: tuple[str, str], odd: bool
) -> None:
    packet = Packet(payload + b"!" * odd, protocol, *addresses)
    answer = driver.ask(f"c {packet.offload().hex()} {packet.pack(complete=False).hex()}")
    assert answer == f"{PLAIN.hex()} {packet.pack(complete=True).hex()}"


def test_a_udp_checksum_of_zero_is_sent_as_its_other_zero(driver: Driven) -> None:
    empty = Packet(b"\0\0", UDP)
    rest = ~folded(empty.pseudo(10) + empty.pack(complete=False)[20:26] + bytes(2)) & 0xFFFF
    packet = replace(empty, payload=rest.to_bytes(2))
    answer = bytes.fromhex(
        driver.ask(f"c {packet.offload().hex()} {packet.pack(complete=False).hex()}").split()[1],
    )
    assert answer[26:28] == b"\xff\xff"
    assert answer == packet.pack(complete=True)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 31, 32, 33, 1447, 1448, 65000])
def test_checksums_of_all_ones_do_not_overrun(driver: Driven, size: int) -> None:
    packet = Packet(b"\xff" * size, TCP, ports=(65535, 65535), sequence=2**32 - 1, acknowledgement=2**32 - 1)
    answer = driver.ask(f"c {packet.offload().hex()} {packet.pack(complete=False).hex()}")
    assert answer.split()[1] == packet.pack(complete=True).hex()


# ── pieces ───────────────────────────────────────────────────────────────────────────────────────────────────────────

PACKETS = st.builds(
    Packet,
    payload=st.integers(1, 6000).map(lambda size: bytes(at * 7 & 0xFF for at in range(size))),
    protocol=st.sampled_from([TCP, UDP]),
    identification=st.sampled_from([0, 7, 65535, 65530]),
    sequence=st.sampled_from([0, 1, 2**32 - 1, 2**32 - 3000]),
    flags=st.sampled_from([ACK, ACK | PSH, ACK | FIN, ACK | CWR, ACK | PSH | FIN | CWR]),
    tcp_options=st.sampled_from([b"", OPTIONS]),
    tos=st.sampled_from([0, 2, 3]),
)


@st.composite
def super_packets(draw: st.DrawFn) -> Packet:
    packet = draw(PACKETS)
    if draw(st.booleans()):
        options = draw(st.sampled_from([b"", DESTINATION_OPTIONS]))
        return replace(packet, source=V6[0], destination=V6[1], ip_options=options)
    return replace(packet, ip_options=draw(st.sampled_from([b"", bytes([1, 1, 1, 0])])))


@given(packet=super_packets(), segment_bytes=st.integers(60, 2000), ecn=st.booleans())
def test_plain_pieces_are_what_a_stack_without_offloads_sends(
    driver: Driven, packet: Packet, segment_bytes: int, ecn: bool
) -> None:
    ecn = ecn and packet.protocol == TCP
    found = split(driver, packet.offload(segment_bytes, ecn=ecn), packet.pack(complete=False), 0, plain=True)
    one_segment = len(packet.payload) <= segment_bytes
    expected = [packet] if one_segment else packet.pieces(segment_bytes, segment_bytes, ecn=ecn)
    assert found == [(PLAIN, each.pack(complete=True)) for each in expected]


@given(packet=super_packets(), segment_bytes=st.integers(60, 2000), most=st.integers(0, 7000), ecn=st.booleans())
def test_super_pieces_are_what_a_stack_with_smaller_offloads_gives(
    driver: Driven, packet: Packet, segment_bytes: int, most: int, ecn: bool
) -> None:
    ecn = ecn and packet.protocol == TCP
    found = split(driver, packet.offload(segment_bytes, ecn=ecn), packet.pack(complete=False), most, plain=False)
    if len(packet.payload) <= segment_bytes:
        assert found == [(packet.offload(), packet.pack(complete=False))]
        return
    payload_bytes = max(1, (most - packet.header_bytes) // segment_bytes) * segment_bytes
    assert [piece for _, piece in found] == [
        each.pack(complete=False) for each in packet.pieces(payload_bytes, segment_bytes, ecn=ecn)
    ]
    for number, (header, piece) in enumerate(found):
        payload = len(piece) - packet.header_bytes
        assert len(piece) <= max(most, packet.header_bytes + segment_bytes)
        assert header == packet.offload(
            segment_bytes if payload > segment_bytes else 0, ecn=ecn and number == 0 and payload > segment_bytes
        )


@given(packet=super_packets(), segment_bytes=st.integers(60, 2000), most=st.integers(0, 7000), ecn=st.booleans())
def test_splitting_twice_is_splitting_once(
    driver: Driven, packet: Packet, segment_bytes: int, most: int, ecn: bool
) -> None:
    header = packet.offload(segment_bytes, ecn=ecn and packet.protocol == TCP)
    whole = packet.pack(complete=False)
    twice = []
    for piece_header, piece in split(driver, header, whole, most, plain=False):
        twice += split(driver, piece_header, piece, 0, plain=True)
    assert twice == split(driver, header, whole, 0, plain=True)


def test_the_largest_possible_packet_is_split(driver: Driven) -> None:
    packet = Packet(bytes(at % 251 for at in range(65535 - 40)), TCP, flags=ACK | PSH)
    found = split(driver, packet.offload(1360), packet.pack(complete=False), 0, plain=True)
    assert found == [(PLAIN, each.pack(complete=True)) for each in packet.pieces(1360, 1360)]
