"""Joins and renewals that a member passes on: what the member can do about them, and what it cannot."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Callable

import pytest
from kit.builders import NOW_UNIX, make_grant, make_realm, node_keys, signing_key
from kit.lan import LanNode
from kit.office import Records
from kit.renewing import message

from conflux.control.envelope import Kind
from conflux.control.lan.config import LanConfig
from conflux.control.lan.join import join
from conflux.daemon import passing
from conflux.daemon.passing import ADMIT_BURST, ADMIT_BURST_ALL, CARRIED_COUNT_MAX, Admit, Admitted, Passing, issuer_of
from conflux.errors import RemoteProtocolError, UserError
from conflux.ids import NodeId
from conflux.realm.clock import RealmClock
from conflux.realm.invite import Token, make_invite
from conflux.realm.issuer import Issuer
from conflux.realm.join import JoinRequest
from conflux.realm.member import Member

MEMBER, BINDING = NodeId(b"m" * 16), b"b" * 32
Twist = Callable[[Admitted], list[Admitted]]


class Realm:
    """alice issues; carol, a member, passes on what is for her.  twist: what becomes of alice's answers on the way."""

    def __init__(self, twist: Twist = lambda admitted: [admitted]) -> None:
        realm = make_realm()
        key = signing_key("alice")
        self.records = Records()
        self.issuer = Issuer(key, realm.anchor, make_grant(realm, key), self.records)
        self.entropy = random.Random(5).randbytes
        self.twist = twist
        self.asked: list[tuple[NodeId, Kind, bytes]] = []
        self.answered: list[Admitted] = []
        self.drops: Counter[str] = Counter()
        self.alice = Passing(
            is_issuer=lambda node: False,
            own=lambda request: True,
            issue=lambda request, binding: self.issuer.join(request, binding=binding, now_unix=NOW_UNIX),
            ask=lambda peer, kind, body: 0,
            answer=lambda message, kind, body: self.answered.append(Admitted.decode_untrusted(body)),
            drop=lambda reason: self.drops.update((reason,)),
        )
        self.carol = Passing(
            is_issuer=lambda node: node == self.issuer.issuer_id,
            own=lambda request: False,
            issue=self.alice._issue,
            ask=self.ask,
            answer=lambda message, kind, body: None,
            drop=lambda reason: None,
        )

    def ask(self, peer: NodeId, kind: Kind, body: bytes) -> int:
        """Carry carol's message to alice, and her answer back a moment later."""
        self.asked.append((peer, kind, body))
        token = len(self.asked)

        def deliver() -> None:
            self.alice.receive(message(MEMBER, kind, body), now=float(10 * token))
            for admitted in self.twist(self.answered[-1]):
                self.carol.receive(message(peer, Kind.ADMITTED, admitted.encode(), re=token), now=0.0)

        asyncio.get_running_loop().call_soon(deliver)
        return token

    def invite(self) -> Token:
        invite, token = make_invite(self.issuer.anchor, self.issuer.issuer_id, now_unix=NOW_UNIX, entropy=self.entropy)
        self.records.save_invite(invite)
        return token

    def request(self, name: str = "bob") -> JoinRequest:
        return JoinRequest.build(self.invite(), node_keys(name), name, binding=BINDING, nonce=self.entropy(32))

    async def join(self, token: Token, name: str = "bob", *, search_s: float = 4.0) -> Member:
        """Join at carol's port."""
        async with LanNode("carol", issue=None, carrier=self.carol) as carol:
            clock = RealmClock(0, system=lambda: NOW_UNIX, save=lambda date: None)
            place = ("127.0.0.1", carol.port)
            return await join(
                token,
                node_keys(name),
                name,
                clock=clock,
                entropy=self.entropy,
                endpoints=[place],
                config=LanConfig(mdns=False),
                search_s=search_s,
            )


async def test_node_that_reaches_a_member_alone_joins_by_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    realm = Realm()
    assert (await realm.join(realm.invite())).name == "bob"
    assert [line for line in caplog.messages if line.startswith("bob joined by way of")], "the issuer writes it"
    (to, kind, body), *_ = realm.asked
    assert (to, kind) == (realm.issuer.issuer_id, Kind.ADMIT)
    assert realm.invite().secret not in body


