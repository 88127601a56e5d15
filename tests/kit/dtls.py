"""cext/dtls/dtls.c by ctypes, and DTLS connections of OpenSSL in memory to compare it with."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiortc.rtcdtlstransport import SRTP_PROFILES, RTCCertificate
from kit.compile import build
from kit.tree import CEXT
from OpenSSL import SSL

from conflux.carrier.wire import DtlsKeys

ALERT, HANDSHAKE, APPLICATION_DATA = 21, 22, 23
OK, TRUNCATED, OTHER_EPOCH, VERSION, REPLAY, AUTH = range(6)
HEADER_BYTES = 13
SUITES = ("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305")


class _Keys(ctypes.Structure):
    _fields_ = (
        ("cipher", ctypes.c_int),
        ("key_out", ctypes.c_uint8 * 32),
        ("key_in", ctypes.c_uint8 * 32),
        ("iv_out", ctypes.c_uint8 * 12),
        ("iv_in", ctypes.c_uint8 * 12),
        ("sequence_out", ctypes.c_uint64),
    )


class _Record(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_uint8),
        ("payload", ctypes.c_void_p),
        ("payload_size", ctypes.c_size_t),
        ("record_size", ctypes.c_size_t),
    )


def load() -> ctypes.CDLL:
    """Compile dtls.c alone, and load it."""
    library = ctypes.CDLL(str(build(CEXT / "dtls/dtls.c", shared=True, libraries=("crypto",))))
    library.dtls_new.restype = ctypes.c_void_p
    library.dtls_delete.argtypes = (ctypes.c_void_p,)
    for name in ("dtls_payload_offset", "dtls_overhead"):
        getattr(library, name).argtypes = (ctypes.c_void_p,)
        getattr(library, name).restype = ctypes.c_size_t
    library.dtls_seal.argtypes = (ctypes.c_void_p, ctypes.c_uint8, ctypes.c_char_p, ctypes.c_size_t)
    library.dtls_seal.restype = ctypes.c_size_t
    library.dtls_unseal_untrusted.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_void_p)
    return library


@dataclass
class Opened:
    fault: int
    type: int
    payload: bytes
    record_size: int


class Records:
    """One link's records."""

    def __init__(self, library: ctypes.CDLL, keys: DtlsKeys) -> None:
        self._library = library
        given = _Keys(keys.cipher)
        given.sequence_out = keys.sequence_out
        for name in ("key_out", "key_in", "iv_out", "iv_in"):
            value = getattr(keys, name)
            ctypes.memmove(getattr(given, name), value, len(value))
        self._self = library.dtls_new(ctypes.byref(given))
        if not self._self:
            raise ValueError("refused")

    def __del__(self) -> None:
        self._library.dtls_delete(self._self)

    @property
    def overhead(self) -> int:
        return int(self._library.dtls_overhead(self._self))

    def seal(self, payload: bytes, type: int = APPLICATION_DATA) -> bytes:
        """Return a record, or no bytes if it was refused."""
        offset = self._library.dtls_payload_offset(self._self)
        room = ctypes.create_string_buffer(bytes(offset) + payload + bytes(16), offset + len(payload) + 16)
        size = self._library.dtls_seal(self._self, type, room, len(payload))
        return room.raw[:size]

    def unseal(self, datagram: bytes) -> Opened:
        room = ctypes.create_string_buffer(datagram, max(len(datagram), 1))
        out = _Record()
        fault = self._library.dtls_unseal_untrusted(self._self, room, len(datagram), ctypes.byref(out))
        payload = ctypes.string_at(out.payload, out.payload_size) if fault == OK else b""
        return Opened(fault, out.type, payload, out.record_size)


def connection(suite: str, *, is_client: bool, configure: Callable[[SSL.Context], Any] | None = None) -> SSL.Connection:
    """Return a DTLS connection in memory that has not begun its handshake."""
    certificate = RTCCertificate.generateCertificate()
    context = certificate._create_ssl_context(SRTP_PROFILES)
    context.set_cipher_list(suite.encode())
    if configure is not None:
        configure(context)
    made = SSL.Connection(context)
    (made.set_connect_state if is_client else made.set_accept_state)()
    return made


def outgoing(side: SSL.Connection) -> list[bytes]:
    """Return the datagrams, one per record, that a connection wants sent."""
    try:
        data = side.bio_read(65536)
    except SSL.WantReadError:
        return []
    return records(data)


def records(datagram: bytes) -> list[bytes]:
    """Split a datagram into records."""
    found = []
    while datagram:
        size = HEADER_BYTES + int.from_bytes(datagram[11:13], "big")
        found.append(datagram[:size])
        datagram = datagram[size:]
    return found


def advance(side: SSL.Connection) -> bool:
    """Let a connection's handshake go on; return whether it is done."""
    try:
        side.do_handshake()
    except SSL.WantReadError:
        return False
    return True


def pass_on(one: SSL.Connection, other: SSL.Connection) -> None:
    for datagram in outgoing(one):
        other.bio_write(datagram)


def handshake(client: SSL.Connection, server: SSL.Connection) -> None:
    """Shake hands, to the last flight, which goes from server to client."""
    done = (False, False)
    while done != (True, True):
        client_done = advance(client)
        pass_on(client, server)
        server_done = advance(server)
        pass_on(server, client)
        done = (client_done, server_done)
