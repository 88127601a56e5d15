"""A revoked node on a LAN, with real TLS: its connections end, it is let in by nobody, and it is told why."""

from __future__ import annotations

import asyncio

from kit.builders import NOW_UNIX, make_credential, node_keys
from kit.ear import node_of
from kit.lan import LanNode, lan
from kit.lists import GATE, REALM, ROOT, deny_list

from conflux.realm.credential import Chain
from conflux.realm.listbook import ListBook
from conflux.realm.member import Member

AGAINST_BOB = deny_list(node_of("bob"), reason="stolen")


def knowing() -> ListBook:
    """Return a book that denies bob."""
    book = ListBook(REALM.anchor, lambda: NOW_UNIX)
    book.learn(AGAINST_BOB)
    return book


async def test_open_connections_to_an_excluded_node_end_and_no_others() -> None:
    async with lan("alice", "bob", "carol") as (alice, bob, carol):
        alice.book.learn(AGAINST_BOB)
        alice.channel.exclude(frozenset({bob.node_id}))
        await alice.ear.sees("carol")
        await bob.ear.sees("carol")
        assert [entry.name for entry in alice.channel.status()] == ["carol"]
        assert {entry.name for entry in carol.channel.status()} == {"alice", "bob"}


async def test_connections_to_nodes_of_an_excluded_issuer_end() -> None:
    credential = make_credential(REALM, "bob", issuer=GATE.key)
    member = Member(node_keys("bob"), REALM.anchor, Chain(credential, GATE.grant))
    async with LanNode("alice") as alice, LanNode("bob", alice.port, member=member) as bob:
        await alice.ear.sees("bob")
        against_gate = deny_list(node_keys("gate").node_id, signer=ROOT)
        alice.book.learn(against_gate)
        alice.channel.exclude(frozenset({node_keys("gate").node_id}))
        await alice.ear.sees()
        await bob.drops.until("revoked")
        assert bob.told == [against_gate]


async def test_revoked_dialler_is_not_let_in_and_is_told_by_which_list() -> None:
    async with LanNode("alice", book=knowing()) as alice, LanNode("bob", alice.port) as bob:
        await alice.drops.until("revoked")
        await bob.drops.until("revoked")
        assert bob.told == [AGAINST_BOB]
        assert alice.ear.changes == []
        assert bob.ear.changes == []


async def test_revoked_acceptor_is_refused_by_who_dials_it() -> None:
    async with LanNode("bob") as bob, LanNode("alice", bob.port, book=knowing()) as alice:
        await alice.drops.until("revoked")
        assert alice.ear.changes == []


async def test_revoked_node_asks_seldom_and_lets_nobody_in() -> None:
    async with LanNode("alice", book=knowing()) as alice, LanNode("bob", alice.port) as bob:
        await bob.drops.until("revoked")
        await alice.drops.until("revoked")
        before = alice.drops["revoked"]
        await asyncio.sleep(1.5)  # without the pause it would have dialled three times
        assert alice.drops["revoked"] == before
        async with LanNode("carol", bob.port) as carol:
            await carol.drops.until("closed")
            assert carol.ear.changes == []