async def test_refusal_of_the_issuer_reaches_the_joiner_in_its_words(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    realm = Realm()
    token = realm.invite()
    await realm.join(token)
    caplog.clear()
    with pytest.raises(UserError, match="has been used already"):
        await realm.join(token, "dave")
    assert realm.drops == {"join-used-up": 1}
    assert len([line for line in caplog.messages if line.startswith("a request to join that")]) == 1


async def test_member_in_the_middle_cannot_give_the_answer_to_another_request() -> None:
    kept: list[Admitted] = []

    def older(admitted: Admitted) -> list[Admitted]:
        kept.append(admitted)
        return kept[:1]

    realm = Realm(older)
    await realm.join(realm.invite())
    with pytest.raises(UserError, match="does not verify"):
        await realm.join(realm.invite(), "dave")


async def test_request_with_another_binding_than_the_joiners_is_refused() -> None:
    realm = Realm()
    request = realm.request()
    with pytest.raises(RemoteProtocolError, match="bad-proof"):
        await realm.carol.carry(request, bytes(32))
    assert not realm.records.nodes


async def test_word_that_is_none_of_ours_is_not_counted_as_it_is() -> None:
    realm = Realm(lambda admitted: [Admitted(b"", b"gibberish")])
    with pytest.raises(RemoteProtocolError) as caught:
        await realm.carol.carry(realm.request(), BINDING)
    assert caught.value.reason == "refused"


async def test_issuer_that_is_silent_is_waited_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passing, "CARRY_S", 0.05)
    realm = Realm(lambda admitted: [])
    with pytest.raises(RemoteProtocolError, match="busy"):
        await realm.carol.carry(realm.request(), BINDING)
    assert realm.carol._carried == {}


async def test_member_passes_on_a_few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passing, "CARRY_S", 0.2)
    realm = Realm(lambda admitted: [])
    request = realm.request()
    outcomes = await asyncio.gather(
        *(realm.carol.carry(request, BINDING) for _ in range(CARRIED_COUNT_MAX + 3)), return_exceptions=True
    )
    assert all(isinstance(outcome, RemoteProtocolError) for outcome in outcomes)
    assert len(realm.asked) == CARRIED_COUNT_MAX


async def test_answer_of_another_node_than_the_issuer_is_dropped() -> None:
    realm = Realm(lambda admitted: [])
    carrying = asyncio.create_task(realm.carol.carry(realm.request(), BINDING))
    await asyncio.sleep(0)
    for peer, re in ((MEMBER, 1), (realm.issuer.issuer_id, 7)):
        with pytest.raises(RemoteProtocolError, match="late"):
            realm.carol.receive(message(peer, Kind.ADMITTED, Admitted(b"x", b"").encode(), re=re), now=0.0)
    carrying.cancel()
    await asyncio.wait([carrying])


def test_request_for_a_node_that_is_no_known_issuer_is_not_passed_on() -> None:
    realm = Realm()
    request = realm.request()
    assert issuer_of(request) == realm.issuer.issuer_id
    assert realm.carol.passes(request)
    assert not realm.alice.passes(request)
    realm.carol._is_issuer = lambda node: False
    assert not realm.carol.passes(request)


def test_issuer_looks_at_so_many_of_one_member_and_of_all() -> None:
    realm = Realm()
    body = Admit(False, BINDING, b"junk").encode()

    def taken(members: list[NodeId]) -> int:
        count = 0
        for member in members:
            with contextlib.suppress(RemoteProtocolError):
                realm.alice.receive(message(member, Kind.ADMIT, body), now=0.0)
                count += 1
        return count

    assert taken([MEMBER] * 20) == ADMIT_BURST
    assert taken([NodeId(bytes([number]) * 16) for number in range(60)]) == ADMIT_BURST_ALL - ADMIT_BURST
    assert {admitted.said for admitted in realm.answered} == {b"malformed"}
