"""`conflux realm pending`, `approve` and `refuse`, as a person types them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from kit.desk import Desk

from conflux.errors import RemoteProtocolError
from conflux.ids import format_node_id
from conflux.realm.identity import NodeKeys
from conflux.realm.invite import Token
from conflux.realm.join import JoinRequest
from conflux.state.founding import issuer_of
from conflux.state.issuer_files import IssuerFiles


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk.after(Desk.found, tmp_path, capsys)


def ask(desk: Desk, token: Token, keys: NodeKeys, name: str) -> str:
    """Ask to join, as over a connection; return the word."""
    request = JoinRequest.build(token, keys, name, binding=bytes(32), nonce=bytes(32))
    issuer = issuer_of(desk.state("gate"), desk.state("gate").member())
    try:
        issuer.join(request, binding=bytes(32), now_unix=desk.now_unix("gate"))
    except RemoteProtocolError as error:
        return error.reason
    return "joined"


def invite(desk: Desk) -> Token:
    return Token.parse(desk.do("gate", "realm", "invite", "--approve", "--quiet"))


@pytest.mark.parametrize("named", ["name", "id"])
def test_who_waits_is_listed_and_approved(desk, named):
    token, keys = invite(desk), NodeKeys.generate()
    assert desk.do("gate", "realm", "pending") == "nobody waits\n"
    assert ask(desk, token, keys, "kitchen") == "waiting"
    (row,) = desk.ask("gate", "realm", "pending")["pending"]
    assert (row["name"], row["node"], row["invitation"]) == (
        "kitchen",
        format_node_id(keys.node_id),
        token.invite_id.hex(),
    )
    words = (row["node"], "kitchen") if named == "id" else ("kitchen",)
    assert "kitchen may join" in desk.do("gate", "realm", "approve", *words)
    assert "approved" in desk.do("gate", "realm", "pending")
    assert ask(desk, token, keys, "kitchen") == "joined"
    assert desk.ask("gate", "realm", "pending") == {"pending": []}


def test_who_is_refused_is_told(desk):
    token, keys = invite(desk), NodeKeys.generate()
    ask(desk, token, keys, "kitchen")
    desk.do("gate", "realm", "refuse", "kitchen")
    assert ask(desk, token, keys, "kitchen") == "refused"


def test_of_two_of_one_name_a_person_says_which(desk):
    token, keys = invite(desk), NodeKeys.generate()
    ask(desk, token, keys, "kitchen")
    files = IssuerFiles(desk.state("gate"))
    (entry,) = files.waiting()
    files.save_waiting(dataclasses.replace(entry, node_id=NodeKeys.generate().node_id))
    assert "2 nodes wait as kitchen" in desk.refused("gate", "realm", "approve", "kitchen")
    desk.do("gate", "realm", "approve", format_node_id(keys.node_id), "kitchen")


def test_an_id_alone_approves_of_no_name_and_a_name_that_it_has_no_more_of_nothing(desk):
    token, keys = invite(desk), NodeKeys.generate()
    node = format_node_id(keys.node_id)
    ask(desk, token, keys, "kitchen")
    said = desk.refused("gate", "realm", "approve", node)
    assert f"conflux realm approve {node} kitchen" in said
    ask(desk, token, keys, "fileserver")
    assert "it waits as fileserver now" in desk.refused("gate", "realm", "approve", node, "kitchen")
    assert ask(desk, token, keys, "fileserver") == "waiting"
    desk.do("gate", "realm", "refuse", node)
    assert ask(desk, token, keys, "fileserver") == "refused"


def test_nobody_is_approved_who_does_not_wait(desk):
    assert "no node 'kitchen' waits" in desk.refused("gate", "realm", "approve", "kitchen")
    ask(desk, invite(desk), NodeKeys.generate(), "kitchen")
    desk.pass_days(2, "gate")
    assert "no node 'kitchen' waits" in desk.refused("gate", "realm", "refuse", "kitchen")


def test_an_invitation_for_people_says_that_its_users_wait(desk):
    assert "Whoever uses it waits" in desk.do("gate", "realm", "invite", "--approve")
    assert desk.ask("gate", "realm", "invites")["invites"][0]["approval_required"] is True
