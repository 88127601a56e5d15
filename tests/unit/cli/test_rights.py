"""`conflux realm grant` and `conflux realm rename`, where no daemon runs: what is recorded, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from kit.desk import Desk

from conflux.ids import format_node_id


def _furnish(desk: Desk) -> None:
    desk.found()
    desk.join_by_file("k", "kitchen", "--tag", "light")


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk.after(_furnish, tmp_path, capsys)


def row(desk: Desk, name: str):
    return next(row for row in desk.ask("gate", "realm", "members")["members"] if row["name"] == name)


def test_a_granted_right_is_recorded_and_waits_for_its_member(desk):
    out = desk.do("gate", "realm", "grant", "kitchen", "--tag", "hot", "--no-tag", "light", "--capability", "gateway")
    assert out.startswith("kitchen: relay, gateway, #hot\nno daemon runs here")
    assert (row(desk, "kitchen")["tags"], row(desk, "kitchen")["due"]) == (["hot"], True)
    assert "not yet known to it" in desk.do("gate", "realm", "members")


def test_a_right_that_is_there_already_changes_nothing(desk):
    assert "already" in desk.do("gate", "realm", "grant", "kitchen", "--tag", "light")
    assert row(desk, "kitchen")["due"] is False


def test_a_member_is_named_by_its_id_too(desk):
    node = format_node_id(desk.node_id("k"))
    assert desk.do("gate", "realm", "rename", node, "cellar").startswith("kitchen is cellar now\n")
    assert row(desk, "cellar")["former_names"] == ["kitchen"]


def test_this_node_itself_uses_its_new_name_at_once(desk):
    assert "this node uses its new credential" in desk.do("gate", "realm", "rename", "gate", "porch")
    assert desk.state("gate").member().name == "porch"
    assert row(desk, "porch")["due"] is False


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("rename", "nobody", "cellar"), "no member 'nobody'"),
        (("rename", "kitchen", "gate"), "another node of the realm has this name"),
        (("rename", "kitchen", "Bad Name"), "'Bad Name' is no node name"),
        (("grant", "kitchen", "--capability", "fly"), "capability 'fly': must be one of"),
        (("grant", "kitchen", "--tag", "a b"), "'a b' is no tag"),
        (("grant", "kitchen", "--no-tag", "cold"), "it has no 'cold'"),
        (("grant", "kitchen", "--capability", "issuer"), "grant NODE --issuer"),
        (("grant", "kitchen", *(f"--tag=t{number}" for number in range(16))), "at most 16 tags"),
    ],
)
def test_what_cannot_be_changed_is_said_and_nothing_is(desk, words, said):
    before = desk.ask("gate", "realm", "members")
    assert said in desk.refused("gate", "realm", *words)
    assert desk.ask("gate", "realm", "members") == before


def test_a_node_that_may_issue_lets_others_in_without_the_founder(desk):
    file = desk.path / "k.grant"
    out = desk.do("gate", "realm", "grant", "kitchen", "--issuer", "--file", file)
    assert out.startswith("kitchen may issue, addresses of ")
    assert "conflux realm accept k.grant" in out
    assert row(desk, "kitchen")["capabilities"] == ["relay", "issuer"]
    assert "this node may issue" in desk.do("k", "realm", "accept", file)
    assert "already" in desk.do("k", "realm", "accept", file)
    desk.join_by_file("b", "barn", by="k")
    (barn,) = desk.ask("k", "realm", "members")["members"]
    assert barn["name"] == "barn"
    assert "granted" in desk.do("gate", "realm", "audit")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("gate", "--issuer"), "it is this node"),
        (("kitchen", "--issuer", "--block", "10.1.0.0/24"), "must be inside"),
        (("kitchen", "--block", "10.1.0.0/24"), "belong to --issuer"),
        (("kitchen", "--file", "x"), "belong to --issuer"),
    ],
)
def test_what_the_root_cannot_grant_is_said(desk, words, said):
    assert said in desk.refused("gate", "realm", "grant", *words)
    assert row(desk, "kitchen")["capabilities"] == ["relay"]


def test_without_the_root_key_nobody_is_made_an_issuer(desk):
    (desk.path / "gate" / "root.key").unlink()
    assert "only the root lets a node issue" in desk.refused("gate", "realm", "grant", "kitchen", "--issuer")


def test_a_grant_that_is_none_is_refused(desk):
    (desk.path / "junk").write_bytes(b"x")
    assert "not a grant of this realm's root" in desk.refused("k", "realm", "accept", desk.path / "junk")
    desk.do("gate", "realm", "grant", "kitchen", "--issuer", "--file", desk.path / "g")
    desk.join_by_file("b", "barn")
    assert "a grant to another node" in desk.refused("b", "realm", "accept", desk.path / "g")
