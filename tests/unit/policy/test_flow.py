"""What is read of a packet, and which packets no rule is asked about.  Reports name what others let through."""

from __future__ import annotations

import pytest
from kit.policy_packets import V4, V6, extension, ipv4, ipv6

from conflux.policy.flow import MAPPED, Flow, Piece, Unfit, read_flow_untrusted
from conflux.policy.terms import ICMP, ICMPV6, SCTP, TCP, UDP, key_of

PORTS = b"\x30\x39\x00\x35"  # from 12345 to 53
UDP_53 = PORTS + bytes(4)
FRAGMENT = 44


def read(packet: bytes) -> Flow:
    got = read_flow_untrusted(packet)
    assert isinstance(got, Flow), got
    return got


@pytest.mark.parametrize(("protocol", "size"), [(TCP, 20), (UDP, 8), (SCTP, 12)])
@pytest.mark.parametrize("build", [ipv4, ipv6])
def test_ports_of_a_whole_header_are_read(build, protocol, size):
    flow = read(build(PORTS + bytes(size - 4), protocol))
    assert (flow.key, flow.source_port, flow.piece) == (key_of(protocol, 53), 12345, Piece.WHOLE)
    assert read_flow_untrusted(build(PORTS + bytes(size - 5), protocol)) is Unfit.SHORT


def test_flags_of_tcp_are_read_and_of_nothing_else():
    payload = PORTS + bytes(8) + b"\x50\x12" + bytes(6)
    assert read(ipv4(payload, TCP)).tcp_flags == 0x12
    assert read(ipv4(payload, SCTP)).tcp_flags == 0


def test_addresses_of_both_families_have_one_form():
    assert read(ipv4(UDP_53, UDP))[:2] == (MAPPED + V4[0], MAPPED + V4[1])
    assert read(ipv6(UDP_53, UDP))[:2] == V6[:2]


def test_options_of_ipv4_stand_before_the_ports():
    assert read(ipv4(UDP_53, UDP, options=bytes(40))).key == key_of(UDP, 53)


@pytest.mark.parametrize("protocol", [SCTP, 47, 50, 136, 255, 59])
def test_no_other_protocol_is_read_as_udp(protocol):
    """nebula#1840: SCTP and GRE were read as UDP to port 53."""
    for build in (ipv4, ipv6):
        key = read(build(UDP_53 + bytes(8), protocol)).key
        assert key == key_of(protocol, 53 if protocol == SCTP else 0)


def test_an_extension_header_of_256_units_is_passed_whole():
    """nebula#1789: its length overflowed a byte, and the walk went on inside it."""
    payload = extension(60, UDP, size=2048) + UDP_53
    assert read(ipv6(payload, 60)).key == key_of(UDP, 53)
    assert read_flow_untrusted(ipv6(payload[: 2048 + 7], 60)) is Unfit.SHORT


def test_a_walk_that_is_out_of_its_budget_drops_the_packet():
    """nebula#1883: it said "fine" in the middle of the chain."""
    six = b"".join(extension(60, following) for following in (60, 60, 60, 60, 60, UDP))
    assert read(ipv6(six + UDP_53, 60)).key == key_of(UDP, 53)
    assert read_flow_untrusted(ipv6(extension(60, 60) + six + UDP_53, 60)) is Unfit.HEADERS
    assert read_flow_untrusted(ipv6(b"".join(extension(60, 60) for _ in range(6)), 60)) is Unfit.HEADERS


def test_an_authentication_header_counts_in_units_of_four_bytes():
    assert read(ipv6(extension(51, UDP, size=24) + UDP_53, 51)).key == key_of(UDP, 53)
    assert read(ipv6(extension(51, UDP, size=12) + UDP_53, 51)).source_port == 12345


def test_a_source_route_is_refused_and_other_routing_headers_pass():
    assert read_flow_untrusted(ipv6(extension(43, UDP, third=0) + UDP_53, 43)) is Unfit.ROUTING
    assert read(ipv6(extension(43, UDP, third=4) + UDP_53, 43)).key == key_of(UDP, 53)


def test_an_address_of_the_other_family_is_refused():
    for ends in ((V6[2], V6[0]), (V6[0], V6[2])):
        assert read_flow_untrusted(ipv6(UDP_53, UDP, ends=ends)) is Unfit.MAPPED


@pytest.mark.parametrize("build", [ipv4, ipv6])
@pytest.mark.parametrize("size", [0, 1, 19, 27])
def test_a_packet_that_ends_early_or_says_another_size_is_refused(build, size):
    packet = build(UDP_53, UDP)
    assert read_flow_untrusted(packet[:size]) in (Unfit.SHORT, Unfit.LENGTH)
    assert read_flow_untrusted(packet + b"\0") is Unfit.LENGTH
    assert read_flow_untrusted(packet[:-1]) is Unfit.LENGTH


def test_another_version_is_refused():
    assert read_flow_untrusted(b"\x50" + bytes(50)) is Unfit.VERSION


