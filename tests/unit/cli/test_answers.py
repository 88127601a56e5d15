"""With --json every command of an issuer and of its members prints one record of its page, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from kit.desk import Desk
from kit.records import ANSWERS, misfits

from conflux.cli import parser
from conflux.realm.identity import NodeKeys
from conflux.realm.invite import Token
from conflux.realm.join import JoinRequest
from conflux.state.founding import issuer_of


class Programs(Desk):
    """A desk at which programs type."""

    def get(self, board: str, *words: object) -> Any:
        """Run a command with --json, and return what it prints: a record of that command."""
        command = next(line for count in (3, 2, 1) if (line := " ".join(map(str, words[:count]))) in ANSWERS)
        code, out, err = self.run(board, *words, "--json")
        assert code == 0, (words, err)
        assert all(line.startswith("conflux: warning: ") for line in err.splitlines()), err
        printed = json.loads(out)
        assert misfits(printed, command) == [], words
        return printed

    def wait(self, name: str) -> None:
        """Ask for admission under a name that a person has to approve of."""
        token = Token.parse(self.get("gate", "realm", "invite", "--approve")["token"])
        request = JoinRequest.build(token, NodeKeys.generate(), name, binding=bytes(32), nonce=bytes(32))
        member = self.state("gate").member()
        assert member is not None
        issuer = issuer_of(self.state("gate"), member)
        assert issuer is not None
        with pytest.raises(Exception, match="waiting"):
            issuer.join(request, binding=bytes(32), now_unix=self.now_unix("gate"))


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Programs:
    desk = Programs(tmp_path, capsys)
    desk.get("gate", "realm", "create", "home", "--node", "gate")
    return desk


def enter(desk: Programs, board: str, name: str) -> None:
    """Let a board in by files."""
    request = desk.path / f"{board}.request"
    assert desk.get(board, "join", "--request", request, "--name", name)["name"] == name
    root = desk.get("gate", "realm", "sign", request)["root"]
    desk.get(board, "join", "--answer", f"{request}.answer", "--root", root)


def test_the_life_of_a_member(desk):
    enter(desk, "k", "kitchen")
    assert desk.get("gate", "realm", "grant", "kitchen", "--tag", "hot")["state"] == "due"
    assert desk.get("gate", "realm", "grant", "kitchen", "--tag", "hot")["state"] == "unchanged"
    renamed = desk.get("gate", "realm", "rename", "kitchen", "cellar")
    assert (renamed["name"], renamed["former"]) == ("cellar", "kitchen")
    assert desk.get("gate", "realm", "rename", "gate", "porch")["state"] == "used"
    granted = desk.get("gate", "realm", "grant", "cellar", "--issuer", "--file", desk.path / "grant")
    assert granted["file"] == str(desk.path / "grant")
    accepted = desk.get("k", "realm", "accept", desk.path / "grant")
    assert (accepted["new"], accepted["block"]) == (True, granted["block"])
    assert desk.get("k", "realm", "accept", desk.path / "grant")["new"] is False
    assert len(desk.get("gate", "realm", "members")["members"]) == 2
    revoked = desk.get("gate", "realm", "revoke", "cellar", "--reason", "stolen")
    assert (revoked["name"], revoked["reason"], revoked["told"], revoked["broker"]) == ("cellar", "stolen", False, [])
    assert len(desk.get("gate", "realm", "revoked")["revoked"]) == 1
    left = desk.get("k", "leave", "--yes", "--force")
    assert (left["name"], left["told"], left["kept"]) == ("kitchen", False, str(desk.path / "k"))


def test_who_waits_and_what_is_decided(desk):
    desk.wait("kitchen")
    desk.wait("cellar")
    assert len(desk.get("gate", "realm", "pending")["pending"]) == 2
    assert desk.get("gate", "realm", "approve", "kitchen")["decision"] == "approved"
    assert desk.get("gate", "realm", "refuse", "cellar")["decision"] == "refused"
    desk.get("gate", "realm", "invites")
    made = desk.get("gate", "realm", "invite", "--count", "3")["id"]
    assert desk.get("gate", "realm", "invites", "cancel", made)["id"] == made
    desk.get("gate", "realm", "audit")
    assert desk.get("gate", "realm", "audit", "--verify")["verified_entries"] > 0


@pytest.mark.usefixtures("quick_scrypt")
def test_another_founder(desk):
    (desk.path / "word").write_text("correct horse battery")
    word = ("--passphrase-file", desk.path / "word")
    assert desk.get("gate", "realm", "backup", desk.path / "b", *word)["encrypted"] is True
    assert desk.get("gate", "realm", "backup", desk.path / "plain", "--plain")["encrypted"] is False
    assert desk.get("barn", "realm", "restore", desk.path / "b", "--node", "barn", *word)["before"] == "gate"
    assert desk.get("new", "realm", "restore", desk.path / "b", "--node", "gate", *word)["before"] is None


def test_a_broker_without_its_servers(desk):
    enter(desk, "k", "kitchen")
    made = desk.get("gate", "control", "init", desk.path / "broker", "--servers", "a.example", "--leaf", "gate.lan")
    assert (made["servers"], made["leaves"], made["own"], made["told"]) == (["a.example"], ["gate.lan"], None, False)
    assert desk.get("gate", "control", "announce", desk.path / "broker")["servers"] == ["tls://a.example:4222"]
    assert desk.get("gate", "control", "announce", "--none")["servers"] == []
    (told,) = desk.get("gate", "realm", "revoke", "kitchen")["broker"]
    assert (told["server"], told["admits"]) == (None, True)


def test_a_configuration(desk):
    desk.get("gate", "config", "show")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("realm", "rename", "nobody", "cellar"), 1),
        (("realm", "approve", "nobody"), 1),
        (("realm", "grant", "gate", "--file", "x"), 2),
        (("realm", "accept", "/nowhere"), 1),
        (("realm", "restore", "/nowhere"), 1),
        (("down",), 1),
        (("leave",), 1),
        (("leave", "--yess"), 2),
        (("realm", "revoke"), 2),
        (("realm", "backup", "f", "--plain", "--passphrase-file", "g"), 2),
    ],
)
@pytest.mark.parametrize("asked", ["--json", "--js"])
def test_an_error_is_said_to_programs_too(desk, words, code, asked):
    got, out, err = desk.run("gate", *words, asked)
    assert (got, err.count("\n")) == (code, 1), err
    printed = json.loads(out)
    assert list(printed) == ["scheme", "error"]
    assert printed["error"] in err


def test_a_bug_is_said_to_programs_too(desk, monkeypatch):
    def broken(name: str) -> None:
        raise ZeroDivisionError("division")

    monkeypatch.delenv(parser.TRACEBACK_VARIABLE, raising=False)
    monkeypatch.setattr(parser, "import_module", broken)
    code, out, _ = desk.run("gate", "status", "--json")
    assert (code, "a bug: ZeroDivisionError" in json.loads(out)["error"]) == (1, True)
