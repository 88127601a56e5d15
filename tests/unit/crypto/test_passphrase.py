"""Sealing by a passphrase: only that passphrase opens it, and no file makes us work for ever."""

from __future__ import annotations

import os

import pytest

from conflux.crypto import passphrase
from conflux.errors import AuthError, RemoteProtocolError


@pytest.mark.slow("a guess shall cost that")
def test_a_guess_costs_32_mib_of_memory():
    assert passphrase.seal("one", b"content", entropy=os.urandom)[:3] == bytes((15, 8, 3))


@pytest.mark.usefixtures("quick_scrypt")
def test_what_was_sealed_opens_by_the_same_passphrase():
    sealed = passphrase.seal("pässwörd", b"content", entropy=os.urandom)
    assert passphrase.unseal_untrusted("pässwörd", sealed) == b"content"


@pytest.mark.usefixtures("quick_scrypt")
def test_another_passphrase_or_a_flipped_bit_opens_nothing():
    sealed = bytearray(passphrase.seal("one", b"content", entropy=os.urandom))
    with pytest.raises(AuthError):
        passphrase.unseal_untrusted("two", bytes(sealed))
    for at in (3, 25, -1):
        sealed[at] ^= 1
        with pytest.raises(AuthError):
            passphrase.unseal_untrusted("one", bytes(sealed))
        sealed[at] ^= 1


@pytest.mark.usefixtures("quick_scrypt")
def test_the_same_content_is_never_sealed_to_the_same_bytes():
    assert len({passphrase.seal("one", b"content", entropy=os.urandom) for _ in range(2)}) == 2


@pytest.mark.parametrize(
    "header", [(21, 8, 3), (15, 9, 3), (15, 8, 9), (0, 8, 3), (15, 0, 3), (15, 8, 0), (255, 255, 255)]
)
def test_a_file_that_would_keep_us_busy_is_refused(header):
    with pytest.raises(RemoteProtocolError, match="malformed"):
        passphrase.unseal_untrusted("one", bytes(header) + bytes(100))


def test_too_few_bytes_are_refused():
    with pytest.raises(RemoteProtocolError, match="too short"):
        passphrase.unseal_untrusted("one", bytes(passphrase.HEADER_BYTES + passphrase.TAG_BYTES - 1))
