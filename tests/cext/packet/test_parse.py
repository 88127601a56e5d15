"""packet_parse() and packet_mark_congestion() against conflux/datapath/packet.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from kit.driven import Driven, build
from kit.packets import TCP, UDP, Packet

from conflux.datapath.packet import mark_congestion, parse
from conflux.errors import RemoteProtocolError


@pytest.fixture(scope="module")
def driver() -> Iterator[Driven]:
    with Driven(build("packet/packet_driver.c", "packet/packet.c")) as driven:
        yield driven


def said_by_reference(packet: bytes) -> str:
    try:
        source, destination, flow = parse(packet)
    except RemoteProtocolError as error:
        return str(error)
    protocol = packet[9] if packet[0] >> 4 == 4 else packet[6]
    return f"ok {source.hex()} {destination.hex()} {protocol} {flow}"


PROTOCOLS = st.sampled_from([0, 1, 6, 17, 43, 44, 58, 132, 136, 255])


@st.composite
def ipv4(draw: st.DrawFn) -> bytes:
    """Draw a packet that is right, or wrong in one length."""
    words = draw(st.integers(5, 15))
    rest = draw(st.binary(max_size=60))
    size = 4 * words + len(rest) + draw(st.sampled_from([0, 0, 0, 1, -1]))
    fragment = draw(st.sampled_from([0, 0, 0x4000, 0x8000, 0x2000, 1, 0x1FFF]))
    head = bytes([0x40 | words, draw(st.integers(0, 255))]) + size.to_bytes(2) + draw(st.binary(min_size=2, max_size=2))
    head += fragment.to_bytes(2) + bytes([64, draw(PROTOCOLS)])
    return head + draw(st.binary(min_size=4 * words - 10, max_size=4 * words - 10)) + rest


@st.composite
def ipv6(draw: st.DrawFn) -> bytes:
    rest = draw(st.binary(max_size=60))
    size = max(0, len(rest) + draw(st.sampled_from([0, 0, 0, 1, -1])))
    head = bytes([0x60 | draw(st.integers(0, 15)), draw(st.integers(0, 255)), 0, 0]) + size.to_bytes(2)
    return head + bytes([draw(PROTOCOLS), 64]) + draw(st.binary(min_size=32, max_size=32)) + rest


PACKETS = st.one_of(ipv4(), ipv6(), st.binary(max_size=80))


@given(packet=PACKETS)
@example(packet=b"")
@example(packet=bytes([0x60]) + bytes(38))
@example(packet=bytes([0x60]) + bytes(39))
@example(packet=bytes([0x45, 0, 0, 20]) + bytes(15))
@example(packet=bytes([0x45, 0, 0, 20]) + bytes(16))
def test_every_packet_is_read_as_the_reference_reads_it(driver: Driven, packet: bytes) -> None:
    assert driver.ask(f"p {packet.hex() or '-'}") == said_by_reference(packet)


@given(packet=PACKETS, cut=st.integers(0, 200))
def test_a_packet_cut_short_is_refused_as_the_reference_refuses_it(driver: Driven, packet: bytes, cut: int) -> None:
    packet = packet[:cut]
    assert driver.ask(f"p {packet.hex() or '-'}") == said_by_reference(packet)


@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("addresses", [("10.0.0.1", "10.9.8.7"), ("fd00::1", "fd00::2:3")])
def test_a_full_packet_is_read_as_the_reference_reads_it(
    driver: Driven, protocol: int, addresses: tuple[str, str]
) -> None:
    packet = Packet(bytes(1400), protocol, *addresses).pack(complete=True)
    assert said_by_reference(packet).startswith("ok")
    assert driver.ask(f"p {packet.hex()}") == said_by_reference(packet)


@given(packet=PACKETS)
def test_marks_are_those_of_the_reference(driver: Driven, packet: bytes) -> None:
    if not said_by_reference(packet).startswith("ok"):
        return
    marked = mark_congestion(packet)
    expected = f"0 {packet.hex()}" if marked is None else f"1 {marked.hex()}"
    assert driver.ask(f"m {packet.hex()}") == expected


@pytest.mark.parametrize("before", range(4))
@pytest.mark.parametrize("addresses", [("10.0.0.1", "10.9.8.7"), ("fd00::1", "fd00::2:3")])
def test_a_mark_keeps_the_header_checksum_right(driver: Driven, before: int, addresses: tuple[str, str]) -> None:
    packet = Packet(b"x", UDP, *addresses, tos=0xB8 | before).pack(complete=True)
    marked = Packet(b"x", UDP, *addresses, tos=0xBB if before else 0xB8).pack(complete=True)
    assert driver.ask(f"m {packet.hex()}") == f"{before > 0:d} {marked.hex()}"
