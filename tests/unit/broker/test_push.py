"""Which account is published: newer than every server's, and with every revocation that any of them has."""

from __future__ import annotations

import dataclasses
import json
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.builders import NOW_UNIX, node_keys
from kit.office import Office

from conflux.broker.push import TAKEN_BACK_S, Ended, _verdict, ended_of, next_account
from conflux.errors import UserError
from conflux.ids import NodeId
from conflux.realm.broker.jwt import AccountJwt
from conflux.realm.broker.users import LATE_S
from conflux.realm.issued import End, Issued

A, B, C = b"a" * 32, b"b" * 32, b"c" * 32
OURS = AccountJwt(b"x" * 32, "home", NOW_UNIX - 100, (b"s" * 32,))
LATER = 2**39


def test_an_account_without_news_is_published_as_it_is():
    assert next_account([OURS], [], NOW_UNIX) == (OURS, False)
    assert next_account([OURS, OURS], [], NOW_UNIX) == (OURS, False)


def test_an_ended_membership_is_revoked_until_the_last_pass_of_its_credentials_ends():
    office = Office()
    office.join(office.invite(), "bob")
    office.issuer.end(node_keys("bob").node_id, End.REVOKED, now_unix=NOW_UNIX + 7)
    (entry,) = office.records.issued()
    me = node_keys("bob").public.encode()[:32]
    assert ended_of([entry], NOW_UNIX) == [Ended(me, NOW_UNIX + 7, entry.not_after + LATE_S)]


def test_an_ended_membership_is_revoked_until_nothing_of_it_is_good_any_more():
    account, is_new = next_account([OURS], [Ended(A, NOW_UNIX - 3, LATER), Ended(B, 5, NOW_UNIX)], NOW_UNIX)
    assert (account.revoked, account.issued_at, is_new) == ({A: NOW_UNIX - 3}, NOW_UNIX, True)
    kept, _ = next_account([account], [Ended(A, NOW_UNIX - 3, NOW_UNIX + 9)], NOW_UNIX + 10)
    assert kept.revoked == {}


def test_a_jwt_with_a_capability_that_was_taken_back_ends_when_its_member_has_the_next_one():
    member = Issued(NodeId(A[:16]), "kitchen", (), (), IPv4Address("10.0.0.1"), 3, 1000, LATER, A + bytes(1952))
    taken = dataclasses.replace(member, due=True, withdrawn_at=NOW_UNIX, withdrawn_until=LATER - 5)
    assert ended_of([member, taken], NOW_UNIX + 10) == []
    delivered = dataclasses.replace(taken, due=False)
    assert ended_of([delivered], NOW_UNIX + 10) == [Ended(A, NOW_UNIX, LATER - 5)]
    assert ended_of([taken], NOW_UNIX + TAKEN_BACK_S - 1) == []
    assert ended_of([taken], NOW_UNIX + TAKEN_BACK_S) == [Ended(A, NOW_UNIX, LATER - 5)]
    account, _ = next_account([OURS], ended_of([delivered], NOW_UNIX + 10), NOW_UNIX + 10)
    assert account.revoked == {A: NOW_UNIX}
    renewed = dataclasses.replace(delivered, not_after=LATER + 1000)
    kept, _ = next_account([account], ended_of([renewed], LATER - 5), LATER - 5)
    assert kept.revoked == {}, "the JWTs of before have ended by themselves"


def test_what_a_server_has_revoked_stays_revoked_whatever_our_copy_says():
    theirs = dataclasses.replace(OURS, revoked={A: 7, B: 9}, issued_at=NOW_UNIX - 50)
    ours = dataclasses.replace(OURS, revoked={B: 8, C: 3})
    account, is_new = next_account([ours, theirs], [], NOW_UNIX)
    assert (account.revoked, is_new) == ({A: 7, B: 9, C: 3}, True)


def test_a_newer_account_of_a_server_is_taken_over_as_it_is():
    theirs = dataclasses.replace(OURS, revoked={A: 7}, issued_at=NOW_UNIX - 50)
    assert next_account([OURS, theirs], [], NOW_UNIX) == (theirs, False)


def test_a_clock_that_is_behind_does_not_make_an_account_older_than_a_servers():
    theirs = dataclasses.replace(OURS, issued_at=NOW_UNIX + 1000)
    account, _ = next_account([OURS, theirs], [Ended(A, 5, LATER)], NOW_UNIX)
    assert account.issued_at == NOW_UNIX + 1001


@given(
    st.lists(
        st.builds(
            lambda revoked, at: dataclasses.replace(OURS, revoked=revoked, issued_at=at),
            st.dictionaries(st.sampled_from([A, B, C]), st.integers(0, 100)),
            st.integers(0, 2**35),
        ),
        min_size=1,
        max_size=4,
    ),
    st.lists(st.builds(Ended, st.sampled_from([A, B, C]), st.integers(0, 100), st.just(LATER)), max_size=4),
    st.integers(0, 2**35),
)
def test_nothing_is_ever_published_that_is_older_or_forgets(known, ended, now_unix):
    account, is_new = next_account(known, ended, now_unix)
    for other in known:
        assert account.issued_at >= other.issued_at
        assert account.issued_at > other.issued_at or not is_new
        assert all(account.revoked[user] >= until for user, until in other.revoked.items())
    for end in ended:
        assert account.revoked[end.user] >= end.at_unix


def test_more_revocations_than_an_account_holds_are_refused():
    ended = [Ended(n.to_bytes(32, "big"), 5, LATER) for n in range(2001)]
    with pytest.raises(UserError, match="2001 users are revoked; an account holds at most 2000"):
        next_account([OURS], ended, NOW_UNIX)


def test_what_a_server_answers_does_nothing_to_a_terminal():
    def told(name: str, why: str) -> tuple[str, str]:
        return _verdict(json.dumps({"server": {"name": name}, "error": {"description": why}}).encode())

    name, why = told("10.0.0.1", "\x1b[2J" + "e" * 999)
    assert name == "10.0.0.1"
    assert why.isprintable()
    assert len(why) <= 80
    assert told("\x1b[2J", "") == ("", "")
