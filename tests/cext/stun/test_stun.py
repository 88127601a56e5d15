"""stun.c alone: the samples of RFC 5769, and what a stranger may send, under sanitizers."""

from __future__ import annotations

import ctypes
import hmac
import struct
import subprocess

import pytest
from kit.compile import build as build_library
from kit.driven import build
from kit.tree import CEXT

OK, MALFORMED, AUTH = range(3)
COPIES_MAX, TRANSACTIONS_MAX = 7, 512  # as in stun.h
PASSWORD = b"VOkJxbRl1RmTxUk/WvJxBt"
OTHER = b"another password of 32 bytes...."

# RFC 5769, sections 2.1 to 2.3.
REQUEST = bytes.fromhex(
    "000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69656e74"
    "002400046e0001ff80290008932ff9b151263b36000600096576746a3a68367659202020"
    "000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a280280004e57a3bcf"
)
RESPONSE_IPV4 = bytes.fromhex(
    "0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220"
    "002000080001a147e112a643000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96"
)
RESPONSE_IPV6 = bytes.fromhex(
    "010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220"
    "002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d900080014a382954e4be67bf11784c97c8292c275bfe3ed4180280004c8fb0b4c"
)


class _Password(ctypes.Structure):
    _fields_ = (("text", ctypes.c_uint8 * 256), ("size", ctypes.c_size_t))

    @classmethod
    def of(cls, text: bytes) -> _Password:
        return cls((ctypes.c_uint8 * 256)(*text), len(text))


class Stun:
    """The passwords of one link."""

    def __init__(self, ours: bytes, peers: bytes) -> None:
        self._library = ctypes.CDLL(str(build_library(CEXT / "stun/stun.c", shared=True, libraries=("crypto",))))
        self._library.stun_new.restype = ctypes.c_void_p
        self._library.stun_count_untrusted.argtypes = (ctypes.c_void_p, ctypes.c_char_p)
        self._library.stun_count_untrusted.restype = ctypes.c_bool
        self._library.stun_check_untrusted.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t)
        self._self = self._library.stun_new(ctypes.byref(_Password.of(ours)), ctypes.byref(_Password.of(peers)))
        assert self._self

    def count(self, data: bytes) -> bool:
        return bool(self._library.stun_count_untrusted(self._self, data))

    def check(self, data: bytes) -> int:
        return int(self._library.stun_check_untrusted(self._self, data, len(data)))


@pytest.fixture(scope="module")
def ours() -> Stun:
    """What the receiver of the RFC's request has."""
    return Stun(ours=PASSWORD, peers=OTHER)


@pytest.fixture(scope="module")
def peers() -> Stun:
    """What the receiver of the RFC's responses has."""
    return Stun(ours=OTHER, peers=PASSWORD)


def test_the_samples_of_the_rfc_pass_where_they_belong(ours: Stun, peers: Stun) -> None:
    assert [ours.check(each) for each in (REQUEST, RESPONSE_IPV4, RESPONSE_IPV6)] == [OK, AUTH, AUTH]
    assert [peers.check(each) for each in (REQUEST, RESPONSE_IPV4, RESPONSE_IPV6)] == [AUTH, OK, OK]
    assert ours.check(REQUEST) == OK  # the next one starts anew


def test_no_bit_before_the_fingerprint_can_be_changed(ours: Stun) -> None:
    end = len(REQUEST) - 8
    for at in range(end):
        for bit in range(8):
            assert ours.check(REQUEST[:at] + bytes([REQUEST[at] ^ 1 << bit]) + REQUEST[at + 1 :]) != OK, (at, bit)


def message(*attributes: tuple[int, bytes], kind: int = 1) -> bytes:
    """Return a message whose MESSAGE-INTEGRITY attributes (of 20 bytes) are right for PASSWORD."""
    body = b""
    for number, value in attributes:
        if (number, len(value)) == (8, 20):
            head = struct.pack(">HHI12s", kind, len(body) + 24, 0x2112A442, b"transaction!")
            value = hmac.digest(PASSWORD, head + body, "sha1")
        body += struct.pack(">HH", number, len(value)) + value + bytes(-len(value) % 4)
    return struct.pack(">HHI12s", kind, len(body), 0x2112A442, b"transaction!") + body


PROOF = (8, bytes(20))


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (message(PROOF), OK),
        (message((6, b"abcd:efgh"), PROOF), OK),
        (message(), AUTH),
        (message((6, b"abcd:efgh")), AUTH),
        (message((8, bytes(16))), MALFORMED),
        (message((8, bytes(32))), MALFORMED),
        (message(PROOF, (0x25, b"")), AUTH),  # USE-CANDIDATE that nothing vouches for
        (message(PROOF, PROOF), AUTH),
        (message(PROOF, (0x8028, b"abcdefgh")), AUTH),
        (message(PROOF, kind=0x11), AUTH),  # an indication
        (message(PROOF, kind=0x4001), MALFORMED),  # what is no STUN
        (b"", MALFORMED),
    ],
)
def test_what_has_no_proof_of_its_own_is_refused(ours: Stun, data: bytes, fault: int) -> None:
    assert ours.check(data) == fault


def transaction(number: int) -> bytes:
    return struct.pack(">HHI12s", 1, 0, 0x2112A442, number.to_bytes(12, "little"))


def test_a_transaction_is_read_as_often_as_a_request_is_ever_sent() -> None:
    fresh = Stun(PASSWORD, OTHER)
    assert [fresh.count(transaction(0)) for _ in range(COPIES_MAX + 300)] == [True] * COPIES_MAX + [False] * 300
    assert fresh.count(transaction(1))
    assert not fresh.count(transaction(0))


def test_the_last_transactions_are_remembered_and_no_more() -> None:
    fresh = Stun(PASSWORD, OTHER)
    for _ in range(COPIES_MAX):
        assert fresh.count(transaction(0))
    for number in range(1, TRANSACTIONS_MAX):
        assert fresh.count(transaction(number))
    assert not fresh.count(transaction(0))
    assert fresh.count(transaction(TRANSACTIONS_MAX))  # takes the place of the oldest
    assert fresh.count(transaction(0))


def test_hostile_datagrams_neither_overrun_nor_leak() -> None:
    program = build("stun/stun_hostile.c", "stun/stun.c", libraries=("crypto",))
    for seed in range(3):
        done = subprocess.run([program, str(seed), "20000"], input=REQUEST, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        assert int(done.stdout) > 1000  # those that were left as they are
