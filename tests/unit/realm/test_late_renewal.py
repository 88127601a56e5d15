"""Renewal of what has expired, and by an issuer in another's place: who asks, who answers, what is believed."""

from __future__ import annotations

import dataclasses
import random
from ipaddress import IPv4Network

import pytest
from kit.builders import NOW_UNIX, make_realm, node_keys, signing_key
from kit.office import BINDING, REALM, Office, Records, clock

from conflux.errors import RemoteProtocolError
from conflux.realm.credential import Chain, Grant
from conflux.realm.issued import End
from conflux.realm.issuer import Issuer
from conflux.realm.join import JoinAnswer, Renewer, RenewRequest, require_follows
from conflux.realm.member import Member

ALPHA = node_keys("alpha")
LATE_S = 90 * 86400


def grant_of(name: str, block: IPv4Network, *, begins: int = NOW_UNIX) -> Grant:
    public = signing_key(name).public.encode()
    grant = Grant(REALM.anchor.realm_id, public, block, begins, begins + 10**9, b"")
    return grant.sign(REALM.root, REALM.anchor.realm_id)


def issuer_named(name: str, block: IPv4Network, *, begins: int, further: tuple[Grant, ...] = ()) -> Issuer:
    grant = grant_of(name, block, begins=begins)
    return Issuer(signing_key(name), REALM.anchor, grant, Records(), further=further)


def alpha_of(office: Office, lifetime_s: int = 1000) -> Member:
    return Member(ALPHA, REALM.anchor, office.join(office.invite(lifetime_s=lifetime_s), "alpha").chain)


def renewer(member: Member) -> Renewer:
    return Renewer(member, entropy=random.Random(4).randbytes)


def answer_to(issuer: Issuer, asking: Renewer, now_unix: int, late_s: int = LATE_S) -> JoinAnswer:
    request = RenewRequest.decode_untrusted(asking.request(BINDING).encode())
    return issuer.renew_at(request, binding=BINDING, now_unix=now_unix, late_s=late_s)


def refusal(issuer: Issuer, member: Member, now_unix: int, late_s: int = LATE_S) -> str:
    with pytest.raises(RemoteProtocolError) as caught:
        answer_to(issuer, renewer(member), now_unix, late_s)
    return caught.value.reason


# ── the issuer's part ──


@pytest.mark.parametrize("days", [0, 35, 89])
def test_member_of_yesterday_is_renewed_although_expired(days):
    office = Office()
    member = alpha_of(office)
    now_unix = NOW_UNIX + 500 + days * 86400
    asking = renewer(member)
    answer = answer_to(office.issuer, asking, now_unix)
    renewed = asking.accept_untrusted(answer.encode(), clock(now_unix))
    assert renewed.chain.not_after == now_unix + 1000
    assert (renewed.name, renewed.addresses) == (member.name, member.addresses)


def test_who_expired_longer_ago_than_the_setting_is_not_renewed_and_keeps_its_place():
    office = Office()
    member = alpha_of(office)
    end = NOW_UNIX + 1000
    assert refusal(office.issuer, member, end + LATE_S) == "expired-long-ago"
    answer_to(office.issuer, renewer(member), end + LATE_S - 1)
    (entry,) = office.records.issued()
    assert (entry.name, entry.ipv4) == ("alpha", member.addresses[1])


def test_setting_of_no_days_renews_nothing_that_expired():
    office = Office()
    assert refusal(office.issuer, alpha_of(office), NOW_UNIX + 1000, late_s=0) == "expired"


def test_member_that_was_ended_is_not_renewed():
    office = Office()
    member = alpha_of(office)
    office.issuer.end(ALPHA.node_id, End.REVOKED, now_unix=NOW_UNIX)
    assert refusal(office.issuer, member, NOW_UNIX) == "ended"


def test_chain_that_another_node_saw_renews_nothing():
    office = Office()
    member = alpha_of(office)
    for signer, binding in ((node_keys("mallory"), BINDING), (ALPHA, b"C" * 32)):
        request = RenewRequest(member.chain, bytes(32), b"").sign(
            signer.signing, REALM.anchor.realm_id, binding=binding
        )
        with pytest.raises(RemoteProtocolError, match="bad-signature"):
            office.issuer.renew_at(request, binding=BINDING, now_unix=NOW_UNIX, late_s=LATE_S)


def test_chain_that_no_issuer_signed_renews_nothing():
    office = Office()
    member = alpha_of(office)
    forged = dataclasses.replace(member.chain.credential, name="other")
    forged_member = Member(ALPHA, REALM.anchor, dataclasses.replace(member.chain, credential=forged))
    assert refusal(office.issuer, forged_member, NOW_UNIX) == "bad-signature"


# ── an issuer in another's place ──


def blocks() -> tuple[IPv4Network, IPv4Network]:
    lower, upper = REALM.anchor.ipv4_prefix.subnets(1)
    return lower, upper


