"""Sealing one message to a public key without a handshake: HPKE in base mode (RFC 9180).

Suite: MLKEM768-X25519 (0x647A), HKDF-SHA-256, ChaCha20-Poly1305.

    sealed   KEM ciphertext 1120 | ciphertext, as long as the plaintext | tag 16
"""

from __future__ import annotations

from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from conflux.errors import AuthError, LocalProtocolError, RemoteProtocolError

PUBLIC_BYTES = 1216
OVERHEAD_BYTES = 1120 + 16

_ML_PUBLIC_BYTES = 1184
_SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)


def seal(public: bytes, plaintext: bytes, info: bytes) -> bytes:
    """Return plaintext sealed to a 1216-byte public key; 1136 bytes longer.

    info: what both ends know and the seal is bound to (purpose, realm, key id).  Raises RemoteProtocolError for a bad
    key.
    """
    if len(public) != PUBLIC_BYTES:
        raise RemoteProtocolError("malformed", f"sealing key of {len(public)} bytes, not {PUBLIC_BYTES}")
    try:
        key = MLKEM768X25519PublicKey(
            MLKEM768PublicKey.from_public_bytes(public[:_ML_PUBLIC_BYTES]),
            X25519PublicKey.from_public_bytes(public[_ML_PUBLIC_BYTES:]),
        )
        return _SUITE.encrypt(plaintext, key, info)
    except ValueError as error:
        raise RemoteProtocolError("malformed", f"sealing key: {error}") from None


def check_public_untrusted(public: bytes) -> None:
    """Raise RemoteProtocolError unless seal() takes this key, whatever the plaintext and the info."""
    seal(public, b"", b"")


class SealKey:
    """A private key that unseals: a node's hop key."""

    __slots__ = ("_key", "public")

    def __init__(self, ml: MLKEM768PrivateKey, x: X25519PrivateKey) -> None:
        self._key: MLKEM768X25519PrivateKey | None = MLKEM768X25519PrivateKey(ml, x)
        self.public = ml.public_key().public_bytes_raw() + x.public_key().public_bytes_raw()

    @classmethod
    def generate(cls) -> Self:
        """Return a fresh key from the operating system's randomness."""
        return cls(MLKEM768PrivateKey.generate(), X25519PrivateKey.generate())

    def unseal(self, sealed: bytes, info: bytes) -> bytes:
        """Return the plaintext.  Raises AuthError if it was not sealed to this key with this info."""
        if self._key is None:
            raise LocalProtocolError("the sealing key is erased")
        if len(sealed) < OVERHEAD_BYTES:
            raise AuthError(f"sealed message of {len(sealed)} bytes")
        try:
            return _SUITE.decrypt(sealed, self._key, info)
        except (InvalidTag, ValueError):
            raise AuthError("sealed message") from None

    def erase(self) -> None:
        """Free the private key, which OpenSSL clears; unseal() then raises LocalProtocolError.  Safe to repeat."""
        self._key = None

    def __repr__(self) -> str:
        return "SealKey(erased)" if self._key is None else "SealKey()"
