"""The DTLS handshake of a link whose records an engine will carry, by aiortc and OpenSSL.

    start() ─► connected ─► take_keys() ─► received_untrusted()* ─► forget()

After take_keys() the engine seals and opens.  One task is left for OpenSSL: a peer that lost our last flight repeats
its own, and then gets ours again.  Every record that OpenSSL sends in epoch 1 uses up a sequence number, which with
ChaCha20-Poly1305 is the nonce.  So records that leave here are checked: none has a number that is the engine's.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import cast

from conflux.anchor import frame
from conflux.anchor.speed import best_aead
from conflux.carrier import lean
from conflux.carrier.drop import Drop
from conflux.carrier.ice.agent import Ice
from conflux.carrier.native import dtls_keys
from conflux.carrier.native.dtls_keys import DTLS_1_2, SEQUENCE_OUT
from conflux.carrier.wire import DtlsKeys

lean.load()

from aiortc.rtcdtlstransport import (  # noqa: E402  # only findable now
    RTCCertificate,
    RTCDtlsParameters,
    RTCDtlsTransport,
    SRTPProtectionProfile,
)
from aiortc.rtcicetransport import RTCIceTransport  # noqa: E402
from OpenSSL import SSL  # noqa: E402

REPEAT_COUNT_MAX = SEQUENCE_OUT // 2  # handshake records taken after it; each may use up a sequence number

_HEADER_BYTES = 13
_AES = ("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384")
_CHACHA = ("ECDHE-ECDSA-CHACHA20-POLY1305",)


class Certificate(RTCCertificate):
    """Made for one link, so that an observer cannot tell by it that two links are one node's; it costs 0.2 ms.

    Offers only suites that the engine carries.  A side that is much faster with ChaCha20-Poly1305 (no AES instructions)
    gets it: as client by naming it first, as server by enforcing its own order.  Otherwise the client's order counts.
    """

    def _create_ssl_context(self, srtp_profiles: list[SRTPProtectionProfile]) -> SSL.Context:
        context = super()._create_ssl_context(srtp_profiles)
        prefers_chacha = best_aead() == frame.CHACHA20_POLY1305
        suites = _CHACHA + _AES if prefers_chacha else _AES + _CHACHA
        context.set_cipher_list(":".join(suites).encode())
        context.set_min_proto_version(DTLS_1_2)
        context.set_max_proto_version(DTLS_1_2)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_options(SSL.OP_NO_RENEGOTIATION)
        if prefers_chacha:
            context.set_options(SSL.OP_CIPHER_SERVER_PREFERENCE)
        return context


class _Outlet:
    """Stands between OpenSSL and the ICE agent; has what RTCDtlsTransport uses of an RTCIceTransport."""

    def __init__(self, ice: Ice, drop_counts: Counter[str]) -> None:
        self._ice = ice
        self._drop_counts = drop_counts

    @property
    def role(self) -> str:
        return self._ice.role

    @property
    def state(self) -> str:
        return self._ice.state

    async def _recv(self) -> bytes:
        return await self._ice._recv()

    async def _send(self, data: bytes) -> None:
        if self._may_leave(data):
            await self._ice._send(data)

    def send(self, data: bytes) -> None:
        if self._may_leave(data):
            self._ice.send_datagram(data)

    def _may_leave(self, data: bytes) -> bool:
        at = 0
        while at + _HEADER_BYTES <= len(data):
            number = int.from_bytes(data[at + 3 : at + 11], "big")  # epoch, then 48 bits of sequence
            if number >= (1 << 48) + SEQUENCE_OUT:
                self._drop_counts[Drop.DTLS_SEQUENCE] += 1
                return False
            at += _HEADER_BYTES + int.from_bytes(data[at + 11 : at + 13], "big")
        return True


class Handshake(RTCDtlsTransport):
    """The handshake of one link."""

    def __init__(self, ice: Ice, *, is_client: bool, drop_counts: Counter[str]) -> None:
        self._outlet = _Outlet(ice, drop_counts)
        super().__init__(cast(RTCIceTransport, self._outlet), [Certificate.generateCertificate()])
        self._set_role("client" if is_client else "server")
        self._drop_counts = drop_counts
        self._is_client = is_client
        self._is_taken = False
        self._repeat_count = 0

    async def start(self, remoteParameters: RTCDtlsParameters) -> None:  # aiortc's name
        """Shake hands, and read no further: what comes now is the engine's."""
        await super().start(remoteParameters)
        if self._task is not None:
            self._task.cancel()  # it has not run yet, so it does not report itself closed
            self._task = None

    def take_keys(self) -> DtlsKeys:
        """Return the keys of the connection, which is up.  Raises RemoteProtocolError."""
        assert self._ssl is not None
        keys = dtls_keys.take_keys(self._ssl, is_client=self._is_client)
        self._is_taken = True
        if self._is_client:  # the last flight is the server's, and it has arrived
            self.forget()
        return keys

    def received_untrusted(self, data: bytes) -> None:
        """Take a record that came after take_keys() and is not the engine's: of the handshake, or of another epoch."""
        if self._ssl is None or self._repeat_count >= REPEAT_COUNT_MAX:
            self._drop_counts[Drop.DTLS_LATE] += 1
            return
        self._repeat_count += 1
        self._ssl.bio_write(data)
        with contextlib.suppress(SSL.Error):
            self._ssl.recv(1)  # there is nothing to read, but reading makes OpenSSL process the record
        with contextlib.suppress(SSL.Error):
            self._outlet.send(self._ssl.bio_read(1500))

    def forget(self) -> None:
        """Drop OpenSSL's connection and its keys: the peer needs no more of its records."""
        self._ssl = None

    async def stop(self) -> None:
        """Say goodbye in DTLS, unless the engine has the keys: then the engine does."""
        if self._is_taken:
            self.forget()
        await super().stop()
