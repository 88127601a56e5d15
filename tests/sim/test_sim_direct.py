"""Nodes of one broker with a public relay: the relay carries at once, and the direct path takes over when it is there.

alpha and bravo meet at the broker alone; charlie relays for any two.  A link between alpha and bravo may be slow to
open, or may never do so.
"""

from __future__ import annotations

import pytest
from kit.world import World

from conflux.ids import NodeId
from conflux.link.event import DialEnd
from conflux.node.event import EventKind
from conflux.search.first import FAILURE_PAUSE_S_MAX, PATIENCE_DIRECT_S
from conflux.sim.flights import Weather
from conflux.sim.world import Host

SLOW_S = [0.6, 0.9, 1.4, 2.0]  # what the direct link takes to open; by a relay frames go after 0.55 s
DELAY_S = 0.005  # of a hop; the broker is two of them away


def sites(seed: int = 1, *, open_s: float = 0.0, **config: float) -> tuple[World, Host, Host, Host]:
    """open_s: what the direct link takes; 0: as long as any other."""
    world = World(seed, Weather(delay_s=DELAY_S))
    alpha, bravo = (world.host(name, broker=True, **config) for name in ("alpha", "bravo"))
    charlie = world.host("charlie", broker=True, public=True)
    if open_s:
        world.slow_down(alpha, bravo, open_s)
    world.run(3.0)
    return world, alpha, bravo, charlie


def path(host: Host, to: Host) -> list[str]:
    """Return the names of the hops that carry host's stream; empty: none does."""
    rows = [row for row in host.node.status(now=host.world.now).destinations if row.node == to.node_id]
    return [host.world.hosts[hop].name for row in rows for hop in row.path or ()]


def talk(world: World, host: Host, to: Host, seconds: float, *, every_s: float = 0.05) -> None:
    """Let pings go for a while."""
    for number in range(round(seconds / every_s)):
        text = b"ping %d" % number
        world.at(number * every_s, lambda text=text: host.send(to, text))


def carried(host: Host, to: Host) -> list[tuple[float, tuple[NodeId, ...]]]:
    """Return when each path began to carry the stream to a node, and its hops."""
    kinds = (EventKind.FRAMES, EventKind.MOVED)
    return [(at, event.path) for at, event in host.events if event.kind in kinds and event.node == to.node_id]


def dialled(host: Host) -> list[tuple[NodeId, ...]]:
    """Return the hops of each path whose try began with a dial."""
    return [event.path for _, event in host.events if event.kind is EventKind.DIAL]


def open_links(host: Host) -> list[NodeId]:
    """Return the nodes that host has a link with."""
    return [row.peer for row in host.node.links.status() if row.link is not None]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("open_s", SLOW_S)
def test_a_relay_carries_until_a_slow_direct_link_is_there_and_no_packet_is_lost(open_s: float, seed: int) -> None:
    world, alpha, bravo, charlie = sites(seed, open_s=open_s)
    began = world.now
    talk(world, alpha, bravo, 5.0)
    world.run(6.0)
    (relayed_at, relayed), (direct_at, direct) = carried(alpha, bravo)
    assert (relayed, direct) == ((charlie.node_id, bravo.node_id), (bravo.node_id,))
    assert relayed_at - began < PATIENCE_DIRECT_S + 0.35, "the relay waits for nothing but its links"
    assert direct_at - began < open_s + 0.25, "the direct path is taken as soon as it is confirmed"
    assert (path(alpha, bravo), path(bravo, alpha)) == (["bravo"], ["alpha"])
    assert len(alpha.payloads(b"pong")) == len(set(alpha.payloads(b"pong"))) == 100
    world.run(5.0)
    assert open_links(alpha) == [bravo.node_id]


