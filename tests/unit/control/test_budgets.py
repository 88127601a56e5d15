"""What one neighbour, or one key at a broker, may make the plane ask, give and verify: none uses up others' share."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
from kit.builders import make_card, make_credential, make_grant, make_member, make_realm, node_keys, signing_key
from kit.control import Station, World, boot_id

from conflux.budget import Ration, SharedBudget
from conflux.control import arrivals, giving
from conflux.control.channel import Arrival
from conflux.control.envelope import Envelope, Inner, Kind, signed_message
from conflux.control.who import Question, Who
from conflux.crypto.seal import seal
from conflux.crypto.sign import SigningKey, context
from conflux.ids import NodeId
from conflux.realm.card import Card
from conflux.realm.credential import Chain, Credential, Grant
from conflux.realm.member import Member

REALM = make_realm()
MALLORY, CAROL = make_member(REALM, "mallory"), make_member(REALM, "carol")


def neighbour(number: int) -> NodeId:
    return NodeId(number.to_bytes(16, "big"))


class Alone:
    """bob, to whom neighbours and a broker hand what they like; nothing that he sends arrives anywhere."""

    def __init__(self) -> None:
        self.world = World("bob")
        self.bob: Station = self.world["bob"]
        self.world.run(3)
        self.number = 0

    def envelope(self, payload: bytes, *, to: NodeId | None = None, key_id: bytes | None = None) -> Envelope:
        self.number += 1
        return Envelope(to, self.number.to_bytes(16, "big"), 8, key_id, payload)

    def inject(self, envelope: Envelope, source: int, *, far: bool = False) -> list[Envelope]:
        """Hand bob an envelope of a neighbour or, far, of a key at the broker; return what he sends because of it."""
        before = len(self.bob.sent)
        key = source.to_bytes(32, "big")
        via, channel, path = (None, "nats", key) if far else (neighbour(source), "lan", None)
        self.bob.plane.receive_untrusted(Arrival(envelope, via, channel, path), now=self.world.now)
        self.world.drain()
        return self.bob.sent[before:]

    def unreadable(self) -> Envelope:
        """An envelope sealed to a key that bob does not hold: anyone can make it."""
        return self.envelope(bytes(1200), to=self.bob.node, key_id=bytes(8))

    def unknown(self, member: Member | None = None) -> Envelope:
        """An OPEN of a sender whose card bob does not hold, or of one that does not exist: unsigned."""
        card, me = self.bob.plane.own_card, self.bob.node
        self.number += 1
        src = neighbour(2**64 + self.number) if member is None else member.node_id
        inner = Inner(src, boot_id(1), self.number, Kind.OPEN, 0, b"", bytes(64)).encode()
        info = context("control-seal", REALM.anchor.realm_id) + card.hop_key_id + me
        return self.envelope(seal(card.hop_public, inner, info), to=me, key_id=card.hop_key_id)

    def question(self, member: Member, *, card: Card | None = None, signer: Member | None = None) -> Envelope:
        """A question for bob with the asker's card in it."""
        self.number += 1
        data = (card or make_card(member, boot=boot_id(1))).encode()
        body = Question(Who(name="bob"), data).encode()
        signed = signed_message(None, member.node_id, boot_id(1), self.number, Kind.WHO, 0, body)
        signature = (signer or member).keys.signing.sign_ed25519(context("control", member.realm_id), signed)
        inner = Inner(member.node_id, boot_id(1), self.number, Kind.WHO, 0, body, signature)
        return self.envelope(inner.encode())


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> list[Card]:
    """The cards whose signatures were looked at."""
    seen: list[Card] = []
    whole = Card.verify

    def verify(card: Card, *arguments: object, **options: object) -> None:
        seen.append(card)
        whole(card, *arguments, **options)

    monkeypatch.setattr(Card, "verify", verify)
    return seen


def made_up(count: int) -> list[Member]:
    """Nodes with keys of their own, and a credential whose signature is forged."""
    return [_made_up(number) for number in range(count)]


@cache
def _made_up(number: int) -> Member:
    name, issuer = f"made-up-{number}", signing_key("issuer")
    signed, grant = _signed(issuer)
    signature = bytes(len(signed.signature))
    forged = replace(signed, node_public=node_keys(name).public.encode(), name=name, signature=signature)
    return Member(node_keys(name), REALM.anchor, Chain(forged, grant))


@cache
def _signed(issuer: SigningKey) -> tuple[Credential, Grant]:
    return make_credential(REALM, "made-up", issuer=issuer), make_grant(REALM, issuer)


# ── cards that are asked for and given ──


