"""Echo requests of the daemon: well-formed, and only their own replies are taken."""

import struct
from ipaddress import IPv6Address

import pytest

from conflux import echo
from conflux.echo import Echo

HERE = IPv6Address("fd00::1")
THERE = IPv6Address("fd00::2")


@pytest.fixture
def echoes():
    number = iter(range(256))
    return Echo(lambda size: bytes([next(number)]) * size)


def reply_to(request: bytes, **changed: bytes) -> bytes:
    """What a kernel answers, its checksum left as it was: nobody here looks at it."""
    fields = {"kind": bytes([echo.ECHO_REPLY]), "source": request[24:40], "rest": request[41:]} | changed
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
def test_every_size_is_whole(echoes, size):
    packet = echoes.open(HERE, THERE, print).request(1, size, now=0.0)
    assert len(packet) == 48 + max(size, 8)
    assert struct.unpack_from("!H", packet, 4)[0] == len(packet) - 40


def test_a_reply_is_taken_once_with_its_round_trip(echoes):
    got = []
    session = echoes.open(HERE, THERE, lambda number, rtt_s: got.append((number, rtt_s)))
    request = session.request(70000, 56, now=10.0)
    assert echoes.take(reply_to(request), now=10.25)
    assert echoes.take(reply_to(request), now=10.5)
    assert got == [(70000, 0.25)]


@pytest.mark.parametrize(
    "changed",
    [
        {"kind": b"\x80"},
        {"source": IPv6Address("fd00::3").packed},
        {"rest": bytes(71)},
    ],
)
def test_what_is_no_reply_of_ours_goes_to_the_kernel(echoes, changed):
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


def test_sessions_are_bounded(echoes):
    sessions = [echoes.open(HERE, THERE, print) for _ in range(echo.SESSION_COUNT_MAX)]
    assert echoes.open(HERE, THERE, print) is None
    echoes.close(sessions[0])
    assert echoes.open(HERE, THERE, print) is not None
