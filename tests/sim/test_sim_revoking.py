"""A member is revoked: what it had on every node ends, it cannot come back, and who was away hears of it in time."""

from __future__ import annotations

from kit.builders import NOW_UNIX
from kit.revoking import ROOT, deaf, flow, last_at, links, revoke
from kit.world import World

from conflux.control.lists import SETTLE_S
from conflux.node.event import EventKind, Reason
from conflux.sim.flights import Weather
from conflux.sim.world import Host


def line(*names: str, seed: int = 1, weather: Weather | None = None) -> tuple[World, list[Host]]:
    world = World(seed, weather)
    hosts = [world.host(name) for name in names]
    world.run(3.0)
    return world, hosts


def test_live_stream_to_and_from_a_revoked_node_ends_at_once_on_both_ends():
    world, (alpha, bravo, carol) = line("alpha", "bravo", "carol")
    flow(world, alpha, bravo)
    world.run(2.0)
    assert last_at(alpha, b"pong") > world.now - 0.2
    revoked_at = world.now
    revoke(carol, bravo)
    world.run(5.0)
    assert last_at(alpha, b"pong") < revoked_at + 0.1
    assert last_at(bravo, b"ping") < revoked_at + 0.1
    assert alpha.node.destinations() == ()
    assert bravo.node_id not in links(alpha)
    assert alpha.node.status(now=world.now).datapath.receivers == ()
    assert (EventKind.REVOKED, bravo.node_id) in [(event.kind, event.node) for _, event in alpha.events]
    (told,) = [event.reason for _, event in alpha.events if event.kind is EventKind.REVOKED]
    assert isinstance(told, Reason)
    assert str(told) == "stolen"


def test_revoked_node_that_takes_no_notice_gets_nothing_in_any_more():
    world, (alpha, bravo, carol) = line("alpha", "bravo", "carol")
    deaf(bravo)
    flow(world, bravo, alpha, for_s=30.0)
    world.run(2.0)
    assert alpha.payloads(b"ping")
    revoked_at = world.now
    revoke(carol, bravo)
    world.run(1.0)
    count = len(alpha.payloads(b"ping"))
    assert last_at(alpha, b"ping") < revoked_at + 0.1
    world.hub.mend(alpha.node_id, bravo.node_id)  # its neighbours may be forced to hear it all the same
    world.run(25.0)
    assert len(alpha.payloads(b"ping")) == count
    assert alpha.drops()["revoked"] > 0


def test_revoked_node_ends_everything_itself():
    world, (alpha, bravo, carol) = line("alpha", "bravo", "carol")
    flow(world, bravo, alpha)
    world.run(2.0)
    revoke(carol, bravo)
    world.run(1.0)
    assert bravo.node.plane.is_revoked
    assert EventKind.REVOKED in bravo.kinds()
    assert links(bravo) == set()


def test_stream_leaves_a_relay_that_is_revoked():
    world = World(1)
    alpha, rod, ruth, bravo = (
        world.host("alpha", "a"),
        world.host("rod", "a", "b"),
        world.host("ruth", "a", "b"),
        world.host("bravo", "b"),
    )
    world.run(3.0)
    flow(world, alpha, bravo, for_s=20.0)
    world.run(5.0)
    (found,) = alpha.node.status(now=world.now).destinations
    relay, other = (rod, ruth) if found.path[0] == rod.node_id else (ruth, rod)
    revoke(other, relay)
    revoked_at = world.now
    world.run(3.0)
    (found,) = alpha.node.status(now=world.now).destinations
    assert found.path == (other.node_id, bravo.node_id)
    assert last_at(alpha, b"pong") > revoked_at + 2.5
    assert relay.node_id not in links(alpha) | links(bravo)


def test_route_through_a_relay_ends_with_the_membership_of_its_end():
    world = World(1)
    alpha, rod, bravo = world.host("alpha", "a"), world.host("rod", "a", "b"), world.host("bravo", "b")
    world.run(3.0)
    deaf(bravo)
    flow(world, alpha, bravo, for_s=20.0)
    world.run(5.0)
    assert rod.node.status(now=world.now).relays
    revoke(rod, bravo)
    world.run(1.0)
    assert rod.node.status(now=world.now).relays == ()
    assert bravo.node_id not in links(rod)
    assert alpha.node.destinations() == ()


