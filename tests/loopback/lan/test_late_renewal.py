"""Renewal over a LAN listener of members that no member talks to any more: thirty-five days off, for all or for one."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest
from kit.lan import LanNode, free_port
from kit.renewing import LATE_S, Pair

from conflux.control.lan.config import LanConfig, Place
from conflux.control.lan.join import renew
from conflux.daemon.late import LateRenewal
from conflux.errors import UserError
from conflux.realm.member import Member

DAY_S = 86400
STATIC = LanConfig(mdns=False)


def gate_of(pair: Pair, **options: Any) -> LanNode:
    """The founder's listener."""
    gate = pair.gate
    return LanNode("gate", member=gate.renewal.member, now_unix=pair.now_unix, issue=gate.issuing.admit, **options)


async def renewed(pair: Pair, *places: Place, search_s: float = 5.0) -> Member:
    kitchen = pair.kitchen
    return await renew(
        kitchen.renewal.member,
        clock=kitchen.clock,
        entropy=os.urandom,
        endpoints=places,
        config=STATIC,
        search_s=search_s,
    )


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path / "gate")


async def test_after_35_days_off_for_all_the_founder_renews_itself_and_then_the_others(pair: Pair) -> None:
    pair.now_unix += 35 * DAY_S
    pair.gate.renewal.check(now=0.0)
    async with gate_of(pair) as gate:
        before = pair.kitchen.renewal.member
        after = await renewed(pair, ("127.0.0.1", gate.port))
        assert after.chain.not_after > pair.now_unix
        assert (after.name, after.addresses) == (before.name, before.addresses)
        async with LanNode("kitchen", gate.port, member=after, now_unix=pair.now_unix) as kitchen:
            await kitchen.ear.until(lambda: kitchen.ear.up == {pair.gate.renewal.member.node_id})


async def test_a_member_that_was_off_for_too_long_is_told_what_to_do(pair: Pair) -> None:
    pair.now_unix += 30 * DAY_S + LATE_S
    pair.gate.renewal.check(now=0.0)
    async with gate_of(pair) as gate:
        with pytest.raises(UserError, match="ended too long ago to be renewed; ask for a new invitation"):
            await renewed(pair, ("127.0.0.1", gate.port))


async def test_a_member_is_renewed_once_a_minute_at_most_this_way_too(pair: Pair) -> None:
    async with gate_of(pair) as gate:
        await renewed(pair, ("127.0.0.1", gate.port))
        with pytest.raises(UserError, match="renewed a moment ago"):
            await renewed(pair, ("127.0.0.1", gate.port))


async def test_a_node_that_does_not_issue_is_passed_over(pair: Pair) -> None:
    async with LanNode("other") as other, gate_of(pair) as gate:
        places = [("127.0.0.1", node.port) for node in (other, gate)]
        assert (
            await renewed(pair, *places)
        ).chain.credential.serial > pair.kitchen.renewal.member.chain.credential.serial


async def test_a_daemon_whose_credential_ended_searches_and_adopts_what_it_finds(pair: Pair) -> None:
    port = free_port()

    async def search(member: Member) -> Member:
        return await renewed(pair, ("127.0.0.1", port))

    late = LateRenewal(pair.kitchen.renewal, search, rng=random.Random(1))
    pair.now_unix += 31 * DAY_S
    assert pair.kitchen.renewal.is_lost()
    await late.search()
    assert "could not be renewed: no answer" in pair.kitchen.renewal.refused
    pair.gate.renewal.check(now=0.0)
    node = LanNode(
        "gate", member=pair.gate.renewal.member, now_unix=pair.now_unix, issue=pair.gate.issuing.admit, port=port
    )
    async with node:
        await late.search()
    assert not pair.kitchen.renewal.is_lost()
    assert pair.kitchen.renewal.warnings() == []
    assert len(pair.kitchen.adopted) == 1
