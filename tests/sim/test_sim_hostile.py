"""Members that misbehave, in a world of whole nodes: what they can make others do, keep or tell."""

from __future__ import annotations

import pytest
from world import Host, World

from conflux.control.channel import Kind
from conflux.control.envelope import Envelope, Inner
from conflux.control.question import Question, Who
from conflux.errors import UserError
from conflux.ids import NodeId
from conflux.node import relaying
from conflux.route.onion import HopKey


def two_in_a_row() -> tuple[World, Host, Host, Host, Host]:
    world = World(1)
    alpha, rod = world.host("alpha", "a"), world.host("rod", "a", "m")
    ruth, bravo = world.host("ruth", "m", "b"), world.host("bravo", "b")
    world.run(3.0)
    alpha.send(bravo, b"ping 1")
    assert world.run(1.0, until=lambda: alpha.payloads(b"pong") != [])
    return world, alpha, rod, ruth, bravo


def questions_of(host: Host) -> list[tuple[NodeId | None, Who]]:
    """From now on: what the host asks in the open, and whom."""
    asked: list[tuple[NodeId | None, Who]] = []
    send = host._send_envelope

    def listen(token: int, to: NodeId | None, data: bytes) -> None:
        envelope = Envelope.decode_untrusted(data)
        if envelope.key_id is None:
            inner = Inner.decode_untrusted(envelope.payload)
            if inner.kind == Kind.WHO:
                asked.append((to, Question.decode_untrusted(inner.body).who))
        send(token, to, data)

    host._send_envelope = listen  # type: ignore[method-assign]  # the tap
    return asked


def forget_old_hop_keys(host: Host) -> None:
    """Turn the hop key until none of before is left: what a relay that wants to be asked claims."""
    keys = host.node.plane._author.hop_keys
    for _ in range(2):
        keys.turn(keys.next_timeout())


def test_a_far_relay_that_calls_its_key_stale_is_not_asked_for_its_card():
    world, alpha, rod, ruth, bravo = two_in_a_row()
    asked = questions_of(alpha)
    forget_old_hop_keys(ruth)
    alpha.node.move(bravo.node_id, (rod.node_id, ruth.node_id), now=world.now)
    alpha.drain()
    world.run(5.0)
    assert ruth.drops()["stale-key"] >= 1
    assert [who for _, who in asked if who.node == ruth.node_id] == [], "alpha told ruth that it is about to use it"
    alpha.send(bravo, b"ping 2")
    assert world.run(0.1, until=lambda: len(alpha.payloads(b"pong")) == 2), "the route there is carries on"


def test_relays_keys_of_an_hour_later_come_from_the_destination_alone():
    world, alpha, _, ruth, bravo = two_in_a_row()
    asked = questions_of(alpha)
    world.run(2 * 3600.0)
    alpha.send(bravo, b"ping 2")
    assert world.run(3.0, until=lambda: alpha.payloads(b"pong 2") != [])
    assert [who for _, who in asked if who.node == ruth.node_id] == []


def test_a_relay_asks_nobody_but_the_next_hop_for_its_card():
    world, alpha, rod, ruth, bravo = two_in_a_row()
    ruth.node.plane._book.remove(bravo.node_id)
    asked = questions_of(ruth)
    bravo._arrive = lambda arrival: None  # type: ignore[method-assign]  # it does not answer in time
    ruth.node.links.peer_lost(bravo.node_id, now=world.now)
    alpha.node.move(bravo.node_id, (rod.node_id, ruth.node_id), now=world.now)
    alpha.drain()
    ruth.drain()
    world.run(4.0)
    about_bravo = [to for to, who in asked if who.node == bravo.node_id]
    assert about_bravo
    assert set(about_bravo) == {bravo.node_id}, "rod hears whom ruth looks for, and knows who sent the set-up"


def test_set_ups_for_nodes_nobody_knows_leave_a_relay_its_own_questions():
    world, alpha, rod, _, _ = two_in_a_row()
    link = alpha.node.links.link(rod.node_id)
    card = rod.node.plane.own_card
    key = HopKey(card.node_id, card.hop_key_id, card.hop_public)
    asked = questions_of(rod)
    for number in range(100):
        nobody = HopKey(NodeId(number.to_bytes(16)), card.hop_key_id, card.hop_public)
        alpha.node.routes.build(alpha.node._to._by_stream.__iter__().__next__(), [key, nobody], link, now=world.now)
    alpha.node._settle(world.now)
    alpha.drain()
    world.run(0.2)
    assert len({who.node for _, who in asked}) <= relaying.LOOKUP_PER_NEIGHBOUR_MAX
    assert all(to is not None for to, _ in asked), "a set-up of 5 kB is not worth 16 kB to everybody"
    assert rod.node.resolve("bravo", now=world.now) is None
    rod.drain()
    assert world.run(1.0, until=lambda: rod.node.plane.card_by_name("bravo") is not None)


def test_answered_requests_are_forgotten():
    world, alpha, _, _, bravo = two_in_a_row()
    for number in range(5):
        alpha.send(bravo, b"ping %d" % number)
        world.run(40.0)
    assert [host.node._requests for host in world.hosts.values()] == [{}] * 4
    assert [host.node._offers for host in world.hosts.values()] == [{}] * 4


def test_a_stream_whose_answer_is_rubbish_is_tried_again():
    world = World(2)
    alpha, bravo = world.host("alpha"), world.host("bravo")
    world.run(3.0)
    receive_open = bravo.node.streams.receive_open
    rubbish = [True]

    def answer(card: object, body: bytes, to: object, *, now: float) -> None:
        if rubbish:
            rubbish.clear()
            bravo.node.plane.reply(to, Kind.ACCEPT, b"\x81\x01", now=now)
        else:
            receive_open(card, body, to, now=now)

    bravo.node.streams.receive_open = answer  # type: ignore[method-assign]
    alpha.send(bravo, b"ping 1")
    world.run(5.0)
    assert not rubbish
    assert alpha.payloads(b"pong") == [b"pong 1"]


@pytest.mark.parametrize("name", ["\ud800", "a\nb", "UPPER", "x" * 64, ""])
def test_a_name_no_node_can_have_is_refused_here(name):
    world = World(3)
    alpha = world.host("alpha")
    with pytest.raises(UserError):
        alpha.node.resolve(name, now=world.now)
    world.run(5.0)