@pytest.mark.parametrize("far", [False, True])
def test_unknown_senders_of_one_neighbour_leave_those_of_another_their_questions(far: bool) -> None:
    alone = Alone()
    for _ in range(30):
        alone.inject(alone.unknown(), 1, far=far)
    asked = alone.inject(alone.unknown(CAROL), 2, far=far)
    assert [envelope.to for envelope in asked][:1] == [CAROL.node_id]


def test_unreadable_envelopes_of_one_neighbour_leave_another_its_card() -> None:
    alone = Alone()
    for _ in range(30):
        alone.inject(alone.unreadable(), 1)
    assert [envelope.to for envelope in alone.inject(alone.unreadable(), 2)] == [neighbour(2)]


def test_unreadable_envelopes_cost_unknown_senders_no_question() -> None:
    alone = Alone()
    for _ in range(30):
        alone.inject(alone.unreadable(), 1)
    assert alone.inject(alone.unknown(CAROL), 1)


@pytest.mark.parametrize("far", [False, True])
def test_unknown_senders_of_all_neighbours_together_make_few_questions(far: bool) -> None:
    alone = Alone()
    asked = [alone.inject(alone.unknown(), source, far=far) for source in range(1, 65)]
    assert sum(bool(sent) for sent in asked) == giving.INTRODUCTIONS_TOTAL.burst
    assert alone.inject(alone.unknown(), 1, far=not far), "what another channel brings has a budget of its own"


def test_unreadable_envelopes_of_all_neighbours_together_cost_few_cards() -> None:
    alone = Alone()
    given = [alone.inject(alone.unreadable(), source) for source in range(1, 65)]
    assert sum(bool(sent) for sent in given) == giving.CARDS_GIVEN_TOTAL.burst


# ── cards that are verified ──


@pytest.mark.parametrize("far", [False, True])
def test_made_up_senders_of_one_neighbour_cost_so_many_verifications_and_no_other_its_own(
    far: bool, verified: list[Card]
) -> None:
    alone = Alone()
    each = int(arrivals.CARDS_EACH.burst)
    for member in made_up(each + 20):
        alone.inject(alone.question(member), 1, far=far)
    assert len(verified) == each
    assert alone.bob.plane.drops == {"bad-signature": each, "flood": 20}
    assert alone.inject(alone.question(CAROL), 2, far=far), "carol's question is answered"


def test_made_up_senders_of_all_neighbours_together_cost_so_many_verifications(verified: list[Card]) -> None:
    alone = Alone()
    total = int(arrivals.CARDS_TOTAL.burst)
    for number, member in enumerate(made_up(total + 30)):
        alone.inject(alone.question(member), 1 + number % 16, far=True)
    assert len(verified) == total
    assert alone.inject(alone.question(CAROL), 1), "a server that lies costs the LAN nothing"


def test_card_that_was_verified_costs_nothing_again(verified: list[Card]) -> None:
    alone = Alone()
    for _ in range(int(arrivals.CARDS_EACH.burst) + 1):
        alone.world.now += 0.1
        assert alone.inject(alone.question(CAROL), 1)
    assert len(verified) == 1


def test_card_is_compared_before_it_is_verified(verified: list[Card]) -> None:
    alone = Alone()
    alone.inject(alone.question(CAROL, signer=MALLORY), 1)  # not of the card's own key
    alone.inject(alone.question(CAROL, card=make_card(MALLORY, boot=boot_id(1))), 1)  # of another node
    alone.inject(alone.question(CAROL, card=make_card(CAROL, boot=boot_id(2))), 1)  # of another boot than the message
    foreign = make_member(make_realm("elsewhere"), "eve")
    alone.inject(alone.question(foreign), 1)
    assert verified == []
    reasons = {"bad-signature": 1, "wrong-sender": 1, "malformed": 1, "foreign-realm": 1}
    assert alone.bob.plane.drops == reasons
    alone.bob.clock_unix = CAROL.chain.not_after
    alone.inject(alone.question(CAROL), 1)
    assert alone.bob.plane.drops == reasons | {"expired": 1}
    assert verified == []


# ── the budget itself ──


def test_shared_budget_takes_nothing_of_the_total_for_a_source_without_tokens() -> None:
    budget = SharedBudget(each=Ration(1.0, 2.0), total=Ration(1.0, 3.0), count_max=8)
    assert [budget.take("lan", "a", 0.0) for _ in range(5)] == [True, True, False, False, False]
    assert [budget.take("lan", "b", 0.0) for _ in range(2)] == [True, False]
    assert budget.take("nats", "a", 0.0)
