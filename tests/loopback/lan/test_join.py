"""Joining over the LAN listener: what the joiner is told, and what the issuer's node puts up with."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from kit.builders import NOW_UNIX, make_grant, make_realm, node_keys, signing_key
from kit.ear import WAIT_S, node_of
from kit.lan import LanNode, free_port, stranger
from kit.office import Records
from kit.resolver import dead_resolver

from conflux.control import admitting
from conflux.control.admitting import NoAnswerError
from conflux.control.lan import join as join_module
from conflux.control.lan.certificate import peer_digest
from conflux.control.lan.config import HANDSHAKE_S, LanConfig, Place
from conflux.control.lan.connection import Connection
from conflux.control.lan.dial import Address
from conflux.control.lan.frame import FrameType
from conflux.control.lan.handshake import join_binding
from conflux.control.lan.join import HOST_PLACE_COUNT_MAX, LEFT_COUNT_MAX, PLACE_COUNT_MAX, TRY_COUNT_MAX, join
from conflux.errors import ConfigError, RemoteProtocolError, UserError
from conflux.host.names import LOOK_UP_S
from conflux.realm.clock import RealmClock
from conflux.realm.credential import CREDENTIAL_LIFETIME_S
from conflux.realm.invite import Token, make_invite
from conflux.realm.issued import Issued
from conflux.realm.issuer import Issuer
from conflux.realm.join import JoinAnswer, Joiner, JoinRefused, JoinRequest
from conflux.realm.member import Member
from conflux.realm.waiting import Decision

STATIC = LanConfig(mdns=False)


class Office:
    """The issuer's node: alice, on a LAN channel.  options: of the node."""

    def __init__(self, now_unix: int = NOW_UNIX, **options: Any) -> None:
        realm = make_realm()
        self.records = Records()
        key = signing_key("alice")
        self.issuer = Issuer(key, realm.anchor, make_grant(realm, key), self.records)
        self.now_unix = now_unix
        self.asked = 0
        self.node = LanNode("alice", issue=self.issue, **options)

    def issue(self, request: JoinRequest, binding: bytes) -> JoinAnswer:
        self.asked += 1
        return self.issuer.join(request, binding=binding, now_unix=self.now_unix)

    def invite(self, **options: Any) -> Token:
        invite, token = make_invite(
            self.issuer.anchor, self.issuer.issuer_id, now_unix=NOW_UNIX, entropy=os.urandom, **options
        )
        self.records.save_invite(invite)
        return token

    async def __aenter__(self) -> Office:
        await self.node.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.node.__aexit__()

    @property
    def place(self) -> Place:
        return ("127.0.0.1", self.node.port)

    async def connect(self) -> Connection:
        return await stranger(self.node.port)


def device_clock(now_unix: float = NOW_UNIX) -> RealmClock:
    return RealmClock(0, system=lambda: now_unix, save=lambda date: None)


async def join_as(name: str, token: Token, *places: Place, clock: RealmClock | None = None, **options: Any) -> Member:
    options.setdefault("config", STATIC)
    return await join(
        token, node_keys(name), name, clock=clock or device_clock(), entropy=os.urandom, endpoints=places, **options
    )


async def test_token_makes_a_member_that_the_issuers_node_then_connects_to() -> None:
    async with Office() as office:
        bob = await join_as("bob", office.invite(), office.place)
        assert bob.node_id == node_keys("bob").node_id
        assert bob.chain.credential.issuer == node_of("alice")
        async with LanNode("bob", office.node.port, member=bob) as node:
            await node.ear.sees("alice")


async def test_hint_in_the_token_is_enough() -> None:
    async with Office() as office:
        token = office.invite(hints=("{}:{}".format(*office.place),))
        assert (await join_as("bob", token)).name == "bob"


async def test_of_several_addresses_that_lead_to_the_issuer_one_is_asked() -> None:
    async with Office() as office:
        places = [(f"127.0.0.{number}", office.node.port) for number in range(1, 6)]
        assert (await join_as("bob", office.invite(), *places)).name == "bob"
        assert office.asked == 1


async def test_a_place_that_says_nothing_delays_the_others_by_a_moment_alone() -> None:
    held: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda reader, writer: held.append(writer), "127.0.0.1", 0)
    async with server, Office() as office:
        silent = [server.sockets[0].getsockname()] * 1 + [(f"127.0.0.{number}", 9) for number in range(2, 5)]
        began = asyncio.get_running_loop().time()
        assert (await join_as("bob", office.invite(), *silent, office.place)).name == "bob"
        assert asyncio.get_running_loop().time() - began < join_module.TURN_S_MAX
        for writer in held:
            writer.close()


async def test_issuer_is_found_by_mdns_without_any_address() -> None:
    async with Office(mdns=True, interfaces=("lo",)) as office:
        config = LanConfig(interfaces=("lo",))
        assert (await join_as("bob", office.invite(), config=config, search_s=WAIT_S)).name == "bob"


