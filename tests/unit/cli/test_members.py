"""`conflux realm members` and `conflux realm invites`, as a person and a program read them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from kit.desk import Desk

from conflux.cli.members import InviteRow, MemberRow, invite_table, member_table
from conflux.ids import format_node_id
from conflux.realm.invite import Token
from conflux.realm.issued import End
from conflux.state.founding import issuer_of
from conflux.state.issuer_files import IssuerFiles


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk.after(Desk.found, tmp_path, capsys)


def test_members_are_listed_with_addresses_rights_and_date(desk):
    desk.join_by_file("k", "kitchen", "--tag", "light", "--no-relay")
    kitchen = desk.state("k").member()
    (row,) = [row for row in desk.ask("gate", "realm", "members")["members"] if row["name"] == "kitchen"]
    assert row == {
        "name": "kitchen",
        "node": format_node_id(kitchen.node_id),
        "addresses": [str(address) for address in kitchen.addresses],
        "tags": ["light"],
        "capabilities": [],
        "state": "member",
        "admitted_at": kitchen.chain.credential.not_before,
        "expires_at": kitchen.chain.not_after,
        "former_names": [],
        "due": False,
    }
    out = desk.do("gate", "realm", "members")
    assert out.startswith("2 members let in by gate\n")
    assert all(str(address) in out for address in kitchen.addresses)
    assert max(map(len, out.splitlines())) <= 80


def test_who_expired_or_is_no_member_any_more_is_shown_as_such(desk):
    desk.join_by_file("k", "kitchen")
    desk.join_by_file("b", "barn")
    issuer = issuer_of(desk.state("gate"), desk.state("gate").member())
    issuer.end(desk.node_id("b"), End.REVOKED, now_unix=desk.now_unix("gate"))
    desk.pass_days(31, "gate")
    states = {row["name"]: row["state"] for row in desk.ask("gate", "realm", "members")["members"]}
    assert states == {"gate": "expired", "kitchen": "expired", "barn": "revoked"}
    out = desk.do("gate", "realm", "members")
    assert "EXPIRED" in out
    assert "REVOKED" in out


def test_invitations_are_listed_open_ones_first(desk):
    desk.do("gate", "realm", "invite", "--quiet", "--ttl", "1h")
    desk.pass_days(1, "gate")
    token = Token.parse(desk.do("gate", "realm", "invite", "--quiet", "--count", "3", "--tag", "t"))
    rows = desk.ask("gate", "realm", "invites")["invites"]
    assert [row["state"] for row in rows] == ["open", "expired"]
    assert (rows[0]["id"], rows[0]["expires_at"], rows[0]["uses_max"]) == (token.invite_id.hex(), token.not_after, 3)
    assert (rows[0]["uses"], rows[0]["used_by"], rows[0]["tags"]) == (0, [], ["t"])
    assert token.invite_id.hex() in desk.do("gate", "realm", "invites")


def test_no_output_shows_the_secret_of_an_invitation(desk):
    token = Token.parse(desk.do("gate", "realm", "invite", "--quiet"))
    shown = desk.do("gate", "realm", "invites") + desk.do("gate", "realm", "invites", "--json")
    assert token.secret.hex() not in shown


def test_an_invitation_is_withdrawn_by_its_first_digits(desk):
    one, other = (Token.parse(desk.do("gate", "realm", "invite", "--quiet")) for _ in range(2))
    assert one.invite_id.hex() in desk.do("gate", "realm", "invites", "cancel", one.invite_id.hex()[:12])
    (left,) = desk.ask("gate", "realm", "invites")["invites"]
    assert left["id"] == other.invite_id.hex()
    assert "there is no invitation" in desk.refused("gate", "realm", "invites", "cancel", one.invite_id.hex())


@pytest.mark.parametrize("word", ["", "abc", "nothex!!", "0" * 17])
def test_a_word_that_is_no_invitation_is_refused(desk, word):
    assert "is no invitation" in desk.refused("gate", "realm", "invites", "cancel", word)


def test_digits_that_fit_two_invitations_withdraw_none(desk):
    for _ in range(2):
        desk.do("gate", "realm", "invite", "--quiet")
    one, _ = sorted((desk.path / "gate" / "invites").iterdir())
    files = IssuerFiles(desk.state("gate"))
    kept = files.invite(bytes.fromhex(one.stem))
    assert kept is not None
    files.save_invite(dataclasses.replace(kept, invite_id=kept.invite_id[:7] + bytes([kept.invite_id[7] ^ 1])))
    assert "2 invitations begin with" in desk.refused("gate", "realm", "invites", "cancel", one.stem[:14])
    assert one.exists()


@pytest.mark.parametrize("command", [("members",), ("invites",), ("invites", "cancel", "abcd")])
def test_who_does_not_issue_has_no_lists(desk, command):
    desk.join_by_file("k", "kitchen")
    assert "kitchen does not issue for realm home" in desk.refused("k", "realm", *command)


def test_what_makes_and_lets_in_members_says_so_in_json_too(desk):
    founder = desk.ask("cellar", "realm", "create", "home2", "--node", "cellar")
    assert (founder["name"], founder["realm"], len(founder["addresses"])) == ("cellar", "home2", 2)
    assert Path(founder["root_key"]).exists()
    invited = desk.ask("cellar", "realm", "invite", "--count", 2)
    assert (invited["token"][:4], invited["uses_max"], invited["replaces"]) == ("cfx1", 2, None)
    request = desk.path / "loft.request"
    asked = desk.ask("loft", "join", "--request", request, "--name", "loft")
    assert (asked["name"], asked["request"]) == ("loft", str(request))
    signed = desk.ask("cellar", "realm", "sign", request)
    assert (signed["name"], signed["node"], signed["root"]) == ("loft", asked["node"], founder["root"])
    joined = desk.ask("loft", "join", "--answer", signed["answer"], "--root", signed["root"])
    assert (joined["name"], joined["node"], joined["realm"]) == ("loft", asked["node"], "home2")
    assert (joined["root"], joined["root_key"]) == (founder["root"], None)


# ── in any terminal ──

LONG = "kitchen-of-the-third-floor"
IPV6 = f"fd3c{':7e38' * 7}"
MEMBERS = [
    MemberRow("gate", "a" * 26, (IPV6, "100.127.127.127"), ("hot",), ("relay",), "member", 1, 9, (), False),
    MemberRow(LONG, "b" * 26, (IPV6, "100.96.7.8"), tuple("abcdefgh"), (), "expired", 1, 9, (), True),
    MemberRow("loft", "c" * 26, (IPV6, "100.96.7.9"), (), (), "revoked", None, 9, (), False),
]
INVITES = [
    InviteRow("3f" * 8, "open", 9, 20, 2, ("attic", LONG), ("light", "hot"), ("relay",), None, False),
    InviteRow("4f" * 8, "used-up", 9, 1, 1, ("b" * 26,), (), ("relay",), LONG, True),
]


@pytest.mark.parametrize("columns", [40, 60, 80, 120])
@pytest.mark.parametrize(("table", "rows"), [(member_table, MEMBERS), (invite_table, INVITES)])
def test_no_word_is_cut_by_the_edge_of_the_terminal(table, rows, columns):
    text = table(rows, columns)
    assert [line for line in text.split("\n") if len(line) > columns] == []
    assert set(text.split()) >= {word for line in table(rows, 1000).split("\n")[1:] for word in line.split()}


def test_a_narrow_terminal_shows_a_member_as_a_card():
    card = member_table(MEMBERS[:1], 40).split("\n")
    assert card[:3] == ["gate", f" {'a' * 26}", " 100.127.127.127"]
    assert card[3].startswith(" fd3c:")
    assert card[4].startswith(" until ")
    assert card[5:] == [" relay, #hot"]
