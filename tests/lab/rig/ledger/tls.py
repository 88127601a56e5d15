"""TLS 1.3 over TCP: one direction of a control connection, cut into records, records into frames, frames by name."""

from __future__ import annotations

import hmac
import struct
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from rig.ledger.keys import Keys

from conflux.control.envelope import Envelope
from conflux.control.lan.frame import FrameType

_HEAD_BYTES: Final = 5
_CHANGE, _ALERT, _HANDSHAKE = 20, 21, 22
_FRAME_HEAD_BYTES: Final = 3
_SUITES: Final = {b"\x13\x01": ("sha256", 16), b"\x13\x02": ("sha384", 32), b"\x13\x03": ("sha256", 32)}
_MESSAGES: Final = {8: "EncryptedExtensions", 11: "Certificate", 15: "CertificateVerify", 20: "Finished"}
_FINISHED: Final = 20
UNKNOWN: Final = "TLS record (not opened)"


class Connection:
    """What both directions of one TLS connection share."""

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self.random = ""  # the client's, in hex
        self.suite = b"\x13\x02"


class Direction:
    """One direction: bytes in order, as TCP delivers them.  side: CLIENT or SERVER, as the key log says it."""

    def __init__(self, connection: Connection, side: str) -> None:
        self._connection = connection
        self._side = side
        self._buffer = b""
        self._plain = b""
        self._epoch = 0  # 0 in the clear, 1 handshake, 2 application
        self._number = 0

    def feed(self, data: bytes) -> list[tuple[int, str | None]]:
        """Return, for each record that ends in data, its bytes there and the name of what it ends.

        The name is None if no frame ends in it.  What follows the last record in data is the beginning of the next.
        """
        before, self._buffer = len(self._buffer), self._buffer + data
        found: list[tuple[int, str | None]] = []
        while len(self._buffer) >= _HEAD_BYTES:
            size = _HEAD_BYTES + int.from_bytes(self._buffer[3:5], "big")
            if len(self._buffer) < size:
                break
            record, self._buffer = self._buffer[:size], self._buffer[size:]
            found.append((size - before, self._name(record)))
            before = 0
        return found

    def _name(self, record: bytes) -> str | None:
        kind = record[0]
        if kind == _HANDSHAKE:
            return self._hello(record)
        if kind == _CHANGE:
            return "TLS handshake"
        self._epoch = max(self._epoch, 1)
        plain = self._open(record)
        if plain is None:
            return UNKNOWN
        plain = plain.rstrip(b"\0")
        kind, plain = plain[-1], plain[:-1]
        if kind == _ALERT:
            return "TLS alert"
        if kind == _HANDSHAKE:
            self._shake(plain)
            return "TLS handshake"
        self._plain += plain
        return self._frames()

    def _hello(self, record: bytes) -> str:
        if record[5] == 1:
            self._connection.random = record[11:43].hex()
        elif record[5] == 2:
            self._connection.suite = record[44 + record[43] : 46 + record[43]]
        return "TLS handshake"

    def _shake(self, plain: bytes) -> None:
        at = 0
        while at < len(plain):
            if plain[at] == _FINISHED:
                self._epoch, self._number = 2, 0
            at += 4 + int.from_bytes(plain[at + 1 : at + 4], "big")

    def _frames(self) -> str | None:
        names = []
        while len(self._plain) >= _FRAME_HEAD_BYTES:
            size = _FRAME_HEAD_BYTES + int.from_bytes(self._plain[:2], "big")
            if len(self._plain) < size:
                break
            frame, self._plain = self._plain[:size], self._plain[size:]
            names.append(self._frame(frame))
        return " + ".join(dict.fromkeys(names)) if names else None

    def _frame(self, frame: bytes) -> str:
        kind = FrameType(frame[2])
        if kind is not FrameType.ENVELOPE:
            return kind.name
        envelope = Envelope.decode_untrusted(frame[_FRAME_HEAD_BYTES:])
        return self._connection.keys.kinds.get(envelope.id.hex(), "envelope passed on")

    def _open(self, record: bytes) -> bytes | None:
        stage = "HANDSHAKE_TRAFFIC_SECRET" if self._epoch == 1 else "TRAFFIC_SECRET_0"
        secret = self._connection.keys.tls.get(self._connection.random, {}).get(f"{self._side}_{stage}")
        if secret is None:
            return None
        digest, size = _SUITES[self._connection.suite]
        key, iv = _expand(secret, "key", size, digest), _expand(secret, "iv", 12, digest)
        nonce = bytes(a ^ b for a, b in zip(iv, self._number.to_bytes(12, "big"), strict=True))
        aead = ChaCha20Poly1305(key) if self._connection.suite == b"\x13\x03" else AESGCM(key)
        try:
            plain = aead.decrypt(nonce, record[_HEAD_BYTES:], record[:_HEAD_BYTES])
        except InvalidTag:
            return None
        self._number += 1
        return plain


def _expand(secret: bytes, label: str, size: int, digest: str) -> bytes:
    """HKDF-Expand-Label (RFC 8446, section 7.1), without context."""
    info = struct.pack("!HB", size, 6 + len(label)) + b"tls13 " + label.encode() + b"\0"
    made, block, number = b"", b"", 1
    while len(made) < size:
        block = hmac.digest(secret, block + info + bytes([number]), digest)
        made, number = made + block, number + 1
    return made[:size]
