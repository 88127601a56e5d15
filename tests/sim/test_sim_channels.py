"""Whole nodes on LANs, at a broker, or on both: what they say crosses, acts once, and survives the loss of either."""

from __future__ import annotations

import itertools

import pytest
from kit.world import World

from conflux.control.envelope import Envelope
from conflux.control.lists import SETTLE_S
from conflux.sim.channels import own_buckets
from conflux.sim.flights import Weather
from conflux.sim.world import Host


def pings(world: World, a: Host, b: Host, text: str, within_s: float = 3.0) -> bool:
    """Say whether b answers a in time."""
    a.send(b, b"ping " + text.encode())
    return world.run(within_s, until=lambda: b"pong " + text.encode() in a.payloads(b"pong"))


def stream_of(host: Host) -> object:
    """Return the one stream that a host sends."""
    (destination,) = host.node.status(now=host.world.now).destinations
    return destination.stream


def crossed(host: Host, *, far: bool) -> list[Envelope]:
    """Return a list that grows with every envelope that a bridge passes on to the broker, or to its LAN."""
    sent: list[Envelope] = []
    (channel,) = [each for each in host.channels if each.far is far]
    pass_on = channel.pass_on

    def tap(envelope: Envelope, hint: bytes | None = None):
        sent.append(envelope)
        return pass_on(envelope, hint)

    channel.pass_on = tap
    return sent


# ── one broker ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_nodes_that_share_only_a_broker_reach_each_other() -> None:
    world = World(1)
    alpha, bravo = world.host("alpha", broker=True), world.host("bravo", broker=True)
    world.run(3.0)
    assert pings(world, alpha, bravo, "1", 1.0), world


def test_node_that_no_broker_knows_is_absent_and_one_that_comes_is_found() -> None:
    world = World(1)
    alpha, bravo = world.host("alpha", broker=True), world.host("bravo", broker=True)
    world.run(3.0)
    assert pings(world, alpha, bravo, "1")
    bravo.power_off()
    world.run(60.0)
    assert not pings(world, alpha, bravo, "2")
    bravo.power_on()
    world.run(1.0)  # it says that it is there
    assert pings(world, alpha, bravo, "3"), world


def test_two_halves_of_a_broker_are_two_and_then_one_again() -> None:
    world = World(1)
    alpha, bravo = world.host("alpha", broker=True), world.host("bravo", broker=True)
    world.run(3.0)
    world.broker.split(alpha.node_id, bravo.node_id)
    assert not pings(world, alpha, bravo, "1", 10.0)
    world.broker.split(alpha.node_id, bravo.node_id, heal=True)
    world.run(30.0)
    assert pings(world, alpha, bravo, "2"), world


def test_what_waits_goes_out_when_the_broker_is_back() -> None:
    world = World(1)
    alpha, bravo = world.host("alpha", broker=True), world.host("bravo", broker=True)
    world.run(3.0)
    assert pings(world, bravo, alpha, "0")  # so alpha has bravo's card
    world.run(60.0)
    world.broker.lose(alpha.node_id)
    world.watch()
    alpha.send(bravo, b"ping 1")
    world.run(2.0)
    assert alpha.payloads(b"pong 1") == []
    world.broker.restore(alpha.node_id)
    world.watch()
    assert world.run(0.5 + SETTLE_S, until=lambda: alpha.payloads(b"pong 1") != []), world


# ── both channels at once ────────────────────────────────────────────────────────────────────────────────────────────


def both(seed: int = 1, weather: Weather | None = None) -> tuple[World, Host, Host]:
    """Two hosts that share a LAN and a broker."""
    world = World(seed, weather)
    alpha, bravo = world.host("alpha", "lan", broker=True), world.host("bravo", "lan", broker=True)
    world.run(3.0)
    return world, alpha, bravo


@pytest.mark.parametrize("seed", range(5))
def test_what_arrives_by_two_channels_acts_once(seed: int) -> None:
    world, alpha, bravo = both(seed, Weather(jitter_s=0.02, control_loss=0.3, control_repeat=0.3))
    for number in range(10):
        world.run(30.0)  # every stream is over
        alpha.send(bravo, b"data %d" % number)
        # A request whose four tries are lost, one in a hundred, is made anew after 10 s: the packet may be old then.
        if not world.run(15.0, until=lambda n=number: b"data %d" % n in bravo.payloads()):
            assert alpha.drops()["aged"], world
            alpha.send(bravo, b"data %d" % number)
            assert world.run(15.0, until=lambda n=number: b"data %d" % n in bravo.payloads()), world
    got = bravo.payloads(b"data")
    assert len(got) == len(set(got)) == 10
    drops = bravo.drops() + alpha.drops()
    assert drops["duplicate"] + drops["replayed"] > 0
    assert "restarted" not in alpha.kinds() + bravo.kinds()


