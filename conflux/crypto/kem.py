"""X-Wing, the hybrid KEM of the stream handshake (draft-connolly-cfrg-xwing-kem; HPKE's KEM 0x647A).

    public key   ML-KEM-768 1184 | X25519 32
    ciphertext   ML-KEM-768 1088 | X25519 32
    secret       SHA3-256(ML-KEM secret | X25519 secret | X25519 ciphertext | X25519 public key | label)

ML-KEM (FIPS 203) comes from pqcrypto, whose decapsulation needs the key as bytes: the interpreter frees those copies
without erasing them.  All other copies of the private key are erased when the handshake is over.
"""

from __future__ import annotations

import hashlib
from typing import Self

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

# pqcrypto makes its submodules at import and ships no types.
from pqcrypto.kem import ml_kem_768  # type: ignore[import-untyped]

from conflux.errors import LocalProtocolError, RemoteProtocolError

PUBLIC_BYTES = 1216
CIPHERTEXT_BYTES = 1120
SECRET_BYTES = 32
LABEL = b"\\.//^\\"  # from the draft: an X-Wing drawn in ASCII

_ML_PUBLIC_BYTES = 1184
_ML_CIPHERTEXT_BYTES = 1088


def combine(ml_secret: bytes, x_secret: bytes, x_ciphertext: bytes, x_public: bytes) -> bytes:
    """Return the 32-byte hybrid secret of four 32-byte parts."""
    return hashlib.sha3_256(ml_secret + x_secret + x_ciphertext + x_public + LABEL).digest()


def encapsulate(public: bytes) -> tuple[bytes, bytes]:
    """Return (ciphertext of 1120 bytes, secret of 32) for a peer's public key.

    Raises RemoteProtocolError if the key is malformed or its X25519 point is of small order.
    """
    if len(public) != PUBLIC_BYTES:
        raise RemoteProtocolError("malformed", f"KEM key of {len(public)} bytes, not {PUBLIC_BYTES}")
    x_public = bytes(public[_ML_PUBLIC_BYTES:])
    try:
        ml_ciphertext, ml_secret = ml_kem_768.encaps(bytes(public[:_ML_PUBLIC_BYTES]))
    except ValueError as error:
        raise RemoteProtocolError("malformed", f"KEM key: {error}") from None
    ephemeral = X25519PrivateKey.generate()
    x_ciphertext = ephemeral.public_key().public_bytes_raw()
    x_secret = _exchange(ephemeral, x_public)
    return ml_ciphertext + x_ciphertext, combine(ml_secret, x_secret, x_ciphertext, x_public)


def _exchange(private: X25519PrivateKey, peer: bytes) -> bytes:
    # RFC 7748, section 6.1: an all-zero result means the peer chose a point that makes the secret public.
    try:
        return private.exchange(X25519PublicKey.from_public_bytes(peer))
    except ValueError:
        raise RemoteProtocolError("malformed", "X25519 point of small order") from None


class PrivateKey:
    """A key for one handshake."""

    __slots__ = ("_ml_secret_key", "_x", "public")

    def __init__(self, ml_secret_key: bytes, ml_public: bytes, x: X25519PrivateKey) -> None:
        self._ml_secret_key = bytearray(ml_secret_key)  # 2400 bytes, in FIPS 203's expanded form
        self._x: X25519PrivateKey | None = x
        self.public = ml_public + x.public_key().public_bytes_raw()

    @classmethod
    def generate(cls) -> Self:
        """Return a fresh key; both libraries draw from the operating system."""
        ml_public, ml_secret_key = ml_kem_768.keygen()
        return cls(ml_secret_key, ml_public, X25519PrivateKey.generate())

    def decapsulate(self, ciphertext: bytes) -> bytes:
        """Return the 32-byte secret.

        A ciphertext that was made for another key gives a secret that looks random (implicit rejection in FIPS 203);
        it does not unseal what was sealed under the real one.  Raises RemoteProtocolError if ciphertext is malformed.
        """
        if self._x is None:
            raise LocalProtocolError("the KEM key is erased")
        if len(ciphertext) != CIPHERTEXT_BYTES:
            raise RemoteProtocolError("malformed", f"KEM ciphertext of {len(ciphertext)} bytes, not {CIPHERTEXT_BYTES}")
        x_ciphertext = bytes(ciphertext[_ML_CIPHERTEXT_BYTES:])
        x_secret = _exchange(self._x, x_ciphertext)
        try:
            ml_secret = ml_kem_768.decaps(bytes(self._ml_secret_key), bytes(ciphertext[:_ML_CIPHERTEXT_BYTES]))
        except ValueError as error:
            raise RemoteProtocolError("malformed", f"KEM ciphertext: {error}") from None
        return combine(ml_secret, x_secret, x_ciphertext, self.public[_ML_PUBLIC_BYTES:])

    def erase(self) -> None:
        """Erase the private parts; decapsulate() then raises LocalProtocolError.  Safe to repeat."""
        self._ml_secret_key[:] = bytes(len(self._ml_secret_key))
        self._x = None

    def __repr__(self) -> str:
        return "PrivateKey(erased)" if self._x is None else "PrivateKey()"
