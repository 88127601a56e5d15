"""An issuer's desk at the broker: what is answered, what is not, and what nobody can use a second time."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from kit.builders import NOW_UNIX, node_keys
from kit.office import Office, clock

from conflux.control.admitting import LIST_COUNT_MAX
from conflux.control.admitting import Office as Desk
from conflux.control.nats.reception import ANSWER_COUNT_MAX, ASKED_BURST, REQUEST_BURST, Reception
from conflux.errors import RemoteProtocolError, StateError
from conflux.ids import NodeId
from conflux.realm.broker.joining import (
    CHALLENGE_S,
    Asked,
    TellKind,
    Told,
    join_binding,
    seal_request,
    unseal_told_untrusted,
)
from conflux.realm.invite import Token
from conflux.realm.join import Joiner, JoinRefused
from conflux.realm.member import Member
from conflux.realm.waiting import Decision

NONCE = b"n" * 32


class Counters:
    """An issuer with its reception, and joiners that talk to it without a broker."""

    def __init__(self, lists: tuple[bytes, ...] = ()) -> None:
        self.office = Office()
        self.drops: Counter[str] = Counter()
        self.issued = 0
        self.entropy = random.Random(7).randbytes
        self.broken = False
        self.desk = Desk(
            issue=self.issue,
            issuer=lambda: self.office.issuer.issuer_id,
            secret=self.office.issuer.secret_of,
            lists=lambda: lists,
        )
        self.reception = self.restart()

    def restart(self) -> Reception:
        self.reception = Reception(self.desk, entropy=self.entropy, drop=self.drop)
        return self.reception

    def drop(self, reason: str) -> None:
        self.drops[reason] += 1

    def issue(self, request, binding):
        self.issued += 1
        if self.broken:
            raise StateError("the disk is full")
        return self.office.issuer.join(request, binding=binding, now_unix=NOW_UNIX)

    def receive(self, token: Token, asked: Asked, *, now: float = 0.0) -> list[Told]:
        return [
            Told.decode_untrusted(data)
            for data in self.reception.receive_untrusted(token.invite_id, asked.encode(), now=now)
        ]


class Joining:
    """One joiner's exchange."""

    def __init__(
        self, counters: Counters, token: Token, name: str = "bob", *, now: float = 0.0, nonce: bytes | None = None
    ) -> None:
        self.token = token
        self.joiner = Joiner(token, node_keys(name), name, entropy=counters.entropy)
        self.nonce = counters.entropy(32) if nonce is None else nonce
        (greeting,) = counters.receive(token, Asked(token.issuer, self.nonce), now=now)
        assert (greeting.nonce, greeting.box) == (self.nonce, b"")
        self.binding = join_binding(token.issuer, token.invite_id, self.nonce, greeting.salt)
        request = self.joiner.request(self.binding).encode()
        self.asked = Asked(token.issuer, self.nonce, greeting.salt, seal_request(token.secret, self.binding, request))

    def open(self, told: Told) -> tuple[TellKind, bytes]:
        return unseal_told_untrusted(self.token.secret, self.binding, told)

    def accept(self, told: Told) -> Member:
        kind, body = self.open(told)
        assert kind is TellKind.JOINED
        return self.joiner.accept_untrusted(body, clock())

    def refusal(self, told: Told) -> str:
        kind, body = self.open(told)
        assert kind is TellKind.REFUSED
        return JoinRefused.decode_untrusted(body).said


def test_joiner_gets_the_lists_and_then_its_credential():
    counters = Counters(lists=(b"deny", b"notice"))
    joining = Joining(counters, counters.office.invite())
    *lists, answer = counters.receive(joining.token, joining.asked)
    assert [joining.open(told) for told in lists] == [(TellKind.LIST, b"deny"), (TellKind.LIST, b"notice")]
    assert joining.accept(answer).name == "bob"
    assert counters.drops == {}


def test_lists_that_come_with_an_answer_are_bounded():
    counters = Counters(lists=(b"deny",) * 99)
    joining = Joining(counters, counters.office.invite())
    assert len(counters.receive(joining.token, joining.asked)) == LIST_COUNT_MAX + 1


def test_names_and_credentials_are_hidden_from_the_broker():
    counters = Counters(lists=(b"the list of those who are denied",))
    joining = Joining(counters, counters.office.invite(), "cellar")
    told = counters.receive(joining.token, joining.asked)
    seen = b"".join([joining.asked.encode(), *(each.encode() for each in told)])
    for hidden in (b"cellar", node_keys("cellar").public.encode()[:32], b"denied", joining.token.secret):
        assert hidden not in seen


def test_request_for_another_issuer_is_left_to_it():
    counters = Counters()
    token = counters.office.invite()
    assert counters.receive(token, Asked(NodeId(b"X" * 16), NONCE)) == []
    assert counters.drops == {}


def test_request_that_comes_again_is_answered_alike_and_asked_of_the_issuer_once():
    counters = Counters()
    joining = Joining(counters, counters.office.invite())
    first, again = (counters.receive(joining.token, joining.asked)[-1] for _ in range(2))
    assert joining.open(first) == joining.open(again)
    assert first.salt != again.salt, "no key seals two messages"
    assert counters.issued == 1


def test_request_under_the_nonce_of_another_gets_an_answer_of_its_own_and_takes_none_away():
    counters = Counters()
    bob = Joining(counters, counters.office.invite(), "bob")
    thief = Joining(counters, counters.office.invite(), "thief", nonce=bob.nonce)
    assert thief.accept(counters.receive(thief.token, thief.asked)[-1]).name == "thief"
    assert bob.accept(counters.receive(bob.token, bob.asked)[-1]).name == "bob"
    assert counters.issued == 2


