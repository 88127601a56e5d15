"""dtls.c alone: records of another library's AEADs, the window at its edges, and malformed records."""

from __future__ import annotations

import ctypes
import random

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from kit.dtls import (
    APPLICATION_DATA,
    AUTH,
    HANDSHAKE,
    HEADER_BYTES,
    OK,
    OTHER_EPOCH,
    REPLAY,
    TRUNCATED,
    VERSION,
    Records,
)

from conflux.carrier.wire import AES_128_GCM, AES_256_GCM, CHACHA20_POLY1305, DtlsKeys

CIPHERS = (AES_128_GCM, AES_256_GCM, CHACHA20_POLY1305)
WINDOW_COUNT = 8192
SEQUENCE_END = 1 << 48


def keys(cipher: int, *, sequence_out: int = 0, swapped: bool = False) -> DtlsKeys:
    draw = random.Random(cipher)
    one, other = (draw.randbytes(16 if cipher == AES_128_GCM else 32) for _ in range(2))
    iv_one, iv_other = (draw.randbytes(12 if cipher == CHACHA20_POLY1305 else 4) for _ in range(2))
    if swapped:
        return DtlsKeys(cipher, other, one, iv_other, iv_one, sequence_out)
    return DtlsKeys(cipher, one, other, iv_one, iv_other, sequence_out)


def by_the_book(cipher: int, key: bytes, iv: bytes, sequence: int, payload: bytes) -> bytes:
    """Return one record of application data as in RFC 5288 or RFC 7905, made without dtls.c."""
    number = (1 << 48 | sequence).to_bytes(8, "big")
    additional = number + b"\x17\xfe\xfd" + len(payload).to_bytes(2, "big")
    if cipher == CHACHA20_POLY1305:
        nonce = (int.from_bytes(iv, "big") ^ int.from_bytes(number, "big")).to_bytes(12, "big")
        sealed = ChaCha20Poly1305(key).encrypt(nonce, payload, additional)
    else:
        sealed = number + AESGCM(key).encrypt(iv + number, payload, additional)
    return b"\x17\xfe\xfd" + number + len(sealed).to_bytes(2, "big") + sealed


@pytest.mark.parametrize("cipher", CIPHERS)
def test_records_are_those_of_another_library(dtls_library: ctypes.CDLL, cipher: int) -> None:
    given = keys(cipher, sequence_out=SEQUENCE_END - 4)
    records = Records(dtls_library, given)
    for number, size in enumerate((0, 1, 1400, 16384)):
        payload = bytes([number]) * size
        assert records.seal(payload) == by_the_book(
            cipher, given.key_out, given.iv_out, SEQUENCE_END - 4 + number, payload
        )
        opened = records.unseal(by_the_book(cipher, given.key_in, given.iv_in, number, payload))
        assert (opened.fault, opened.payload) == (OK, payload)


@pytest.mark.parametrize("cipher", CIPHERS)
def test_no_sequence_number_is_used_after_the_last(dtls_library: ctypes.CDLL, cipher: int) -> None:
    records = Records(dtls_library, keys(cipher, sequence_out=SEQUENCE_END - 1))
    assert records.seal(b"last")
    assert records.seal(b"none left") == b""
    assert records.seal(b"none left") == b""


def test_payload_above_a_records_bound_is_not_sealed(dtls_library: ctypes.CDLL) -> None:
    assert Records(dtls_library, keys(AES_128_GCM)).seal(bytes(16385)) == b""


@pytest.mark.parametrize("cipher", [0, 4, -1])
def test_unknown_cipher_is_refused(dtls_library: ctypes.CDLL, cipher: int) -> None:
    with pytest.raises(ValueError, match="refused"):
        Records(dtls_library, keys(cipher))


