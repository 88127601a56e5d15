"""Names and addresses that several cards claim: every node finds the same owner, in whatever order the cards came."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from kit.builders import NOW_UNIX, make_card, make_credential, make_grant, make_realm, node_keys, signing_key

from conflux.control.cards import CardBook, KnownCard
from conflux.control.claims import Claims, claim_of
from conflux.control.who import Who
from conflux.realm.credential import Chain
from conflux.realm.member import Member

REALM = make_realm()
ADDRESS = REALM.anchor.ipv4_prefix[7]


def known(keys: str, *, issuer: str = "gate", granted: int = 0, serial: int = 1, lasts_s: int = 1000) -> KnownCard:
    """The card of a node called fileserver, let in by an issuer to which the root granted at some time."""
    key = signing_key(issuer)
    begins = NOW_UNIX - 100 + granted
    grant = dataclasses.replace(make_grant(REALM, key), not_before=begins).sign(REALM.root, REALM.anchor.realm_id)
    credential = dataclasses.replace(
        make_credential(REALM, keys),
        name="fileserver",
        ipv4=ADDRESS,
        serial=serial,
        issuer=grant.issuer,
        not_before=NOW_UNIX - 10,
        not_after=NOW_UNIX + lasts_s,
    ).sign(key, REALM.anchor.realm_id)
    card = make_card(Member(node_keys(keys), REALM.anchor, Chain(credential, grant)))
    return KnownCard.verify_untrusted(card.encode(), REALM.anchor, lambda: NOW_UNIX, lambda date: None)


class Book:
    def __init__(self) -> None:
        self.now_unix = NOW_UNIX
        self.book = CardBook(REALM.anchor, lambda: self.now_unix, lambda date: None)

    def owners(self) -> set[bytes | None]:
        """Who answers to the name, and to the address."""
        found = (self.book.find_answer(who) for who in (Who(name="fileserver"), Who(address=ADDRESS)))
        return {None if each is None else each.node_id for each in found}


def one(name: str) -> set[bytes | None]:
    return {node_keys(name).node_id}


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_of_several_issuers_the_one_granted_first_names_the_owner(order):
    cards = [known("honest"), known("late", issuer="shed", granted=1), known("later", issuer="barn", granted=2)]
    book = Book()
    for index in order:
        book.book.store(cards[index])
    assert book.owners() == one("honest")
    assert book.book.contested() == {
        "fileserver": tuple(node_keys(name).node_id for name in ("honest", "late", "later"))
    }


@pytest.mark.parametrize("order", list(itertools.permutations(range(2))))
def test_of_one_issuer_the_newest_credential_names_the_owner(order):
    cards = [known("dead", serial=4), known("replacing", serial=9)]
    book = Book()
    for index in order:
        book.book.store(cards[index])
    assert book.owners() == one("replacing")


def test_of_issuers_granted_at_once_the_smaller_id_decides():
    cards = [known("a", issuer="shed"), known("b", issuer="barn")]
    smaller = min(cards, key=lambda card: card.card.chain.credential.issuer)
    book = Book()
    for card in cards:
        book.book.store(card)
    assert book.owners() == {smaller.node_id}


def test_the_next_one_owns_what_an_owner_that_is_gone_or_expired_had():
    book = Book()
    book.book.store(known("honest", lasts_s=10))
    book.book.store(known("late", issuer="shed", granted=1))
    book.now_unix += 10
    assert book.owners() == one("late")
    assert book.book.contested() == {}
    book.book.remove(node_keys("late").node_id)
    assert book.owners() == {None}


def test_a_newer_card_of_a_node_is_one_claim():
    book = Book()
    for serial in (1, 2):
        book.book.store(known("honest", serial=serial))
    assert book.book.contested() == {}


def test_claims_leave_nothing_behind():
    claims: Claims[str] = Claims()
    claim = claim_of(known("honest").card.chain)
    claims.add("x", claim)
    claims.remove("x", node_keys("late").node_id)
    assert claims.owner("x") == claim.node
    claims.remove("x", claim.node)
    claims.remove("x", claim.node)
    assert (claims.owner("x"), claims._claims) == (None, {})
