"""What a used invitation still gives, to whom a name belongs, and a board in the place of another."""

import dataclasses

import pytest
from kit.builders import NOW_UNIX, node_keys
from kit.office import BINDING, Office, renewal_refusal, request_as, request_of

from conflux.errors import RemoteProtocolError
from conflux.ids import NodeId
from conflux.realm.issued import FORMER_COUNT_MAX, End


def test_name_and_address_of_a_member_stay_its_own_long_after_its_credential_ended():
    office = Office()
    first = office.join(office.invite(lifetime_s=10), "alpha").chain.credential
    long_after = NOW_UNIX + 500 * 86400
    token = office.invite(valid_s=600 * 86400, count=2)
    assert office.refusal(request_as(token, "beta", "alpha"), now_unix=long_after) == "name-taken"
    again = office.join(token, "alpha", now_unix=long_after).chain.credential
    assert (again.name, again.ipv4) == ("alpha", first.ipv4)


# ── a used invitation ──


@pytest.mark.parametrize("count", [1, 5])
def test_used_token_gives_its_node_no_second_name(count):
    office = Office()
    token = office.invite(count=count)
    office.join(token, "alpha")
    for name in ("fileserver", "printer"):
        assert office.refusal(request_as(token, "alpha", name)) == "used-up"
    assert [entry.name for entry in office.records.issued()] == ["alpha"]


def test_used_token_gives_not_a_second_more():
    office = Office()
    token = office.invite(valid_s=10**6, lifetime_s=1000)
    office.join(token, "alpha")
    again = office.join(token, "alpha", now_unix=NOW_UNIX + 900)
    assert again.chain.credential.not_after == NOW_UNIX + 1000
    assert office.refusal(request_of(token), now_unix=NOW_UNIX + 1000) == "used-up"


def test_used_token_gives_what_its_node_has_now():
    office = Office()
    token = office.invite(capabilities=("relay",))
    office.join(token, "alpha")
    (entry,) = office.records.issued()
    office.records.save_issued(dataclasses.replace(entry, capabilities=(), tags=("t",)))
    again = office.join(token, "alpha").chain.credential
    assert (again.capabilities, again.tags) == ((), ("t",))


@pytest.mark.parametrize("how", ["ended", "forgotten", "joined-again"])
def test_used_token_brings_no_node_back(how):
    office = Office()
    token = office.invite()
    chain = office.join(token, "alpha").chain
    if how == "ended":
        office.issuer.end(node_keys("alpha").node_id, End.REVOKED, now_unix=NOW_UNIX)
        assert renewal_refusal(office, chain) == "ended"
    elif how == "forgotten":
        office.records.nodes.clear()
    else:
        office.join(office.invite(), "alpha")
    assert office.refusal(request_of(token)) == "used-up"


def test_name_that_a_living_credential_says_is_given_to_no_other_node():
    office = Office()
    office.join(office.invite(lifetime_s=1000), "alpha")
    office.issuer.join(request_as(office.invite(), "alpha", "renamed"), binding=BINDING, now_unix=NOW_UNIX + 1)
    token = office.invite()
    assert office.refusal(request_as(token, "beta", "alpha"), now_unix=NOW_UNIX + 999) == "name-taken"
    office.issuer.join(request_as(token, "beta", "alpha"), binding=BINDING, now_unix=NOW_UNIX + 1000)


def test_node_may_have_its_former_name_again():
    office = Office()
    for name in ("alpha", "other", "alpha"):
        office.issuer.join(request_as(office.invite(), "alpha", name), binding=BINDING, now_unix=NOW_UNIX)
    (entry,) = office.records.issued()
    assert [old.name for old in entry.former] == ["other"]


def test_names_that_one_node_keeps_from_others_are_bounded():
    office = Office()
    for number in range(FORMER_COUNT_MAX + 1):
        office.issuer.join(request_as(office.invite(), "alpha", f"n{number}"), binding=BINDING, now_unix=NOW_UNIX)
    assert office.refusal(request_as(office.invite(), "alpha", "one-more")) == "too-many-names"


# ── a board in the place of another ──


def test_replacing_board_gets_name_and_address_and_the_old_one_is_out():
    office = Office()
    old = office.join(office.invite(), "alpha").chain
    token = office.invite(replaces=node_keys("alpha").node_id)
    answer = office.issuer.join(request_as(token, "beta", "alpha"), binding=BINDING, now_unix=NOW_UNIX + 1)
    new = answer.chain.credential
    assert (new.name, new.ipv4) == ("alpha", old.credential.ipv4)
    assert office.records.nodes[node_keys("alpha").node_id].end == End.REPLACED
    assert renewal_refusal(office, old) == "ended"
    office.issuer.renew(answer.chain, now_unix=NOW_UNIX + 2)


def test_replacing_board_has_the_name_of_the_old_one_and_nothing_ends_before():
    office = Office()
    old = office.join(office.invite(), "alpha").chain
    token = office.invite(replaces=node_keys("alpha").node_id)
    assert office.refusal(request_as(token, "beta", "beta")) == "wrong-name"
    office.issuer.renew(old, now_unix=NOW_UNIX)


def test_old_board_that_comes_back_itself_replaces_nobody():
    office = Office()
    office.join(office.invite(), "alpha")
    office.join(office.invite(replaces=node_keys("alpha").node_id), "alpha")
    (entry,) = office.records.issued()
    assert entry.is_member


def test_replacing_after_a_crash_in_the_middle_can_be_repeated():
    office = Office()
    old = office.join(office.invite(), "alpha").chain.credential
    token = office.invite(replaces=node_keys("alpha").node_id)
    office.issuer.end(node_keys("alpha").node_id, End.REPLACED, now_unix=NOW_UNIX)  # and then the power failed
    new = office.issuer.join(request_as(token, "beta", "alpha"), binding=BINDING, now_unix=NOW_UNIX).chain.credential
    assert new.ipv4 == old.ipv4


def test_replacing_board_does_not_get_an_address_that_another_has_by_now():
    office = Office()
    old = office.join(office.invite(lifetime_s=10), "alpha").chain.credential
    token = office.invite(replaces=node_keys("alpha").node_id)
    office.issuer.end(node_keys("alpha").node_id, End.REVOKED, now_unix=NOW_UNIX)
    entry = dataclasses.replace(office.records.nodes[node_keys("alpha").node_id], node_id=NodeId(b"x" * 16), end="")
    office.records.save_issued(dataclasses.replace(entry, name="other"))
    new = office.issuer.join(request_as(token, "beta", "alpha"), binding=BINDING, now_unix=NOW_UNIX).chain.credential
    assert new.ipv4 != old.ipv4


def test_ended_member_that_is_invited_anew_is_a_new_member():
    office = Office()
    office.join(office.invite(), "alpha")
    office.issuer.end(node_keys("alpha").node_id, End.LEFT, now_unix=NOW_UNIX)
    office.issuer.join(request_as(office.invite(), "beta", "alpha"), binding=BINDING, now_unix=NOW_UNIX)
    assert office.refusal(request_of(office.invite())) == "name-taken"
    office.issuer.join(request_as(office.invite(), "alpha", "third"), binding=BINDING, now_unix=NOW_UNIX)
    with pytest.raises(RemoteProtocolError, match="unknown-node"):
        office.issuer.end(NodeId(b"x" * 16), End.LEFT, now_unix=NOW_UNIX)
