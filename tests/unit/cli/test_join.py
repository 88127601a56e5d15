"""`conflux join`: where a token comes from, and what is compared before anything is kept."""

from __future__ import annotations

import io
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from kit.desk import Desk, root_in

from conflux.cli import join as cli_join
from conflux.errors import UserError
from conflux.realm.invite import Token


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.delenv(cli_join.TOKEN_VARIABLE, raising=False)
    return Desk.after(Desk.found, tmp_path, capsys)


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[Token]:
    """The tokens that a join began with; it goes no further."""
    found: list[Token] = []

    async def note(config, state, token, name, peers, waits):
        found.append(token)
        raise UserError("far enough")

    monkeypatch.setattr(cli_join, "join_with_token", note)
    return found


@pytest.mark.parametrize("way", ["argument", "input", "file", "variable"])
def test_a_token_comes_as_an_argument_on_standard_input_in_a_file_or_a_variable(desk, used, monkeypatch, way):
    text = desk.do("gate", "realm", "invite", "--quiet")
    (desk.path / "token").write_text(text)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(text.encode())))
    if way == "variable":
        monkeypatch.setenv(cli_join.TOKEN_VARIABLE, text)
    words = {"argument": [text.strip()], "input": ["-"], "file": ["--token-file", desk.path / "token"], "variable": []}
    assert "far enough" in desk.refused("k", "join", *words[way])
    assert used == [Token.parse(text)]


@pytest.mark.parametrize(
    ("words", "where"), [(["-"], "standard input"), (["--token-file", "FILE"], "FILE"), ([], "CONFLUX_TOKEN")]
)
@pytest.mark.parametrize("text", ["", "hello", "cfx1AAAA", "\xff\xfe", "cfx1" + "A" * 5000])
def test_what_is_no_token_is_refused_with_its_place_and_nothing_is_made(desk, used, monkeypatch, words, where, text):
    file = desk.path / "token"
    file.write_text(text)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(text.encode())))
    monkeypatch.setenv(cli_join.TOKEN_VARIABLE, text)
    said = desk.refused("k", "join", *(file if word == "FILE" else word for word in words))
    assert where.replace("FILE", str(file)) in said
    assert used == []
    assert not (desk.path / "k").exists()


def test_without_any_token_the_ways_are_named(desk):
    said = desk.refused("k", "join")
    assert all(way in said for way in ("--token-file", "CONFLUX_TOKEN", "--request"))


# ── the answer that a person carried ──


@pytest.fixture
def carried(desk: Desk) -> tuple[Desk, str]:
    """A board with the answer to its request, and the root that the issuer showed."""
    request = desk.path / "k.request"
    desk.do("k", "join", "--request", request, "--force", "--name", "kitchen")
    return desk, root_in(desk.do("gate", "realm", "sign", "--force", request))


def kept(desk: Desk) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (desk.path / "k").iterdir() if path.name != "lock"}


def test_a_root_that_is_another_one_is_noticed_before_anything_is_kept(carried):
    desk, root = carried
    desk.do("forger", "realm", "create", "home", "--node", "gate")
    desk.do("forger", "realm", "sign", "--force", desk.path / "k.request")
    before = kept(desk)
    assert "its root is another one" in desk.refused(
        "k", "join", "--answer", desk.path / "k.request.answer", "--root", root
    )
    assert kept(desk) == before


@pytest.mark.parametrize("root", ["", "52bf", "x" * 32, "0" * 33])
def test_a_root_that_is_none_is_refused(carried, root):
    desk, _ = carried
    before = kept(desk)
    said = desk.refused("k", "join", "--answer", desk.path / "k.request.answer", "--root", root)
    assert "--root: must be 32 digits" in said
    assert kept(desk) == before


@pytest.mark.parametrize(("answer", "joins"), [("y", True), ("yes", True), ("n", False), ("", False)])
def test_a_person_at_a_terminal_is_asked_for_the_root(carried, monkeypatch, answer, joins):
    desk, root = carried
    stdin = io.StringIO(f"{answer}\n")
    monkeypatch.setattr(stdin, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", stdin)
    before = kept(desk)
    code, out, err = desk.run("k", "join", "--answer", desk.path / "k.request.answer")
    assert root in out
    assert (code == 0) is joins
    assert joins or ("nothing was kept" in err and kept(desk) == before)


def test_without_a_terminal_the_root_has_to_be_given(carried):
    desk, _ = carried
    before = kept(desk)
    assert "--root" in desk.refused("k", "join", "--answer", desk.path / "k.request.answer")
    assert kept(desk) == before


def test_a_member_that_joins_its_realm_again_need_not_compare(carried):
    desk, root = carried
    desk.do("k", "join", "--answer", desk.path / "k.request.answer", "--root", root)
    desk.pass_days(31, "k", "gate")
    request = desk.path / "again.request"
    desk.do("k", "join", "--request", request)
    desk.do("gate", "realm", "sign", "--force", request)
    desk.do("k", "join", "--answer", f"{request}.answer")


def test_a_root_beside_a_token_is_refused(desk, used):
    token = desk.do("gate", "realm", "invite", "--quiet").strip()
    assert "--root belongs to --answer" in desk.refused("k", "join", token, "--root", "0" * 32)


# ── a configuration that others can read ──


@pytest.mark.parametrize(("mode", "warned"), [(0o644, True), (0o640, False), (0o600, False)])
def test_a_configuration_with_a_token_that_everybody_can_read_is_warned_about(desk, used, mode, warned):
    token = desk.do("gate", "realm", "invite", "--quiet").strip()
    file = desk.path / "conflux.toml"
    file.write_text(f'[realm]\ntoken = "{token}"\n')
    os.chmod(file, mode)
    _, _, err = desk.run("k", "join", token, "--config", file)
    assert ("every user can read it, and it holds an invitation (realm.token)" in err) is warned
    assert token not in err


def test_a_configuration_without_secrets_may_be_read(desk, used):
    token = desk.do("gate", "realm", "invite", "--quiet").strip()
    file = desk.path / "conflux.toml"
    file.write_text('[node]\nname = "kitchen"\n')
    os.chmod(file, 0o644)
    assert "every user" not in desk.run("k", "join", token, "--config", file)[2]
