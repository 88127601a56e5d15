"""`conflux realm revoke` and `conflux realm revoked`, run as a person runs them, with no daemon."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from kit.desk import Desk

from conflux.broker.directory import Directory
from conflux.broker.push import Ended, Outcome, next_account
from conflux.cli import control
from conflux.ids import format_node_id
from conflux.realm.broker.jwt import AccountJwt
from conflux.state.founding import issuer_of


def _furnish(desk: Desk) -> None:
    desk.found()
    desk.join_by_file("k", "kitchen")


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk.after(_furnish, tmp_path, capsys)


def test_a_node_is_revoked_without_a_daemon_and_listed(desk):
    node = format_node_id(desk.node_id("k"))
    assert desk.do("gate", "realm", "revoked") == "no node is revoked\n"
    out = desk.do("gate", "realm", "revoke", "Kitchen", "--reason", "stolen")
    assert f"kitchen, {node}" in out
    assert "no daemon runs here" in out
    assert "broker" not in out  # the realm has none
    (row,) = desk.ask("gate", "realm", "revoked")["revoked"]
    assert (row["node"], row["by"], row["reason"]) == (node, "gate", "stolen")
    out = desk.do("gate", "realm", "revoked")
    assert out.splitlines()[0].split() == ["name", "node", "since", "by", "reason"]
    assert node in out


def test_a_revocation_is_on_record_with_its_reason_and_among_the_members(desk):
    desk.do("gate", "realm", "revoke", "kitchen", "--reason", "stolen")
    states = {row["name"]: row["state"] for row in desk.ask("gate", "realm", "members")["members"]}
    assert states == {"gate": "member", "kitchen": "revoked"}
    last = desk.ask("gate", "realm", "audit")["entries"][-1]
    assert (last["what"], last["name"], last["detail"]) == ("revoked", "kitchen", "stolen")


def test_a_member_that_another_issuer_revoked_is_shown_as_revoked(desk):
    desk.join_by_file("p", "porch")
    desk.do("gate", "realm", "grant", "porch", "--issuer", "--file", desk.path / "porch.grant")
    desk.do("p", "realm", "accept", desk.path / "porch.grant")
    desk.do("p", "realm", "revoke", format_node_id(desk.node_id("k")))
    for kept in (desk.path / "p" / "lists").iterdir():  # as if it had come over the network
        (desk.path / "gate" / "lists").mkdir(mode=0o700, exist_ok=True)
        (desk.path / "gate" / "lists" / kept.name).write_bytes(kept.read_bytes())
        (desk.path / "gate" / "lists" / kept.name).chmod(0o600)
    states = {row["name"]: row["state"] for row in desk.ask("gate", "realm", "members")["members"]}
    assert states["kitchen"] == "revoked"


def test_a_node_that_is_revoked_is_not_signed_for_again(desk):
    desk.do("gate", "realm", "revoke", "kitchen")
    assert "new keys" in desk.refused("gate", "realm", "sign", "--force", desk.path / "k.request")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("cellar",), "not on this issuer's record"),
        (("kitchen", "--reason", "two words"), "one word"),
        (("gate",), "cannot revoke itself"),
        (("kitchen", "--broker", "/nowhere"), "/nowhere"),
    ],
)
def test_a_revocation_that_makes_no_sense_is_refused_and_changes_nothing(desk, words, said):
    assert said in desk.refused("gate", "realm", "revoke", *words)
    assert desk.do("gate", "realm", "revoked") == "no node is revoked\n"


def test_a_member_revokes_nobody(desk):
    assert "does not issue" in desk.refused("k", "realm", "revoke", "gate")


# ── and a broker ──


@pytest.fixture
def broker(desk: Desk) -> Path:
    """A broker's directory; kitchen has a JWT for it."""
    path = desk.path / "broker"
    desk.do("gate", "control", "init", path, "--servers", "broker.example")
    issuer = issuer_of(desk.state("gate"), desk.state("gate").member())
    assert issuer is not None
    issuer.renew(desk.state("k").member().chain, now_unix=desk.now_unix("gate"))
    return path


def test_a_person_reads_that_the_broker_admits_the_node_until_it_is_told(desk, broker):
    assert "still admits it, until its operator runs: conflux control push DIR" in desk.do(
        "gate", "realm", "revoke", "kitchen"
    )


def test_with_the_operators_directory_the_account_revokes_the_node(desk, broker, monkeypatch):
    pushed: list[tuple[Path, AccountJwt]] = []

    def push(directory: Directory, ended: Iterable[Ended], now_unix: int) -> Outcome:
        account, is_new = next_account([directory.account()], ended, now_unix)
        pushed.append((directory.path, account))
        return Outcome(account, is_new, ("broker.example",), {})

    monkeypatch.setattr(control, "push_account", push)
    out = desk.do("gate", "realm", "revoke", "kitchen", "--broker", broker)
    assert "broker.example admits it no more" in out
    ((path, account),) = pushed
    assert path == broker
    assert list(account.revoked) == [desk.state("k").member().keys.public.encode()[:32]]


def test_a_broker_that_cannot_be_reached_is_no_reason_not_to_revoke(desk, broker):
    code, out, err = desk.run("gate", "realm", "revoke", "kitchen", "--broker", broker)
    assert (code, err) == (1, "")
    assert "still admits it" in out
    assert f"Later: conflux control push {broker}" in out
    assert len(desk.ask("gate", "realm", "revoked")["revoked"]) == 1
