"""What `conflux realm invite` puts into a token of a realm that has a broker."""

import ssl

import pytest
from kit.desk import Desk

from conflux.crypto.kdf import sha256
from conflux.realm.invite import Token
from conflux.realm.lists import BrokerNotice
from conflux.state.broker_files import broker_of, save_notice, wanted_notice


@pytest.fixture
def desk(tmp_path, capsys):
    return Desk.after(Desk.found, tmp_path, capsys)


def init(desk: Desk, *servers: str) -> None:
    desk.do("gate", "control", "init", desk.path / "broker", "--servers", ",".join(servers))


def invite(desk: Desk, *options: str) -> Token:
    return Token.parse(desk.do("gate", "realm", "invite", "--quiet", *options))


def test_realm_without_a_broker_invites_to_its_lans(desk):
    assert invite(desk).broker is None


def test_token_names_the_servers_their_authority_and_an_admission(desk):
    init(desk, "nats.example.org", "192.0.2.9")
    token = invite(desk, "--ttl", "2h")
    assert token.broker.servers == ("nats.example.org:4222", "192.0.2.9:4222")
    ca = ssl.PEM_cert_to_DER_cert((desk.path / "broker" / "ca.pem").read_text())
    assert token.broker.ca_fingerprint == sha256(ca)
    assert token.broker.admission.expires_at == token.not_after
    token.broker.admission.rebuild(token.invite_id, token.secret)
    assert len(token.format()) < 1024


def test_broker_is_left_out_on_request(desk):
    init(desk, "nats.example.org")
    assert invite(desk, "--no-broker").broker is None


def test_code_with_a_broker_is_still_printed(desk, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    init(desk, "nats.example.org", "b.example.org", "c.example.org", "d.example.org")
    said = desk.do("gate", "realm", "invite", "--qr")
    assert said.count("█") > 500
    assert Token.parse(said.split("conflux join ")[1].split()[0]).broker is not None


def test_setting_up_a_broker_leaves_word_for_the_daemon(desk):
    init(desk, "nats.example.org")
    notice = wanted_notice(desk.state("gate"))
    assert (notice.servers, notice.area) == (("tls://nats.example.org:4222",), "main")
    member = desk.state("gate").member()
    assert broker_of(desk.state("gate"), member.anchor, lambda: desk.now_unix("gate")) == notice


def test_realm_whose_broker_is_gone_invites_to_its_lans(desk):
    init(desk, "nats.example.org")
    save_notice(desk.state("gate"), BrokerNotice((), b"", "main"))
    assert invite(desk).broker is None
