"""The broker's certificate authority, for a joiner that knows its fingerprint alone.

A server shows the authority behind its own certificate.  Nothing is believed but the fingerprint: what has it becomes
the only authority of the connection that follows.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ssl
from collections.abc import Iterator
from ipaddress import ip_address
from typing import TYPE_CHECKING

from conflux.control.lan.dial import connect_first, resolve
from conflux.control.nats.config import INFO_BYTES_MAX, Server
from conflux.control.nats.end import ConnectError, End

if TYPE_CHECKING:
    from OpenSSL import SSL

SHOWN_BYTES_MAX = 64 * 1024  # of the handshake, with the chain in it
_READ_BYTES = 16384


async def fetch_authority(server: Server, fingerprint: bytes) -> str:
    """Return the certificate with that SHA-256, in PEM, of those that a server shows.  Raises ConnectError, OSError."""
    sock, _ = await connect_first(await resolve(*server))
    reader, writer = await asyncio.open_connection(sock=sock, limit=INFO_BYTES_MAX)
    try:
        with contextlib.suppress(ValueError):  # a line that is too long is none of the protocol's
            if (await reader.readline()).startswith(b"INFO "):
                for der in await _shown_untrusted(server[0], reader, writer):
                    if hashlib.sha256(der).digest() == fingerprint:
                        return ssl.DER_cert_to_PEM_cert(der)
                raise ConnectError(End.CERTIFICATE, "not of the authority that the invitation names")
        raise ConnectError(End.MALFORMED)
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _shown_untrusted(host: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Iterator[bytes]:
    """Return the certificates that a server shows, in DER.  Python's ssl tells only the first before 3.13."""
    from cryptography.hazmat.primitives.serialization import Encoding
    from OpenSSL import SSL  # 5 MB that members do without

    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_verify(SSL.VERIFY_NONE, None)
    tls = SSL.Connection(context, None)
    tls.set_connect_state()
    if not _is_address(host):
        tls.set_tlsext_host_name(host.encode("idna"))
    byte_count = 0
    while True:
        try:
            tls.do_handshake()
            break
        except SSL.WantReadError:
            writer.write(_outgoing(tls))
            data = await reader.read(_READ_BYTES)
            byte_count += len(data)
            if not data or byte_count > SHOWN_BYTES_MAX:
                raise ConnectError(End.TLS) from None
            tls.bio_write(data)
        except SSL.Error:
            raise ConnectError(End.TLS) from None
    chain = tls.get_peer_cert_chain(as_cryptography=True) or []
    return (certificate.public_bytes(Encoding.DER) for certificate in chain)


def _outgoing(tls: SSL.Connection) -> bytes:
    from OpenSSL import SSL

    try:
        return tls.bio_read(_READ_BYTES)
    except SSL.WantReadError:
        return b""


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
