"""Nodes whose credential ended: their cards are forgotten, and why they are gone is not."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from kit.builders import NOW_UNIX, make_card, make_member, make_realm
from kit.nodes import id_of

from conflux.control.cards import CardBook
from conflux.control.ended import COUNT_MAX, Ended, EndedCards
from conflux.control.who import Who
from conflux.ids import NodeId


def test_a_card_that_ended_is_told_with_its_date_until_a_newer_one_comes() -> None:
    realm, now = make_realm(), [NOW_UNIX]
    book = CardBook(realm.anchor, lambda: now[0], lambda date_unix: None)
    card = make_card(make_member(realm, "bravo"))
    known = book.judge_untrusted(card.node_id, card.encode())
    book.store(known)
    by_name = Who(name="bravo")
    assert book.find_answer(by_name) == known
    assert book.ended.find(by_name) is None
    now[0] = known.not_after
    assert book.find_answer(by_name) is None
    for who in (by_name, Who(node=card.node_id), Who(address=known.addresses[0])):
        assert book.ended.find(who) == Ended(card.node_id, "bravo", known.addresses, known.not_after)
    book.store(known)
    assert book.ended.find(by_name) is None


def test_so_many_are_remembered_and_the_one_that_ended_first_goes_first() -> None:
    ended = EndedCards()
    for number in range(COUNT_MAX + 5):
        ended.add(Ended(NodeId(number.to_bytes(16, "big")), f"n{number}", (ip_address("fd00::1"),), number))
    assert len(ended) == COUNT_MAX
    assert ended.find(Who(name="n4")) is None
    assert ended.find(Who(name="n5")) is not None


@pytest.mark.parametrize("who", [Who(name="bravo"), Who(address=ip_address("fd00::1"))])
def test_of_several_of_one_name_the_one_that_ended_last_is_meant(who: Who) -> None:
    ended = EndedCards()
    for name in ("old", "new", "old"):
        ended.add(Ended(id_of(name), "bravo", (ip_address("fd00::1"),), 7))
    found = ended.find(who)
    assert found is not None
    assert found.node == id_of("old")
