"""NATS nkeys: an Ed25519 key as a word, whose first letter says what the key is for.

    public key   base32( prefix 1 | key 32 | CRC-16 2 )                     56 characters: A... account, U... user
    seed         base32( prefix of a seed and of the kind 2 | seed 32 | CRC-16 2 )       58 characters: SA..., SU...

The prefix of a seed has five bits, the prefix of its kind eight.  The checksum is CRC-16/XMODEM, little-endian: it
finds typing errors.  Source: github.com/nats-io/nkeys, README.md.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from enum import IntEnum
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from conflux.crypto.sign import ED25519_PUBLIC_BYTES, ED25519_SIGNATURE_BYTES, SigningKey
from conflux.errors import AuthError, LocalProtocolError, RemoteProtocolError

SEED_BYTES = 32
PUBLIC_CHARS = 56
SEED_CHARS = 58
NONCE_CHARS_MIN = 11  # servers send 15
NONCE_CHARS_MAX = 64

_SEED_PREFIX = 18 << 3
_CRC_BYTES = 2
_NONCE = re.compile(rb"[A-Za-z0-9_-]{%d,%d}" % (NONCE_CHARS_MIN, NONCE_CHARS_MAX))


class Kind(IntEnum):
    """What a key is for: the first byte of its word."""

    ACCOUNT = 0 << 3
    OPERATOR = 14 << 3
    USER = 20 << 3


def crc16(data: bytes) -> int:
    """Return CRC-16/XMODEM, of the polynomial 0x1021."""
    return binascii.crc_hqx(data, 0)


def encode(kind: Kind, public: bytes) -> str:
    """Return the word of 32 bytes of public key."""
    if len(public) != ED25519_PUBLIC_BYTES:
        raise LocalProtocolError(f"public key of {len(public)} bytes, not {ED25519_PUBLIC_BYTES}")
    return _checked(bytes([kind]) + public)


def decode_untrusted(kind: Kind, word: str) -> bytes:
    """Return the 32 bytes of public key of a word of this kind.  Raises RemoteProtocolError("malformed")."""
    body = _unchecked(word, PUBLIC_CHARS)
    if body[0] != kind:
        raise RemoteProtocolError("malformed", f"{word[:1]}... is no {kind.name.lower()} key")
    return body[1:]


def verify(public: bytes, message: bytes, signature: bytes) -> None:
    """Raise AuthError unless the signature of message is by the owner of 32 bytes of public key."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        raise AuthError("signature") from None


def sign_nonce(key: SigningKey, nonce_untrusted: bytes) -> bytes:
    """Return the 64-byte Ed25519 signature of the challenge of a NATS server.

    The signature has no context, so only what looks like such a challenge is signed: letters, digits, "_" and "-".
    Nothing else that this key signs looks so: every context holds a slash and a zero byte.
    Raises RemoteProtocolError("malformed").
    """
    if not _NONCE.fullmatch(nonce_untrusted):
        raise RemoteProtocolError("malformed", "the server's challenge has not the shape of a NATS nonce")
    return key.sign_ed25519(b"", nonce_untrusted)


class KeyPair:
    """An Ed25519 key and what it is for."""

    __slots__ = ("_private", "kind", "public")

    def __init__(self, kind: Kind, private: Ed25519PrivateKey) -> None:
        self.kind = kind
        self._private = private
        self.public = private.public_key().public_bytes_raw()  # 32 bytes

    @classmethod
    def generate(cls, kind: Kind) -> Self:
        """Return a fresh key from the operating system's randomness."""
        return cls.from_seed_bytes(kind, os.urandom(SEED_BYTES))

    @classmethod
    def from_seed_bytes(cls, kind: Kind, seed: bytes) -> Self:
        """Return the key that 32 bytes determine."""
        if len(seed) != SEED_BYTES:
            raise LocalProtocolError(f"seed of {len(seed)} bytes, not {SEED_BYTES}")
        return cls(kind, Ed25519PrivateKey.from_private_bytes(seed))

    @classmethod
    def from_seed_untrusted(cls, kind: Kind, word: str) -> Self:
        """Return the key of a seed's word, "SA..." say.  Raises RemoteProtocolError("malformed")."""
        body = _unchecked(word, SEED_CHARS)
        if body[:2] != _seed_prefix(kind):
            raise RemoteProtocolError("malformed", f"no seed of an {kind.name.lower()} key")
        return cls.from_seed_bytes(kind, body[2:])

    @property
    def word(self) -> str:
        """The public key as a word."""
        return encode(self.kind, self.public)

    @property
    def seed(self) -> str:
        """The seed as a word."""
        return _checked(_seed_prefix(self.kind) + self._private.private_bytes_raw())

    @property
    def seed_bytes(self) -> bytes:
        """The 32 bytes that from_seed_bytes() takes."""
        return self._private.private_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature of message."""
        signature = self._private.sign(message)
        assert len(signature) == ED25519_SIGNATURE_BYTES
        return signature

    def __repr__(self) -> str:
        return f"KeyPair({self.word})"  # never the seed


def _seed_prefix(kind: Kind) -> bytes:
    """Five bits say that it is a seed, and the eight after them of which kind."""
    return (_SEED_PREFIX << 8 | kind << 3).to_bytes(2, "big")


def _checked(body: bytes) -> str:
    return base64.b32encode(body + crc16(body).to_bytes(_CRC_BYTES, "little")).decode().rstrip("=")


def _unchecked(word: str, chars: int) -> bytes:
    """Return what _checked() made a word of."""
    if len(word) != chars:
        raise RemoteProtocolError("malformed", f"a key of {len(word)} characters, not {chars}")
    try:
        data = base64.b32decode(word + "=" * (-chars % 8))
    except (binascii.Error, ValueError):
        raise RemoteProtocolError("malformed", "a key that is no base32") from None
    body, check = data[:-_CRC_BYTES], data[-_CRC_BYTES:]
    if crc16(body).to_bytes(_CRC_BYTES, "little") != check or _checked(body) != word:
        raise RemoteProtocolError("malformed", "a mistyped key: its checksum is wrong")
    return body
