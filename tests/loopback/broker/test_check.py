"""`conflux control check`: for everything that can be wrong, the words that say so."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kit.broker import debian_server
from kit.operated import conflux, free_base_port, operated

from conflux.broker import certificates
from conflux.broker import check as check_module
from conflux.broker.check import Ask, check
from conflux.broker.directory import Directory
from conflux.realm.broker.users import Signer
from conflux.realm.issued import End
from conflux.realm.member import Member
from conflux.state.directory import StateDir
from conflux.state.founding import issuer_of

ONE = "127.0.0.2"


class Broker:
    """A running broker and a state directory whose node is its member."""

    def __init__(self, tmp_path: Path) -> None:
        self.state_dir, self.directory, self.port = tmp_path / "state", tmp_path / "broker", free_base_port()
        assert self.conflux("realm", "create", "home", "--node", "alpha") == 0
        assert self.conflux("control", "init", str(self.directory), "--servers", ONE, "--port", str(self.port)) == 0
        self.state = StateDir.open(self.state_dir)
        self.renew(int(time.time()) - 5)

    def conflux(self, *arguments: str) -> int:
        return conflux(*arguments, "--state-dir", str(self.state_dir))

    def renew(self, now_unix: int) -> None:
        """Give the node a new credential, of this date."""
        member = self.state.member()
        issuer = issuer_of(self.state, member)
        chain = issuer.renew(member.chain, now_unix=max(now_unix, member.chain.credential.not_before))
        self.state.save_member(Member(member.keys, member.anchor, chain))

    def check(self, *options: str) -> int:
        where = [] if "--server" in options else ["--server", f"{ONE}:{self.port}"]
        ca = [] if "--ca" in options else ["--ca", str(self.directory / "ca.pem")]
        return self.conflux("control", "check", *where, *ca, *options)


@pytest.fixture(scope="module")
def broker(tmp_path_factory) -> Iterator[Broker]:
    tmp_path = tmp_path_factory.mktemp("check")
    made = Broker(tmp_path)
    with operated(debian_server(), made.directory, made.port, tmp_path):
        yield made


def wrong(capsys, code: int) -> str:
    """Return the one line that says what is wrong."""
    out = capsys.readouterr().out
    [line] = [line for line in out.splitlines() if "WRONG: " in line] or [f"nothing wrong in {out}"]
    assert code == 1
    return line


def test_a_broker_that_lets_the_node_in_is_praised(broker, capsys):
    assert broker.check() == 0
    clock, credential, server = capsys.readouterr().out.splitlines()
    assert clock.startswith("clock: 20")
    assert credential.startswith("credential: admits alpha to account A")
    assert server.startswith(f"{ONE}:{broker.port}: lets this node in; nats-server 2.")


def test_servers_and_authority_come_from_the_configuration(broker, capsys, tmp_path):
    config = tmp_path / "conflux.toml"
    config.write_text(f'[control.nats]\nservers = ["tls://{ONE}:{broker.port}"]\nca = "{broker.directory}/ca.pem"\n')
    assert broker.conflux("control", "check", "--config", str(config)) == 0
    assert f"{ONE}:{broker.port}: lets this node in" in capsys.readouterr().out


def test_servers_that_the_realm_announces_are_checked_where_none_is_configured(broker, capsys, tmp_path):
    config = tmp_path / "conflux.toml"
    config.write_text("")
    assert broker.conflux("control", "check", "--config", str(config)) == 0
    assert "lets this node in" in capsys.readouterr().out
    broker.conflux("control", "announce", "--none", "--config", str(config))
    assert "Members are told when the daemon of this issuer runs" in capsys.readouterr().out
    assert broker.conflux("control", "check", "--config", str(config)) == 1
    said = capsys.readouterr().err
    assert "no server is configured or announced: [control.nats] servers, or --server HOST:PORT" in said
    assert broker.check("--server", "here:there") == 2
    assert "--server: must be HOST, HOST:PORT or [IPV6]:PORT, not 'here:there'" in capsys.readouterr().err


def test_a_name_that_does_not_resolve_is_said(broker, capsys):
    assert "the name nats.invalid does not resolve" in wrong(capsys, broker.check("--server", "nats.invalid:4222"))


def test_a_closed_port_is_said(broker, capsys):
    said = wrong(capsys, broker.check("--server", f"{ONE}:{broker.port + 1}"))
    assert f"nothing listens at port {broker.port + 1} of {ONE}" in said


@contextlib.contextmanager
def listening(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """Run a listener that answers each connection so; yield its port."""
    with socket.create_server((ONE, 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection, contextlib.suppress(OSError):
                        answer(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_another_program_at_the_port_is_said(broker, capsys):
    with listening(lambda connection: connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")) as port:
        said = wrong(capsys, broker.check("--server", f"{ONE}:{port}"))
    assert "something else than a NATS server" in said


def test_a_server_without_tls_is_said(broker, capsys):
    with listening(lambda connection: connection.sendall(b'INFO {"version":"2.9.10"}\r\n')) as port:
        assert "the server has no TLS" in wrong(capsys, broker.check("--server", f"{ONE}:{port}"))


def test_a_server_that_hangs_is_said(broker, capsys, monkeypatch):
    monkeypatch.setattr(check_module, "WAIT_S", 0.5)
    held = threading.Event()
    with listening(lambda connection: held.wait(5) and None) as port:
        said = wrong(capsys, broker.check("--server", f"{ONE}:{port}"))
        held.set()
    assert "accepts the connection, and is silent for" in said


def test_a_certificate_for_another_name_is_said(broker, capsys):
    # "127.2" is a way to write the server's address that its certificate does not have.
    said = wrong(capsys, broker.check("--server", f"127.2:{broker.port}"))
    assert f"its certificate is for {ONE}, not for 127.2" in said


@pytest.mark.parametrize("first", [b"", b"x" * 9000])
def test_a_server_that_shows_no_certificate_the_second_time_is_not_asked_for_ever(first):
    found: list[bytes] = []
    with listening(lambda connection: connection.sendall(first)) as port:
        asking = threading.Thread(target=lambda: found.append(check_module._shown(ONE, port)), daemon=True)
        asking.start()
        asking.join(5.0)
    assert found == [b""]


@pytest.mark.parametrize("code", [62, 20])
def test_a_certificate_does_nothing_to_a_terminal(monkeypatch, code):
    key, now = certificates.make_key(), datetime.datetime.now(datetime.UTC)
    ca = certificates.make_ca(key, "\x1b[2J", now)
    shown = certificates.make_server(key, "a\x1b[2J" + "b" * 40, key, ca, now, is_leaf=False)
    monkeypatch.setattr(check_module, "_shown", lambda host, port: shown)
    error = ssl.SSLCertVerificationError()
    error.verify_code, error.verify_message = code, ""
    assert check_module._distrust(error, None, ONE, 1, 0).isprintable()


def test_a_certificate_of_another_authority_is_said(broker, capsys, tmp_path):
    other = certificates.make_ca(certificates.make_key(), "other", datetime.datetime.now(datetime.UTC))
    (tmp_path / "ca.pem").write_bytes(other)
    said = wrong(capsys, broker.check("--ca", str(tmp_path / "ca.pem")))
    assert "its certificate is signed by CN=home broker, not by that of the CA file, SHA-256" in said


def test_a_ca_file_that_is_none_is_said(broker, capsys, tmp_path):
    (tmp_path / "ca.pem").write_text("rubbish")
    assert broker.check("--ca", str(tmp_path / "ca.pem")) == 1
    assert "no certificate in PEM" in capsys.readouterr().err
    assert broker.check("--ca", str(tmp_path / "none.pem")) == 1
    assert "cannot read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("days", "told"),
    [(-3 * 365, "its certificate ended at 20"), (+365, "its certificate begins at 20")],
)
def test_the_dates_of_a_certificate_are_said(capsys, tmp_path, days, told):
    made = Broker(tmp_path)
    folder = made.directory / "servers" / ONE
    ca_key = certificates.load_key((made.directory / "keys" / "ca.key").read_bytes())
    key = certificates.load_key((folder / "server.key").read_bytes())
    then = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    ca = (made.directory / "ca.pem").read_bytes()
    (folder / "server.pem").write_bytes(certificates.make_server(key, ONE, ca_key, ca, then, is_leaf=False))
    capsys.readouterr()
    with operated(debian_server(), made.directory, made.port, tmp_path):
        said = wrong(capsys, made.check())
    assert told in said
    assert "this host's clock says" in said


def test_a_credential_without_a_jwt_is_said(tmp_path, capsys):
    assert conflux("realm", "create", "home", "--node", "alpha", "--state-dir", str(tmp_path / "state")) == 0
    capsys.readouterr()
    code = conflux("control", "check", "--server", f"{ONE}:1", "--state-dir", str(tmp_path / "state"))
    assert "it has no NATS user JWT" in wrong(capsys, code)


def test_a_node_of_no_realm_is_said(tmp_path, capsys):
    StateDir.open(tmp_path / "state", create=True)
    assert conflux("control", "check", "--server", f"{ONE}:1", "--state-dir", str(tmp_path / "state")) == 1
    assert "in no realm yet" in capsys.readouterr().err


def findings(broker: Broker, *, now_unix: int, floor_unix: int = 0) -> str:
    ask = Ask(((ONE, broker.port),), (broker.directory / "ca.pem").read_text(), "main")
    found = check(ask, broker.state.member(), floor_unix=floor_unix, now_unix=now_unix)
    return "\n".join(f"{finding.where}: {finding.text}" for finding in found if finding.is_wrong)


def test_a_jwt_that_ended_or_is_to_come_is_said_with_both_clocks(broker):
    now_unix = int(time.time())
    assert "its NATS user JWT ended 1 d ago" in findings(broker, now_unix=now_unix + 31 * 86400 + 60)
    assert "this host's clock is behind" in findings(broker, now_unix=1000)


def test_a_clock_that_is_behind_what_the_realm_signed_is_said(broker):
    now_unix = int(time.time())
    said = findings(broker, now_unix=now_unix, floor_unix=now_unix + 7200)
    assert "clock: " in said
    assert "at least 2 h behind" in said


def test_a_revoked_node_is_told_so_with_the_operators_directory(tmp_path, capsys):
    made = Broker(tmp_path)
    with operated(debian_server(), made.directory, made.port, tmp_path):
        member = made.state.member()
        issuer_of(made.state, member).end(member.node_id, End.REVOKED, now_unix=int(time.time()))
        assert made.conflux("control", "push", str(made.directory)) == 0
        capsys.readouterr()
        said = wrong(capsys, made.check())
        assert (
            "the server does not let this node in (Authorization Violation): the realm has revoked this node, or"
            in said
        )
        said = wrong(capsys, made.check("--broker", str(made.directory)))
        assert "(Authorization Violation): it was revoked at 20" in said


def test_an_account_or_key_that_the_server_does_not_know_is_said(tmp_path, capsys):
    made = Broker(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    stranger = Broker(other)
    with operated(debian_server(), made.directory, made.port, tmp_path):
        member = made.state.member()
        signer = Directory.open(stranger.directory).signer()
        for account, told in (
            (signer.account, "its JWT is for the account of another broker"),
            (Directory.open(made.directory).signer().account, "which the account does not list"),
        ):
            forged = Signer(account, signer.key).mint(member.chain.credential)
            text = check_module.refusal_of(_with_jwt(member, forged), [Directory.open(made.directory).account()])
            assert told in text
        assert "does not know the realm's account" in check_module.refusal_of(member, [])
        assert check_module.refusal_of(member, [Directory.open(made.directory).account()]) is None


def _with_jwt(member: Member, jwt: str) -> Member:
    credential = dataclasses.replace(member.chain.credential, nats_jwt=jwt)
    return dataclasses.replace(member, chain=dataclasses.replace(member.chain, credential=credential))
