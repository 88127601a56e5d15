"""The acceptor's TLS certificate: self-signed, made in every boot, without a name.  Only its hash matters.

Python's ssl can neither ask for a client certificate it does not verify nor export keying material, so the handshake
inside TLS binds itself to the certificate (tls-server-end-point, RFC 5929): a node in the middle has another one.
"""

from __future__ import annotations

import datetime
import os
import ssl
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from conflux.control.drop import Drop
from conflux.crypto.kdf import sha256
from conflux.errors import RemoteProtocolError

MEETING = "conflux-2"  # ALPN (RFC 7301): both builds meet as meeting.py has it; without it, as handshake.py has it

# The dates mean nothing: no peer checks them, and boards may have no clock.
_NOT_BEFORE = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
_NOT_AFTER = datetime.datetime(9999, 12, 31, tzinfo=datetime.UTC)


class Certificate(NamedTuple):
    """A listener's TLS context, and the hash of its certificate."""

    context: ssl.SSLContext
    digest: bytes  # SHA-256 of the certificate

    @classmethod
    def make(cls, *, meets: bool = True) -> Certificate:
        """Return a fresh key and certificate; neither is ever written to disk.

        meets: agree to the handshake of meeting.py; False: as earlier builds do.
        """
        key = Ed25519PrivateKey.generate()
        no_name = x509.Name([])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(no_name)
            .issuer_name(no_name)
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
        if meets:
            context.set_alpn_protocols([MEETING])
        context.num_tickets = 0  # a resumed session would skip the certificate that the handshake binds to
        _load(context, pem)
        return cls(context, sha256(certificate.public_bytes(Encoding.DER)))


def _load(context: ssl.SSLContext, pem: bytes) -> None:
    """Load key and certificate from memory: the ssl module takes only paths, and this path leads to no disk."""
    descriptor = os.memfd_create("conflux-tls", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def client_context(*, meets: bool = False) -> ssl.SSLContext:
    """Return the dialler's TLS context: it takes any certificate; the handshake proves which one it saw.

    meets: offer the handshake of meeting.py; False: who joins has no need of it.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if meets:
        context.set_alpn_protocols([MEETING])
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def peer_digest(tls: ssl.SSLObject) -> bytes:
    """Return the hash of the acceptor's certificate.  Raises RemoteProtocolError if there is none."""
    certificate = tls.getpeercert(binary_form=True)
    if certificate is None:
        raise RemoteProtocolError(Drop.NO_CERTIFICATE)
    return sha256(certificate)


def agreed_to_meet(tls: ssl.SSLObject) -> bool:
    """Say whether both ends' builds know the handshake of meeting.py."""
    return tls.selected_alpn_protocol() == MEETING
