"""Joining over a real broker: who is let in, who is told what, and what a flood costs others."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from kit.builders import NOW_UNIX, make_grant, make_realm, node_keys, signing_key
from kit.cluster import Broker, broker, now_unix
from kit.ear import WAIT_S
from kit.far_office import FarOffice, over_broker
from kit.liar import Session, lying
from kit.office import Records

from conflux.broker.client import Client, Login
from conflux.control import admitting
from conflux.control.admitting import Office as Desk
from conflux.control.admitting import RefusedByIssuer
from conflux.control.nats.join import join
from conflux.control.nats.reception import Reception
from conflux.control.nats.tls import client_context
from conflux.crypto.nkey import KeyPair, Kind
from conflux.errors import UserError
from conflux.realm.broker import subjects
from conflux.realm.broker.joining import Asked, Told
from conflux.realm.broker.users import Signer
from conflux.realm.clock import RealmClock
from conflux.realm.invite import Token, make_invite
from conflux.realm.issuer import Issuer
from conflux.realm.member import Member
from conflux.realm.waiting import Decision

JOIN_S_MAX = 2.0


@asynccontextmanager
async def office(**options: Any):
    async with broker() as at:
        made = FarOffice(at, **options)
        async with made.node:
            await made.node.until(up=True)
            await made.node.flushed()
            yield made


async def joined(token: Token, name: str = "bob", **options: Any) -> Member:
    clock = RealmClock(NOW_UNIX, system=time.time, save=lambda date: None)
    return await join(token, node_keys(name), name, clock=clock, entropy=os.urandom, **options)


async def test_node_without_a_lan_joins_in_time_and_gets_the_signed_lists():
    async with office(lists=(b"first", b"second")) as at:
        lists: list[bytes] = []
        began = time.monotonic()
        member = await joined(at.invite(tags=("light",)), heard=lists.append)
        took_s = time.monotonic() - began
        assert (member.name, member.chain.credential.tags) == ("bob", ("light",))
        assert lists == [b"first", b"second"]
        assert took_s < JOIN_S_MAX


async def test_used_invitation_is_refused_by_the_issuer_itself():
    async with office() as at:
        token = at.invite()
        await joined(token)
        with pytest.raises(RefusedByIssuer, match="has been used already"):
            await joined(token, "carol")
        assert (await joined(token)).name == "bob"  # who lost the answer asks again


async def test_invitation_that_has_ended_is_not_let_in():
    async with office() as at:
        token = at.invite(valid_s=1)
        await asyncio.sleep(1.2)
        with pytest.raises(UserError, match="the invitation has expired"):
            await joined(token, search_s=3.0)


async def test_guessed_invitation_is_not_let_in():
    async with office() as at:
        token = at.invite()
        guessed = replace(token, secret=os.urandom(16))
        with pytest.raises(UserError, match="the admission to the broker in it is not its own"):
            await joined(guessed)
        thief = Signer(at.at.operator.account.public, KeyPair.generate(Kind.ACCOUNT))
        made = thief.join_pass(guessed.invite_id, guessed.secret, issued_at=now_unix(), expires_at=now_unix() + 60)
        with pytest.raises(UserError, match="does not admit this node"):
            await joined(over_broker(at.at, guessed, admission=made), search_s=0.5)
        assert not at.records.nodes


async def test_withdrawn_invitation_gets_no_answer():
    async with office() as at:
        token = at.invite()
        at.records.forget_invite(token.invite_id)
        with pytest.raises(UserError, match="was the invitation withdrawn"):
            await joined(token, search_s=7)
        assert at.node.drops["join-unknown-invite"] > 0


async def test_server_of_another_authority_is_not_spoken_to():
    async with office() as at:
        token = at.invite()
        other = token.with_broker(token.broker.servers, bytes(32), token.broker.admission)
        with pytest.raises(UserError, match="not of the authority that the invitation names"):
            await joined(other, search_s=0.5)


async def test_person_approves_over_the_broker(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(admitting, "APPROVAL_RETRY_S_MIN", 0.05)
    monkeypatch.setattr(admitting, "APPROVAL_RETRY_S_MAX", 0.1)
    async with office() as at:
        waits = asyncio.Event()
        joining = asyncio.create_task(joined(at.invite(approve=True), search_s=5, waits=waits.set))
        async with asyncio.timeout(WAIT_S):
            await waits.wait()
        at.issuer.decide(node_keys("bob").node_id, Decision.APPROVED, name="bob", now_unix=NOW_UNIX)
        assert (await joining).name == "bob"


async def test_one_that_hangs_is_passed_over_for_another_server():
    async with office() as at:
        token = at.invite()
        with socket.create_server(("127.0.0.1", 0)) as hanging:  # the kernel accepts, and nobody speaks
            host, port = hanging.getsockname()
            way = token.with_broker(
                [f"{host}:{port}", *token.broker.servers], token.broker.ca_fingerprint, token.broker.admission
            )
            assert (await joined(way)).name == "bob"


async def test_flood_of_one_invitation_leaves_others_their_time():
    """A thief of one token asks as fast as it can; a board with another token joins in time."""
    async with office() as at:
        stolen, token = at.invite(), at.invite(count=4)
        stop, subject = asyncio.Event(), subjects.join(stolen.invite_id)

        def flood(client: Client) -> int:
            count = 0
            while not stop.is_set():
                for _ in range(50):
                    nonce = os.urandom(32)
                    client.publish(subject, Asked(stolen.issuer, nonce, bytes(32), b"x" * 5000).encode())
                    client.publish(subject, Asked(stolen.issuer, nonce).encode())
                count += 100
                time.sleep(0.02)
            return count

        jwt, key = stolen.broker.admission.rebuild(stolen.invite_id, stolen.secret)
        host, port = at.at.addresses[0]
        context = client_context(at.at.certificates.ca)
        with Client.open(host, port, Login(jwt, key.sign), tls=context) as client:
            flooding = asyncio.create_task(asyncio.to_thread(flood, client))
            try:
                async with asyncio.timeout(WAIT_S):
                    while at.node.drops["join-flood"] < 100:  # noqa: ASYNC110  # no event tells of it
                        await asyncio.sleep(0.01)
                for name in ("bob", "carol", "dave", "erin"):
                    began = time.monotonic()
                    assert (await joined(token, name)).name == name
                    assert time.monotonic() - began < JOIN_S_MAX
            finally:
                stop.set()
                await flooding
        assert at.node.drops["join-flood"] > 300


# ── a server that lies ────────────────────────────────────────────────────────────────────────────────────────────────


class Twisted:
    """An issuer behind a server that twists what goes to and fro.  twist: turns what is told into what is passed on."""

    def __init__(self, twist: Callable[[Told], list[Told]]) -> None:
        realm = make_realm()
        key = signing_key("alice")
        self.records = Records()
        self.issuer = Issuer(key, realm.anchor, make_grant(realm, key), self.records)
        desk = Desk(
            issue=lambda request, binding: self.issuer.join(request, binding=binding, now_unix=NOW_UNIX),
            issuer=lambda: self.issuer.issuer_id,
            secret=self.issuer.secret_of,
        )
        self._reception = Reception(desk, entropy=os.urandom, drop=lambda reason: None)
        self._twist = twist

    async def serve(self, session: Session) -> None:
        await session.admit()
        while True:
            words = (await session.hear(b"PUB")).split()
            data = (await session.reader.readexactly(int(words[-1]) + 2))[:-2]
            invite_id = bytes.fromhex(words[1].decode().rpartition(".")[2])
            for answer in self._reception.receive_untrusted(invite_id, data, now=time.monotonic()):
                for told in self._twist(Told.decode_untrusted(answer)):
                    payload = told.encode()
                    subject = subjects.joined(invite_id).encode()
                    await session.say(b"MSG %s 1 %d\r\n%s\r\n" % (subject, len(payload), payload))

    def invite(self, at: Broker, **options: Any) -> Token:
        invite, token = make_invite(
            self.issuer.anchor, self.issuer.issuer_id, now_unix=NOW_UNIX, entropy=os.urandom, **options
        )
        self.records.save_invite(invite)
        return over_broker(at, token)


def withheld(told: Told) -> list[Told]:
    return [told] if not told.box else []


def altered(told: Told) -> list[Told]:
    return [replace(told, box=told.box[:-1] + bytes([told.box[-1] ^ 1]))] if told.box else [told]


def made_up(told: Told) -> list[Told]:
    return [told] if not told.box else [replace(told, salt=bytes(32), box=b"\0" * 5000)] * 200


def another_challenge(told: Told) -> list[Told]:
    return [replace(told, salt=bytes(32))] if not told.box else [told]


@pytest.mark.parametrize("twist", [withheld, altered, made_up, another_challenge])
async def test_lying_server_can_keep_a_joiner_waiting_and_nothing_else(twist: Callable[[Told], list[Told]]):
    twisted = Twisted(twist)
    async with lying(twisted.serve) as (_, at):
        with pytest.raises(UserError, match="did not answer"):
            await joined(twisted.invite(at), search_s=6.5)


async def test_answers_of_before_and_of_others_are_passed_over():
    """The server says everything that the issuer ever told before what it tells now."""
    kept: list[Told] = []

    def repeated(told: Told) -> list[Told]:
        kept.append(told)
        return [*(replace(old, nonce=told.nonce) for old in kept if old.box and told.box), *kept]

    twisted = Twisted(repeated)
    async with lying(twisted.serve) as (_, at):
        token = twisted.invite(at, count=3)
        for name in ("bob", "carol", "bob"):
            assert (await joined(token, name)).name == name
        assert len(twisted.records.nodes) == 2
