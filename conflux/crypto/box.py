"""ChaCha20-Poly1305 (RFC 8439) under a key that seals exactly one message."""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from conflux.errors import AuthError

_NONCE = bytes(12)  # safe because the key is used once


def seal_once(key: bytes, plaintext: bytes) -> bytes:
    """Return plaintext sealed under a 32-byte key, which must not seal any other message."""
    return ChaCha20Poly1305(key).encrypt(_NONCE, plaintext, None)


def unseal_once(key: bytes, sealed: bytes) -> bytes:
    """Return the plaintext of what seal_once() sealed under this key.  Raises AuthError."""
    try:
        return ChaCha20Poly1305(key).decrypt(_NONCE, sealed, None)
    except (InvalidTag, ValueError):
        raise AuthError("the box does not open") from None