def test_far_relay_that_is_revoked_is_left_although_it_is_no_neighbour():
    world = World(1)
    alpha, rod = world.host("alpha", "a"), world.host("rod", "a", "m")
    ruth, bravo = world.host("ruth", "m", "b"), world.host("bravo", "b")
    world.run(3.0)
    flow(world, alpha, bravo, for_s=20.0)
    world.run(6.0)
    (found,) = alpha.node.status(now=world.now).destinations
    assert found.path == (rod.node_id, ruth.node_id, bravo.node_id)
    revoke(alpha, ruth)
    world.run(3.0)
    assert all(ruth.node_id not in (each.path or ()) for each in alpha.node.status(now=world.now).destinations)
    assert ruth.node_id not in links(rod)


def test_other_half_of_a_partition_hears_when_it_is_healed():
    world, (alpha, bravo, carol, dora) = line("alpha", "bravo", "carol", "dora")
    for left in (alpha, carol):
        for right in (bravo, dora):
            world.partition(left, right)
    world.run(40.0)
    revoke(carol, deaf(bravo))
    flow(world, dora, bravo, for_s=60.0)
    world.run(5.0)
    assert dora.payloads(b"pong")  # nobody on its side knows
    world.partition(alpha, dora, heal=True)
    healed_at = world.now
    world.run(10.0)
    assert last_at(dora, b"pong") < healed_at + 0.5
    assert dora.node.destinations() == ()


def test_node_that_was_away_hears_before_it_accepts_a_stream_of_the_revoked_one():
    world, (_, bravo, carol, dora) = line("alpha", "bravo", "carol", "dora")
    dora.power_off()
    world.run(1.0)
    revoke(carol, deaf(bravo))
    world.run(2.0)
    dora.power_on()
    flow(world, bravo, dora, every_s=0.01, for_s=10.0)
    world.run(10.0)
    assert dora.payloads() == []
    assert EventKind.RECEIVING not in dora.kinds()
    assert dora.node.plane.denies(bravo.node_id)


def test_list_holds_after_a_restart_with_nobody_but_the_revoked_node_in_reach():
    world, (bravo, dora) = line("bravo", "dora")
    revoke(dora, deaf(bravo))
    world.run(1.0)
    dora.power_off(silent=True)
    world.hub.mend(bravo.node_id, dora.node_id)
    dora.power_on()
    flow(world, bravo, dora, for_s=10.0)
    world.run(10.0)
    assert dora.payloads() == []
    assert dora.node.plane.card(bravo.node_id) is None


def test_two_nodes_alone_wait_once_after_a_start_and_never_again():
    world = World(1)
    alpha, bravo = world.host("alpha"), world.host("bravo")

    def answered_s(number: int) -> float:
        sent_at = world.now
        alpha.send(bravo, b"ping %d" % number)
        assert world.run(5.0, until=lambda: b"pong %d" % number in alpha.payloads(b"pong"))
        return world.now - sent_at

    first = answered_s(0)
    assert SETTLE_S <= first < SETTLE_S + 0.5
    world.run(60.0)  # the stream is gone, and the link
    assert answered_s(1) < 0.3


def test_lists_that_differ_delay_no_stream():
    world, (alpha, bravo) = line("alpha", "bravo")
    book = alpha.node.plane.lists.book
    book.learn(ROOT.deny(book, world.host("other").node_id, reason="lost", now_unix=NOW_UNIX))
    sent_at = world.now
    alpha.send(bravo, b"ping")
    assert world.run(1.0, until=lambda: b"pong" in alpha.payloads(b"pong"))
    assert world.now - sent_at < 0.3
    assert bravo.node.plane.lists.digest == alpha.node.plane.lists.digest  # it was asked beside it


def test_list_reaches_fifty_nodes_on_a_lossy_network_in_seconds():
    world = World(7, Weather(control_loss=0.2))
    hosts = [world.host(f"node-{number}") for number in range(50)]
    world.run(3.0)
    revoke(hosts[0], hosts[1])
    others = [host for host in hosts if host is not hosts[1]]
    assert world.run(12.0, until=lambda: all(host.node.plane.denies(hosts[1].node_id) for host in others))