def test_issuer_in_anothers_place_renews_its_members_and_they_take_it():
    office, (lower, upper) = Office(), blocks()
    member = alpha_of(office)
    block = lower if member.addresses[1] in lower else upper
    other = upper if block == lower else lower
    for successor in (
        issuer_named("successor", block, begins=NOW_UNIX + 1),
        issuer_named("second", other, begins=NOW_UNIX, further=(grant_of("second", block, begins=NOW_UNIX + 1),)),
    ):
        asking = renewer(member)
        late = NOW_UNIX + 35 * 86400
        renewed = asking.accept_untrusted(answer_to(successor, asking, late).encode(), clock(late))
        assert (renewed.name, renewed.addresses) == (member.name, member.addresses)
        assert renewed.chain.credential.issuer == successor.issuer_id
        again = renewer(renewed)
        later = answer_to(successor, again, late + 500)
        assert again.accept_untrusted(later.encode(), clock(late + 500)).chain.credential.serial == 2


def test_issuer_of_another_block_or_of_an_earlier_grant_renews_no_foreign_member():
    office, (lower, upper) = Office(), blocks()
    member = alpha_of(office)
    block, other = (lower, upper) if member.addresses[1] in lower else (upper, lower)
    begins = member.chain.grant.not_before
    for issuer in (issuer_named("b", other, begins=begins + 1), issuer_named("c", block, begins=begins)):
        assert refusal(issuer, member, NOW_UNIX) == "wrong-issuer"


def test_issuer_in_anothers_place_gives_no_name_or_address_twice():
    office = Office()
    member = alpha_of(office)
    successor = issuer_named("successor", REALM.anchor.ipv4_prefix, begins=NOW_UNIX + 1)
    answer_to(successor, renewer(member), NOW_UNIX)
    (entry,) = successor._records.issued()
    for taken, reason in (
        (dataclasses.replace(entry, node_id=node_keys("b").node_id, ipv4=REALM.anchor.ipv4_prefix[9]), "name-taken"),
        (dataclasses.replace(entry, node_id=node_keys("b").node_id, name="b"), "no-address"),
    ):
        other = issuer_named("successor", REALM.anchor.ipv4_prefix, begins=NOW_UNIX + 1)
        other._records.save_issued(taken)
        assert refusal(other, member, NOW_UNIX) == reason


# ── what a member believes ──


def chains() -> tuple[Chain, Chain]:
    """A chain of alpha, and its renewal."""
    office = Office()
    old = alpha_of(office).chain
    return old, office.issuer.renew(old, now_unix=NOW_UNIX)


def with_credential(chain: Chain, **fields) -> Chain:
    return dataclasses.replace(chain, credential=dataclasses.replace(chain.credential, **fields))


def test_newer_chain_of_the_same_issuer_follows():
    old, new = chains()
    require_follows(old, new)
    for same_or_older in (old, with_credential(new, serial=0)):
        with pytest.raises(RemoteProtocolError, match="not newer"):
            require_follows(old, same_or_older)


@pytest.mark.parametrize(
    "change", [{"ipv4": None}, {"ipv4": REALM.anchor.ipv4_prefix[99]}, {"node_public": bytes(1984)}]
)
def test_chain_of_other_keys_or_addresses_does_not_follow(change):
    old, new = chains()
    with pytest.raises(RemoteProtocolError, match="neither keys nor addresses"):
        require_follows(old, with_credential(new, **change))


@pytest.mark.parametrize(("begins", "follows"), [(-1, False), (0, False), (1, True)])
def test_chain_of_another_issuer_follows_if_its_grant_is_the_later_one(begins, follows):
    old, new = chains()
    grant = grant_of("successor", REALM.anchor.ipv4_prefix, begins=old.grant.not_before + begins)
    other = dataclasses.replace(with_credential(new, issuer=grant.issuer, serial=1), grant=grant)
    if follows:
        require_follows(old, other)
    else:
        with pytest.raises(RemoteProtocolError, match="wrong-issuer"):
            require_follows(old, other)


def test_answer_of_another_realm_or_to_another_request_is_refused():
    office = Office()
    member = alpha_of(office)
    asking, other = renewer(member), renewer(member)
    answer = answer_to(office.issuer, other, NOW_UNIX)
    asking.request(b"C" * 32)
    with pytest.raises(RemoteProtocolError, match="bad-signature"):
        asking.accept_untrusted(answer.encode(), clock())
    foreign = dataclasses.replace(answer, anchor=make_realm("elsewhere").anchor)
    with pytest.raises(RemoteProtocolError, match="foreign-realm"):
        other.accept_untrusted(foreign.encode(), clock())
    with pytest.raises(RemoteProtocolError, match="no request"):
        renewer(member).accept_untrusted(answer.encode(), clock())
