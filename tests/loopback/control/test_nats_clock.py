"""A device whose clock is wrong, at a real broker: what it still reaches, what it refuses, and what a person is told.

OpenSSL asks the kernel for the time, so here the certificates are early or late, and not the clock.
"""

from __future__ import annotations

import os

import pytest
from kit.builders import NOW_UNIX, node_keys
from kit.cluster import NatsNode, broker, certificates, now_unix
from kit.far_office import FarOffice, over_broker
from kit.liar import Session, lying

from conflux.control.nats.join import join
from conflux.errors import UserError
from conflux.realm.clock import RealmClock
from conflux.realm.credential import CREDENTIAL_LIFETIME_S
from conflux.realm.invite import Token
from conflux.realm.member import Member

DAY_S = 86400
TO_COME = {"begins": 300, "days": 500}  # of a server, to a device whose clock is a year behind


async def joined(token: Token, *, device_unix: int, search_s: float = 5.0) -> Member:
    """Join as a board that keeps no date of any realm yet."""
    clock = RealmClock(0, system=lambda: device_unix, save=lambda date: None)
    return await join(token, node_keys("bob"), "bob", clock=clock, entropy=os.urandom, search_s=search_s)


async def test_member_whose_clock_is_behind_its_realm_connects_all_the_same():
    async with broker(tls=certificates(**TO_COME)) as at:
        floor_unix = now_unix() + 400 * DAY_S
        async with NatsNode(at.member("alice"), at.config(), floor_unix=floor_unix) as alice:
            await alice.until(up=True)


async def test_certificate_that_ended_before_the_realm_signed_something_is_refused_by_a_clock_that_is_behind():
    async def script(session: Session) -> None:
        await session.introduce()
        assert await session.reader.read(1) == b""  # no credential

    async with lying(script, tls=certificates(days=300)) as (_, at):
        floor_unix = now_unix() + 400 * DAY_S
        async with NatsNode(at.member("alice"), at.config(), floor_unix=floor_unix) as alice:
            await alice.until_it_says("its certificate does not hold (it ended before 20")


async def test_clock_that_is_behind_believes_no_other_authority_and_no_other_name():
    floor_unix = now_unix() + 400 * DAY_S
    for certificate, ca, said in (
        (certificates(**TO_COME), certificates(days=2).ca, "its certificate does not hold"),
        (certificates(hosts=("192.0.2.1",), **TO_COME), None, "IP address mismatch"),
    ):

        async def script(session: Session) -> None:
            await session.introduce()
            assert await session.reader.read(1) == b""

        async with lying(script, tls=certificate) as (_, at):
            config = at.config(ca=ca or at.certificates.ca)
            async with NatsNode(at.member("alice"), config, floor_unix=floor_unix) as alice:
                await alice.until_it_says(said)


async def test_board_in_1970_joins_over_the_broker():
    """Its invitation has a date, by which it knows that its clock is behind."""
    async with broker(tls=certificates(**TO_COME)) as at:
        issued_at = now_unix() + 400 * DAY_S
        office = FarOffice(at, floor_unix=issued_at)
        async with office.node as alice:
            await alice.until(up=True)
            await alice.flushed()
            token = office.invite()
            admission = at.operator.signer.join_pass(
                token.invite_id, token.secret, issued_at=issued_at, expires_at=issued_at + DAY_S
            )
            assert (await joined(over_broker(at, token, admission=admission), device_unix=0)).name == "bob"


async def test_board_whose_clock_is_a_year_ahead_is_told_of_its_clock():
    async with broker(tls=certificates(days=-1)) as at:
        with pytest.raises(UserError, match=r"certificate has expired; this device's clock says 20\d\d-"):
            await joined(FarOffice(at).invite(), device_unix=now_unix(), search_s=0.5)
    async with broker() as at:
        office = FarOffice(at)
        async with office.node as alice:
            await alice.until(up=True)
            await alice.flushed()
            with pytest.raises(UserError, match="this device's clock is wrong, or the issuer's"):
                await joined(office.invite(), device_unix=NOW_UNIX + CREDENTIAL_LIFETIME_S + 1)
