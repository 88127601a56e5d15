"""What neighbours say to each other once each has the other's chain, and what earlier builds get in its place."""

from __future__ import annotations

import pytest
from kit.builders import make_credential, make_grant, make_realm, node_keys, signing_key
from kit.control import Station, World

from conflux.control.chains import digest_of
from conflux.control.envelope import Inner, Kind
from conflux.control.who import Who
from conflux.errors import RemoteProtocolError
from conflux.realm.card import SMALL_QUESTIONS, Card, whole_card_untrusted
from conflux.realm.credential import Chain
from conflux.realm.member import Member
from conflux.record import encode

REALM = make_realm()
GRANT = make_grant(REALM, signing_key("issuer"))


def world(*names: str) -> World:
    made = World()
    for name in names:
        credential = make_credential(REALM, name, issuer=signing_key("issuer"))
        made.start(name, member=Member(node_keys(name), REALM.anchor, Chain(credential, GRANT)))
    return made


def meet(one: Station, other: Station, features: frozenset[str] = frozenset((SMALL_QUESTIONS,))) -> None:
    """Have two stations know what their channels' handshake told them."""
    for us, them in ((one, other), (other, one)):
        us.plane.chains.learn(them.plane.own_card.chain)
        us.plane.near.says(them.node, features, digest_of(us.plane.own_card.chain))


def plain(station: Station) -> list[tuple[Kind, int, bool]]:
    """Return kind, bytes of its body, and whether it is for one node, of what a station sent in the open."""
    found = []
    for envelope in station.sent:
        if envelope.key_id is None:
            inner = Inner.decode_untrusted(envelope.payload)
            found.append((Kind(inner.kind), len(inner.body), envelope.to is not None))
    return found


def test_neighbours_that_met_give_each_other_cards_of_five_kilobytes() -> None:
    made = world("alice", "bob")
    alice, bob = made["alice"], made["bob"]
    meet(alice, bob)
    alice.plane.who(Who(name="bob"), now=made.now)
    made.run(0.2)
    assert [found.card for found in alice.found()] == [bob.plane.own_card]
    assert bob.plane.card(alice.node) == alice.plane.own_card
    (ask_back,) = plain(bob)
    assert ask_back[0] is Kind.WHO
    _, answer = plain(alice)
    assert answer[0] is Kind.CARD
    assert max(ask_back[1], answer[1]) < 5_000
    assert not alice.plane.drops
    assert not bob.plane.drops


def test_a_node_that_has_our_chain_of_before_is_given_the_whole_card() -> None:
    made = world("alice", "bob")
    alice, bob = made["alice"], made["bob"]
    meet(alice, bob)
    alice.plane.near.says(bob.node, frozenset((SMALL_QUESTIONS,)), bytes(32))
    alice.plane.who(Who(node=bob.node), now=made.now)
    made.run(0.2)
    assert plain(alice)[0][1] > 10_000
    bob.plane.near.left(alice.node)
    made.run(0.2)
    assert alice.found()
    assert not made["bob"].plane.drops


def test_who_left_is_given_cards_as_before() -> None:
    made = world("alice", "bob")
    alice, bob = made["alice"], made["bob"]
    meet(alice, bob)
    alice.plane.near.left(bob.node)
    alice.plane.who(Who(node=bob.node), now=made.now)
    made.run(0.2)
    assert plain(alice)[0][1] > 10_000


def test_a_bare_card_whose_chain_is_not_here_is_dropped_and_asked_for_again_in_full() -> None:
    made = world("alice", "bob")
    alice, bob = made["alice"], made["bob"]
    alice.plane.near.says(bob.node, frozenset((SMALL_QUESTIONS,)), digest_of(alice.plane.own_card.chain))
    alice.plane.who(Who(node=bob.node), now=made.now)
    made.run(0.2)
    assert bob.plane.drops == {"unknown-chain": 1}
    assert not alice.found()
    made.run(1.0)
    assert alice.found()


def test_a_bare_answer_that_cannot_be_read_comes_again_whole() -> None:
    """The asker has dropped the chain since the handshake, as so many others came."""
    made = world("alice", "bob")
    alice, bob = made["alice"], made["bob"]
    bob.plane.near.says(alice.node, frozenset((SMALL_QUESTIONS,)), digest_of(bob.plane.own_card.chain))
    alice.plane.who(Who(node=bob.node), now=made.now)
    made.run(0.2)
    assert alice.plane.drops == {"unknown-chain": 1}
    made.run(0.5)
    assert alice.found()


def test_a_question_for_many_goes_to_a_neighbour_of_an_earlier_build_with_a_card() -> None:
    """Such a build drops a question without one: a node that has just started would not find it by name."""
    made = world("alice", "bob", "carol")
    alice, bob, carol = made["alice"], made["bob"], made["carol"]
    meet(alice, carol)
    meet(alice, bob, frozenset())
    alice.plane.who(Who(name="bob"), now=made.now)
    made.run(0.1)
    assert sorted((size > 10_000, to_one) for kind, size, to_one in plain(alice) if kind is Kind.WHO) == [
        (False, False),
        (True, True),
    ]
    assert alice.found()
    assert carol.sent == []


@pytest.mark.parametrize("digest", [b"", bytes(31), bytes(32), bytes(33)])
def test_a_bare_card_of_no_chain_is_refused(digest: bytes) -> None:
    made = world("alice")
    card = made["alice"].plane.own_card
    item = card._to_item()
    item[1] = digest
    chains = made["alice"].plane.chains
    with pytest.raises(RemoteProtocolError, match="unknown-chain"):
        whole_card_untrusted(encode(item), chains.grants.find_untrusted, chains.find_untrusted)
    bare = card.encode_bare()
    chains.learn(card.chain)
    whole = whole_card_untrusted(bare, chains.grants.find_untrusted, chains.find_untrusted)
    assert Card.decode_untrusted(whole) == card
