"""The broker's own certificate authority, and the certificates of its servers.

Nodes trust this authority alone, and pick it out of what a server shows by its fingerprint, so its certificate stands
behind that of each server.  Among themselves servers ask for a certificate too.  A site's server has one that does not
make it a member of the cluster.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from ipaddress import ip_address

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from conflux.errors import ConfigError

CA_DAYS = 20 * 365
SERVER_DAYS = 2 * 365
RENEW_DAYS = SERVER_DAYS // 3  # `conflux control init` makes a new one when this little is left
EARLY_DAYS = 30  # a board whose clock is behind connects all the same
_NAME_CHARS_MAX = 60  # of the 64 that a name may have

PrivateKey = ec.EllipticCurvePrivateKey


def make_key() -> PrivateKey:
    """Return a fresh key, P-256."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: PrivateKey) -> bytes:
    """Return a private key in PEM."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def load_key(pem: bytes) -> PrivateKey:
    """Return the key of a PEM.  Raises ConfigError."""
    try:
        key = load_pem_private_key(pem, None)
    except ValueError:
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError("no key that this version of conflux writes")
    return key


def load_certificate(pem: bytes) -> x509.Certificate:
    """Return the first certificate of a PEM.  Raises ConfigError."""
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise ConfigError("no certificate in PEM") from None


def make_ca(key: PrivateKey, realm: str, now: datetime.datetime) -> bytes:
    """Return the authority's certificate in PEM."""
    name = _name(f"{realm} broker")
    usage = _usage(key_cert_sign=True, crl_sign=True)
    certificate = (
        _begin(name, name, key, now, CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(Encoding.PEM)


def make_server(
    key: PrivateKey, host: str, ca_key: PrivateKey, ca_pem: bytes, now: datetime.datetime, *, is_leaf: bool
) -> bytes:
    """Return a server's certificate and, behind it, the authority's, in PEM.

    is_leaf: it is for a site's server, which no server of a cluster takes for one of its own.
    """
    ca = load_certificate(ca_pem)
    uses = [ExtendedKeyUsageOID.SERVER_AUTH] if is_leaf else [ExtendedKeyUsageOID.SERVER_AUTH, _CLIENT]
    certificate = (
        _begin(_name(host), ca.subject, key, now, SERVER_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .add_extension(x509.SubjectAlternativeName([_subject(host)]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    return certificate.public_bytes(Encoding.PEM) + ca_pem


def is_good(pem: bytes, key: PrivateKey, ca_pem: bytes, now: datetime.datetime) -> bool:
    """Say whether a server's certificate is by this authority, for this key, and will hold for a while."""
    try:
        certificate, ca = load_certificate(pem), load_certificate(ca_pem)
        certificate.verify_directly_issued_by(ca)
    except (ConfigError, InvalidSignature, ValueError, TypeError):
        return False
    left = certificate.not_valid_after_utc - now
    return certificate.public_key() == key.public_key() and left > datetime.timedelta(days=RENEW_DAYS)


_CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH


def _begin(
    subject: x509.Name, issuer: x509.Name, key: PrivateKey, now: datetime.datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=EARLY_DAYS))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:_NAME_CHARS_MAX])])


def _subject(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def names(certificate: x509.Certificate) -> Sequence[str]:
    """Return the host names and addresses that a certificate is for."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return [str(name.value) for name in found]
