"""Members that misbehave, among whole nodes: what others then do, keep and tell."""

from __future__ import annotations

from typing import Any

import pytest
from kit.world import World

from conflux.control.envelope import Inner, Kind
from conflux.control.event import Message, Transmit
from conflux.control.who import Question, Who
from conflux.errors import UserError
from conflux.ids import LinkId, NodeId
from conflux.node import relaying
from conflux.realm.card import Card
from conflux.route.message import Setup, Teardown
from conflux.route.onion import HopKey
from conflux.sim.world import Host

SET_UPS_PER_S_MAX = 3.0  # of one stream whose routes are all lost at once: a failure, its pause of 0.4 s or more, again


def two_in_a_row() -> tuple[World, Host, Host, Host, Host]:
    world = World(1)
    alpha, rod = world.host("alpha", "a"), world.host("rod", "a", "m")
    ruth, bravo = world.host("ruth", "m", "b"), world.host("bravo", "b")
    world.run(3.0)
    alpha.send(bravo, b"ping 1")
    assert world.run(1.0, until=lambda: alpha.payloads(b"pong") != [])
    return world, alpha, rod, ruth, bravo


def questions_of(host: Host) -> list[tuple[NodeId | None, Who]]:
    """Return a list that grows with every WHO that the host sends unsealed: to which node, and for what."""
    asked: list[tuple[NodeId | None, Who]] = []
    send = host._send_envelope

    def listen(transmit: Transmit) -> None:
        envelope = transmit.envelope
        if envelope.key_id is None:
            inner = Inner.decode_untrusted(envelope.payload)
            if inner.kind == Kind.WHO:
                asked.append((envelope.to, Question.decode_untrusted(inner.body).who))
        send(transmit)

    host._send_envelope = listen  # the tap
    return asked


def forget_old_hop_keys(host: Host) -> None:
    """Replace the hop keys until the old ones are gone; so would a relay do that wants to be asked for its card."""
    keys = host.node.plane._author.hop_keys
    for _ in range(2):
        keys.handle_timeout(now=keys.next_timeout())


def test_a_far_relay_that_calls_its_key_stale_is_not_asked_for_its_card() -> None:
    world, alpha, rod, ruth, bravo = two_in_a_row()
    asked = questions_of(alpha)
    forget_old_hop_keys(ruth)
    alpha.node.move(bravo.node_id, (rod.node_id, ruth.node_id), now=world.now)
    alpha.drain()
    world.run(5.0)
    assert ruth.drops()["stale-key"] >= 1
    assert [who for _, who in asked if who.node == ruth.node_id] == [], "alpha told ruth that it is about to use it"
    alpha.send(bravo, b"ping 2")
    assert world.run(0.1, until=lambda: len(alpha.payloads(b"pong")) == 2), "the route before still carries"


def test_keys_of_relays_that_turned_come_from_the_destination_alone() -> None:
    world, alpha, _, ruth, bravo = two_in_a_row()
    asked = questions_of(alpha)
    world.run(2 * 3600.0)
    alpha.send(bravo, b"ping 2")
    assert world.run(3.0, until=lambda: alpha.payloads(b"pong 2") != [])
    assert [who for _, who in asked if who.node == ruth.node_id] == []


def test_a_relay_asks_only_the_next_hop_for_its_card() -> None:
    world, alpha, rod, ruth, bravo = two_in_a_row()
    ruth.node.plane._book.remove(bravo.node_id)
    asked = questions_of(ruth)
    bravo.arrive = lambda arrival: None  # it does not answer in time
    ruth.node.links.peer_lost(bravo.node_id, now=world.now)
    alpha.node.move(bravo.node_id, (rod.node_id, ruth.node_id), now=world.now)
    alpha.drain()
    ruth.drain()
    world.run(4.0)
    about_bravo = [to for to, who in asked if who.node == bravo.node_id]
    assert about_bravo
    assert set(about_bravo) == {bravo.node_id}, "rod would hear where the set-up goes, and it knows where it comes from"


def test_set_ups_to_invented_nodes_leave_a_relay_room_for_its_own_questions() -> None:
    world, alpha, rod, _, _ = two_in_a_row()
    link = alpha.node.links.link(rod.node_id)
    assert link is not None
    card = rod.node.plane.own_card
    key = HopKey(card.node_id, card.hop_key_id, card.hop_public)
    asked = questions_of(rod)
    for number in range(100):
        invented = HopKey(NodeId(number.to_bytes(16)), card.hop_key_id, card.hop_public)
        alpha.node.routes.build(next(iter(alpha.node._to._lives._by_stream)), [key, invented], link, now=world.now)
    alpha.node._settle(world.now)
    alpha.drain()
    world.run(0.2)
    assert len({who.node for _, who in asked}) <= relaying.LOOKUP_PER_NEIGHBOUR_MAX
    assert all(to is not None for to, _ in asked), "a set-up of 5 kB does not cause 16 kB to all nodes"
    assert rod.node.resolve("bravo", now=world.now) is None
    rod.drain()
    assert world.run(1.0, until=lambda: rod.node.plane.card_by_name("bravo") is not None)


def test_answered_requests_are_forgotten() -> None:
    world, alpha, _, _, bravo = two_in_a_row()
    for number in range(5):
        alpha.send(bravo, b"ping %d" % number)
        world.run(40.0)
    assert [host.node._requests._pending for host in world.hosts.values()] == [{}] * 4
    assert [host.node._requests._offers for host in world.hosts.values()] == [{}] * 4


def test_a_stream_whose_answer_is_malformed_is_tried_again() -> None:
    world = World(2)
    alpha, bravo = world.host("alpha"), world.host("bravo")
    world.run(3.0)
    receive_open = bravo.node.streams.receive_open
    rubbish = [True]

    def answer(card: Card, body: bytes, to: Message, *, now: float) -> None:
        if rubbish:
            rubbish.clear()
            bravo.node.plane.reply(to, Kind.ACCEPT, b"\x81\x01", now=now)
        else:
            receive_open(card, body, to, now=now)

    bravo.node.streams.receive_open = answer
    alpha.send(bravo, b"ping 1")
    world.run(5.0)
    assert not rubbish
    assert alpha.payloads(b"pong") == [b"pong 1"]


@pytest.mark.parametrize("name", ["\ud800", "a\nb", "under_score", "x" * 64, ""])
def test_a_name_no_node_can_have_is_refused_here(name: str) -> None:
    world = World(3)
    alpha = world.host("alpha")
    with pytest.raises(UserError):
        alpha.node.resolve(name, now=world.now)
    world.run(5.0)


def test_a_member_that_ends_each_route_as_soon_as_it_is_there_has_only_so_many_set_up() -> None:
    world = World(4)
    alpha, bravo = world.host("alpha"), world.host("bravo")
    world.run(3.0)
    alpha.send(bravo, b"ping 0")
    assert world.run(1.0, until=lambda: alpha.payloads(b"pong") != [])
    routes, set_ups = bravo.node.routes, []
    receive_last_hop = routes._receive_last_hop

    def end_at_once(link: LinkId, setup: Setup, *peeled: Any) -> None:
        set_ups.append(world.now)
        receive_last_hop(link, setup, *peeled)
        routes._send(link, Teardown(setup.label_back, b""))

    routes._receive_last_hop = end_at_once
    for (link, _), state in list(routes._incoming.items()):
        routes._send(link, Teardown(state.hop.label_out, b""))
    bravo.drain()
    for number in range(200):
        alpha.send(bravo, b"ping %d" % number)
        world.run(0.1)
    assert 0 < len(set_ups) < SET_UPS_PER_S_MAX * 20.0, len(set_ups)