async def test_address_of_a_name_that_stalls_keeps_a_joiner_from_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda reader, writer: held.append(writer), "127.0.0.2", 0)
    async with server, Office() as office:
        places = [Address(socket.AF_INET, place) for place in (server.sockets[0].getsockname(), office.place)]
        monkeypatch.setattr(join_module, "underlay_addresses", lambda *_: asyncio.sleep(0, places))
        async with asyncio.timeout(HANDSHAKE_S):  # before it gives the first one up
            assert (await join_as("bob", office.invite(), ("alice.example", 7464))).name == "bob"
        held[0].close()


async def test_issuer_among_other_members_is_found() -> None:
    async with Office() as office, LanNode("carol") as carol, LanNode("dave") as dave:
        places = [("127.0.0.1", other.port) for other in (carol, dave)]
        assert (await join_as("bob", office.invite(), *places, office.place)).name == "bob"


async def failure(
    token: Callable[[Office], Token], match: str, *, office_now_unix: int = NOW_UNIX, **options: Any
) -> None:
    """Joining at the office has to fail with a text that matches, and to leave nothing on record."""
    async with Office(office_now_unix) as office:
        made = token(office)
        before = dict(office.records.nodes)
        with pytest.raises(UserError, match=match):
            await join_as("bob", made, office.place, search_s=WAIT_S, **options)
        assert office.records.nodes == before


async def test_used_token_is_told() -> None:
    def used(office: Office) -> Token:
        token = office.invite()
        invite = office.records.invitations[token.invite_id]
        office.records.save_invite(dataclasses.replace(invite, used=(node_of("carol"),)))
        return token

    await failure(used, "used already")


async def test_expired_token_is_told() -> None:
    await failure(lambda office: office.invite(valid_s=100), "invitation has expired", office_now_unix=NOW_UNIX + 100)


async def test_wrong_secret_is_told() -> None:
    await failure(lambda office: dataclasses.replace(office.invite(), secret=bytes(16)), "secret is wrong")


async def test_withdrawn_token_is_told() -> None:
    await failure(
        lambda office: dataclasses.replace(office.invite(), invite_id=bytes(8)), "does not know this invitation"
    )


async def test_node_that_is_not_the_issuer_is_told() -> None:
    await failure(
        lambda office: dataclasses.replace(office.invite(), issuer=node_of("carol")), "only the board that made"
    )


async def test_name_that_is_taken_is_told() -> None:
    def taken(office: Office) -> Token:
        entry = Issued(node_of("carol"), "bob", (), (), make_realm().anchor.ipv4_prefix[9], 1, 1000, NOW_UNIX + 1000)
        office.records.save_issued(entry)
        return office.invite()

    await failure(taken, "has this name")


async def test_foreign_realm_is_told() -> None:
    def foreign(office: Office) -> Token:
        return dataclasses.replace(office.invite(), root_fingerprint=make_realm("elsewhere").anchor.fingerprint)

    # The proof is keyed by the secret alone, the signature by the realm the token names.
    await failure(foreign, "could not verify our request|another realm")


async def test_clock_that_is_ahead_is_told() -> None:
    async with Office() as office:
        with pytest.raises(UserError, match="clock is wrong"):
            await join_as(
                "bob",
                office.invite(),
                office.place,
                clock=device_clock(NOW_UNIX + CREDENTIAL_LIFETIME_S + 1),
                search_s=WAIT_S,
            )


async def test_clock_that_stands_in_1970_joins() -> None:
    async with Office() as office:
        clock = device_clock(0)
        bob = await join_as("bob", office.invite(), office.place, clock=clock)
        assert clock.now_unix() >= bob.chain.credential.not_before


async def test_bad_name_is_refused_before_the_first_connection() -> None:
    async with Office() as office:
        with pytest.raises(ConfigError):
            await join(
                office.invite(),
                node_keys("bob"),
                "not a name!",
                clock=device_clock(),
                entropy=os.urandom,
                endpoints=[office.place],
                config=STATIC,
            )


async def test_place_without_an_answer_is_told() -> None:
    port = free_port()
    with pytest.raises(NoAnswerError, match=rf"no answer \(127\.0\.0\.1 port {port}: .*refused"):
        await join_as("bob", Office().invite(), ("127.0.0.1", port), search_s=0.3)


async def test_failure_names_the_ports_that_a_firewall_has_to_let_in() -> None:
    with pytest.raises(UserError, match="firewall let in TCP 7464 there, and UDP 5353 at both"):
        await join_as("bob", Office().invite())


async def test_names_without_an_answer_hold_no_other_place_up() -> None:
    dead = [(f"{number}.join.example", 7464) for number in range(TRY_COUNT_MAX + 2)]
    async with Office() as office:
        with dead_resolver():
            joining = join_as("bob", office.invite(), *dead, office.place)
            assert (await asyncio.wait_for(joining, LOOK_UP_S)).name == "bob"


async def test_no_address_and_no_mdns_is_told_at_once() -> None:
    with pytest.raises(NoAnswerError, match="no address to try"):
        await join_as("bob", Office().invite())


def liar(word: str) -> LanNode:
    """A member that issues nothing, and refuses every request with that word."""

    def lie(request: JoinRequest, binding: bytes) -> JoinAnswer:
        raise RemoteProtocolError(word)

    return LanNode("mallory", issue=lie)


