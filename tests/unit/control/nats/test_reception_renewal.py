"""Late renewals at an issuer's desk at the broker: whose request it looks at, and whose it does not."""

from __future__ import annotations

import random
from collections import Counter

from kit.builders import NOW_UNIX, node_keys
from kit.office import Office, clock

from conflux.control.admitting import Office as Desk
from conflux.control.nats.reception import REQUEST_BURST, Reception
from conflux.realm.broker.joining import (
    ANY_ISSUER,
    CHALLENGE_S,
    RENEWAL_SECRET,
    Asked,
    TellKind,
    Told,
    join_binding,
    seal_request,
    unseal_told_untrusted,
)
from conflux.realm.broker.users import renewal_id
from conflux.realm.join import Joiner, JoinRefused, Renewer, RenewRequest
from conflux.realm.member import Member

DAY_S = 86400


class Counters:
    """An issuer that let bob and carol in, and its reception, a day after their credentials have ended."""

    def __init__(self) -> None:
        self.office = Office()
        self.members = {}
        for name in ("bob", "carol"):
            token = self.office.invite()
            answer = self.office.join(token, name)
            self.members[name] = Member(node_keys(name), answer.anchor, answer.chain)
        self.now_unix = self.members["bob"].chain.not_after + DAY_S
        self.drops: Counter[str] = Counter()
        self.issued = 0
        self.entropy = random.Random(7).randbytes
        desk = Desk(
            issue=self.issue,
            issuer=lambda: self.office.issuer.issuer_id,
            secret=self.office.issuer.secret_of,
        )
        self.reception = Reception(desk, entropy=self.entropy, drop=self.drop)

    def drop(self, reason: str) -> None:
        self.drops[reason] += 1

    def issue(self, request, binding):
        self.issued += 1
        if not isinstance(request, RenewRequest):
            return self.office.issuer.join(request, binding=binding, now_unix=self.now_unix)
        return self.office.issuer.renew_at(request, binding=binding, now_unix=self.now_unix, late_s=90 * DAY_S)

    def receive(self, invite_id: bytes, asked: Asked, now: float = 0.0) -> list[Told]:
        return [
            Told.decode_untrusted(data) for data in self.reception.receive_untrusted(invite_id, asked.encode(), now=now)
        ]


class Renewing:
    """One member's exchange; own: on whose subject."""

    def __init__(self, counters: Counters, name: str = "bob", *, own: str = "", now: float = 0.0) -> None:
        member = counters.members[name]
        self.id = renewal_id(node_keys(own or name).public.encode()[:32])
        self.renewer = Renewer(member, entropy=counters.entropy)
        self.nonce = counters.entropy(32)
        (challenged,) = counters.receive(self.id, Asked(ANY_ISSUER, self.nonce), now)
        self.binding = join_binding(ANY_ISSUER, self.id, self.nonce, challenged.salt)
        box = seal_request(RENEWAL_SECRET, self.binding, self.renewer.request(self.binding).encode())
        self.asked = Asked(ANY_ISSUER, self.nonce, challenged.salt, box)

    def open(self, told: Told) -> tuple[TellKind, bytes]:
        return unseal_told_untrusted(RENEWAL_SECRET, self.binding, told)


def test_member_whose_credential_ended_is_renewed():
    counters = Counters()
    renewing = Renewing(counters)
    (told,) = counters.receive(renewing.id, renewing.asked)
    kind, body = renewing.open(told)
    assert kind is TellKind.JOINED
    after = renewing.renewer.accept_untrusted(body, clock(counters.now_unix))
    assert after.chain.not_after > counters.now_unix
    assert after.addresses == counters.members["bob"].addresses


def test_renewal_in_the_name_of_another_node_reaches_no_issuer():
    counters = Counters()
    renewing = Renewing(counters, "carol", own="bob")  # carol's chain on the subject that is bob's alone
    assert counters.receive(renewing.id, renewing.asked) == []
    assert counters.drops == {"join-bad-proof": 1}
    assert counters.issued == 0


def test_renewal_that_was_held_back_or_is_for_another_node_is_worth_nothing():
    counters = Counters()
    renewing, other = Renewing(counters), Renewing(counters, "carol")
    assert counters.receive(renewing.id, renewing.asked, 2 * CHALLENGE_S) == []
    assert counters.receive(other.id, renewing.asked) == []
    assert counters.drops == {"join-too-late": 2}
    assert counters.issued == 0


def test_request_to_join_is_not_taken_for_a_renewal():
    counters = Counters()
    token, nonce = counters.office.invite(), counters.entropy(32)
    (challenged,) = counters.receive(token.invite_id, Asked(ANY_ISSUER, nonce))
    binding = join_binding(ANY_ISSUER, token.invite_id, nonce, challenged.salt)
    request = Joiner(token, node_keys("dave"), "dave", entropy=counters.entropy).request(binding).encode()
    box = seal_request(RENEWAL_SECRET, binding, request)
    assert counters.receive(token.invite_id, Asked(ANY_ISSUER, nonce, challenged.salt, box)) == []
    assert counters.drops == {"join-malformed": 1}


def test_member_that_asks_all_the_time_has_its_own_budget_and_no_more():
    counters = Counters()
    for _ in range(int(REQUEST_BURST) + 10):
        renewing = Renewing(counters)
        counters.receive(renewing.id, renewing.asked)
    assert counters.issued <= REQUEST_BURST
    other = Renewing(counters, "carol")
    (told,) = counters.receive(other.id, other.asked)
    assert other.open(told)[0] is TellKind.JOINED


def test_refusal_says_why():
    counters = Counters()
    counters.now_unix += 90 * DAY_S
    renewing = Renewing(counters)
    (told,) = counters.receive(renewing.id, renewing.asked)
    kind, body = renewing.open(told)
    assert (kind, JoinRefused.decode_untrusted(body).said) == (TellKind.REFUSED, "expired-long-ago")
    assert counters.now_unix > NOW_UNIX
