"""Joining over the LAN listener: what the joiner is told, and what the issuer's node puts up with."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import socket
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import pytest
from builders import NOW_UNIX, make_grant, make_realm, node_keys, signing_key
from control_ear import WAIT_S, counted, node_of, start_lan

from conflux.control.lan.certificate import client_context, peer_digest
from conflux.control.lan.config import LanConfig
from conflux.control.lan.dial import open_connection, resolve
from conflux.control.lan.frame import FrameType
from conflux.control.lan.handshake import join_binding
from conflux.control.lan.join import join
from conflux.control.lan.mesh import LanChannel
from conflux.errors import ConfigError, RemoteProtocolError, UserError
from conflux.ids import NodeId
from conflux.realm.clock import RealmClock
from conflux.realm.credential import CREDENTIAL_LIFETIME_S
from conflux.realm.invite import Invite, Token, make_invite
from conflux.realm.issuer import Issued, Issuer
from conflux.realm.join import Joiner, JoinRefused
from conflux.realm.member import Member

STATIC = LanConfig(mdns=False)


class Records:
    """An issuer's memory, in memory."""

    def __init__(self) -> None:
        self.invites: dict[bytes, Invite] = {}
        self.nodes: dict[NodeId, Issued] = {}

    def transaction(self) -> contextlib.AbstractContextManager[object]:
        return contextlib.nullcontext()

    def issued(self) -> Iterable[Issued]:
        return list(self.nodes.values())

    def save_issued(self, entry: Issued) -> None:
        self.nodes[entry.node_id] = entry

    def forget_issued(self, node_id: NodeId) -> None:
        self.nodes.pop(node_id, None)

    def invite(self, invite_id: bytes) -> Invite | None:
        return self.invites.get(invite_id)

    def save_invite(self, invite: Invite) -> None:
        self.invites[invite.invite_id] = invite


class Office:
    """The issuer's node: alice, on a LAN channel, with one invitation."""

    def __init__(self, now_unix: int = NOW_UNIX) -> None:
        realm = make_realm()
        self.records = Records()
        key = signing_key("alice")
        self.issuer = Issuer(key, realm.anchor, make_grant(realm, key), self.records)
        self.now_unix = now_unix
        self.channel: LanChannel | None = None

    def invite(self, **options: Any) -> Token:
        invite, token = make_invite(
            self.issuer.anchor, self.issuer.issuer_id, now_unix=NOW_UNIX, entropy=os.urandom, **options
        )
        self.records.save_invite(invite)
        return token

    async def __aenter__(self) -> Office:
        self.channel, _ = await start_lan(
            "alice", issuer=lambda request, binding: self.issuer.join(request, binding=binding, now_unix=self.now_unix)
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self.channel is not None
        await self.channel.stop()

    @property
    def place(self) -> tuple[str, int]:
        assert self.channel is not None
        return ("127.0.0.1", self.channel.port)


def device_clock(now_unix: float = NOW_UNIX) -> RealmClock:
    return RealmClock(0, system=lambda: now_unix, save=lambda date: None)


def run(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scene(), 3 * WAIT_S))


async def join_as(
    name: str, token: Token, *places: tuple[str, int], clock: RealmClock | None = None, **options: Any
) -> Member:
    options.setdefault("config", STATIC)
    return await join(
        token, node_keys(name), name, clock=clock or device_clock(), entropy=os.urandom, endpoints=places, **options
    )


def test_token_makes_a_member_that_the_issuers_node_then_connects_to() -> None:
    async def scene() -> None:
        async with Office() as office:
            bob = await join_as("bob", office.invite(), office.place)
            assert bob.node_id == node_keys("bob").node_id
            assert bob.chain.credential.issuer == node_of("alice")
            channel, ear = await start_lan("bob", office.place[1], member=bob)
            await ear.until(lambda: ear.up == {node_of("alice")})
            await channel.stop()

    run(scene)


def test_hint_in_the_token_is_enough() -> None:
    async def scene() -> None:
        async with Office() as office:
            token = office.invite(hints=("{}:{}".format(*office.place),))
            assert (await join_as("bob", token)).name == "bob"

    run(scene)


def test_issuer_is_found_by_mdns_without_any_address() -> None:
    async def scene() -> None:
        office = Office()
        office.channel, _ = await start_lan(
            "alice",
            mdns=True,
            interfaces=("lo",),
            issuer=lambda request, binding: office.issuer.join(request, binding=binding, now_unix=NOW_UNIX),
        )
        config = LanConfig(interfaces=("lo",))
        assert (await join_as("bob", office.invite(), config=config, search_s=WAIT_S)).name == "bob"
        await office.channel.stop()

    run(scene)


def test_issuer_among_other_members_is_found() -> None:
    async def scene() -> None:
        async with Office() as office:
            others = [(await start_lan(name))[0] for name in ("carol", "dave")]
            places = [("127.0.0.1", other.port) for other in others]
            bob = await join_as("bob", office.invite(), *places, office.place)
            assert bob.name == "bob"
            for other in others:
                await other.stop()

    run(scene)


def failure(token: Callable[[Office], Token], match: str, *, name: str = "bob", **options: Any) -> None:
    """Joining at the office has to fail with a text that matches, and to leave nothing on record."""

    async def scene() -> None:
        async with Office(now_unix=options.pop("office_now_unix", NOW_UNIX)) as office:
            made = token(office)
            before = dict(office.records.nodes)
            with pytest.raises(UserError, match=match):
                await join_as(name, made, office.place, search_s=WAIT_S, **options)
            assert office.records.nodes == before

    run(scene)


