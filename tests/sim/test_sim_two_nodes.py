"""Two whole nodes, from the first packet until nothing of the stream is left."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from kit.world import World

from conflux.sim.flights import Weather
from conflux.sim.world import Host, ipv6_udp

IDLE_S = 15.0


def pair(seed: int, weather: Weather | None = None) -> tuple[World, Host, Host]:
    world = World(seed, weather)
    alpha, bravo = world.host("alpha"), world.host("bravo")
    world.run(3.0)
    return world, alpha, bravo


def test_first_packet_opens_stream_and_link_and_is_answered() -> None:
    world, alpha, bravo = pair(1)
    began = world.now
    alpha.send(bravo, b"ping 1")
    assert world.run(1.0, until=lambda: alpha.payloads(b"pong") == [b"pong 1"]), world
    assert world.now - began < 0.150
    kinds = alpha.kinds()
    story = [kind for kind in kinds if kind in ("queue", "who", "card", "dial", "handshake", "link", "frames")]
    assert story[:3] == ["queue", "who", "card"]
    assert set(story[3:]) == {"queue", "dial", "handshake", "link", "frames"}
    assert story[-1] == "frames"


def test_replies_come_by_a_stream_of_the_far_end() -> None:
    world, alpha, bravo = pair(2)
    alpha.send(bravo, b"ping 1")
    world.run(1.0)
    assert alpha.node.destinations() == (bravo.node_id,)
    assert bravo.node.destinations() == (alpha.node_id,)
    assert len(alpha.endpoints) == len(bravo.endpoints) == 1, "one link serves both directions"


def test_idle_leaves_no_link_no_stream_and_no_key() -> None:
    world, alpha, bravo = pair(3)
    alpha.send(bravo, b"ping 1")
    world.run(IDLE_S + 5.0)
    for host in (alpha, bravo):
        status = host.node.status(now=world.now)
        assert host.endpoints == {}
        assert (status.destinations, status.links, status.routes) == ((), (), ())
        assert host.node.datapath.status().senders == ()
        assert host.node.datapath.status().receivers == ()
        frames = host.frame_count
        world.run(60.0)
        assert host.frame_count == frames, "not one data-plane frame while idle"


def test_the_next_packet_after_idle_starts_anew() -> None:
    world, alpha, bravo = pair(4)
    for number in range(3):
        alpha.send(bravo, b"ping %d" % number)
        assert world.run(1.0, until=lambda n=number: b"pong %d" % n in alpha.payloads(b"pong"))
        world.run(IDLE_S + 5.0)
    assert alpha.kinds().count("handshake") == 3
    assert alpha.kinds().count("who") == 1, "the card is cached"


def test_packets_queue_during_set_up_in_order_and_none_is_lost() -> None:
    world, alpha, bravo = pair(5)
    for number in range(200):
        alpha.send(bravo, b"data %03d" % number)
    world.run(2.0)
    assert bravo.payloads(b"data") == [b"data %03d" % number for number in range(200)]


def test_packets_of_both_families_share_the_destination() -> None:
    world, alpha, bravo = pair(6)
    alpha.send(bravo, b"ping 6")
    world.run(1.0)
    assert len(alpha.node.status(now=world.now).destinations) == 1
    assert len(alpha.node.status(now=world.now).destinations[0].addresses) == 2


def test_simultaneous_first_packets_end_with_one_link() -> None:
    world, alpha, bravo = pair(7)
    alpha.send(bravo, b"ping a")
    bravo.send(alpha, b"ping b")
    assert world.run(2.0, until=lambda: bool(alpha.payloads(b"pong")) and bool(bravo.payloads(b"pong")))
    world.run(3.0)
    assert len(alpha.endpoints) == len(bravo.endpoints) == 1


def test_an_offer_that_was_withdrawn_is_not_repeated() -> None:
    world, alpha, bravo = pair(5, Weather(delay_s=0.0001, jitter_s=0.0))
    alpha.send(bravo, b"ping 1")
    world.run(IDLE_S + 5.0)
    alpha.node.links.acquire(bravo.node_id, "test", now=world.now)
    alpha.node.handle_timeout(now=world.now)
    alpha.drain()
    assert world.run(1.0, until=lambda: bool(bravo.node.links.status())), world
    alpha.node.links.release(bravo.node_id, "test", now=world.now)
    alpha.node.handle_timeout(now=world.now)
    alpha.drain()
    world.run(9.0)
    assert bravo.node.links.status() == ()
    assert bravo.drops()["replayed"] == 0
    assert not alpha.endpoints
    assert not bravo.endpoints


def test_unknown_address_is_asked_for_once_and_its_packets_are_dropped_by_name() -> None:
    world, alpha, _ = pair(8)
    free = alpha.member.anchor.ipv6_prefix[99]
    for _ in range(5):
        alpha.packet(ipv6_udp(alpha.address, free, b"hello"))
    world.run(10.0)
    assert alpha.kinds().count("who") == 1
    assert "not-found" in alpha.kinds()
    assert alpha.drops()["unknown-destination"] == 5


def test_dead_destination_never_delays_a_live_one() -> None:
    world, alpha, bravo = pair(9)
    dead = world.host("charlie")
    world.run(1.0)
    alpha.send(dead, b"ping dead")
    alpha.send(bravo, b"ping live")
    world.run(1.0)
    dead.power_off(silent=True)
    world.run(IDLE_S + 10.0)
    alone = answer_times(world, alpha, bravo, beside=None)
    world.run(IDLE_S + 10.0)
    beside = answer_times(world, alpha, bravo, beside=dead)
    assert max(beside) < max(alone) + 0.002
    world.run(10.0)
    assert "unreachable" in alpha.kinds()


def answer_times(world: World, alpha: Host, bravo: Host, beside: Host | None) -> list[float]:
    """Send 50 pings, 20 ms apart, and as many packets to a dead host; return each ping's time."""
    times = []
    for number in range(50):
        if beside is not None:
            alpha.send(beside, b"ping dead")
        before, sent = len(alpha.received), world.now
        alpha.send(bravo, b"ping %d" % number)
        assert world.run(1.0, until=lambda n=before: len(alpha.received) > n)
        times.append(world.now - sent)
        world.run(0.020)
    return times