async def test_lying_node_cannot_keep_a_joiner_from_its_issuer() -> None:
    async with Office() as office, liar("used-up") as mallory:
        assert (await join_as("bob", office.invite(), ("127.0.0.1", mallory.port), office.place)).name == "bob"


@pytest.mark.parametrize(
    "lies",
    [
        [("127.0.0.2", port) for port in range(1, 401)],  # more than there is room for, in any table
        [(f"127.0.1.{number}", 1) for number in range(1, 81)],
        [("127.0.0.1", port) for port in range(1, 11)],
    ],
    ids=["ports of its own", "addresses of its own", "ports of the issuer"],
)
async def test_announced_places_where_nothing_is_keep_a_joiner_from_no_announced_issuer(lies: list[Place]) -> None:
    async with Office() as office:
        token = office.invite()

        def ask() -> Joiner:
            return Joiner(token, node_keys("bob"), "bob", entropy=os.urandom)

        errand = join_module._Errand(ask, FrameType.JOIN, token.realm_id, "could not join", token.not_after)
        search = join_module._Search(errand, device_clock(), os.urandom, STATIC, WAIT_S)
        for place in (*lies, office.place):  # as mDNS shows them
            search._find(place)
        assert (await search.run([])).name == "bob"


async def test_what_mdns_shows_is_bounded_per_address_and_in_all() -> None:
    search = join_module._Search(None, device_clock(), os.urandom, STATIC, WAIT_S)  # asks none
    for port in range(1, 400):
        search._find(("127.0.0.2", port))
    assert (len(search._found), len(search._left)) == (HOST_PLACE_COUNT_MAX, LEFT_COUNT_MAX)
    for number in range(100):
        search._find((f"127.0.1.{number}", 1))
    assert len(search._found) == len(search._tries) == PLACE_COUNT_MAX
    tasks = list(search._tries.values())
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("word", ["closed", "expired", "no-such-word"])
async def test_word_of_a_refusal_is_not_taken_for_a_finding_of_our_own(word: str) -> None:
    async with AsyncExitStack() as stack:
        mallory = await stack.enter_async_context(liar(word))
        with pytest.raises(UserError, match=f"the issuer refused: {word}") as caught:
            await join_as("bob", Office().invite(), ("127.0.0.1", mallory.port), search_s=WAIT_S)
        assert not isinstance(caught.value, NoAnswerError)


async def test_request_relayed_to_the_issuer_over_another_connection_is_refused() -> None:
    """A node in the middle passes a genuine request on: the proof is good on the joiner's connection only."""
    async with Office() as office:
        token = office.invite()
        connection = await office.connect()
        _, greeting = await connection.read(FrameType.GREETING)
        elsewhere = join_binding(os.urandom(32), greeting)
        assert elsewhere != join_binding(peer_digest(connection.tls), greeting)
        request = Joiner(token, node_keys("bob"), "bob", entropy=os.urandom).request(elsewhere)
        connection.send(FrameType.JOIN, request.encode())
        _, body = await connection.read(FrameType.JOIN_REFUSED)
        assert JoinRefused.decode_untrusted(body).said == "bad-proof"
        await connection.closed  # one request per connection


async def test_requests_of_one_address_are_rationed() -> None:
    async with Office() as office:
        words = []
        for _ in range(7):
            connection = await office.connect()
            await connection.read(FrameType.GREETING)
            connection.send(FrameType.JOIN, b"junk")
            _, body = await connection.read(FrameType.JOIN_REFUSED)
            words.append(JoinRefused.decode_untrusted(body).said)
            await connection.closed
        assert words == ["malformed"] * 5 + ["busy"] * 2
        await office.node.drops.until("join-busy")


async def test_joiner_waits_for_a_person_and_goes_on_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admitting, "APPROVAL_RETRY_S_MIN", 0.01)
    monkeypatch.setattr(admitting, "APPROVAL_RETRY_S_MAX", 0.02)
    async with Office(join_rate_per_address=1000.0, join_rate=1000.0) as office:
        waited = []

        def waits() -> None:
            waited.append(True)
            office.issuer.decide(node_keys("bob").node_id, Decision.APPROVED, name="bob", now_unix=NOW_UNIX)

        bob = await join_as("bob", office.invite(approve=True), office.place, waits=waits)
        assert (bob.name, waited) == ("bob", [True])


async def test_joiner_waits_not_for_ever_and_is_told_of_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admitting, "APPROVAL_RETRY_S_MIN", 0.01)
    monkeypatch.setattr(admitting, "APPROVAL_RETRY_S_MAX", 0.02)
    async with Office(join_rate_per_address=1000.0, join_rate=1000.0) as office:
        token = office.invite(approve=True)
        with pytest.raises(UserError, match="a person has to approve"):
            await join_as("bob", token, office.place, approval_s=0.05)
        office.issuer.decide(node_keys("bob").node_id, Decision.REFUSED, name=None, now_unix=NOW_UNIX)
        with pytest.raises(UserError, match="a person at the issuer has refused"):
            await join_as("bob", token, office.place)
