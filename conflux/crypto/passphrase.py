"""Sealing by a passphrase: scrypt (RFC 7914) makes a key of it, AES-256-GCM seals.

log2 of N 1 | r 1 | p 1 | salt 16 | nonce 12 | ciphertext and tag
"""

from __future__ import annotations

from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from conflux.errors import AuthError, RemoteProtocolError

# OWASP's least for scrypt with 32 MiB: a guess costs a third of a second on a small board, which has that memory.
LOG_N, R, P = 15, 8, 3
LOG_N_MAX, R_MAX, P_MAX = 20, 8, 8  # of a file: a larger one would have us use a gigabyte, or minutes
SALT_BYTES, NONCE_BYTES, TAG_BYTES, KEY_BYTES = 16, 12, 16, 32
HEADER_BYTES = 3 + SALT_BYTES + NONCE_BYTES


def seal(passphrase: str, data: bytes, *, entropy: Callable[[int], bytes]) -> bytes:
    """Return data, sealed."""
    salt, nonce = entropy(SALT_BYTES), entropy(NONCE_BYTES)
    header = bytes((LOG_N, R, P)) + salt + nonce
    return header + AESGCM(_key(passphrase, salt, LOG_N, R, P)).encrypt(nonce, data, header)


def unseal_untrusted(passphrase: str, sealed: bytes) -> bytes:
    """Return the data.  Raises AuthError for another passphrase or damage, RemoteProtocolError for what cannot be."""
    if len(sealed) < HEADER_BYTES + TAG_BYTES:
        raise RemoteProtocolError("malformed", "too short")
    header, rest = sealed[:HEADER_BYTES], sealed[HEADER_BYTES:]
    log_n, r, p = header[:3]
    if not (1 <= log_n <= LOG_N_MAX and 1 <= r <= R_MAX and 1 <= p <= P_MAX):
        raise RemoteProtocolError("malformed", f"scrypt with 2^{log_n}, {r}, {p}")
    salt, nonce = header[3 : 3 + SALT_BYTES], header[3 + SALT_BYTES :]
    try:
        return AESGCM(_key(passphrase, salt, log_n, r, p)).decrypt(nonce, rest, header)
    except InvalidTag:
        raise AuthError("passphrase") from None


def _key(passphrase: str, salt: bytes, log_n: int, r: int, p: int) -> bytes:
    return Scrypt(salt=salt, length=KEY_BYTES, n=1 << log_n, r=r, p=p).derive(passphrase.encode())
