"""Cards that name their grant by a digest: who sends one, who takes one, and what follows where it is unknown."""

from __future__ import annotations

import dataclasses

import pytest
from kit.builders import NOW_UNIX, make_credential, make_grant, make_member, make_realm, node_keys, signing_key
from kit.control import Station, World

from conflux.control import grants
from conflux.control.envelope import Envelope, Inner, Kind
from conflux.control.grants import Grants
from conflux.control.who import Question, Who
from conflux.crypto.kdf import sha256
from conflux.errors import RemoteProtocolError
from conflux.realm.credential import Chain
from conflux.realm.member import Member

REALM = make_realm()
GRANTS = {name: make_grant(REALM, signing_key(name)) for name in ("issuer", "other issuer")}


def member(name: str, issuer: str = "issuer") -> Member:
    credential = make_credential(REALM, name, issuer=signing_key(issuer))
    return Member(node_keys(name), REALM.anchor, Chain(credential, GRANTS[issuer]))


def world(**issuers: str) -> World:
    made = World()
    for name, issuer in issuers.items():
        made.start(name, member=member(name, issuer))
    return made


def inner(envelope: Envelope) -> Inner:
    return Inner.decode_untrusted(envelope.payload)


def cards_sent(station: Station) -> list[bytes]:
    """Return the cards that a station's questions and answers carried, as they were sent."""
    found = []
    for envelope in station.sent:
        message = inner(envelope) if envelope.key_id is None else None
        if message is not None and message.kind == Kind.WHO:
            found.append(Question.decode_untrusted(message.body).card)
        elif message is not None and message.kind == Kind.CARD:
            found.append(message.body)
    return found


def test_members_of_one_issuer_send_each_other_cards_without_its_grant() -> None:
    made = world(alice="issuer", bob="issuer")
    alice, bob = made["alice"], made["bob"]
    alice.plane.who(Who(name="bob"), now=made.now)
    made.run(0.2)
    assert alice.found()[0].card == bob.plane.own_card
    assert bob.plane.card(alice.node) == alice.plane.own_card
    for station, before in ((alice, [b""]), (bob, [])):  # a question for many has no card
        *others, sent = cards_sent(station)
        assert others == before
        assert sent == station.plane.own_card.encode_short()
        assert len(sent) < 12_000 < len(station.plane.own_card.encode()), "ten segments carry it"


def test_node_of_another_issuer_is_told_again_with_the_whole_card() -> None:
    made = world(alice="issuer", bob="other issuer")
    alice, bob = made["alice"], made["bob"]
    alice.plane.who(Who(name="bob"), now=made.now)
    made.run(0.2)
    assert alice.found() == []
    assert alice.plane.drops == {"unknown-grant": 1}
    made.run(0.4)
    assert alice.found()[0].card == bob.plane.own_card
    assert cards_sent(alice)[-1] == alice.plane.own_card.encode()
    assert cards_sent(bob) == [bob.plane.own_card.encode_short(), bob.plane.own_card.encode()]


def test_node_that_knows_two_issuers_sends_whole_cards_at_once() -> None:
    made = world(alice="issuer", bob="other issuer", carol="other issuer")
    alice = made["alice"]
    alice.plane.who(Who(name="bob"), now=made.now)
    made.run(1.0)
    alice.sent.clear()
    alice.plane.who(Who(name="carol"), now=made.now)
    made.run(0.2)
    assert [found.card.name for found in alice.found()] == ["bob", "carol"]
    assert cards_sent(alice) == [b"", alice.plane.own_card.encode()]


def test_card_under_anothers_grant_does_not_verify() -> None:
    made = world(alice="issuer", bob="issuer")
    alice, bob = made["alice"], made["bob"]
    chain = Chain(make_member(REALM, "alice").chain.credential, GRANTS["issuer"])  # the root signed that credential
    alice.plane._author.short_card_bytes = dataclasses.replace(alice.plane.own_card, chain=chain).encode_short()
    alice.plane.who(Who(node=bob.node), now=made.now)  # such a question carries the card
    made.run(0.1)
    assert bob.plane.drops == {"wrong-issuer": 1}
    assert bob.plane.card(alice.node) is None


def test_grants_are_bounded_and_the_one_not_used_for_longest_goes_first(monkeypatch) -> None:
    monkeypatch.setattr(grants, "GRANT_COUNT_MAX", 2)
    known = Grants()
    assert not known.is_one
    digests = []
    for count in range(3):
        grant = make_grant(REALM, signing_key("issuer"), not_after=NOW_UNIX + 1000 + count)
        credential = make_credential(REALM, "alice", issuer=signing_key("issuer"))
        known.learn(Chain(credential, grant))
        known.learn(Chain(credential, grant))
        digests.append(sha256(grant.encode()))
        if count == 0:
            assert known.is_one
        elif count == 1:
            known.find_untrusted(digests[0])
    with pytest.raises(RemoteProtocolError, match="unknown-grant"):
        known.find_untrusted(digests[1])
    assert known.find_untrusted(digests[0]) != known.find_untrusted(digests[2])
