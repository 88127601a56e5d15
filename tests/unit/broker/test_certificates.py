"""The broker's certificates: for whom, by whom, for how long, and when a new one is made."""

from __future__ import annotations

import datetime

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from conflux.broker import certificates
from conflux.errors import ConfigError

NOW = datetime.datetime(2027, 1, 15, tzinfo=datetime.UTC)
CA_KEY, KEY = certificates.make_key(), certificates.make_key()
CA = certificates.make_ca(CA_KEY, "home", NOW)


def server(host: str = "nats.example.org", *, is_leaf: bool = False) -> bytes:
    return certificates.make_server(KEY, host, CA_KEY, CA, NOW, is_leaf=is_leaf)


def test_a_server_shows_its_certificate_and_the_authoritys():
    chain = x509.load_pem_x509_certificates(server())
    assert [certificate.public_key() for certificate in chain] == [KEY.public_key(), CA_KEY.public_key()]
    chain[0].verify_directly_issued_by(chain[1])
    assert server().endswith(CA)


@pytest.mark.parametrize("host", ["nats.example.org", "192.0.2.1", "2001:db8::1", "a" * 63 + ".example.org"])
def test_a_certificate_is_for_its_host_alone(host):
    assert list(certificates.names(certificates.load_certificate(server(host)))) == [host]


def test_the_certificate_of_a_site_is_of_no_use_as_a_client():
    for is_leaf in (False, True):
        certificate = certificates.load_certificate(server(is_leaf=is_leaf))
        uses = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert ExtendedKeyUsageOID.SERVER_AUTH in uses
        assert (ExtendedKeyUsageOID.CLIENT_AUTH in uses) is not is_leaf


def test_a_board_whose_clock_is_weeks_behind_believes_a_new_certificate():
    certificate = certificates.load_certificate(server())
    assert certificate.not_valid_before_utc <= NOW - datetime.timedelta(days=29)


def test_a_certificate_is_good_until_a_third_of_its_life_is_left():
    good = server()
    assert certificates.is_good(good, KEY, CA, NOW)
    assert certificates.is_good(good, KEY, CA, NOW + datetime.timedelta(days=certificates.SERVER_DAYS * 0.6))
    assert not certificates.is_good(good, KEY, CA, NOW + datetime.timedelta(days=certificates.SERVER_DAYS * 0.7))


def test_a_certificate_of_another_key_or_authority_is_not_good():
    other = certificates.make_key()
    assert not certificates.is_good(server(), other, CA, NOW)
    assert not certificates.is_good(server(), KEY, certificates.make_ca(other, "home", NOW), NOW)
    assert not certificates.is_good(b"rubbish", KEY, CA, NOW)


def test_what_is_no_key_or_certificate_is_refused():
    for load in (certificates.load_key, certificates.load_certificate):
        with pytest.raises(ConfigError):
            load(b"rubbish")
    assert certificates.load_key(certificates.key_pem(KEY)).public_key() == KEY.public_key()
