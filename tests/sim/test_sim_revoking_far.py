"""A member is revoked where a broker carries the lists: who was away asks for them, and what it had ends at once."""

from __future__ import annotations

import pytest
from kit.revoking import deaf, flow, last_at, links, revoke
from kit.world import World

from conflux.node.event import EventKind
from conflux.sim.world import Host

REVOKED_S_MAX = 5.0  # what the project promises, with real daemons; here it takes two messages


def at_broker(*names: str, seed: int = 1) -> tuple[World, list[Host]]:
    world = World(seed)
    hosts = [world.host(name, broker=True) for name in names]
    world.run(3.0)
    return world, hosts


def two_sites(*, relay: str) -> tuple[World, Host, Host, Host, Host]:
    """alpha and bravo, and two relays between them.

    relay: "lan", the relays join the LANs of both; "broker", all are at the broker, where the relays are public, and no
    packet passes between alpha and bravo.
    """
    world = World(1)
    if relay == "lan":
        alpha, bravo = world.host("alpha", "a"), world.host("bravo", "b")
        rod, ruth = world.host("rod", "a", "b"), world.host("ruth", "a", "b")
    else:
        alpha, bravo = (world.host(name, broker=True) for name in ("alpha", "bravo"))
        rod, ruth = (world.host(name, broker=True, public=True) for name in ("rod", "ruth"))
        world.partition(alpha, bravo)
    world.run(3.0)
    return world, alpha, bravo, rod, ruth


def path(world: World, host: Host) -> tuple[bytes, ...]:
    assert host.node is not None
    (found,) = host.node.status(now=world.now).destinations
    return found.path or ()


def test_live_stream_and_link_end_at_once_over_the_broker_too():
    world, (alpha, bravo, carol) = at_broker("alpha", "bravo", "carol")
    deaf(bravo)
    flow(world, alpha, bravo)
    flow(world, bravo, alpha)
    world.run(2.0)
    assert last_at(alpha, b"pong") > world.now - 0.2
    revoked_at = world.now
    revoke(carol, bravo)
    world.run(REVOKED_S_MAX)
    assert last_at(alpha, b"pong") < revoked_at + 0.2
    assert last_at(alpha, b"ping") < revoked_at + 0.2
    assert bravo.node_id not in links(alpha)
    assert alpha.node.destinations() == ()
    assert alpha.node.status(now=world.now).datapath.receivers == ()
    assert (EventKind.REVOKED, bravo.node_id) in [(event.kind, event.node) for _, event in alpha.events]


@pytest.mark.parametrize("relay", ["lan", "broker"])
def test_route_through_the_revoked_node_ends_and_another_carries_on(relay: str) -> None:
    world, alpha, bravo, rod, ruth = two_sites(relay=relay)
    flow(world, alpha, bravo, for_s=30.0)
    world.run(8.0)
    used = path(world, alpha)[0]
    revoked, other = (rod, ruth) if used == rod.node_id else (ruth, rod)
    assert used == revoked.node_id
    deaf(revoked)  # it would go on passing frames on
    revoked_at = world.now
    revoke(other, revoked)
    world.run(REVOKED_S_MAX)
    assert path(world, alpha) == (other.node_id, bravo.node_id)
    assert last_at(alpha, b"pong") > revoked_at + REVOKED_S_MAX - 0.5
    assert revoked.node_id not in links(alpha) | links(bravo)


def test_node_that_was_away_asks_a_node_whose_card_it_does_not_have_by_its_presence():
    world, (alpha, bravo, carol) = at_broker("alpha", "bravo", "carol")
    alpha.power_off(silent=True)
    revoke(carol, bravo)
    world.run(1.0)
    alpha.power_on()  # with no card and no path: all that it hears is a presence
    world.run(2.0)
    assert alpha.node.plane.card(carol.node_id) is None
    carol.turned(True)  # it says presence to all
    world.run(3.0)
    assert alpha.node.plane.denies(bravo.node_id)
    assert alpha.node.plane.card(bravo.node_id) is None


def test_node_that_was_away_hears_from_whom_it_tells_that_it_is_back():
    world, (alpha, bravo, carol, dora) = at_broker("alpha", "bravo", "carol", "dora")
    assert dora.node is not None
    alpha.power_off(silent=True)
    revoke(carol, bravo)
    world.run(1.0)
    alpha.power_on()
    world.run(REVOKED_S_MAX)
    assert alpha.node.plane.denies(bravo.node_id)  # dora and carol heard its presence, and another digest in it