def test_a_direct_path_that_comes_up_first_ends_the_race_with_a_relay() -> None:
    world, alpha, bravo, _ = sites(open_s=0.35)
    talk(world, alpha, bravo, 2.0)
    world.run(0.5)
    assert len(dialled(alpha)) == 2, "the relay's patience was over"
    assert path(alpha, bravo) == ["bravo"]
    world.run(2.0)
    assert [hops for _, hops in carried(alpha, bravo)] == [(bravo.node_id,)]
    world.run(2.0)
    assert open_links(alpha) == [bravo.node_id]


@pytest.mark.parametrize("open_s", SLOW_S)
def test_a_stream_that_ends_before_a_slow_direct_link_is_there_leaves_it_worth_a_try(open_s: float) -> None:
    world, alpha, bravo, _ = sites(open_s=open_s, idle_timeout_s=1.05)
    alpha.send(bravo, b"ping 1")
    world.run(1.9)
    talk(world, alpha, bravo, 4.0)
    world.run(3.9)
    assert (path(alpha, bravo), path(bravo, alpha)) == (["bravo"], ["alpha"])
    row = next(row for row in alpha.node.search.explain(bravo.node_id, now=world.now) if row.hops == (bravo.node_id,))
    assert row.failed == 0


@pytest.mark.parametrize("late_s", [0.02, 0.1, 0.3])
def test_a_set_up_that_was_late_once_leaves_no_stream_on_a_relay(late_s: float) -> None:
    world, alpha, bravo, _ = sites(open_s=0.7)
    world.run(1.0)
    routes = bravo.node.routes
    look, late = routes._receive_last_hop, [late_s]

    def receive(link, setup, peeled, stream, now):
        direct = any(row.link == link and row.peer == alpha.node_id for row in bravo.node.links.status())
        if not (direct and late):
            look(link, setup, peeled, stream, now)
            return

        def act():
            look(link, setup, peeled, stream, world.now)
            bravo.node.handle_timeout(now=world.now)
            bravo.drain()

        world.at(late.pop(), act)

    routes._receive_last_hop = receive
    talk(world, alpha, bravo, 4.0)
    world.run(3.9)
    assert late == []
    assert path(alpha, bravo) == ["bravo"]


@pytest.mark.parametrize("seed", range(5))
def test_a_node_that_has_just_started_pushes_no_stream_onto_a_relay(seed: int) -> None:
    world, alpha, bravo, _ = sites(seed)
    bravo.power_off()
    world.run(1.0)
    bravo.power_on()
    world.run(0.1)
    talk(world, alpha, bravo, 3.0)
    world.run(3.5)
    assert (path(alpha, bravo), path(bravo, alpha)) == (["bravo"], ["alpha"])
    assert set(dialled(alpha)) == {(bravo.node_id,)}, "nor is one dialled"


def test_routers_that_let_nothing_through_are_tried_ever_more_rarely() -> None:
    world, alpha, bravo, _ = sites()
    world.partition(alpha, bravo)
    talk(world, alpha, bravo, 900.0, every_s=2.0)
    counts = []
    for _ in range(3):
        world.run(300.0)
        counts.append(dialled(alpha).count((bravo.node_id,)))
    assert path(alpha, bravo) == ["charlie", "bravo"]
    assert 4 <= counts[0] <= 8
    assert counts[2] - counts[0] <= 1, f"no more than one in {FAILURE_PAUSE_S_MAX} s, and then none"
    assert len(alpha.payloads(b"pong")) == 450


def test_a_direct_path_that_comes_into_reach_takes_a_stream_over() -> None:
    world, alpha, bravo, _ = sites()
    world.partition(alpha, bravo)
    talk(world, alpha, bravo, 60.0, every_s=0.5)
    world.run(11.0)
    assert path(alpha, bravo) == ["charlie", "bravo"]
    assert any(str(event.reason).startswith(f"dial: {DialEnd.TIMEOUT}") for _, event in alpha.events if event.reason)
    world.partition(alpha, bravo, heal=True)
    world.run(8.0)
    assert (path(alpha, bravo), path(bravo, alpha)) == (["bravo"], ["alpha"])
    world.run(42.0)
    assert len(alpha.payloads(b"pong")) == 120