def test_used_token_is_told() -> None:
    def used(office: Office) -> Token:
        token = office.invite()
        invite = office.records.invites[token.invite_id]
        office.records.save_invite(dataclasses.replace(invite, used=(node_of("carol"),)))
        return token

    failure(used, "used already")


def test_expired_token_is_told() -> None:
    failure(lambda office: office.invite(valid_s=100), "invitation has expired", office_now_unix=NOW_UNIX + 100)


def test_wrong_secret_is_told() -> None:
    failure(lambda office: dataclasses.replace(office.invite(), secret=bytes(16)), "secret is wrong")


def test_withdrawn_token_is_told() -> None:
    failure(lambda office: dataclasses.replace(office.invite(), invite_id=bytes(8)), "does not know this invitation")


def test_node_that_is_not_the_issuer_is_told() -> None:
    failure(lambda office: dataclasses.replace(office.invite(), issuer=node_of("carol")), "did not make this")


def test_name_that_is_taken_is_told() -> None:
    def taken(office: Office) -> Token:
        entry = Issued(node_of("carol"), "bob", (), (), make_realm().anchor.ipv4_prefix[9], 1, 1000, NOW_UNIX + 1000)
        office.records.save_issued(entry)
        return office.invite()

    failure(taken, "has this name")


def test_foreign_realm_is_told() -> None:
    def foreign(office: Office) -> Token:
        return dataclasses.replace(office.invite(), root_fingerprint=make_realm("elsewhere").anchor.fingerprint)

    # The proof is keyed by the secret alone, the signature by the realm the token names.
    failure(foreign, "could not verify our request|another realm")


def test_clock_that_is_ahead_is_told() -> None:
    async def scene() -> None:
        async with Office() as office:
            with pytest.raises(UserError, match="clock is wrong"):
                await join_as(
                    "bob",
                    office.invite(),
                    office.place,
                    clock=device_clock(NOW_UNIX + CREDENTIAL_LIFETIME_S + 1),
                    search_s=WAIT_S,
                )

    run(scene)


def test_clock_that_stands_in_1970_joins() -> None:
    async def scene() -> None:
        async with Office() as office:
            clock = device_clock(0)
            bob = await join_as("bob", office.invite(), office.place, clock=clock)
            assert clock.now_unix() >= bob.chain.credential.not_before

    run(scene)


def test_bad_name_is_refused_before_anybody_is_bothered() -> None:
    async def scene() -> None:
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

    run(scene)


def test_nobody_there_is_told_with_what_was_tried() -> None:
    async def scene() -> None:
        with socket.socket() as holder:
            holder.bind(("127.0.0.1", 0))
            port = holder.getsockname()[1]
            with pytest.raises(UserError, match=rf"nobody answered \(127\.0\.0\.1 port {port}: .*refused"):
                await join_as("bob", Office().invite(), ("127.0.0.1", port), search_s=0.3)

    run(scene)


def test_no_address_and_no_mdns_is_told_at_once() -> None:
    async def scene() -> None:
        with pytest.raises(UserError, match="no address to try"):
            await join_as("bob", Office().invite())

    run(scene)


def test_lying_node_cannot_keep_a_joiner_from_its_issuer() -> None:
    async def scene() -> None:
        async with Office() as office:

            def lie(request: object, binding: bytes) -> Any:
                raise RemoteProtocolError("used-up")

            liar, _ = await start_lan("mallory", issuer=lie)
            bob = await join_as("bob", office.invite(), ("127.0.0.1", liar.port), office.place)
            assert bob.name == "bob"
            await liar.stop()

    run(scene)


def test_request_relayed_to_the_issuer_over_another_connection_is_refused() -> None:
    """Somebody in the middle passes a genuine request on: the proof is good on the joiner's connection only."""

    async def scene() -> None:
        async with Office() as office:
            token = office.invite()
            connection, _ = await open_connection(await resolve(*office.place), client_context())
            _, greeting = await connection.read(FrameType.GREETING)
            elsewhere = join_binding(os.urandom(32), greeting)
            assert elsewhere != join_binding(peer_digest(connection.tls), greeting)
            request = Joiner(token, node_keys("bob"), "bob", entropy=os.urandom).request(elsewhere)
            connection.send(FrameType.JOIN, request.encode())
            _, body = await connection.read(FrameType.JOIN_REFUSED)
            assert JoinRefused.decode_untrusted(body).reason == "bad-proof"
            await connection.closed  # one request per connection

    run(scene)


def test_requests_of_one_address_are_rationed() -> None:
    async def scene() -> None:
        async with Office() as office:
            assert office.channel is not None
            reasons = []
            for _ in range(7):
                connection, _ = await open_connection(await resolve(*office.place), client_context())
                await connection.read(FrameType.GREETING)
                connection.send(FrameType.JOIN, b"junk")
                _, body = await connection.read(FrameType.JOIN_REFUSED)
                reasons.append(JoinRefused.decode_untrusted(body).reason)
                await connection.closed
            assert reasons == ["malformed"] * 5 + ["busy"] * 2
            await counted(office.channel, "join-busy")

    run(scene)
