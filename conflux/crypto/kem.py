"""X-Wing, the hybrid KEM of the stream handshake (draft-connolly-cfrg-xwing-kem; HPKE's KEM 0x647A).

    public key   ML-KEM-768 1184 | X25519 32
    ciphertext   ML-KEM-768 1088 | X25519 32
    secret       SHA3-256(ML-KEM secret | X25519 secret | X25519 ciphertext | X25519 public key | label)

Both halves are exchange.py's.
"""

from __future__ import annotations

import hashlib
from typing import Self

from conflux.crypto import exchange
from conflux.crypto.exchange import ML_CIPHERTEXT_BYTES, ML_PUBLIC_BYTES, X_BYTES
from conflux.errors import RemoteProtocolError

PUBLIC_BYTES = ML_PUBLIC_BYTES + X_BYTES
CIPHERTEXT_BYTES = ML_CIPHERTEXT_BYTES + X_BYTES
SECRET_BYTES = 32
LABEL = b"\\.//^\\"  # from the draft: an X-Wing drawn in ASCII


def combine(secret: bytes, x_ciphertext: bytes, x_public: bytes) -> bytes:
    """Return the 32-byte hybrid secret.  secret: the 64 bytes of both halves, ML-KEM's first."""
    return hashlib.sha3_256(secret + x_ciphertext + x_public + LABEL).digest()


def encapsulate(public: bytes) -> tuple[bytes, bytes]:
    """Return (ciphertext of 1120 bytes, secret of 32) for a peer's public key.

    Raises RemoteProtocolError if the key is malformed or its X25519 point is of small order.
    """
    if len(public) != PUBLIC_BYTES:
        raise RemoteProtocolError("malformed", f"KEM key of {len(public)} bytes, not {PUBLIC_BYTES}")
    ml_public, x_public = bytes(public[:ML_PUBLIC_BYTES]), bytes(public[ML_PUBLIC_BYTES:])
    answer, secret = exchange.answer(x_public, ml_public)
    return answer.ml_ciphertext + answer.x_public, combine(secret, answer.x_public, x_public)


class PrivateKey:
    """A key for one handshake."""

    __slots__ = ("_share", "public")

    def __init__(self, share: exchange.Share) -> None:
        self._share = share
        self.public = share.ml_public + share.x_public

    @classmethod
    def generate(cls) -> Self:
        """Return a fresh key; both libraries draw from the operating system."""
        return cls(exchange.Share.generate(with_ml=True))

    def decapsulate(self, ciphertext: bytes) -> bytes:
        """Return the 32-byte secret.

        A ciphertext that was made for another key gives a secret that looks random (implicit rejection in FIPS 203);
        it does not unseal what was sealed under the real one.  Raises RemoteProtocolError if ciphertext is malformed.
        """
        if len(ciphertext) != CIPHERTEXT_BYTES:
            raise RemoteProtocolError("malformed", f"KEM ciphertext of {len(ciphertext)} bytes, not {CIPHERTEXT_BYTES}")
        ml_ciphertext, x_ciphertext = bytes(ciphertext[:ML_CIPHERTEXT_BYTES]), bytes(ciphertext[ML_CIPHERTEXT_BYTES:])
        return combine(self._share.agree(x_ciphertext, ml_ciphertext), x_ciphertext, self._share.x_public)

    def erase(self) -> None:
        """Erase the private parts; decapsulate() then raises LocalProtocolError.  Safe to repeat."""
        self._share.erase()

    @property
    def is_erased(self) -> bool:
        """Say whether nothing of the private parts is left."""
        return self._share.is_erased

    def __repr__(self) -> str:
        return "PrivateKey(erased)" if self.is_erased else "PrivateKey()"
