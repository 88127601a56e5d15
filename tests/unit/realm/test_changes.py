"""What an issuer changes for a standing member, and what it signs without being asked."""

from __future__ import annotations

import dataclasses

import pytest
from kit.builders import NOW_UNIX, node_keys
from kit.office import Office, request_as

from conflux import record
from conflux.errors import RemoteProtocolError
from conflux.ids import NodeId
from conflux.realm.issued import End, Issued

ALPHA = node_keys("alpha").node_id


def joined() -> Office:
    office = Office()
    office.join(office.invite(tags=("t",), lifetime_s=1000), "alpha")
    return office


def test_reissued_credential_says_what_changed_and_ends_when_the_old_one_does():
    office = joined()
    office.issuer.change(ALPHA, now_unix=NOW_UNIX + 10, name="beta", capabilities=("relay",))
    chain = office.issuer.reissue(ALPHA, now_unix=NOW_UNIX + 20)
    credential = chain.credential
    assert (credential.name, credential.tags, credential.capabilities) == ("beta", ("t",), ("relay",))
    assert (credential.not_before, credential.not_after) == (NOW_UNIX + 20, NOW_UNIX + 1000)


def test_change_is_due_until_that_very_credential_is_used():
    office = joined()
    office.issuer.change(ALPHA, now_unix=NOW_UNIX, tags=())
    first = office.issuer.reissue(ALPHA, now_unix=NOW_UNIX).credential.serial
    office.issuer.change(ALPHA, now_unix=NOW_UNIX, tags=("u",))
    second = office.issuer.reissue(ALPHA, now_unix=NOW_UNIX).credential.serial
    office.issuer.delivered(ALPHA, first)
    assert office.issuer.due() == [ALPHA]
    office.issuer.delivered(ALPHA, second)
    assert office.issuer.due() == []


def test_capability_that_is_taken_back_withdraws_what_was_signed_before_and_no_more():
    office = joined()
    (entry,) = office.records.issued()
    assert (entry.withdrawn_at, entry.withdrawn_until) == (0, 0)
    office.issuer.change(ALPHA, now_unix=NOW_UNIX + 10, capabilities=("relay", "bridge"))
    (entry,) = office.records.issued()
    assert entry.withdrawn_at == 0
    office.issuer.change(ALPHA, now_unix=NOW_UNIX + 20, capabilities=("relay",))
    (entry,) = office.records.issued()
    assert (entry.withdrawn_at, entry.withdrawn_until) == (NOW_UNIX + 19, entry.not_after)
    fresh = office.issuer.reissue(ALPHA, now_unix=NOW_UNIX + 20).credential
    assert fresh.not_before > entry.withdrawn_at
    office.issuer.change(ALPHA, now_unix=NOW_UNIX + 30, name="beta", tags=())
    (entry,) = office.records.issued()
    assert entry.withdrawn_at == NOW_UNIX + 19


def test_record_that_an_earlier_version_kept_is_read():
    (entry,) = joined().records.issued()
    _, *fields = record.decode_untrusted(entry.encode(), bytes_max=Issued.BYTES_MAX)
    assert Issued.decode_untrusted(record.encode([2, *fields[:-2]])) == entry


def test_change_to_what_it_has_already_is_none():
    office = joined()
    office.records.saved.clear()
    office.issuer.change(ALPHA, now_unix=NOW_UNIX, tags=("t",), name="alpha")
    assert (office.records.saved, office.issuer.due()) == ([], [])


def test_name_before_the_change_stays_taken_while_a_credential_says_it():
    office = joined()
    office.issuer.change(ALPHA, now_unix=NOW_UNIX, name="beta")
    token = office.invite(count=2)
    for name in ("alpha", "beta"):
        assert office.refusal(request_as(token, "gamma", name)) == "name-taken"


@pytest.mark.parametrize(
    ("reason", "act"),
    [
        ("unknown-node", lambda office: office.issuer.change(NodeId(b"x" * 16), now_unix=NOW_UNIX, name="b")),
        ("name-taken", lambda office: office.issuer.change(ALPHA, now_unix=NOW_UNIX, name="other")),
        ("expired", lambda office: office.issuer.reissue(ALPHA, now_unix=NOW_UNIX + 1000)),
        ("unknown-node", lambda office: (forget_keys(office), office.issuer.reissue(ALPHA, now_unix=NOW_UNIX))),
        ("ended", lambda office: (end(office), office.issuer.change(ALPHA, now_unix=NOW_UNIX, name="b"))),
        ("ended", lambda office: (end(office), office.issuer.reissue(ALPHA, now_unix=NOW_UNIX))),
        ("ended", lambda office: (end(office), end(office))),
    ],
)
def test_what_cannot_be_changed_or_reissued_is_refused(reason, act):
    office = joined()
    office.join(office.invite(), "other")
    with pytest.raises(RemoteProtocolError, match=reason):
        act(office)


def end(office: Office) -> None:
    office.issuer.end(ALPHA, End.REVOKED, now_unix=NOW_UNIX)


def forget_keys(office: Office) -> None:
    office.records.save_issued(dataclasses.replace(office.records.nodes[ALPHA], node_public=b""))


def test_end_ends_what_was_due():
    office = joined()
    office.issuer.change(ALPHA, now_unix=NOW_UNIX, tags=())
    end(office)
    assert office.issuer.due() == []


def test_name_that_a_node_of_another_issuer_has_is_not_given():
    office = joined()
    elsewhere = node_keys("elsewhere").node_id
    office.issuer.elsewhere = lambda name: elsewhere if name == "beta" else None
    assert office.refusal(request_as(office.invite(), "beta", "beta")) == "name-taken"
    with pytest.raises(RemoteProtocolError, match="let in by another issuer"):
        office.issuer.change(ALPHA, now_unix=NOW_UNIX, name="beta")
    office.issuer.elsewhere = lambda name: ALPHA
    office.issuer.change(ALPHA, now_unix=NOW_UNIX, name="beta")
