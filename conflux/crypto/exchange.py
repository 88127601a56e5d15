"""A fresh secret by X25519 (RFC 7748), and by ML-KEM-768 (FIPS 203) beside it where that is asked for.

    asker      X25519 key 32 | ML-KEM key 1184 or nothing
    answerer   X25519 key 32 | ML-KEM ciphertext 1088 or nothing
    secret     ML-KEM secret 32, zeros without it | X25519 secret 32

No combiner of its own: kem.py has X-Wing's, and a resumption puts the secret and all messages into one key schedule.
ML-KEM comes from pqcrypto, whose decapsulation needs the key as bytes: the interpreter frees those copies without
erasing them.  All other copies of the private halves are erased when the handshake is over.
"""

from __future__ import annotations

from typing import NamedTuple, Self

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

# pqcrypto makes its submodules at import and ships no types.
from pqcrypto.kem import ml_kem_768  # type: ignore[import-untyped]

from conflux.errors import LocalProtocolError, RemoteProtocolError

X_BYTES = 32
ML_PUBLIC_BYTES = 1184
ML_CIPHERTEXT_BYTES = 1088
SECRET_BYTES = 64

_NO_ML_SECRET = bytes(32)


class Public(NamedTuple):
    """What the answerer sends.  ml_ciphertext: empty without ML-KEM."""

    x_public: bytes
    ml_ciphertext: bytes


class Agreed(NamedTuple):
    """What the answerer sends, and what both know then."""

    public: Public
    secret: bytes


def answer(x_public: bytes, ml_public: bytes) -> Agreed:
    """Return the answer to a Share's public halves; ml_public is empty without ML-KEM.

    Raises RemoteProtocolError for a key of another size, a malformed one, or a point that makes the secret public.
    """
    ml_ciphertext, ml_secret = b"", _NO_ML_SECRET
    if ml_public:
        if len(ml_public) != ML_PUBLIC_BYTES:
            raise RemoteProtocolError("malformed", f"ML-KEM key of {len(ml_public)} bytes, not {ML_PUBLIC_BYTES}")
        try:
            ml_ciphertext, ml_secret = ml_kem_768.encaps(ml_public)
        except ValueError as error:
            raise RemoteProtocolError("malformed", f"ML-KEM key: {error}") from None
    own = X25519PrivateKey.generate()
    x_secret = _exchange(own, x_public)
    return Agreed(Public(own.public_key().public_bytes_raw(), ml_ciphertext), ml_secret + x_secret)


def _exchange(private: X25519PrivateKey, peer: bytes) -> bytes:
    # RFC 7748, section 6.1: an all-zero result means the peer chose a point that makes the secret public.
    try:
        return private.exchange(X25519PublicKey.from_public_bytes(peer))
    except ValueError:
        raise RemoteProtocolError("malformed", "X25519 point of small order") from None


class Share:
    """The asker's keys, for one exchange."""

    __slots__ = ("_ml_secret_key", "_x", "ml_public", "x_public")

    def __init__(self, x: X25519PrivateKey, ml_public: bytes, ml_secret_key: bytes) -> None:
        self._x: X25519PrivateKey | None = x
        self._ml_secret_key = bytearray(ml_secret_key)  # 2400 bytes, in FIPS 203's expanded form
        self.x_public = x.public_key().public_bytes_raw()
        self.ml_public = ml_public

    @classmethod
    def generate(cls, *, with_ml: bool) -> Self:
        """Return fresh keys; both libraries draw from the operating system."""
        ml_public, ml_secret_key = ml_kem_768.keygen() if with_ml else (b"", b"")
        return cls(X25519PrivateKey.generate(), ml_public, ml_secret_key)

    def agree(self, x_public: bytes, ml_ciphertext: bytes) -> bytes:
        """Return the 64 bytes that both ends know now.

        A ciphertext for another key gives a secret that looks random.  Raises RemoteProtocolError for one of another
        size, for one where no ML-KEM key was sent, and for a bad X25519 key.
        """
        if self._x is None:
            raise LocalProtocolError("the keys of the exchange are erased")
        if len(ml_ciphertext) != (ML_CIPHERTEXT_BYTES if self.ml_public else 0):
            raise RemoteProtocolError("malformed", f"ML-KEM ciphertext of {len(ml_ciphertext)} bytes")
        x_secret = _exchange(self._x, x_public)
        if not self.ml_public:
            return _NO_ML_SECRET + x_secret
        try:
            ml_secret: bytes = ml_kem_768.decaps(bytes(self._ml_secret_key), ml_ciphertext)
        except ValueError as error:
            raise RemoteProtocolError("malformed", f"ML-KEM ciphertext: {error}") from None
        return ml_secret + x_secret

    def erase(self) -> None:
        """Erase the private halves; agree() then raises LocalProtocolError.  Safe to repeat."""
        self._ml_secret_key[:] = bytes(len(self._ml_secret_key))
        self._x = None

    @property
    def is_erased(self) -> bool:
        """Say whether nothing of the private halves is left."""
        return self._x is None and not any(self._ml_secret_key)

    def __repr__(self) -> str:
        return "Share(erased)" if self._x is None else "Share()"
