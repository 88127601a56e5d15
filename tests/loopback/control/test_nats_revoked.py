"""Signed lists and policies over a real broker: nodes without a card here get them; the revoked are dropped early."""

from __future__ import annotations

import asyncio
import os
import random
import time

import pytest
from kit.builders import NOW_UNIX, node_keys
from kit.cluster import Broker, Prompt, broker, far_nodes
from kit.ear import WAIT_S, envelope, node_of
from kit.lists import deny_list
from kit.published import large_text, published

from conflux.control.channel import Arrival, ChannelInputs
from conflux.control.drop import Drop
from conflux.control.envelope import HOP_LIMIT_MAX, Envelope
from conflux.control.nats.channel import NatsChannel
from conflux.control.plane import ControlPlane
from conflux.ids import BootId, NodeId
from conflux.realm.policy import SignedPolicy

THIEF = node_of("thief")


class Node:
    """A plane with a channel over the broker alone; nothing else of a node."""

    def __init__(self, at: Broker, name: str) -> None:
        member = at.member(name)
        self.node_id = member.node_id
        self.plane = ControlPlane(
            member,
            boot=BootId(os.urandom(8)),
            entropy=os.urandom,
            rng=Prompt(name),
            clock=lambda: NOW_UNIX,
            now=time.monotonic(),
        )
        self.channel = NatsChannel(member, config=at.config(), rng=random.Random(name), public_of=self._public_of)
        self.up = asyncio.Event()

    def _public_of(self, node: NodeId) -> bytes | None:
        card = self.plane.card(node)
        return None if card is None else card.chain.credential.node_public

    def _receive(self, arrival: Arrival) -> None:
        self.plane.receive_untrusted(arrival, now=time.monotonic())
        self.drain()

    def drain(self) -> None:
        """Send what the plane wants sent."""
        while (transmit := self.plane.next_transmit()) is not None:
            self.channel.send(transmit.envelope, again=transmit.again)

    async def run(self) -> None:
        """Be a node until cancelled."""
        await self.channel.start(ChannelInputs(self._receive, turned=lambda up: self.up.set()))
        try:
            while True:
                self.plane.handle_timeout(now=time.monotonic())
                self.drain()
                await asyncio.sleep(0.02)
        finally:
            await self.channel.stop()


async def hears(node: Node) -> None:
    async with asyncio.timeout(WAIT_S):
        while not node.plane.denies(THIEF):  # noqa: ASYNC110  # no event of the plane alone tells of it
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("knows", ["who says presence", "who hears it"])
async def test_lists_are_asked_of_a_node_without_a_card_here_and_come_from_it(knows: str) -> None:
    async with broker() as at, asyncio.TaskGroup() as tasks:
        alice, bob = Node(at, "alice"), Node(at, "bob")
        teacher, learner = (bob, alice) if knows == "who says presence" else (alice, bob)
        teacher.plane.lists.book.learn(deny_list(THIEF))
        running = [tasks.create_task(node.run()) for node in (alice, bob)]
        await alice.up.wait()
        await bob.up.wait()
        bob.plane.channel_up(now=time.monotonic())  # it says presence to all
        await hears(learner)
        assert (alice.plane.card(bob.node_id), bob.plane.card(alice.node_id)) == (None, None)
        for task in running:
            task.cancel()


async def holds(node: Node, policy: SignedPolicy) -> None:
    async with asyncio.timeout(WAIT_S):
        while node.plane.policies.book.current != policy:  # noqa: ASYNC110  # as above
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("knows", ["who says presence", "who hears it"])
@pytest.mark.parametrize("policy", [published(), published(large_text(4))], ids=["small", "large"])
async def test_policy_is_asked_of_a_node_without_a_card_here_and_comes_from_it(
    knows: str, policy: SignedPolicy
) -> None:
    async with broker() as at, asyncio.TaskGroup() as tasks:
        alice, bob = Node(at, "alice"), Node(at, "bob")
        teacher, learner = (bob, alice) if knows == "who says presence" else (alice, bob)
        teacher.plane.policies.book.load([policy])
        running = [tasks.create_task(node.run()) for node in (alice, bob)]
        await alice.up.wait()
        await bob.up.wait()
        bob.plane.channel_up(now=time.monotonic())  # it says presence to all
        await holds(learner, policy)
        assert (alice.plane.card(bob.node_id), bob.plane.card(alice.node_id)) == (None, None)
        for task in running:
            task.cancel()


async def test_policy_that_is_signed_here_goes_to_all_at_once() -> None:
    async with broker() as at, asyncio.TaskGroup() as tasks:
        alice, bob = Node(at, "alice"), Node(at, "bob")
        running = [tasks.create_task(node.run()) for node in (alice, bob)]
        await alice.up.wait()
        await bob.up.wait()
        alice.plane.publish(published(), now=time.monotonic())
        alice.drain()
        await holds(bob, published())
        for task in running:
            task.cancel()


async def test_list_that_is_signed_here_goes_to_all_at_once() -> None:
    async with broker() as at, asyncio.TaskGroup() as tasks:
        nodes = [Node(at, name) for name in ("alice", "bob", "carol")]
        running = [tasks.create_task(node.run()) for node in nodes]
        for node in nodes:
            await node.up.wait()
        began = time.monotonic()
        nodes[0].plane.publish(deny_list(THIEF), now=time.monotonic())
        nodes[0].drain()
        for node in nodes:
            await hears(node)
        assert time.monotonic() - began < 2.0
        for task in running:
            task.cancel()


def plain(to: NodeId, payload: bytes) -> Envelope:
    """Return an envelope as lists travel: plain, and for one node."""
    return Envelope(to, os.urandom(16), HOP_LIMIT_MAX, None, payload)


async def test_sealed_messages_of_an_excluded_node_are_dropped_and_its_plain_ones_are_judged_above() -> None:
    async with broker() as at, far_nodes(at, "alice", "bob") as (alice, bob):
        alice.channel.learn(bob.node_id, bob.key)
        alice.channel.exclude(frozenset({bob.node_id}))
        bob.send(envelope(alice.node_id, b"sealed"))
        bob.send(plain(alice.node_id, b"which lists do you have?"))
        await alice.ear.heard(b"which lists do you have?")
        assert alice.drops[Drop.REVOKED] == 1
        alice.channel.learn(bob.node_id, bob.key)  # a list was void: it is a member again, and said something
        bob.send(envelope(alice.node_id, b"sealed anew"))
        await alice.ear.heard(b"which lists do you have?", b"sealed anew")


async def test_bridge_does_not_carry_on_what_an_excluded_node_says() -> None:
    async with broker() as at, far_nodes(at, "alice", "bob") as (alice, bob):
        alice.channel.learn(bob.node_id, bob.key)
        alice.channel.cross(frozenset())
        bob.send(envelope(None, b"to all"))
        await alice.ear.heard(b"to all")
        assert len(alice.ear.transits) == 1
        alice.channel.exclude(frozenset({bob.node_id}))
        bob.send(envelope(None, b"to all again"))
        await alice.ear.heard(b"to all", b"to all again")
        assert len(alice.ear.transits) == 1


async def test_member_whose_messages_a_revoked_bridge_hands_over_is_not_shut_out() -> None:
    async with broker() as at, far_nodes(at, "alice", "bob") as (alice, bob):
        carol = node_keys("carol").node_id
        alice.channel.learn(carol, bob.key)  # behind bob
        alice.channel.exclude(frozenset({carol}))
        bob.send(envelope(alice.node_id, b"of bob"))
        await alice.ear.heard(b"of bob")