def test_neighbour_is_talked_to_over_the_lan_alone() -> None:
    world, alpha, bravo = both()
    assert pings(world, alpha, bravo, "1")
    before = world.broker.sent_count
    world.run(60.0)
    alpha.send(bravo, b"ping 2")
    assert world.run(1.0, until=lambda: b"pong 2" in alpha.payloads()), world
    assert world.broker.sent_count == before


@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize("lost", ["lan", "broker"])
def test_loss_of_either_channel_loses_nothing(lost: str, silent: bool) -> None:
    world, alpha, bravo = both()
    assert pings(world, alpha, bravo, "1")
    stream = stream_of(alpha)
    if lost == "lan":
        world.hub.cut(alpha.node_id, bravo.node_id, silent=silent)
    else:
        world.broker.lose(alpha.node_id, silent=silent)
    world.watch()
    assert pings(world, alpha, bravo, "2")
    assert stream_of(alpha) == stream
    world.run(60.0)
    assert pings(world, alpha, bravo, "3"), world


# ── a member that joins a LAN and the broker ─────────────────────────────────────────────────────────────────────────


def site(seed: int = 1, *, more: tuple[str, ...] = ()) -> tuple[World, Host, Host, Host]:
    """alpha has only its LAN; rod, a bridge, is on it and at the broker, where bravo is."""
    world = World(seed, bridges=("rod", "ruth"))
    alpha, rod = world.host("alpha", "home"), world.host("rod", "home", broker=True)
    for name in more:
        world.host(name, "home", broker=True)
    bravo = world.host("bravo", broker=True)
    world.run(3.0)
    return world, alpha, rod, bravo


@pytest.mark.parametrize("seed", range(3))
def test_board_with_only_a_lan_reaches_a_node_at_the_broker(seed: int) -> None:
    world, alpha, _, bravo = site(seed)
    assert pings(world, alpha, bravo, "1"), world


@pytest.mark.parametrize("seed", range(3))
def test_board_with_only_a_lan_is_reached_by_a_node_at_the_broker(seed: int) -> None:
    world, alpha, _, bravo = site(seed)
    assert pings(world, bravo, alpha, "1"), world


@pytest.mark.parametrize("seed", range(3))
def test_two_bridges_at_one_site_double_nothing_and_end_in_no_loop(seed: int) -> None:
    world, alpha, _, bravo = site(seed, more=("ruth",))
    world.run(60.0)
    before = world.broker.sent_count
    alpha.send(bravo, b"data 1")
    bravo.send(alpha, b"data 2")
    world.run(20.0)
    assert (alpha.payloads(b"data"), bravo.payloads(b"data")) == ([b"data 2"], [b"data 1"]), world
    assert world.broker.sent_count - before < 150, "every envelope crosses once at each bridge"


def test_bridge_carries_no_presence_that_is_for_its_lan_alone() -> None:
    world, _, rod, _ = site()
    published = crossed(rod, far=True)
    world.run(3 * 3600.0)
    assert published == []
    world.run(21 * 3600.0)
    assert 3 <= len(published) <= 5
    assert all(len(envelope.encode()) <= 160 for envelope in published)


def test_bridge_passes_a_question_from_the_broker_only_to_its_owner() -> None:
    world, alpha, rod, bravo = site()
    heard = crossed(rod, far=False)
    charlie = world.host("charlie", "home")
    world.run(3.0)
    listened = []
    receive = charlie.node.receive
    charlie.node.receive = lambda arrival, *, now: (listened.append(arrival.envelope), receive(arrival, now=now))
    heard.clear()
    assert pings(world, bravo, alpha, "1")
    questions = [envelope for envelope in heard if envelope.bucket is not None]
    assert questions != []
    assert {envelope.bucket for envelope in questions} <= own_buckets(alpha.member)
    assert not {envelope.id for envelope in questions} & {envelope.id for envelope in listened}


