"""Hybrid signatures: Ed25519 (RFC 8032) and ML-DSA-65 (FIPS 204) over the same bytes; both must verify.

    public key   Ed25519 32 | ML-DSA-65 1952
    signature    Ed25519 64 | ML-DSA-65 3309
    seed         Ed25519 32 | ML-DSA-65 32

To forge a signature, both algorithms have to be broken.  Control envelopes, which must be small, carry only the Ed25519
half.
"""

from __future__ import annotations

import os
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey

from conflux.crypto.kdf import sha256
from conflux.errors import AuthError, LocalProtocolError, RemoteProtocolError

ED25519_PUBLIC_BYTES = 32
ED25519_SIGNATURE_BYTES = 64
PUBLIC_BYTES = 1984
SIGNATURE_BYTES = 3373
SEED_BYTES = 64


def context(purpose: str, realm_id: bytes) -> bytes:
    """Return the bytes put before every signed message, so that a signature counts for one purpose and one realm."""
    return b"conflux/1/" + purpose.encode("ascii") + b"\0" + realm_id


class VerifyKey:
    """The public half of a SigningKey."""

    __slots__ = ("_ed25519", "_encoded", "_mldsa", "fingerprint")

    def __init__(self, encoded: bytes, ed25519: Ed25519PublicKey, mldsa: MLDSA65PublicKey) -> None:
        self._encoded = encoded
        self._ed25519 = ed25519
        self._mldsa = mldsa
        self.fingerprint = sha256(encoded)  # 32 bytes; a node id is the first 16

    @classmethod
    def decode_untrusted(cls, encoded: bytes) -> Self:
        """Return the key encoded in 1984 bytes.  Raises RemoteProtocolError."""
        if len(encoded) != PUBLIC_BYTES:
            raise RemoteProtocolError("malformed", f"public key of {len(encoded)} bytes, not {PUBLIC_BYTES}")
        try:
            ed25519 = Ed25519PublicKey.from_public_bytes(encoded[:ED25519_PUBLIC_BYTES])
            mldsa = MLDSA65PublicKey.from_public_bytes(encoded[ED25519_PUBLIC_BYTES:])
        except ValueError as error:
            raise RemoteProtocolError("malformed", f"public key: {error}") from None
        return cls(bytes(encoded), ed25519, mldsa)

    def encode(self) -> bytes:
        """Return the 1984 bytes."""
        return self._encoded

    def verify(self, context: bytes, message: bytes, signature: bytes) -> None:
        """Raise AuthError unless both halves of the 3373-byte signature verify."""
        if len(signature) != SIGNATURE_BYTES:
            raise AuthError(f"signature of {len(signature)} bytes, not {SIGNATURE_BYTES}")
        signed = context + message
        try:
            self._ed25519.verify(signature[:ED25519_SIGNATURE_BYTES], signed)
            self._mldsa.verify(signature[ED25519_SIGNATURE_BYTES:], signed)
        except InvalidSignature:
            raise AuthError("signature") from None

    def verify_ed25519(self, context: bytes, message: bytes, signature: bytes) -> None:
        """Raise AuthError unless the 64-byte Ed25519 signature verifies."""
        try:
            self._ed25519.verify(signature, context + message)
        except InvalidSignature:
            raise AuthError("signature") from None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, VerifyKey) and self._encoded == other._encoded

    def __hash__(self) -> int:
        return hash(self._encoded)

    def __repr__(self) -> str:
        return f"VerifyKey({self.fingerprint[:8].hex()})"


class SigningKey:
    """Both private keys, inside OpenSSL's objects, which erase them when the last reference is gone."""

    __slots__ = ("_ed25519", "_mldsa", "public")

    def __init__(self, ed25519: Ed25519PrivateKey, mldsa: MLDSA65PrivateKey) -> None:
        self._ed25519 = ed25519
        self._mldsa = mldsa
        ed25519_public, mldsa_public = ed25519.public_key(), mldsa.public_key()
        encoded = ed25519_public.public_bytes_raw() + mldsa_public.public_bytes_raw()
        self.public = VerifyKey(encoded, ed25519_public, mldsa_public)

    @classmethod
    def generate(cls) -> Self:
        """Return a fresh key from the operating system's randomness."""
        return cls.from_seed(os.urandom(SEED_BYTES))

    @classmethod
    def from_seed(cls, seed: bytes | bytearray) -> Self:
        """Return the key of a 64-byte seed."""
        if len(seed) != SEED_BYTES:
            raise LocalProtocolError(f"seed of {len(seed)} bytes, not {SEED_BYTES}")
        return cls(Ed25519PrivateKey.from_private_bytes(seed[:32]), MLDSA65PrivateKey.from_seed_bytes(seed[32:]))

    @property
    def seed(self) -> bytes:
        """The 64 bytes that from_seed() takes."""
        return self._ed25519.private_bytes_raw() + self._mldsa.private_bytes_raw()

    def sign(self, context: bytes, message: bytes) -> bytes:
        """Return the 3373-byte hybrid signature of context and message."""
        signed = context + message
        return self._ed25519.sign(signed) + self._mldsa.sign(signed)

    def sign_ed25519(self, context: bytes, message: bytes) -> bytes:
        """Return the 64-byte Ed25519 signature of context and message."""
        return self._ed25519.sign(context + message)

    def __repr__(self) -> str:
        return f"SigningKey({self.public.fingerprint[:8].hex()})"  # never the seed
