"""The relays a node names to its peers: which, how many, and how fresh their cards are."""

from __future__ import annotations

import pytest
from kit.nodes import FakePlane, FakeSearch, card_of, id_of

from conflux.control.who import Who
from conflux.node import vantage
from conflux.node.vantage import ASK_S, Vantages
from conflux.stream.handshake import VANTAGE_COUNT_MAX

BRAVO = id_of("bravo")
RELAYS = ("rod", "ruth", "rita", "rosa")


@pytest.fixture
def plane() -> FakePlane:
    return FakePlane(id_of("alpha"), {id_of(name): card_of(name) for name in RELAYS})


def made(plane: FakePlane, *named: str) -> Vantages:
    search = FakeSearch(named=tuple(id_of(name) for name in named))
    return Vantages(plane, search)  # the part of the plane that vantages use


def test_peer_is_told_of_the_best_relays_with_their_keys(plane):
    told = made(plane, *RELAYS).of(BRAVO)
    assert [entry.node for entry in told] == [id_of(name) for name in RELAYS[:VANTAGE_COUNT_MAX]]
    assert told[0].hop_key_id == card_of("rod").hop_key_id


def test_nodes_that_may_not_relay_and_nodes_without_a_card_are_not_told(plane):
    plane.cards[id_of("rod")] = card_of("rod", may=False)
    plane.cards[id_of("ruth")] = card_of("ruth", relays=False)
    del plane.cards[id_of("rita")]
    assert [entry.node for entry in made(plane, *RELAYS).of(BRAVO)] == [id_of("rosa")]


def test_relays_are_asked_for_their_present_cards_once_in_a_quarter_of_an_hour(plane):
    vantages = made(plane, "rod")
    for now in (0.0, ASK_S - 1.0, ASK_S):
        vantages.freshen(BRAVO, now)
    assert plane.refreshed == [id_of("rod")] * 2


def test_bridge_without_a_card_is_asked_for_it_and_counts_as_asked(plane):
    del plane.cards[id_of("rod")]
    vantages = made(plane, "rod")
    vantages.know(id_of("rod"), 0.0)
    vantages.know(id_of("ruth"), 0.0)
    vantages.freshen(BRAVO, 1.0)
    assert (plane.asked, plane.refreshed) == ([Who(node=id_of("rod"))], [])


def test_count_of_remembered_questions_is_bounded(plane, monkeypatch):
    monkeypatch.setattr(vantage, "ASKED_COUNT_MAX", 2)
    vantages = made(plane, *RELAYS)
    vantages.freshen(BRAVO, 0.0)
    assert len(vantages._asked) == 2
