"""Echo requests of the daemon are well formed, and only replies to them are taken."""

import struct
from ipaddress import IPv4Address, IPv6Address

import pytest

from conflux.api import echo
from conflux.api.echo import Echo

HERE = IPv6Address("fd00::1")
THERE = IPv6Address("fd00::2")


@pytest.fixture
def echoes():
    number = iter(range(256))
    return Echo(lambda size: bytes([next(number)]) * size)


def reply_to(request: bytes, **changed: bytes) -> bytes:
    """Return what a kernel answers; the checksum is that of the request, because no code here reads it."""
    fields = {"kind": bytes([echo.IPV6.reply]), "source": request[24:40], "rest": request[41:]} | changed
    return request[:8] + fields["source"] + request[8:24] + fields["kind"] + fields["rest"]


def test_a_request_is_the_packet_a_kernel_would_send(echoes):
    session = echoes.open(HERE, THERE, lambda number, rtt_s: None)
    packet = session.request(1, 56, now=0.0)
    assert packet[:8] == bytes.fromhex("60000000 0040 3a 40")
    assert packet[8:40] == HERE.packed + THERE.packed
    assert packet[40:42] == bytes([128, 0])
    # The Internet checksum over pseudo-header and message, its own field included, is zero.
    data = HERE.packed + THERE.packed + struct.pack("!I3xB", 64, 58) + packet[40:]
    assert sum(struct.unpack(f"!{len(data) // 2}H", data)) % 0xFFFF == 0


@pytest.mark.parametrize("size", [0, 7, 8, 9, 1232])
def test_a_request_of_every_size_is_well_formed(echoes, size):
    packet = echoes.open(HERE, THERE, print).request(1, size, now=0.0)
    assert len(packet) == 48 + max(size, 8)
    assert struct.unpack_from("!H", packet, 4)[0] == len(packet) - 40


def test_a_reply_is_taken_once_with_its_round_trip(echoes):
    got = []
    session = echoes.open(HERE, THERE, lambda number, rtt_s: got.append((number, rtt_s)))
    request = session.request(70000, 56, now=10.0)
    assert echoes.take(reply_to(request), now=10.25)
    assert not echoes.take(reply_to(request), now=10.5)
    assert got == [(70000, 0.25)]


@pytest.mark.parametrize(
    "changed",
    [
        {"kind": b"\x80"},
        {"source": IPv6Address("fd00::3").packed},
        {"rest": bytes(71)},
        {"rest": bytes(3) + b"\x09\x09\x00\x01" + bytes([1]) * 8 + bytes(48)},  # another program's identifier
        {"rest": bytes(3) + b"\x00\x00\x00\x02" + bytes([1]) * 8 + bytes(48)},  # a number that was never sent
    ],
)
def test_a_packet_that_is_no_reply_to_us_goes_to_the_kernel(echoes, changed):
    session = echoes.open(HERE, THERE, lambda number, rtt_s: pytest.fail("taken"))
    assert not echoes.take(reply_to(session.request(1, 56, now=0.0), **changed), now=1.0)


def test_short_and_foreign_packets_are_left_alone(echoes):
    session = echoes.open(HERE, THERE, print)
    whole = reply_to(session.request(1, 8, now=0.0))
    for size in range(len(whole)):
        assert not echoes.take(whole[:size], now=0.0)
    assert not echoes.take(b"\x45" + bytes(100), now=0.0)


def test_a_closed_session_takes_nothing(echoes):
    session = echoes.open(HERE, THERE, print)
    request = session.request(1, 56, now=0.0)
    echoes.close(session)
    assert not echoes.take(reply_to(request), now=1.0)


def test_the_datapath_hears_which_identifiers_are_awaited(echoes):
    heard = []
    echoes.on_change = heard.append
    one, other = (echoes.open(HERE, THERE, print) for _ in range(2))
    echoes.close(one)
    echoes.close(other)
    assert heard == [(one.identifier,), (one.identifier, other.identifier), (other.identifier,), ()]


def test_sessions_are_bounded(echoes):
    sessions = [echoes.open(HERE, THERE, print) for _ in range(echo.SESSION_COUNT_MAX)]
    assert echoes.open(HERE, THERE, print) is None
    echoes.close(sessions[0])
    assert echoes.open(HERE, THERE, print) is not None


def sum_of(data: bytes) -> int:
    """The Internet checksum over data with its own field in it: zero if that is right."""
    return sum(struct.unpack(f"!{len(data) // 2}H", data)) % 0xFFFF


@pytest.mark.parametrize("size", [8, 9, 56])
def test_a_request_over_ipv4_is_well_formed_and_its_reply_is_taken(echoes, size):
    here, there = IPv4Address("100.64.0.1"), IPv4Address("100.64.0.2")
    got = []
    session = echoes.open(here, there, lambda number, rtt_s: got.append((number, rtt_s)))
    packet = session.request(1, size, now=10.0)
    assert (packet[0], packet[9], packet[12:20], packet[20:22]) == (0x45, 1, here.packed + there.packed, b"\x08\0")
    assert struct.unpack_from("!H", packet, 2)[0] == len(packet) == 28 + size
    assert sum_of(packet[:20]) == sum_of(packet[20:].ljust(size + 8 + size % 2, b"\0")) == 0
    reply = packet[:12] + there.packed + here.packed + b"\0" + packet[21:]
    assert not echoes.take(packet, now=10.25)
    assert not echoes.take(reply[:12] + here.packed + reply[16:], now=10.25)
    for short in range(len(reply) - size + 8):
        assert not echoes.take(reply[:short], now=10.25)
    assert echoes.take(reply, now=10.25)
    assert got == [(1, 0.25)]