def test_peer_killed_mid_stream_is_noticed_and_traffic_resumes_when_it_returns() -> None:
    world, alpha, bravo = pair(10)
    stop = chatter(world, alpha, bravo)
    world.run(2.0)
    killed = world.now
    bravo.power_off(silent=True)
    assert world.run(5.0, until=lambda: alpha.endpoints == {}), "the dead link is closed"
    assert world.now - killed < 4.0
    world.run(5.0)
    bravo.received.clear()
    returned = world.now
    bravo.power_on()
    assert world.run(10.0, until=lambda: bravo.payloads(b"chat") != [])
    assert world.now - returned < 2.0
    stop()


def chatter(world: World, alpha: Host, bravo: Host, every_s: float = 0.02) -> Callable[[], None]:
    """Let alpha send a packet every 20 ms until the function returned is called."""
    numbers = itertools.count(1)
    stopped: list[bool] = []

    def tick() -> None:
        if not stopped:
            alpha.send(bravo, b"chat %d" % next(numbers))
            world.at(every_s, tick)

    tick()
    return lambda: stopped.append(True)


def test_restart_before_any_timeout_is_noticed_by_the_new_boot_id() -> None:
    world, alpha, bravo = pair(11)
    stop = chatter(world, alpha, bravo)
    world.run(2.0)
    bravo.power_off(silent=True)
    bravo.received.clear()
    bravo.power_on()
    assert world.run(10.0, until=lambda: bravo.payloads(b"chat") != []), world
    stop()


def test_stream_lives_through_many_epochs_without_losing_a_packet() -> None:
    world, alpha, bravo = pair(12)
    for number in range(600):
        alpha.send(bravo, b"data %d" % number)
        world.run(1.0)
    assert bravo.payloads(b"data") == [b"data %d" % number for number in range(600)]
    assert alpha.kinds().count("rekey") >= 4
    assert alpha.kinds().count("handshake") == 1


@pytest.mark.parametrize("seed", range(12))
def test_bad_weather_delays_packets_and_stops_nothing_for_good(seed: int) -> None:
    weather = Weather(
        delay_s=0.02, jitter_s=0.02, control_loss=0.2, control_repeat=0.2, frame_loss=0.1, frame_repeat=0.1
    )
    world, alpha, bravo = pair(seed, weather)
    for number in range(80):  # 20 s: an OPEN whose answers are all lost is given up after 10
        alpha.send(bravo, b"ping %d" % number)
        bravo.send(alpha, b"ping %d" % number)
        world.run(0.25)
    world.run(5.0)
    for host in (alpha, bravo):
        got = host.payloads(b"pong")
        assert len(got) == len(set(got)), f"{world}: a packet came twice"
        assert len(got) > 20, f"{world}: {host.name} got {len(got)} of 80"
    world.run(2 * IDLE_S + 30.0)
    for host in (alpha, bravo):
        assert host.endpoints == {}, f"{world}: {host.name} keeps a link"
        assert host.node.datapath.status().senders == (), f"{world}: {host.name} keeps a key"
        assert host.node.datapath.status().receivers == (), f"{world}: {host.name} keeps a key"


@pytest.mark.parametrize("seed", range(6))
def test_partition_heals(seed: int) -> None:
    world, alpha, bravo = pair(seed)
    stop = chatter(world, alpha, bravo, every_s=0.1)
    world.run(2.0)
    world.partition(alpha, bravo)
    world.run(5.0 + 10 * seed)
    bravo.received.clear()
    world.partition(alpha, bravo, heal=True)
    assert world.run(10.0, until=lambda: bravo.payloads(b"chat") != []), world
    stop()
