"""Late renewals over a real broker: a member whose credential has ended, and so its admission, asks and is renewed."""

from __future__ import annotations

import os
import time
from contextlib import AsyncExitStack

import pytest
from kit.cluster import Broker, NatsNode, broker, now_unix
from kit.founder import DAY_S, LATE_S, REALM, Founder
from kit.liar import Session, lying

from conflux.control.nats.renew import renew
from conflux.errors import UserError
from conflux.realm.broker import subjects
from conflux.realm.broker.joining import RENEWAL_SECRET, Asked, TellKind, Told, join_binding, seal_told
from conflux.realm.broker.users import renewal_id
from conflux.realm.clock import RealmClock
from conflux.realm.identity import NodeKeys
from conflux.realm.issued import End
from conflux.realm.join import JoinRefused, RenewRequest
from conflux.realm.member import Member


async def renewed(at: Broker, member: Member, search_s: float = 8.0) -> Member:
    clock = RealmClock(0, system=time.time, save=lambda date: None)
    return await renew(member, config=at.config(), clock=clock, entropy=os.urandom, search_s=search_s)


async def up(stack: AsyncExitStack, *founders: Founder) -> None:
    for founder in founders:
        await stack.enter_async_context(founder.node)
        await founder.node.until(up=True)
        await founder.node.flushed()


async def test_member_whose_credential_ended_is_renewed_over_the_broker_and_let_in_again() -> None:
    async with broker() as at, AsyncExitStack() as stack:
        founder = Founder(at)
        bob = founder.admitted("bob", 35)
        await up(stack, founder)
        async with NatsNode(bob, at.config()) as node:
            await node.until_it_says("refused: ")  # its credential ended five days ago
            began = time.monotonic()
            after = await renewed(at, bob)
            assert time.monotonic() - began < 3.0
            assert after.chain.not_after > now_unix()
            assert (after.name, after.addresses) == (bob.name, bob.addresses)
            node.channel.adopt(after)
            await node.until(up=True)


async def test_member_whose_issuer_is_no_more_is_renewed_by_the_one_in_its_place_among_others() -> None:
    async with broker() as at, AsyncExitStack() as stack:
        gone, heir = Founder(at, "alice"), Founder(at, "carol", granted_at=now_unix() - DAY_S)
        other = Founder(at, "dave", granted_at=now_unix() - 300 * DAY_S)  # granted earlier: it is in nobody's place
        bob = gone.admitted("bob", 35)
        await up(stack, other, heir)
        after = await renewed(at, bob)
        assert after.chain.credential.issuer == heir.issuer.issuer_id


@pytest.mark.parametrize(
    ("ended", "late_s", "said"),
    [(False, DAY_S, "ended too long ago to be renewed"), (True, LATE_S, "this node's membership was ended")],
)
async def test_member_that_is_not_renewed_is_told_why(ended: bool, late_s: int, said: str) -> None:
    async with broker() as at, AsyncExitStack() as stack:
        founder = Founder(at, late_s=late_s)
        bob = founder.admitted("bob", 35)
        if ended:
            founder.issuer.end(bob.node_id, End.REVOKED, now_unix=now_unix())
        await up(stack, founder)
        with pytest.raises(UserError, match=said):
            await renewed(at, bob)


async def test_member_is_told_that_no_issuer_is_there() -> None:
    async with broker() as at:
        bob = Founder(at).admitted("bob", 35)
        with pytest.raises(UserError, match="no issuer answered"):
            await renewed(at, bob)


async def test_who_was_admitted_before_there_was_a_pass_is_told() -> None:
    async with broker() as at:
        with pytest.raises(UserError, match="no admission for that"):
            await renewed(at, at.member("bob"))


async def test_chain_without_its_key_renews_nothing() -> None:
    async with broker() as at, AsyncExitStack() as stack:
        founder = Founder(at)
        bob = founder.admitted("bob", 35)
        await up(stack, founder)
        thief = Member.__new__(Member)  # keys that do not fit the chain: Member itself would refuse them
        for name, value in (("keys", NodeKeys.generate()), ("anchor", bob.anchor), ("chain", bob.chain)):
            object.__setattr__(thief, name, value)
        with pytest.raises(UserError, match="does not admit this node"):
            await renewed(at, thief, search_s=1.0)


async def test_lying_server_can_keep_a_member_from_its_renewal_and_nothing_else() -> None:
    """It challenges, refuses in the issuer's name, and answers with what the issuer once told another."""

    async def script(session: Session) -> None:
        await session.admit()
        while True:
            words = (await session.hear(b"PUB")).split()
            asked = Asked.decode_untrusted((await session.reader.readexactly(int(words[-1]) + 2))[:-2])
            told = [Told(asked.nonce, os.urandom(32))]
            if asked.box:
                binding = join_binding(asked.issuer, own, asked.nonce, asked.challenge)
                told = [
                    seal_told(RENEWAL_SECRET, binding, asked.nonce, kind, body, salt=os.urandom(32))
                    for kind, body in (
                        (TellKind.JOINED, b"rubbish"),
                        (TellKind.JOINED, others.encode()),
                        (TellKind.REFUSED, JoinRefused("ended").encode()),
                    )
                ]
            for each in told:
                payload, subject = each.encode(), subjects.joined(own).encode()
                await session.say(b"MSG %s 1 %d\r\n%s\r\n" % (subject, len(payload), payload))

    async with lying(script) as (_, at):
        founder = Founder(at)
        bob, carol = founder.admitted("bob", 35), founder.admitted("carol", 5)
        own = renewal_id(bob.keys.public.encode()[:32])
        request = RenewRequest(carol.chain, bytes(32), b"").sign(
            carol.keys.signing, REALM.anchor.realm_id, binding=own * 4
        )
        others = founder.issuer.renew_at(request, binding=own * 4, now_unix=now_unix(), late_s=LATE_S)
        with pytest.raises(UserError, match="could not be renewed over the broker"):
            await renewed(at, bob)
