"""A cold start over a broker, counted in round trips: what a first packet waits for, and in which order."""

from __future__ import annotations

from kit.world import World

from conflux.node.carrying import Carrying
from conflux.sim.broker import HOP_COUNT
from conflux.sim.carrier import DESCRIBE_S, OPEN_S
from conflux.sim.flights import Weather
from conflux.sim.world import Host

BROKER_S = 0.020  # of a board to the broker and back, so also from one board to the other by way of it
BOARDS_S = 0.040  # of one board to the other and back
OPEN_BYTES_MIN = 5000  # an OPEN has a key and a hybrid signature; an offer is much smaller


def cold() -> tuple[World, Host, Host]:
    """Return two boards that know each other by a broker alone, and nothing of each other yet."""
    world = World(1)
    world.broker.weather = Weather(delay_s=BROKER_S / HOP_COUNT, jitter_s=0.0)
    world.hub.weather = Weather(delay_s=BOARDS_S / 2, jitter_s=0.0)
    alpha, bravo = (world.host(name, broker=True) for name in ("alpha", "bravo"))
    world.run(5.0)
    return world, alpha, bravo


def test_offer_leaves_before_the_open_and_its_answer_before_the_accept(monkeypatch):
    world, alpha, bravo = cold()
    sealed: dict[bytes, list[int]] = {alpha.node_id: [], bravo.node_id: []}
    send = world.broker.send

    def spy(src, envelope, key=None, *, now):
        if envelope.key_id is not None:
            sealed[src].append(len(envelope.payload))
        return send(src, envelope, key, now=now)

    monkeypatch.setattr(world.broker, "send", spy)
    alpha.send(bravo, b"ping")
    assert world.run(2.0, until=lambda: b"pong" in alpha.payloads())
    for sizes in sealed.values():
        assert len(sizes) >= 2
        assert sizes[0] < OPEN_BYTES_MIN <= sizes[1]


def test_first_answer_over_a_broker_costs_no_more_round_trips_than_are_listed_here():
    world, alpha, bravo = cold()
    began_at = world.now
    alpha.send(bravo, b"ping")
    assert world.run(2.0, until=lambda: b"pong" in alpha.payloads())
    resolve = 2 * BROKER_S  # WHO, CARD
    offer = 2 * BROKER_S + 2 * DESCRIBE_S  # OFFER, ANSWER; the handshake goes beside
    link = OPEN_S + BOARDS_S
    answer = BOARDS_S  # each packet goes right behind its SETUP
    assert world.now - began_at < resolve + offer + link + answer + 0.005


def test_a_neighbours_packets_wait_for_the_confirmation_as_they_could_overtake_each_other(monkeypatch):
    asked = []
    receive = Carrying.route_asked
    monkeypatch.setattr(Carrying, "route_asked", lambda *args: (asked.append(args), receive(*args)))
    world, alpha, bravo = cold()
    near, far = world.host("near"), world.host("far")
    world.run(5.0)
    near.send(far, b"ping")
    assert world.run(2.0, until=lambda: b"pong" in near.payloads())
    assert asked == []
    alpha.send(bravo, b"ping")
    assert world.run(2.0, until=lambda: b"pong" in alpha.payloads())
    assert asked
