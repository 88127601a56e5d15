"""Two sites behind bridges and a member at the broker, under random events by seed: afterwards all reach each other."""

from __future__ import annotations

import itertools

import pytest
from kit.lives import seeds
from kit.world import World

from conflux.sim.flights import Weather
from conflux.sim.world import Host

SEED_COUNT = 3  # `make sim-full` runs a hundred
SETTLE_S = 75.0  # as in test_sim_model.py
BRIDGES = ("rod", "rita", "ruth")


def sites(seed: int, weather: Weather | None = None) -> tuple[World, list[Host]]:
    """alpha is behind rod and rita, delta behind ruth; bravo and those three are at the broker."""
    world = World(seed, weather, bridges=BRIDGES)
    hosts = [
        world.host("alpha", "a"),
        world.host("rod", "a", broker=True),
        world.host("rita", "a", broker=True),
        world.host("bravo", broker=True),
        world.host("ruth", "b", broker=True),
        world.host("delta", "b"),
    ]
    world.run(3.0)
    return world, hosts


def reaches(world: World, a: Host, b: Host) -> bool:
    """Say whether messages get from one host to the other, by LANs, the broker, and living bridges."""
    seen, ways = {a.name}, [a]
    while ways:
        at = ways.pop()
        if at is not a and at.name not in BRIDGES:
            continue
        for host in world.hosts.values():
            if host.node is not None and host.name not in seen and world.passes(at.node_id, host.node_id):
                seen.add(host.name)
                ways.append(host)
    return b.name in seen


def storm(world: World, hosts: list[Host]) -> None:
    """Let one random event happen to a random host."""
    rng = world.rng
    host, other = rng.sample(hosts, 2)
    match rng.randrange(6):
        case 0 if host.node is not None:
            host.power_off(silent=rng.random() < 0.5)
        case 1 if host.node is None:
            host.power_on()
        case 2 if host.node is not None and host.at_broker:
            world.broker.lose(host.node_id, silent=rng.random() < 0.5)
            world.watch()
        case 3 if host.node is not None and host.at_broker:
            world.broker.restore(host.node_id)
            world.watch()
        case 4 if host.at_broker and other.at_broker:
            world.broker.split(host.node_id, other.node_id, heal=rng.random() < 0.5)
        case _ if host.node is not None:
            host.send(other, b"ping %f" % world.now)


def clear(world: World, hosts: list[Host]) -> None:
    """Let the storm be over: the broker is whole; hosts that are off stay so."""
    world.weather = Weather()
    for host, other in itertools.permutations(hosts, 2):
        world.broker.split(host.node_id, other.node_id, heal=True)
    for host in hosts:
        if host.node_id in world.broker:
            world.broker.restore(host.node_id)
    world.watch()


@pytest.mark.parametrize("seed", seeds(SEED_COUNT))
def test_after_every_storm_the_sites_reach_each_other(seed: int) -> None:
    weather = Weather(delay_s=0.005, jitter_s=0.01, control_loss=0.05, control_repeat=0.05, frame_loss=0.02)
    world, hosts = sites(seed, weather)
    for _ in range(4):
        for _ in range(12):
            storm(world, hosts)
            world.run(world.rng.random() * 2.0)
        clear(world, hosts)
        world.run(SETTLE_S)
        check_all_reach_each_other(world, hosts)
        world.run(SETTLE_S)
        world.weather = weather


def check_all_reach_each_other(world: World, hosts: list[Host]) -> None:
    expected: list[tuple[Host, bytes]] = []
    for a, b in itertools.permutations(hosts, 2):
        if a.node is None:
            continue
        text = f"{a.name} {b.name} {world.now}".encode()
        a.send(b, b"ping " + text)
        if b.node is not None and reaches(world, a, b):
            expected.append((a, b"pong " + text))
    done = world.run(12.0, until=lambda: all(answer in host.payloads(b"pong") for host, answer in expected))
    missing = [answer for host, answer in expected if answer not in host.payloads(b"pong")]
    assert done, f"{world}: no answer {missing}"
    for host in hosts:
        answers = host.payloads(b"pong")
        assert len(answers) == len(set(answers)), f"{world}: {host.name} got a packet twice"


def test_sites_that_a_node_and_the_broker_join_in_a_ring_have_no_storm_of_copies() -> None:
    world, hosts = sites(1)
    world.host("mid", "a", "b")  # joins the LANs, so every envelope for all has two ways
    world.run(30.0)
    before = world.broker.sent_count
    for number, host in enumerate(hosts):
        host.send(hosts[(number + 1) % len(hosts)], b"data %d" % number)
    world.run(30.0)
    assert all(b"data %d" % number in hosts[(number + 1) % len(hosts)].payloads() for number in range(len(hosts)))
    assert world.broker.sent_count - before < 600
    assert sum(host.drops()["flood"] + host.crossing_drops["flood"] for host in hosts) == 0
