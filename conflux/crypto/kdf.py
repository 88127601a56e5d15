"""Hashing and key derivation: SHA-256, HMAC (RFC 2104), HKDF (RFC 5869)."""

from __future__ import annotations

import hashlib
import hmac

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

SHA256_BYTES = 32


def sha256(*parts: bytes) -> bytes:
    """Return SHA-256 over the parts, one after another.

    Nothing marks where a part ends, so at most one part may be of variable size.
    """
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.digest()


def hkdf(secret: bytes | bytearray, *, salt: bytes, info: bytes, size: int) -> bytes:
    """Return size bytes (at most 8160) of HKDF-SHA-256, extract and expand."""
    return HKDF(algorithm=hashes.SHA256(), length=size, salt=salt, info=info).derive(secret)


def extract(salt: bytes | bytearray, secret: bytes | bytearray) -> bytes:
    """Return the 32 bytes of HKDF's first half, which is an HMAC: expand() makes keys of them."""
    return hmac.digest(salt, secret, "sha256")


def expand(key: bytes | bytearray, *, info: bytes, size: int) -> bytes:
    """Return size bytes (at most 8160) of HKDF's second half.  key: from extract() or expand()."""
    return HKDFExpand(algorithm=hashes.SHA256(), length=size, info=info).derive(key)


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    """Return the 32-byte HMAC-SHA-256 of message."""
    return hmac.digest(key, message, "sha256")


def equal(a: bytes, b: bytes) -> bool:
    """Compare in a time that depends only on the lengths, so that timing does not help to guess byte by byte."""
    return hmac.compare_digest(a, b)
