"""The acceptor's TLS certificate: self-signed, made per boot, says nothing.  What counts is its hash.

Python's ssl can neither ask for a client certificate it does not verify nor export keying material, so the handshake
inside TLS binds itself to the certificate (tls-server-end-point, RFC 5929): whoever sits in the middle has another.
"""

from __future__ import annotations

import datetime
import os
import ssl
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from conflux.crypto.kdf import sha256
from conflux.errors import RemoteProtocolError

# No dates to verify: nobody judges them, and boards may have no clock.
_NOT_BEFORE = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
_NOT_AFTER = datetime.datetime(9999, 12, 31, tzinfo=datetime.UTC)


@dataclass(frozen=True, slots=True)
class Certificate:
    """A listener's TLS side."""

    context: ssl.SSLContext
    digest: bytes  # SHA-256 of the certificate

    @classmethod
    def make(cls) -> Certificate:
        """Return a fresh key and certificate; neither is ever on disk."""
        key = Ed25519PrivateKey.generate()
        nobody = x509.Name([])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(nobody)
            .issuer_name(nobody)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_NOT_BEFORE)
            .not_valid_after(_NOT_AFTER)
            .sign(key, None)
        )
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        pem += certificate.public_bytes(Encoding.PEM)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.num_tickets = 0  # a resumed session would skip the certificate the handshake binds to
        _load(context, pem)
        return cls(context, sha256(certificate.public_bytes(Encoding.DER)))


def _load(context: ssl.SSLContext, pem: bytes) -> None:
    """Load key and certificate from memory: the ssl module only takes paths, and this path leads to no disk."""
    descriptor = os.memfd_create("conflux-tls", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def client_context() -> ssl.SSLContext:
    """Return the dialler's TLS side: it takes any certificate, and proves what it saw in the handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def peer_digest(tls: ssl.SSLObject) -> bytes:
    """Return the hash of the certificate that the acceptor showed."""
    certificate = tls.getpeercert(binary_form=True)
    if certificate is None:
        raise RemoteProtocolError("no-certificate")
    return sha256(certificate)
