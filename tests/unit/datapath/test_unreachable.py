"""The answers to packets that have no way are well formed, quote what they answer, and never answer an error."""

from __future__ import annotations

import struct

import pytest
from kit.native import A4, A6, B4, B6, ip

from conflux.datapath.packet import parse
from conflux.datapath.unreachable import CODES, unreachable

PAIRS = [(A4, B4), (A6, B6)]
UDP = b"\x15\xb3\x1f\x91\x00\x0c\x00\x00data"


def sum_of(data: bytes) -> int:
    """The Internet checksum over data with its own field in it: zero if that is right."""
    data += b"\0" * (len(data) % 2)
    return sum(struct.unpack(f"!{len(data) // 2}H", data)) % 0xFFFF


@pytest.mark.parametrize("reason", list(CODES))
@pytest.mark.parametrize("size", [0, 1, 11, 3000])
def test_an_answer_over_ipv4_is_well_formed_and_quotes_the_packet(reason: str, size: int) -> None:
    packet = ip(A4, B4, 17, UDP + bytes(size))
    answer = unreachable(packet, reason)
    assert answer is not None
    assert parse(answer)[:2] == (B4.packed, A4.packed), "from who is not reached, to who asked"
    assert (answer[0], answer[9], answer[20], answer[21]) == (0x45, 1, 3, CODES[reason].ipv4)
    assert sum_of(answer[:20]) == sum_of(answer[20:]) == 0
    assert answer[28:] == packet[:548]
    assert len(answer) <= 576


@pytest.mark.parametrize("reason", list(CODES))
@pytest.mark.parametrize("size", [0, 1, 11, 3000])
def test_an_answer_over_ipv6_is_well_formed_and_quotes_the_packet(reason: str, size: int) -> None:
    packet = ip(A6, B6, 17, UDP + bytes(size))
    answer = unreachable(packet, reason)
    assert answer is not None
    assert parse(answer)[:2] == (B6.packed, A6.packed)
    assert (answer[6], answer[40], answer[41]) == (58, 1, CODES[reason].ipv6)
    assert sum_of(answer[8:40] + struct.pack("!I3xB", len(answer) - 40, 58) + answer[40:]) == 0
    assert answer[48:] == packet[:1232]
    assert len(answer) <= 1280


def test_every_reason_is_told_apart() -> None:
    own = {reason: codes for reason, codes in CODES.items() if reason != "policy-sent"}  # prohibited, as "revoked" is
    assert len({codes.ipv4 for codes in own.values()}) == len({codes.ipv6 for codes in own.values()}) == len(own)


@pytest.mark.parametrize(
    "packet",
    [
        *(ip(A4, B4, 1, bytes([kind]) + bytes(40)) for kind in (3, 4, 5, 11, 12)),
        *(ip(A6, B6, 58, bytes([kind]) + bytes(40)) for kind in (1, 2, 3, 4, 127)),
        ip(A4, B4, 1, b""),
        ip(A6, B6, 58, b""),
        ip(A4, B4, 17, UDP)[:6] + b"\0\1" + ip(A4, B4, 17, UDP)[8:],  # not the first fragment
    ],
)
def test_no_error_and_no_later_fragment_is_answered(packet: bytes) -> None:
    assert unreachable(packet, "unreachable") is None


@pytest.mark.parametrize(("source", "destination", "echo"), [(A4, B4, (1, 8)), (A6, B6, (58, 128))])
def test_an_echo_request_is_answered(source, destination, echo) -> None:
    assert unreachable(ip(source, destination, echo[0], bytes([echo[1]]) + bytes(15)), "unreachable") is not None


@pytest.mark.parametrize(("source", "destination"), PAIRS)
def test_other_reasons_are_not_told(source, destination) -> None:
    for reason in ("closed", "aged", "queue-full"):
        assert unreachable(ip(source, destination, 17, UDP), reason) is None
