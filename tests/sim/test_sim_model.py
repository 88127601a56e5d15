"""A reference model beside the real nodes, under random events by seed.

What the model knows is small: who is on which LAN, who is powered, what is cut.  From that follows who must be able to
reach whom (directly or by at most two relays), and what every table must say when all is quiet.  Between the storms the
real nodes have to agree with it.
"""

from __future__ import annotations

import itertools

import pytest
from kit.lives import seeds
from kit.world import World

from conflux.datapath.reference.datapath import ReferenceDatapath
from conflux.ids import LinkId
from conflux.sim.flights import Weather
from conflux.sim.world import Host

SEED_COUNT = 5  # `make sim-full` runs a hundred
SETTLE_S = 75.0  # two pauses of a destination that was given up: the longest that this test can cause


class Model:
    """Hosts on LANs as a graph: which answers a perfect network would bring."""

    def __init__(self, world: World) -> None:
        self.world = world

    def neighbours(self, a: Host) -> list[Host]:
        return [
            b
            for b in self.world.hosts.values()
            if b is not a and b.node is not None and self.world.passes(a.node_id, b.node_id)
        ]

    def reaches(self, a: Host, b: Host) -> bool:
        """Say whether a path of at most two relays exists, and control messages get through in both directions."""
        if a.node is None or b.node is None:
            return False
        if self.world.hub.path(a.node_id, b.node_id) is None:
            return False
        ways: list[list[Host]] = [[a]]
        for _ in range(3):
            ways = [[*way, host] for way in ways for host in self.neighbours(way[-1]) if host not in way]
            if any(way[-1] is b for way in ways):
                return True
        return False


def storm(world: World, hosts: list[Host]) -> None:
    """Let one random event happen to a random host."""
    rng = world.rng
    match rng.randrange(6):
        case 0:
            host = rng.choice(hosts)
            if host.node is not None:
                host.power_off(silent=rng.random() < 0.5)
        case 1:
            host = rng.choice(hosts)
            if host.node is None:
                host.power_on()
        case 2:
            a, b = rng.sample(hosts, 2)
            if set(a.lans) & set(b.lans):
                world.partition(a, b, heal=world.hub.is_cut(a.node_id, b.node_id))
        case 3:
            a, b = rng.sample(hosts, 2)
            if a.node is not None and b.node_id in a.node.destinations():
                relay = rng.choice(hosts)
                try:
                    a.node.move(b.node_id, (relay.node_id,), now=world.now)
                except Exception as error:  # noqa: BLE001
                    assert type(error).__name__ == "UserError", error  # noqa: PT017
                a.drain()
        case _:
            a, b = rng.sample(hosts, 2)
            for number in range(rng.randrange(1, 20)):
                if a.node is not None:
                    a.send(b, b"ping %d %f" % (number, world.now))


def check_routes_join_up(world: World) -> None:
    """Follow every active route label by label: it must end at the receiver of the stream that is sent on it."""
    for host in world.hosts.values():
        if host.node is None:
            continue
        for sender in reference(host)._senders.values():
            if sender.hop is None:
                continue
            at, link, label = far_end(host, sender.hop.link, sender.hop.label_out)
            for _ in range(3):
                found = [
                    row.ahead
                    for row in at.node.datapath.status().relays
                    if (row.before.link, row.before.label_in) == (link, label)
                ]
                if found:
                    at, link, label = far_end(at, LinkId(found[0].link), found[0].label_out)
            streams = [each.stream for each in reference(at)._receivers.values() if (link, label) in each.routes]
            assert streams == [sender.stream], f"{world}: {host.name}'s route does not reach its receiver"


def reference(host: Host) -> ReferenceDatapath:
    assert isinstance(host.node.datapath, ReferenceDatapath)
    return host.node.datapath


def far_end(host: Host, link: LinkId, label: int) -> tuple[Host, LinkId, int]:
    token = host.endpoints[link].far_token
    assert token is not None
    far = host.world.endpoints[token]
    return host.world.hosts[far.carrier.node], far.link, label


def check_no_packet_came_twice(hosts: list[Host]) -> None:
    for host in hosts:
        answers = host.payloads(b"pong")
        assert len(answers) == len(set(answers)), f"{host.world}: {host.name} got a packet twice"


@pytest.mark.parametrize("seed", seeds(SEED_COUNT))
def test_after_every_storm_the_nodes_agree_with_the_model(seed: int) -> None:
    weather = Weather(delay_s=0.005, jitter_s=0.01, control_loss=0.05, control_repeat=0.05, frame_loss=0.02)
    world = World(seed, weather)
    hosts = [
        world.host("alpha", "a"),
        world.host("rod", "a", "m"),
        world.host("rita", "a", "m"),
        world.host("ruth", "m", "b"),
        world.host("bravo", "b"),
        world.host("delta", "a"),
    ]
    model = Model(world)
    world.run(3.0)
    for _ in range(4):
        for _ in range(12):
            storm(world, hosts)
            world.run(world.rng.random() * 2.0)
        check_no_packet_came_twice(hosts)
        world.weather = Weather()  # the storm is over
        world.run(SETTLE_S)
        check_all_is_quiet(world, hosts)
        check_all_reach_what_the_model_says(world, hosts, model)
        world.weather = weather


def check_all_is_quiet(world: World, hosts: list[Host]) -> None:
    for host in hosts:
        assert host.endpoints == {}, f"{world}: {host.name} keeps a link"
        if host.node is not None:
            status = host.node.status(now=world.now)
            assert (status.destinations, status.relays, status.routes) == ((), (), ()), f"{world}: {host.name}"
            assert (status.datapath.senders, status.datapath.receivers) == ((), ()), f"{world}: {host.name}"


def check_all_reach_what_the_model_says(world: World, hosts: list[Host], model: Model) -> None:
    expected: list[tuple[Host, bytes]] = []
    for a, b in itertools.permutations(hosts, 2):
        if a.node is None:
            continue
        text = f"{a.name} {b.name} {world.now}".encode()
        a.send(b, b"ping " + text)
        if model.reaches(a, b):
            expected.append((a, b"pong " + text))
    done = world.run(12.0, until=lambda: all(answer in host.payloads(b"pong") for host, answer in expected))
    missing = [answer for host, answer in expected if answer not in host.payloads(b"pong")]
    assert done, f"{world}: no answer {missing}"
    check_routes_join_up(world)
    world.run(SETTLE_S)
    check_all_is_quiet(world, hosts)
