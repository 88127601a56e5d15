"""Nodes that wait for a person: what lets them in, what keeps them out, and how many may wait."""

from __future__ import annotations

import pytest
from kit.builders import NOW_UNIX, node_keys
from kit.office import BINDING, Office, request_as, request_of

from conflux.errors import RemoteProtocolError
from conflux.ids import NodeId
from conflux.realm.invite import Token
from conflux.realm.waiting import WAITING_COUNT_MAX, WAITING_PER_INVITE_MAX, Decision, Waiting

ALPHA = node_keys("alpha").node_id


def word(office: Office, token: Token, keys: str, name: str = "", *, now_unix: int = NOW_UNIX) -> str:
    """What a node hears that asks to join."""
    try:
        office.issuer.join(request_as(token, keys, name or keys), binding=BINDING, now_unix=now_unix)
    except RemoteProtocolError as error:
        return error.reason
    return "joined"


def decide(office: Office, node: str, decision: Decision, name: str | None = None) -> None:
    office.issuer.decide(node_keys(node).node_id, decision, name=name or node, now_unix=NOW_UNIX)


def test_who_waits_joins_once_a_person_approved_and_not_before():
    office = Office()
    token = office.invite(approve=True)
    assert [word(office, token, "alpha") for _ in range(3)] == ["waiting"] * 3
    assert office.records.nodes == {}
    decide(office, "alpha", Decision.APPROVED)
    assert word(office, token, "alpha") == "joined"
    assert word(office, token, "alpha") == "joined", "the answer may have been lost"
    assert office.records.queue == {}
    assert office.records.log.acts() == [("asked", "alpha"), ("approved", "alpha"), ("admitted", "alpha")]


def test_approval_is_for_one_name():
    office = Office()
    token = office.invite(approve=True)
    word(office, token, "alpha")
    decide(office, "alpha", Decision.APPROVED)
    assert word(office, token, "alpha", "fileserver") == "waiting"
    assert office.records.nodes == {}


def test_approval_is_for_the_name_that_a_person_saw():
    office = Office()
    token = office.invite(approve=True)
    word(office, token, "alpha")
    assert word(office, token, "alpha", "fileserver") == "waiting"  # a moment before the person says yes
    with pytest.raises(RemoteProtocolError, match="unknown-node"):
        decide(office, "alpha", Decision.APPROVED)
    assert word(office, token, "alpha", "fileserver") == "waiting"
    decide(office, "alpha", Decision.APPROVED, "fileserver")
    assert word(office, token, "alpha", "fileserver") == "joined"


def test_who_is_refused_stays_out_under_every_name_as_long_as_the_invitation_holds():
    office = Office()
    token = office.invite(approve=True, valid_s=1000)
    word(office, token, "alpha")
    decide(office, "alpha", Decision.REFUSED)
    assert (word(office, token, "alpha"), word(office, token, "alpha", "other")) == ("refused", "refused")
    assert word(office, office.invite(approve=True), "alpha") == "waiting", "another invitation asks anew"


def test_a_name_that_is_taken_troubles_nobody():
    office = Office()
    office.join(office.invite(), "alpha")
    assert word(office, office.invite(approve=True), "beta", "alpha") == "name-taken"
    assert office.records.queue == {}


def test_who_does_not_hold_the_secret_does_not_wait():
    office = Office()
    token = office.invite(approve=True)
    forged = request_of(Token(token.root_fingerprint, token.issuer, token.invite_id, bytes(16), 2**40, 1, ()))
    assert office.refusal(forged) == "bad-proof"
    assert office.records.queue == {}


def crowd(office: Office, token: Token, count: int, first: int) -> None:
    for number in range(first, first + count):
        node = NodeId(number.to_bytes(16))
        office.records.save_waiting(Waiting(node, "x", token.invite_id, NOW_UNIX, NOW_UNIX + 1000, "none"))


def test_one_token_cannot_keep_out_those_of_others():
    office = Office()
    token, other = office.invite(approve=True, count=100), office.invite(approve=True)
    crowd(office, token, WAITING_PER_INVITE_MAX - 1, 1)
    assert word(office, token, "alpha") == "waiting"
    assert word(office, token, "beta") == "busy"
    assert word(office, other, "gamma") == "waiting"
    assert word(office, token, "alpha") == "waiting"


def test_all_that_wait_are_bounded_and_who_waited_too_long_makes_room():
    office = Office()
    for number in range(WAITING_COUNT_MAX // 8):
        crowd(office, office.invite(approve=True), 8, 1 + 8 * number)
    token = office.invite(approve=True, valid_s=5000)
    assert word(office, token, "alpha") == "busy"
    assert word(office, token, "alpha", now_unix=NOW_UNIX + 1000) == "waiting"
    assert len(office.records.queue) == 1


def test_nobody_is_decided_on_who_does_not_wait():
    with pytest.raises(RemoteProtocolError, match="unknown-node"):
        decide(Office(), "alpha", Decision.APPROVED)
