"""What the datapath reads of IP packets, byte by byte."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from conflux.datapath.packet import mark_congestion, parse
from conflux.datapath.reference.networks import Networks
from conflux.errors import RemoteProtocolError

# An IPv4 UDP packet from 100.64.0.1:5000 to 100.64.0.2:7, checksum right, ECT(0).
UDP4 = bytes.fromhex("4502 0020 0001 4000 4011 7247 64400001 64400002 1388 0007 000c 0000 61626364")
UDP6 = bytes.fromhex(
    "6020 0000 000c 1140 fd000000000000000000000000000001 fd0000000000000000000000000000021388 0007 000c 0000 61626364"
)


def checksum_total(head: bytes) -> int:
    """The ones' complement sum over a header with its checksum: 0xffff if the checksum is right."""
    total = sum(head[index] << 8 | head[index + 1] for index in range(0, len(head), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def patch(packet: bytes, at: int, octets: bytes) -> bytes:
    """Return a packet with other bytes at a place."""
    return packet[:at] + octets + packet[at + len(octets) :]


def test_addresses_are_read_from_their_place() -> None:
    source, destination, _ = parse(UDP4)
    assert (str(ip_address(source)), str(ip_address(destination))) == ("100.64.0.1", "100.64.0.2")
    source, destination, _ = parse(UDP6)
    assert (str(ip_address(source)), str(ip_address(destination))) == ("fd00::1", "fd00::2")


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (b"", "packet-short"),
        (UDP4[:19], "packet-short"),
        (UDP6[:39], "packet-short"),
        (patch(UDP4, 0, b"\x55"), "packet-version"),
        (UDP4 + b"\0", "packet-length"),
        (UDP4[:-1], "packet-length"),
        (UDP6 + b"\0", "packet-length"),
        (UDP6[:-1], "packet-length"),
        (patch(UDP4, 0, b"\x44"), "packet-length"),  # a header shorter than the minimum
        (patch(UDP4, 0, b"\x4f"), "packet-length"),  # a header longer than the packet
        (patch(UDP4, 2, b"\0\0"), "packet-length"),
        (patch(UDP6, 4, b"\0\0"), "packet-length"),  # a jumbogram
    ],
)
def test_a_packet_with_a_wrong_header_is_refused(packet: bytes, reason: str) -> None:
    with pytest.raises(RemoteProtocolError) as refused:
        parse(packet)
    assert refused.value.reason == reason


@pytest.mark.parametrize(("packet", "ports"), [(UDP4, 20), (UDP6, 40)])
def test_ports_tell_flows_apart(packet: bytes, ports: int) -> None:
    _, _, flow = parse(packet)
    assert parse(patch(packet, ports, b"\x13\x89"))[2] != flow
    assert parse(patch(packet, ports + 8, b"body"))[2] == flow


def test_ports_tell_flows_apart_behind_ip_options() -> None:
    packet = patch(patch(UDP4, 0, b"\x46"), 2, (len(UDP4) + 4).to_bytes(2, "big"))
    packet = packet[:20] + b"\x01\x01\x01\x01" + packet[20:]
    assert parse(packet)[2] == parse(UDP4)[2]
    assert parse(patch(packet, 24, b"\x13\x89"))[2] != parse(packet)[2]


@pytest.mark.parametrize("offset", ["2000", "2001", "0001", "1fff"])
def test_all_fragments_of_a_datagram_share_a_flow(offset: str) -> None:
    first = patch(UDP4, 6, bytes.fromhex("2000"))
    other = patch(patch(UDP4, 6, bytes.fromhex(offset)), 20, b"what looks like ports"[:12])
    assert parse(first)[2] == parse(other)[2]


def test_ipv6_fragments_share_a_flow() -> None:
    first = patch(patch(UDP6, 6, bytes([44])), 40, bytes.fromhex("11000001"))
    other = patch(first, 40, bytes.fromhex("11000010"))
    assert parse(first)[2] == parse(other)[2]


def test_echo_requests_of_one_pair_share_a_flow() -> None:
    ping = patch(UDP4, 9, b"\x01")
    assert parse(patch(ping, 20, b"\x08\0\x12\x34"))[2] == parse(patch(ping, 20, b"\x08\0\x56\x78"))[2]


@pytest.mark.parametrize("ecn", [1, 2])
def test_marking_ipv4_updates_the_checksum(ecn: int) -> None:
    packet = patch(patch(UDP4, 1, bytes([0xB8 | ecn])), 10, b"\0\0")
    packet = patch(packet, 10, (~checksum_total(packet[:20]) & 0xFFFF).to_bytes(2, "big"))
    marked = mark_congestion(packet)
    assert marked is not None
    assert marked[1] == 0xBB
    assert checksum_total(marked[:20]) == 0xFFFF
    assert patch(marked, 1, packet[1:2])[:10] + marked[12:] == packet[:10] + packet[12:]


def test_marking_keeps_a_wrong_checksum_wrong() -> None:
    marked = mark_congestion(patch(UDP4, 10, b"\x12\x34"))
    assert marked is not None
    assert checksum_total(marked[:20]) != 0xFFFF


def test_marking_ipv6_touches_two_bits() -> None:
    assert mark_congestion(UDP6) == patch(UDP6, 1, b"\x30")


def test_a_marked_packet_stays_as_it_is() -> None:
    packet = patch(UDP4, 1, b"\x03")
    assert mark_congestion(packet) == packet
    assert mark_congestion(patch(UDP6, 1, b"\x30")) == patch(UDP6, 1, b"\x30")


def test_a_packet_whose_sender_supports_no_marks_gets_none() -> None:
    assert mark_congestion(patch(UDP4, 1, b"\xb8")) is None
    assert mark_congestion(patch(UDP6, 0, b"\x6b\x80")) is None


def test_networks_hold_hosts_and_prefixes_and_never_mix_families() -> None:
    networks = Networks([ip_network("100.64.0.1/32"), ip_network("fd00:1::/32"), ip_network("10.0.0.0/8")])
    for text, inside in [
        ("100.64.0.1", True),
        ("100.64.0.2", False),
        ("fd00:1:2::3", True),
        ("fd00:2::3", False),
        ("10.200.0.1", True),
        ("::a00:1", False),
        ("::6440:1", False),
    ]:
        assert (ip_address(text).packed in networks) is inside, text