@pytest.mark.parametrize("cipher", CIPHERS)
def test_every_record_opens_once_in_any_order_inside_the_window(dtls_library: ctypes.CDLL, cipher: int) -> None:
    given = keys(cipher)
    records = Records(dtls_library, given)

    def arrives(sequence: int) -> int:
        return records.unseal(by_the_book(cipher, given.key_in, given.iv_in, sequence, b"x")).fault

    newest = 100_000
    assert arrives(newest) == OK
    assert arrives(newest) == REPLAY
    assert arrives(newest - WINDOW_COUNT) == REPLAY
    assert arrives(newest - WINDOW_COUNT + 1) == OK
    assert arrives(newest - WINDOW_COUNT + 1) == REPLAY
    numbers = list(range(newest - 300, newest))
    random.Random(1).shuffle(numbers)
    assert {arrives(number) for number in numbers} == {OK}
    assert {arrives(number) for number in numbers} == {REPLAY}
    assert arrives(SEQUENCE_END - 1) == OK
    assert arrives(newest + 1) == REPLAY


@pytest.mark.parametrize("cipher", CIPHERS)
def test_forged_record_moves_no_window(dtls_library: ctypes.CDLL, cipher: int) -> None:
    given = keys(cipher)
    records = Records(dtls_library, given)
    forged = bytearray(by_the_book(cipher, given.key_in, given.iv_in, SEQUENCE_END - 1, b"x"))
    forged[-1] ^= 1
    assert records.unseal(bytes(forged)).fault == AUTH
    assert records.unseal(by_the_book(cipher, given.key_in, given.iv_in, 0, b"x")).fault == OK


@pytest.mark.parametrize("cipher", CIPHERS)
def test_no_bit_of_a_record_can_be_changed(dtls_library: ctypes.CDLL, cipher: int) -> None:
    given = keys(cipher)
    records = Records(dtls_library, given)
    record = by_the_book(cipher, given.key_in, given.iv_in, 5, b"payload")
    for bit in range(8 * len(record)):
        changed = bytearray(record)
        changed[bit // 8] ^= 1 << bit % 8
        assert records.unseal(bytes(changed)).fault != OK
    assert records.unseal(record).fault == OK


def test_each_fault_of_a_record_is_told_apart(dtls_library: ctypes.CDLL) -> None:
    given = keys(AES_128_GCM)
    records = Records(dtls_library, given)
    record = by_the_book(AES_128_GCM, given.key_in, given.iv_in, 5, b"payload")

    def with_bytes(at: int, value: bytes) -> bytes:
        return record[:at] + value + record[at + len(value) :]

    assert records.unseal(with_bytes(1, b"\xfe\xff")).fault == VERSION
    assert records.unseal(with_bytes(3, b"\0\0")).fault == OTHER_EPOCH
    assert records.unseal(with_bytes(3, b"\0\2")).fault == OTHER_EPOCH
    assert records.unseal(with_bytes(0, bytes([HANDSHAKE]))).fault == OTHER_EPOCH
    assert records.unseal(with_bytes(11, b"\xff\xff")).fault == TRUNCATED
    assert records.unseal(with_bytes(11, b"\0\0")).fault == AUTH
    for size in range(len(record)):
        assert records.unseal(record[:size]).fault == TRUNCATED
    assert records.unseal(record).fault == OK


@pytest.mark.parametrize("cipher", CIPHERS)
def test_record_too_short_for_its_tag_or_too_long_for_the_standard_is_refused(
    dtls_library: ctypes.CDLL, cipher: int
) -> None:
    records = Records(dtls_library, keys(cipher))
    header = bytes([APPLICATION_DATA]) + b"\xfe\xfd" + (1 << 48).to_bytes(8, "big")
    for size in (*range(records.overhead - HEADER_BYTES), records.overhead - HEADER_BYTES + 16385, 65535):
        assert records.unseal(header + size.to_bytes(2, "big") + bytes(size)).fault == AUTH


@pytest.mark.parametrize("cipher", CIPHERS)
def test_several_records_of_one_datagram_open_in_turn(dtls_library: ctypes.CDLL, cipher: int) -> None:
    sender = Records(dtls_library, keys(cipher))
    receiver = Records(dtls_library, keys(cipher, swapped=True))
    datagram = b"".join(sender.seal(bytes([number]) * (1 + 100 * number)) for number in range(4))
    for number in range(4):
        opened = receiver.unseal(datagram)
        assert (opened.fault, opened.payload) == (OK, bytes([number]) * (1 + 100 * number))
        datagram = datagram[opened.record_size :]
    assert datagram == b""
    assert receiver.unseal(datagram).fault == TRUNCATED
