"""What carried a stream is gone, or what could carry it came back: whatever there is is tried at once.

At a broker: rod and ruth relay for any two, and nothing passes between alpha and bravo.
On LANs:     alpha ──a── rod ──b── bravo
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from kit.revoking import flow, revoke
from kit.world import World

from conflux.control.lists import SETTLE_S
from conflux.node.event import EventKind
from conflux.sim.flights import Weather
from conflux.sim.world import Host

EVERY_S = 0.05  # between two pings
NOTICED_S_MAX = 1.1  # until feedback is missed on a route that was never measured (datapath/config.py)
REPAIR_S_MAX = 0.2  # a question over the broker, two links side by side, and the set-up
BACK_S_MAX = SETTLE_S + 0.1  # bravo was alone: before it takes a stream it asks who is revoked


def at_broker(*, seed: int = 1) -> tuple[World, Host, Host, Host]:
    """alpha, bravo and gate; nothing passes between alpha and bravo."""
    world = World(seed, Weather(delay_s=0.005))
    alpha, bravo, gate = (world.host(name, broker=True) for name in ("alpha", "bravo", "gate"))
    for name in ("rod", "ruth"):
        world.host(name, broker=True, public=True)
    world.partition(alpha, bravo)
    world.run(3.0)
    return world, alpha, bravo, gate


def carrier(host: Host, to: Host) -> Host:
    """Return the relay that carries host's stream."""
    rows = [row for row in host.node.status(now=host.world.now).destinations if row.node == to.node_id]
    return host.world.hosts[rows[0].path[0]]


def silence_s(host: Host, since: float) -> float:
    """Return the longest time without an answer since then."""
    times = [at for at, payload in host.received if payload.startswith(b"pong") and at > since]
    return max(later - earlier for earlier, later in zip([since, *times], [*times, host.world.now], strict=True))


def answered(host: Host, since: float) -> Callable[[], bool]:
    return lambda: any(at > since and payload.startswith(b"pong") for at, payload in host.received)


@pytest.mark.parametrize("after_s", [1.0, 3.0, 8.0, 15.0, 30.0])
@pytest.mark.parametrize("seed", range(3))
def test_stream_whose_public_relay_is_revoked_finds_another_at_once_however_old_it_is(
    after_s: float, seed: int
) -> None:
    world, alpha, bravo, gate = at_broker(seed=seed)
    flow(world, alpha, bravo, every_s=EVERY_S, for_s=after_s + 10.0)
    world.run(after_s)
    revoked, at = carrier(alpha, bravo), world.now
    revoke(gate, revoked)
    world.run(9.0)
    assert carrier(alpha, bravo) is not revoked
    assert silence_s(alpha, at) < REPAIR_S_MAX


@pytest.mark.parametrize("after_s", [1.0, 8.0, 30.0])
def test_stream_whose_public_relay_loses_its_power_finds_another_as_soon_as_feedback_is_missed(after_s: float) -> None:
    world, alpha, bravo, _ = at_broker()
    flow(world, alpha, bravo, every_s=EVERY_S, for_s=after_s + 10.0)
    world.run(after_s)
    lost, at = carrier(alpha, bravo), world.now
    lost.power_off(silent=True)
    world.run(9.0)
    assert carrier(alpha, bravo) is not lost
    assert silence_s(alpha, at) < NOTICED_S_MAX + REPAIR_S_MAX


def test_public_relay_that_comes_is_used_at_once_by_a_stream_that_has_none() -> None:
    world, alpha, bravo, gate = at_broker()
    relays = [host for host in world.hosts.values() if host.public]
    flow(world, alpha, bravo, every_s=EVERY_S, for_s=40.0)
    world.run(5.0)
    rest = next(host for host in relays if host is not carrier(alpha, bravo))
    rest.power_off()
    revoke(gate, carrier(alpha, bravo))
    world.run(5.0)
    at = world.now
    rest.power_on()
    assert world.run(11.0, until=answered(alpha, at)), "it is asked for again and again"


@pytest.mark.parametrize("off_s", [0.5, 2.5, 5.0, 9.0, 12.0, 24.0])
@pytest.mark.parametrize("known", [True, False])
def test_relay_that_is_back_carries_at_once_whatever_was_tried_without_it(off_s: float, known: bool) -> None:
    world = World(1)
    alpha, rod, bravo = world.host("alpha", "a"), world.host("rod", "a", "b"), world.host("bravo", "b")
    world.run(3.0)
    if known:
        flow(world, alpha, bravo, for_s=1.0)
        world.run(30.0)
    rod.power_off()
    world.run(2.0)
    flow(world, alpha, bravo, every_s=EVERY_S, for_s=60.0)
    world.run(off_s)
    at = world.now
    rod.power_on()
    assert world.run(BACK_S_MAX, until=answered(alpha, at))


def test_relay_that_is_back_is_tried_beside_a_direct_dial_without_hope() -> None:
    world = World(1)
    alpha, rod, bravo = world.host("alpha", "a"), world.host("rod", "a", "b"), world.host("bravo", "b")
    world.run(3.0)
    flow(world, alpha, bravo, every_s=EVERY_S, for_s=30.0)
    world.run(2.0)
    rod.power_off()
    world.run(2.0)
    assert alpha.kinds().count(EventKind.DIAL) > 1, "alpha dials bravo, which no packet reaches"
    at = world.now
    rod.power_on()
    assert world.run(BACK_S_MAX, until=answered(alpha, at))
