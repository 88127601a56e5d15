"""A link's datagrams over UDP: STUN, DTLS, SCTP chunks and what is in them, by name."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from rig.ledger.keys import Keys, RecordKey

from conflux.anchor import frame
from conflux.carrier.native.dcep import OPEN, PPID_DCEP
from conflux.carrier.wire import CHACHA20_POLY1305

_STUN: Final = {1: "STUN check", 0x101: "STUN answer", 0x111: "STUN error"}
_CHUNKS: Final = {
    0: "DATA", 1: "INIT", 2: "INIT ACK", 3: "SACK", 4: "HEARTBEAT", 5: "HEARTBEAT ACK", 6: "ABORT", 7: "SHUTDOWN",
    8: "SHUTDOWN ACK", 10: "COOKIE ECHO", 11: "COOKIE ACK", 14: "SHUTDOWN COMPLETE", 130: "RE-CONFIG", 132: "PAD",
    192: "FORWARD-TSN",
}  # fmt: skip
_ROUTES: Final = {1: "SETUP", 2: "CONFIRM", 3: "REFUSE", 4: "TEARDOWN"}
_RECORD_HEAD_BYTES: Final = 13
_HANDSHAKE, _ALERT, _CHANGE = 22, 21, 20
_DATA, _FIRST_PART = 0, 2
_TAG_BYTES: Final = 16
_PROBE_BYTES_MIN: Final = 200  # a HEARTBEAT with padding is one; without, it asks whether the peer lives

Flow = tuple[bytes, int, bytes, int]  # address and port of the source, then of the target


class Part(NamedTuple):
    """Bytes of one UDP payload that belong to one message."""

    name: str
    size: float


class Links:
    """Reads the datagrams of all links, in the order in which they were captured."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._known: dict[Flow, RecordKey] = {}
        self._begun: dict[tuple[Flow, int], str] = {}  # the message whose parts come on a stream

    def parts(self, flow: Flow, data: bytes) -> list[Part]:
        """Return the parts of one UDP payload; their sizes sum up to its size."""
        if data[0] < 4:
            return [Part(_STUN.get(int.from_bytes(data[:2], "big"), "STUN"), len(data))]
        found, at = [], 0
        while at + _RECORD_HEAD_BYTES <= len(data):
            size = _RECORD_HEAD_BYTES + int.from_bytes(data[at + 11 : at + 13], "big")
            found += self._record(flow, data[at : at + size])
            at += size
        return found or [Part("UDP of others", len(data))]

    def _record(self, flow: Flow, record: bytes) -> list[Part]:
        kind, epoch = record[0], int.from_bytes(record[3:5], "big")
        if kind in (_HANDSHAKE, _CHANGE):
            return [Part("DTLS handshake", len(record))]
        if kind == _ALERT:
            return [Part("DTLS close_notify", len(record))]
        plain = self._open(flow, record) if epoch == 1 else None
        return (
            [Part("DTLS record (not opened)", len(record))] if plain is None else self._sctp(flow, plain, len(record))
        )

    def _open(self, flow: Flow, record: bytes) -> bytes | None:
        known = self._known.get(flow)
        for key in (known,) if known is not None else reversed(self._keys.links):
            aead: ChaCha20Poly1305 | AESGCM
            if key.cipher == CHACHA20_POLY1305:
                nonce = bytes(a ^ b for a, b in zip(key.iv, b"\0\0\0\0" + record[3:11], strict=True))
                aead, body = ChaCha20Poly1305(key.key), record[13:]
            else:
                nonce, body = key.iv + record[13:21], record[21:]
                aead = AESGCM(key.key)
            try:
                size = struct.pack("!H", len(body) - _TAG_BYTES)
                plain = aead.decrypt(nonce, body, record[3:11] + record[:3] + size)
            except InvalidTag:
                continue
            self._known[flow] = key
            return plain
        return None

    def _sctp(self, flow: Flow, packet: bytes, size: int) -> list[Part]:
        found, at = [], 12
        while at + 4 <= len(packet):
            kind, flags, length = struct.unpack_from("!BBH", packet, at)
            padded = max(length + 3 & ~3, 4)
            found.append(Part(self._chunk(flow, kind, flags, packet[at : at + length]), padded))
            at += padded
        if len(packet) > _PROBE_BYTES_MIN and found[-1].name == "SCTP PAD":
            found = [Part("SCTP probe of the MTU", part.size) for part in found]
        shared = (size - sum(part.size for part in found)) / len(found)  # of the record and the packet
        return [Part(part.name, part.size + shared) for part in found]

    def _chunk(self, flow: Flow, kind: int, flags: int, chunk: bytes) -> str:
        if kind != _DATA:
            return "SCTP " + _CHUNKS.get(kind, str(kind))
        _, stream, _, ppid = struct.unpack_from("!IHHI", chunk, 4)
        if flags & _FIRST_PART:
            self._begun[flow, stream] = _message(ppid, chunk[16:])
        return self._begun.get((flow, stream), "SCTP DATA")


def _message(ppid: int, data: bytes) -> str:
    if ppid == PPID_DCEP:
        return "DCEP OPEN" if data[0] == OPEN else "DCEP ACK"
    if data[:1] == b"\x82" and data[1] in _ROUTES:
        return _ROUTES[data[1]]
    if data[:1] == bytes([frame.VERSION]):
        return "feedback frame" if data[1] & frame.FEEDBACK else "data frame"
    return "SCTP DATA"
