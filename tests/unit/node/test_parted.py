"""A board of a large LAN that is a neighbour no more, and is there still."""

from __future__ import annotations

from kit.world import World


def test_what_a_node_said_is_forgotten_with_its_connection_and_no_stream_is_in_doubt() -> None:
    world = World(1)
    alpha, bravo = world.host("alpha"), world.host("bravo")
    world.run(3.0)
    alpha.send(bravo, b"ping 1")
    assert world.run(1.0, until=lambda: alpha.payloads(b"pong") == [b"pong 1"]), world
    for number in range(1000):
        node = type(bravo.node_id)(number.to_bytes(16, "big"))
        alpha.node.neighbour_says(node, frozenset(), b"", now=world.now)
        assert node in alpha.node.plane.near.earlier()
        alpha.node.channel_changed(node, False, is_there=True, now=world.now)
    assert not [each for each in alpha.node.plane.near.earlier() if each != bravo.node_id]
    alpha.node.channel_changed(bravo.node_id, False, is_there=True, now=world.now)
    assert alpha.node.destinations() == (bravo.node_id,), "the stream goes on"
    alpha.send(bravo, b"ping 2")
    assert world.run(1.0, until=lambda: b"pong 2" in alpha.payloads(b"pong")), world