def test_request_that_was_held_back_is_worth_nothing_later():
    counters = Counters()
    joining = Joining(counters, counters.office.invite())
    assert counters.receive(joining.token, joining.asked, now=2.0 * CHALLENGE_S) == []
    assert counters.drops == {"join-too-late": 1}
    assert not counters.office.records.nodes


def test_request_of_before_a_restart_is_worth_nothing():
    counters = Counters()
    joining = Joining(counters, counters.office.invite())
    counters.restart()
    assert counters.receive(joining.token, joining.asked) == []
    assert counters.drops == {"join-too-late": 1}


def test_request_does_not_fit_another_invitation_or_another_challenge():
    counters = Counters()
    joining, other = (Joining(counters, counters.office.invite()) for _ in range(2))
    assert counters.receive(other.token, joining.asked) == []
    swapped = Asked(joining.token.issuer, other.nonce, other.asked.challenge, joining.asked.box)
    assert counters.receive(other.token, swapped) == []
    assert counters.drops == {"join-too-late": 1, "join-bad-proof": 1}
    assert not counters.office.records.nodes


def test_answer_does_not_fit_another_joiner_of_the_same_invitation():
    counters = Counters()
    token = counters.office.invite(count=2)
    bob, carol = Joining(counters, token, "bob"), Joining(counters, token, "carol")
    told = counters.receive(token, bob.asked)[-1]
    with pytest.raises(RemoteProtocolError, match="bad-proof"):
        carol.open(Told(carol.nonce, told.salt, told.box))


def test_answer_of_an_earlier_try_does_not_fit_the_next():
    counters = Counters()
    token = counters.office.invite()
    first, second = Joining(counters, token), Joining(counters, token)
    told = counters.receive(token, first.asked)[-1]
    with pytest.raises(RemoteProtocolError, match="bad-proof"):
        second.open(Told(second.nonce, told.salt, told.box))


def test_who_knows_the_secret_alone_still_makes_no_answer():
    """Another holder of the token can seal a box, but it signs as no issuer."""
    counters = Counters()
    token = counters.office.invite(count=2)
    bob, carol = Joining(counters, token, "bob"), Joining(counters, token, "carol")
    _, body = bob.open(counters.receive(token, bob.asked)[-1])
    with pytest.raises(RemoteProtocolError, match="bad-signature"):
        carol.joiner.accept_untrusted(body, clock())


def test_guessed_secret_is_a_drop_and_no_answer():
    counters = Counters()
    token = counters.office.invite()
    guessed = Token(token.root_fingerprint, token.issuer, token.invite_id, b"?" * 16, token.not_after, 1, ())
    joining = Joining(counters, guessed)
    assert counters.receive(token, joining.asked) == []
    assert (counters.drops, counters.issued) == ({"join-bad-proof": 1}, 0)


def test_used_invitation_and_an_issuer_in_trouble_say_so_in_a_box():
    counters = Counters()
    token = counters.office.invite()
    counters.receive(token, Joining(counters, token).asked)
    late = Joining(counters, token, "carol")
    assert late.refusal(counters.receive(token, late.asked)[-1]) == "used-up"
    counters.broken = True
    busy = Joining(counters, token, "dave")
    assert busy.refusal(counters.receive(token, busy.asked)[-1]) == "busy"
    assert counters.drops == {"join-used-up": 1}


def test_who_waits_for_a_person_asks_again_with_another_nonce():
    counters = Counters()
    token = counters.office.invite(approve=True)
    first = Joining(counters, token)
    assert first.refusal(counters.receive(token, first.asked)[-1]) == "waiting"
    counters.office.issuer.decide(node_keys("bob").node_id, Decision.APPROVED, name="bob", now_unix=NOW_UNIX)
    second = Joining(counters, token)
    assert second.accept(counters.receive(token, second.asked)[-1]).name == "bob"


@pytest.mark.parametrize("data", [b"", b"\x80", b"junk" * 100, b"x" * 9000])
def test_what_is_no_request_is_a_drop(data):
    counters = Counters()
    assert counters.reception.receive_untrusted(b"i" * 8, data, now=0.0) == []
    assert sum(counters.drops.values()) == 1


def test_challenge_without_a_box_is_malformed():
    counters = Counters()
    token = counters.office.invite()
    assert counters.receive(token, Asked(token.issuer, NONCE, b"c" * 32)) == []
    assert counters.drops == {"join-malformed": 1}


def test_flood_with_one_invitation_costs_no_other_and_reaches_no_issuer():
    counters = Counters()
    thief, victim = counters.office.invite(), counters.office.invite()
    for _ in range(round(ASKED_BURST) * 20):
        counters.receive(thief, Asked(thief.issuer, NONCE))
        counters.receive(thief, Asked(thief.issuer, NONCE, b"c" * 32, b"junk"))
    assert counters.drops["join-flood"] > ASKED_BURST * 30
    joining = Joining(counters, victim)
    assert joining.accept(counters.receive(victim, joining.asked)[-1]).name == "bob"
    assert counters.issued == 1


def test_issuer_is_asked_for_one_invitation_so_often_and_no_more():
    counters = Counters()
    token = counters.office.invite()
    joinings = [Joining(counters, token, "bob") for _ in range(round(REQUEST_BURST) + 5)]
    for joining in joinings:
        counters.receive(token, joining.asked)
    assert counters.issued == REQUEST_BURST
    assert counters.drops["join-flood"] == 5


def test_memory_of_answers_is_bounded():
    counters = Counters()
    token = counters.office.invite()
    for index in range(ANSWER_COUNT_MAX + 8):
        joining = Joining(counters, token, now=float(10 * index))
        counters.receive(token, joining.asked, now=float(10 * index))
    assert len(counters.reception._answers) == ANSWER_COUNT_MAX
