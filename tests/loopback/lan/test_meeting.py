"""Two boards meet, lose each other and meet again; and each understands a board of an earlier build."""

from __future__ import annotations

import pytest
from kit.builders import make_member, make_realm
from kit.lan import LanNode, lan
from kit.lists import deny_list

from conflux.control.lan.certificate import Certificate, client_context
from conflux.control.lan.connection import Connection
from conflux.control.lan.frame import FrameType
from conflux.control.lan.handshake import Peer
from conflux.control.lan.meeting import FEATURES_OF_BUILD


def peer_of(node: LanNode, other: LanNode) -> Peer:
    """Return what a node knows of a neighbour."""
    found = node.channel._neighbours.find(other.node_id)
    assert found is not None
    return found.peer


def counted(node: LanNode, monkeypatch: pytest.MonkeyPatch) -> list[FrameType]:
    """Return a list that gets what a node says in handshakes from now on."""
    said: list[FrameType] = []
    track = node.channel._dialling._track

    def see(connection: Connection) -> None:
        send = connection.send

        def noting(kind: FrameType, body: bytes = b"") -> bool:
            said.append(kind)
            return send(kind, body)

        monkeypatch.setattr(connection, "send", noting)
        track(connection)

    monkeypatch.setattr(node.channel._dialling, "_track", see)
    return said


async def test_boards_that_met_meet_again_without_a_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    async with lan("alice", "bob") as (alice, bob):
        assert peer_of(alice, bob).features == frozenset(FEATURES_OF_BUILD) == peer_of(bob, alice).features
        said = counted(bob, monkeypatch)
        (connection,) = bob.channel._connections
        connection.abort("lost")
        await bob.ear.until(lambda: len(bob.ear.changes) >= 3)
        await alice.ear.until(lambda: len(alice.ear.changes) >= 3)
        assert said[0] is FrameType.HELLO_AGAIN
        assert FrameType.HELLO not in said
        assert peer_of(alice, bob).features == frozenset(FEATURES_OF_BUILD)


async def test_a_board_that_was_forgotten_says_hello_in_full_on_the_same_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with lan("alice", "bob") as (alice, bob):
        alice.channel._introductions.acquaintances.clear()
        said = counted(bob, monkeypatch)
        (connection,) = bob.channel._connections
        connection.abort("lost")
        await bob.ear.until(lambda: len(bob.ear.changes) >= 3)
        assert said[:2] == [FrameType.HELLO_AGAIN, FrameType.HELLO]
        assert bob.drops == {}


@pytest.mark.parametrize("earlier", ["dialler", "listener"])
async def test_a_board_of_an_earlier_build_is_met_as_before(earlier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An earlier build offers no ALPN, and agrees to none."""
    context, make = client_context, Certificate.make
    if earlier == "dialler":
        monkeypatch.setattr("conflux.control.lan.dialling.client_context", lambda meets: context(meets=not meets))
    else:
        monkeypatch.setattr(Certificate, "make", lambda: make(meets=False))
    async with lan("alice", "bob") as (alice, bob):
        assert peer_of(alice, bob).features == frozenset() == peer_of(bob, alice).features
        assert (peer_of(alice, bob).knows, peer_of(bob, alice).knows) == (b"", b"")
        assert len(alice.channel._introductions.acquaintances) == 0


async def test_a_denied_board_that_was_met_is_told_why_it_is_not_let_in() -> None:
    async with lan("alice", "bob") as (alice, bob):
        alice.book.learn(deny_list(bob.node_id))
        alice.channel.exclude(frozenset((bob.node_id,)))
        await bob.drops.until("revoked")
        assert bob.told
        assert len(alice.channel._introductions.acquaintances) == 0


async def test_a_board_with_a_renewed_credential_forgets_who_knows_the_one_before() -> None:
    async with lan("alice", "bob") as (_, bob):
        assert len(bob.channel._introductions.acquaintances) == 1
        bob.channel.adopt(make_member(make_realm(), "bob"))
        assert len(bob.channel._introductions.acquaintances) == 0


async def test_who_was_denied_between_its_handshake_and_its_place_among_the_neighbours_gets_none() -> None:
    async with lan("alice", "bob") as (alice, bob):
        peer = peer_of(alice, bob)
        await bob.channel.stop()
        await alice.ear.until(lambda: len(alice.ear.changes) >= 2)
        alice.book.learn(deny_list(bob.node_id))
        async with LanNode("carol", alice.port):
            await alice.ear.sees("carol")
            (stand_in,) = alice.channel._connections
            alice.channel._admit(stand_in, peer, dialled=False)
            assert alice.drops["revoked"] == 1
            assert alice.channel._neighbours.find(bob.node_id) is None