@pytest.mark.parametrize("seed", range(3))
def test_site_is_reached_by_its_second_bridge_when_the_one_in_use_dies(seed: int) -> None:
    world, alpha, rod, bravo = site(seed, more=("ruth",))
    (ruth,) = [host for host in world.hosts.values() if host.name == "ruth"]
    assert pings(world, bravo, alpha, "1")
    world.run(60.0)
    used = bravo.channels[1]._paths[alpha.node_id]
    (bridge,) = [host for host in (rod, ruth) if host.member.chain.credential.node_public.startswith(used)]
    bridge.power_off(silent=True)
    world.run(60.0)
    assert pings(world, bravo, alpha, "2", 5.0), world
    assert bravo.channels[1]._paths[alpha.node_id] != used


@pytest.mark.parametrize("seed", range(3))
def test_site_is_reached_again_when_its_only_bridge_comes_back(seed: int) -> None:
    world, alpha, rod, bravo = site(seed)
    assert pings(world, bravo, alpha, "1")
    world.run(60.0)
    rod.power_off(silent=True)
    world.run(60.0)
    assert not pings(world, bravo, alpha, "2", 12.0)  # bravo knows by now that nobody listens there
    rod.power_on()
    world.run(3.0)
    assert pings(world, bravo, alpha, "3"), world


@pytest.mark.parametrize("seed", range(3))
def test_node_that_moved_behind_a_bridge_is_found_there(seed: int) -> None:
    world = World(seed, bridges=("rod",))
    alpha, bravo = world.host("alpha", broker=True), world.host("bravo", broker=True)
    world.host("rod", "home", broker=True)
    world.host("charlie", "home")
    world.run(3.0)
    assert pings(world, bravo, alpha, "1")
    world.run(60.0)
    alpha.move("home", broker=False)
    world.run(10.0)
    assert pings(world, bravo, alpha, "2"), world


def test_without_the_capability_nothing_crosses() -> None:
    world = World(1)
    alpha, rod = world.host("alpha", "home"), world.host("rod", "home", broker=True)
    bravo = world.host("bravo", broker=True)
    world.run(3.0)
    assert not pings(world, alpha, bravo, "1", 10.0)
    assert not pings(world, bravo, alpha, "2", 10.0)
    assert pings(world, rod, bravo, "3", 10.0)


def test_site_without_its_uplink_is_no_bridge_and_says_so() -> None:
    world, alpha, rod, bravo = site()
    assert rod.crossing.crosses
    assert alpha.node.search._bridges == {rod.node_id: None}
    world.broker.lose(rod.node_id)
    world.watch()
    world.run(1.0)
    assert not rod.crossing.crosses
    assert alpha.node.search._bridges == {}
    world.broker.restore(rod.node_id)
    world.watch()
    world.run(1.0)
    assert alpha.node.search._bridges == {rod.node_id: None}
    assert pings(world, alpha, bravo, "1"), world


# ── channels that come and go while nodes run ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("seed", range(3))
def test_realm_that_moves_from_its_lan_to_a_broker_and_back_re_keys_nothing_and_drops_no_stream(seed: int) -> None:
    world = World(seed)
    hosts = alpha, bravo = world.host("alpha", "lan"), world.host("bravo", "lan")
    world.run(3.0)
    count = itertools.count()

    def talk(seconds: float) -> None:
        ends_at = world.now + seconds
        while world.now < ends_at:
            alpha.send(bravo, b"data %d" % next(count))
            bravo.send(alpha, b"data")
            world.run(1.0)

    talk(5.0)
    streams = [stream_of(host) for host in hosts]
    boots = [host.node.plane.boot for host in hosts]
    chains = [host.node.member.chain for host in hosts]
    links = [list(host.endpoints) for host in hosts]
    assert all(links)
    for lans, broker in ((("lan",), True), ((), True), (("lan",), True), (("lan",), False)):
        for host in hosts:
            host.move(*lans, broker=broker)
            talk(10.0)
    talk(60.0)
    assert [stream_of(host) for host in hosts] == streams
    assert [host.node.plane.boot for host in hosts] == boots
    assert [host.node.member.chain for host in hosts] == chains
    assert [list(host.endpoints) for host in hosts] == links
    assert len(set(bravo.payloads(b"data"))) == next(count), "no packet is lost"
    assert {"ended", "restarted", "unreachable"}.isdisjoint(alpha.kinds() + bravo.kinds())
