"""A node that receives agrees on the stream of its answer before there is an answer."""

from __future__ import annotations

import pytest
from kit.world import World

from conflux.ids import StreamId
from conflux.node import answering
from conflux.node.answering import KEPT_S
from conflux.realm.card import Card
from conflux.sim.world import Host
from conflux.stream.resumptions import HALF_OPEN_S


def pair(seed: int = 1) -> tuple[World, Host, Host]:
    world = World(seed)
    alpha, bravo = world.host("alpha"), world.host("bravo")
    world.run(3.0)
    return world, alpha, bravo


def opens(host: Host) -> list[float]:
    """Note when the host's node opens a stream, from now on."""
    times: list[float] = []
    open_ = host.node.streams.open

    def noted(card: Card, *, now: float) -> StreamId:
        times.append(now)
        return open_(card, now=now)

    host.node.streams.open = noted
    return times


def took_s(host: Host, kind: str) -> float:
    (took,) = [event.took_s for _, event in host.events if event.kind == kind]
    assert took is not None
    return took


def outgoing(host: Host) -> int:
    return len(host.node.streams._outgoing)


def test_an_answer_waits_for_no_handshake() -> None:
    world, alpha, bravo = pair()
    opened = opens(bravo)
    alpha.send(bravo, b"ping 1")
    assert world.run(1.0, until=lambda: "link" in alpha.kinds()), world
    assert len(opened) == 1, "the stream is opened before a packet has arrived"
    assert world.run(1.0, until=lambda: alpha.payloads(b"pong") == [b"pong 1"]), world
    assert took_s(bravo, "handshake") == 0
    assert took_s(bravo, "frames") < took_s(alpha, "frames") / 5
    world.run(30.0)
    assert (len(opened), outgoing(bravo), bravo.node.destinations()) == (1, 0, ())


def test_an_answer_before_the_end_of_the_handshake_waits_for_the_rest_of_it() -> None:
    world, alpha, bravo = pair()
    alpha.send(bravo, b"ping 1")
    opened = opens(bravo)
    assert world.run(1.0, until=lambda: bool(opened)), world
    bravo.send(alpha, b"data of its own")
    assert world.run(1.0, until=lambda: b"data of its own" in alpha.payloads()), world
    assert len(opened) == 1
    assert took_s(bravo, "handshake") > 0


def test_a_node_that_is_never_answered_costs_one_handshake() -> None:
    world, alpha, bravo = pair()
    opened = opens(bravo)
    for number in range(3):
        alpha.send(bravo, b"data %d" % number)
        world.run(KEPT_S + HALF_OPEN_S + 10.0)
    assert (len(opened), outgoing(bravo)) == (1, 0)
    assert "ended" not in alpha.kinds(), "a stream that was never used is not shown"
    assert bravo.node.datapath.status().senders == alpha.node.datapath.status().receivers == ()

    alpha.send(bravo, b"ping 1")  # answered, so the early stream is used
    world.run(30.0)
    alpha.send(bravo, b"ping 2")
    assert world.run(1.0, until=lambda: b"pong 2" in alpha.payloads()), world
    assert [event.took_s for _, event in bravo.events if event.kind == "handshake"][-1] == 0


def test_both_ends_that_send_at_once_open_one_stream_each() -> None:
    world, alpha, bravo = pair()
    opened = opens(alpha), opens(bravo)
    alpha.send(bravo, b"ping 1")
    bravo.send(alpha, b"ping 2")
    assert world.run(2.0, until=lambda: bool(alpha.payloads(b"pong") and bravo.payloads(b"pong"))), world
    world.run(20.0)
    assert [len(times) for times in opened] == [1, 1]


@pytest.mark.parametrize("after_s", [0.0, 0.02, 0.2])
def test_a_sender_killed_before_its_answer_is_answered_after_its_restart(after_s: float) -> None:
    world, alpha, bravo = pair()
    alpha.send(bravo, b"data 1")
    assert world.run(1.0, until=lambda: outgoing(bravo) == 1), world
    world.run(after_s)
    alpha.power_off()
    alpha.power_on()
    world.run(2.1)  # within two seconds of its start a node announces itself
    assert outgoing(bravo) == 0
    assert bravo.node.destinations() == ()
    alpha.send(bravo, b"ping 1")
    assert world.run(5.0, until=lambda: b"pong 1" in alpha.payloads()), world


def test_senders_beyond_the_room_for_early_streams_are_answered_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "COUNT_MAX", 2)
    world = World(1)
    bravo, *crowd = (world.host(name) for name in ("bravo", "one", "two", "three", "four"))
    world.run(3.0)
    opened = opens(bravo)
    for host in crowd:
        host.send(bravo, b"data 1")
    world.run(0.2)
    assert len(opened) == 2
    for host in crowd:
        host.send(bravo, b"ping 1")
    assert world.run(5.0, until=lambda: all(host.payloads(b"pong") for host in crowd)), world
    assert len(opened) == 4
