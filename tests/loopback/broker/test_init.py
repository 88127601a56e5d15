"""`conflux control init`: what it writes, what it never writes again, and what it says to bad input."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from kit.operated import conflux

from conflux.broker import certificates, server_files
from conflux.broker.certificates import load_certificate, names
from conflux.broker.directory import Directory
from conflux.realm.broker.jwt import AccountJwt, OperatorJwt, UserJwt
from conflux.state.broker_files import load_signer
from conflux.state.directory import StateDir

HOST, OTHER, GATE = "a.example.org", "b.example.org", "gate.lan"


@pytest.fixture
def state(tmp_path, capsys):
    path = tmp_path / "state"
    assert conflux("realm", "create", "home", "--node", "alpha", "--state-dir", str(path)) == 0
    capsys.readouterr()
    return path


def init(state: Path, directory: Path, *options: str) -> int:
    return conflux("control", "init", str(directory), *options, "--state-dir", str(state))


def contents(directory: Path) -> dict[str, bytes]:
    return {str(file.relative_to(directory)): file.read_bytes() for file in directory.rglob("*") if file.is_file()}


def test_every_file_that_an_operator_needs_is_written_and_no_other(state, tmp_path, capsys):
    directory = tmp_path / "broker"
    assert init(state, directory, "--region", f"eu={HOST}", "--region", f"us={OTHER}", "--leaf", GATE) == 0
    assert capsys.readouterr().out.startswith("broker of realm home: 3 servers\n")
    server = {"ca.pem", "compose.yaml", "conflux-nats.service", "nats-server.conf", "server.key", "server.pem"}
    assert set(contents(directory)) == {
        "layout",
        "ca.pem",
        "operator.jwt",
        "system.jwt",
        "account.jwt",
        "issuer/broker",
        "issuer/broker.key",
        *(f"keys/{name}" for name in ("operator.nk", "system.nk", "account.nk", "signing.nk", "ca.key")),
        *(f"servers/{host}/{name}" for host in (HOST, OTHER) for name in server),
        *(f"leaves/{GATE}/{name}" for name in server | {"realm.creds", "system.creds"}),
    }


def test_nobody_else_reads_a_secret(state, tmp_path):
    directory = tmp_path / "broker"
    init(state, directory, "--servers", HOST, "--leaf", GATE)
    secrets = [file for file in directory.rglob("*") if file.suffix in (".nk", ".key", ".creds")]
    assert len(secrets) == 5 + 1 + 2 + 2
    assert {stat.S_IMODE(file.stat().st_mode) for file in secrets} == {0o600}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    for file in directory.rglob("*"):
        if file.is_file() and file not in secrets:
            assert b"PRIVATE KEY" not in file.read_bytes(), file


def test_the_jwts_say_who_vouches_for_whom(state, tmp_path):
    directory = tmp_path / "broker"
    init(state, directory, "--servers", HOST, "--leaf", GATE)
    made = Directory.open(directory)
    operator = OperatorJwt.decode_untrusted((directory / "operator.jwt").read_text().strip())
    system = AccountJwt.decode_untrusted((directory / "system.jwt").read_text().strip())
    assert (operator.operator, operator.system_account) == (made.key("operator").public, system.account)
    assert made.account().signing_keys == (made.key("signing").public,)
    assert made.account().leaf_nodes_max == 2


def test_the_issuer_on_this_machine_gets_the_signing_key(state, tmp_path):
    directory = tmp_path / "broker"
    init(state, directory, "--servers", HOST)
    kept = StateDir.open(state)
    signer = load_signer(kept, kept.anchor().realm_id)
    assert signer.key.public == Directory.open(directory).key("signing").public
    assert signer.account == Directory.open(directory).key("account").public


def test_the_issuer_itself_gets_a_jwt_at_once_and_once(state, tmp_path, capsys):
    assert StateDir.open(state).member().chain.credential.nats_jwt == ""
    init(state, tmp_path / "broker", "--servers", HOST)
    assert "Its own credential has one now" in capsys.readouterr().out
    member = StateDir.open(state).member()
    told = UserJwt.decode_untrusted(member.chain.credential.user_jwt)
    assert told.user == member.keys.public.encode()[:32]
    init(state, tmp_path / "broker")
    assert "Its own credential" not in capsys.readouterr().out
    assert StateDir.open(state).member().chain == member.chain


def test_a_second_run_changes_no_byte(state, tmp_path):
    directory = tmp_path / "broker"
    init(state, directory, "--servers", HOST, "--leaf", GATE)
    before = contents(directory)
    assert init(state, directory) == 0
    assert contents(directory) == before


def test_a_server_is_added_and_no_key_is_made_anew(state, tmp_path):
    directory = tmp_path / "broker"
    init(state, directory, "--servers", HOST)
    before = contents(directory)
    assert init(state, directory, "--servers", f"{HOST},{OTHER}", "--leaf", GATE) == 0
    after = contents(directory)
    kept = [name for name in before if name.startswith("keys/") or name.endswith((".key", ".pem", ".jwt"))]
    changed = {name for name in kept if before[name] != after[name]}
    assert changed == {"account.jwt"}  # it permits a site now
    config = after[f"servers/{HOST}/nats-server.conf"].decode()
    assert f'routes: ["nats-route://{OTHER}:6222"]' in config
    assert AccountJwt.decode_untrusted(after["account.jwt"].decode().strip()).issued_at > (
        AccountJwt.decode_untrusted(before["account.jwt"].decode().strip()).issued_at
    )


def test_a_site_is_added_beside_those_that_are_there(state, tmp_path):
    directory = tmp_path / "broker"
    init(state, directory, "--servers", HOST, "--leaf", GATE)
    assert init(state, directory, "--leaf", "barn.lan", "--leaf", GATE) == 0
    assert Directory.open(directory).layout().leaves == (GATE, "barn.lan")


def test_a_certificate_that_ends_soon_is_made_anew_for_the_same_key(state, tmp_path, monkeypatch):
    directory = tmp_path / "broker"
    init(state, directory, "--servers", HOST)
    before = contents(directory)
    monkeypatch.setattr(certificates, "RENEW_DAYS", 10**4)
    init(state, directory)
    after = contents(directory)
    assert {name for name in before if before[name] != after[name]} == {f"servers/{HOST}/server.pem"}
    certificate = load_certificate(after[f"servers/{HOST}/server.pem"])
    assert list(names(certificate)) == [HOST]


def test_a_run_that_was_broken_off_leaves_no_directory(state, tmp_path, monkeypatch):
    directory = tmp_path / "broker"

    def broken(*_: object, **__: object) -> str:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patched:
        patched.setattr(server_files, "compose", broken)
        assert init(state, directory, "--servers", HOST) == 1
    assert not directory.exists()
    assert init(state, directory, "--servers", HOST) == 0
    assert {entry.name for entry in tmp_path.iterdir()} == {"state", "broker"}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], "a broker needs a server: --servers HOST, or --region NAME=HOST"),
        (["--servers", "a b"], "must be a host name in lower case or an address, not 'a b'"),
        (["--servers", HOST, "--leaf", HOST], f"server {HOST}: named twice"),
        (["--servers", HOST, "--port", "65000"], "port 65000: 1024 to 62335"),
        (["--region", f"eu={HOST}", "--region", f"eu={OTHER}"], "a region is named twice"),
    ],
)
def test_bad_input_is_one_precise_line_and_writes_nothing(state, tmp_path, capsys, options, told):
    assert init(state, tmp_path / "broker", *options) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert told in err
    assert not (tmp_path / "broker").exists()


def test_a_directory_of_something_else_is_left_alone(state, tmp_path, capsys):
    (tmp_path / "broker").mkdir(mode=0o700)
    (tmp_path / "broker" / "novel.txt").write_text("x")
    assert init(state, tmp_path / "broker", "--servers", HOST) == 1
    assert "no broker is kept there" in capsys.readouterr().err
    assert set(contents(tmp_path / "broker")) == {"novel.txt"}


def test_the_broker_of_another_realm_is_left_alone(state, tmp_path, capsys):
    directory, other = tmp_path / "broker", tmp_path / "other"
    init(state, directory, "--servers", HOST)
    before = contents(directory)
    conflux("realm", "create", "work", "--node", "omega", "--state-dir", str(other))
    assert init(other, directory) == 1
    assert "the broker of another realm than work" in capsys.readouterr().err
    assert contents(directory) == before
    assert conflux("control", "push", str(directory), "--state-dir", str(other)) == 1
    assert "the broker of another realm than work" in capsys.readouterr().err


def test_a_second_broker_for_the_realm_does_not_take_the_place_of_the_first_key(state, tmp_path, capsys):
    init(state, tmp_path / "broker", "--servers", HOST)
    key = (state / "broker.key").read_bytes()
    assert init(state, tmp_path / "second", "--servers", HOST) == 1
    assert "the key of another broker" in capsys.readouterr().err
    assert (state / "broker.key").read_bytes() == key
    assert not (tmp_path / "second").exists()


def test_where_no_issuer_is_none_is_set_up(tmp_path, capsys):
    assert init(tmp_path / "nowhere", tmp_path / "broker", "--servers", HOST) == 1
    assert "no such state directory" in capsys.readouterr().err


def test_push_names_a_directory_that_is_none(state, tmp_path, capsys):
    assert conflux("control", "push", str(tmp_path / "none"), "--state-dir", str(state)) == 1
    assert "no broker is kept there; `conflux control init" in capsys.readouterr().err


def test_push_says_of_each_server_why_it_cannot_be_reached(state, tmp_path, capsys):
    init(state, tmp_path / "broker", "--servers", "127.0.0.2,127.0.0.3", "--port", "1024")
    capsys.readouterr()
    assert conflux("control", "push", str(tmp_path / "broker"), "--state-dir", str(state)) == 1
    err = capsys.readouterr().err
    assert "no server can be reached: 127.0.0.2: 127.0.0.2:1024: Connection refused; 127.0.0.3:" in err


def test_a_damaged_key_is_named(state, tmp_path, capsys):
    directory = tmp_path / "broker"
    init(state, directory, "--servers", HOST)
    (directory / "keys" / "signing.nk").write_text("SAAA\n")
    assert init(state, directory) == 1
    assert "keys/signing.nk: malformed: a key of 4 characters" in capsys.readouterr().err