def test_the_first_piece_has_the_port_and_its_whole_header():
    """netbird#6781: fragments passed without any rule."""
    first = read(ipv4(UDP_53, UDP, bits=0x2000))
    assert (first.piece, first.key, first.fragment) == (Piece.FIRST, key_of(UDP, 53), 0xBEEF)
    assert read_flow_untrusted(ipv4(PORTS + bytes(15), TCP, bits=0x2000)) is Unfit.SHORT
    six = ipv6(extension(FRAGMENT, UDP, bits=1, fragment=99) + UDP_53, FRAGMENT)
    assert read(six)[2:7] == (key_of(UDP, 53), 12345, Piece.FIRST, 0, 99)


def test_a_later_piece_has_no_port_and_begins_behind_the_header():
    later = read(ipv4(UDP_53, UDP, bits=1))
    assert (later.piece, later.key, later.source_port, later.fragment) == (Piece.LATER, key_of(UDP, 0), 0, 0xBEEF)
    assert read_flow_untrusted(ipv4(UDP_53, TCP, bits=1)) is Unfit.PIECE
    assert read_flow_untrusted(ipv4(UDP_53, TCP, bits=0x2002)) is Unfit.PIECE
    assert read(ipv4(UDP_53, TCP, bits=3)).piece is Piece.LATER
    six = ipv6(extension(FRAGMENT, TCP, bits=16) + UDP_53, FRAGMENT)
    assert read_flow_untrusted(six) is Unfit.PIECE


@pytest.mark.parametrize("bits", [1, 8, 9, 24])
def test_a_datagram_in_pieces_has_no_extension_header_in_them(bits):
    """Else a later piece could lie over a transport header whose place the first piece alone knows."""
    packet = ipv6(extension(FRAGMENT, 60, bits=bits) + extension(60, UDP) + UDP_53, FRAGMENT)
    assert read_flow_untrusted(packet) is Unfit.HEADERS
    whole = ipv6(extension(FRAGMENT, 60) + extension(60, UDP) + UDP_53, FRAGMENT)
    assert read(whole).key == key_of(UDP, 53)


@pytest.mark.parametrize(
    ("options", "unfit"),
    [
        (b"\x83\x07\x04\x0a\0\0\x01\0", Unfit.ROUTING),
        (b"\x01\x89\x03\x04", Unfit.ROUTING),
        (b"\x94\x04\0\0\x83\x03\x04\0", Unfit.ROUTING),
        (b"\x94\x00\0\0", Unfit.LENGTH),
        (b"\x94\x05\0\0", Unfit.LENGTH),
        (b"\x01\x01\x01\x94", Unfit.LENGTH),
    ],
)
def test_source_routes_and_broken_options_of_ipv4_are_refused(options, unfit):
    assert read_flow_untrusted(ipv4(UDP_53, UDP, options=options)) is unfit


def test_what_stands_behind_the_end_of_options_is_none():
    assert read(ipv4(UDP_53, UDP, options=b"\0\x83\x03\x04")).key == key_of(UDP, 53)


def test_a_datagram_in_one_piece_is_whole_and_one_in_pieces_of_pieces_is_refused():
    assert read(ipv6(extension(FRAGMENT, UDP) + UDP_53, FRAGMENT)).piece is Piece.WHOLE
    twice = extension(FRAGMENT, FRAGMENT) + extension(FRAGMENT, UDP) + UDP_53
    assert read_flow_untrusted(ipv6(twice, FRAGMENT)) is Unfit.HEADERS


def test_an_echo_has_its_identifier_and_an_error_quotes_a_packet():
    for build, protocol, request, error in ((ipv4, ICMP, 8, 3), (ipv6, ICMPV6, 128, 1)):
        echo = read(build(bytes((request, 0, 0, 0, 0x12, 0x34, 0, 0)), protocol))
        assert (echo.key, echo.source_port, echo.error_at) == (key_of(protocol, request), 0x1234, 0)
        said = read(build(bytes((error, 0, 0, 0, 0, 0, 0, 0)) + b"quoted", protocol))
        assert said.error_at == len(build(bytes(8), protocol))


@pytest.mark.parametrize("kind", [5, 9, 10])
def test_what_routers_of_a_link_say_never_passes(kind):
    assert read_flow_untrusted(ipv4(bytes((kind,)) + bytes(7), ICMP)) is Unfit.LINK


@pytest.mark.parametrize("kind", [*range(130, 138), 143])
def test_what_neighbours_on_a_link_say_never_passes(kind):
    """ZeroTierOne#1245: neighbour discovery that a list forgot; here it never enters the overlay."""
    assert read_flow_untrusted(ipv6(bytes((kind,)) + bytes(7), ICMPV6)) is Unfit.LINK


def test_icmp_of_the_other_family_never_passes():
    assert read_flow_untrusted(ipv4(bytes(8), ICMPV6)) is Unfit.LINK
    assert read_flow_untrusted(ipv6(bytes(8), ICMP)) is Unfit.LINK
