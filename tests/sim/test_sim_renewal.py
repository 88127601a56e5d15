"""A credential that is renewed while nodes run: nothing is restarted, and no stream waits."""

from __future__ import annotations

import pytest
from kit.builders import NOW_UNIX, make_credential
from kit.world import REALM, World

from conflux.realm.credential import RELAY, Chain
from conflux.realm.member import Member
from conflux.sim.world import Host

IDLE_S = 15.0
STEP_S, STEP_COUNT = 0.003, 24  # the moments of a set-up that are tried: it takes 65 ms


def renew(host: Host, after_s: int = 86400) -> None:
    """Give a host a later credential of the same keys and addresses, as its issuer does."""
    old = host.member
    later = make_credential(REALM, host.name, capabilities=(RELAY,), not_before=NOW_UNIX + after_s)
    host.member = Member(old.keys, old.anchor, Chain(later, None))
    assert host.node is not None
    host.node.adopt(host.member, now=host.world.now)
    host.drain()


@pytest.mark.parametrize("who", ["sender", "receiver", "both"])
def test_first_stream_after_a_renewal_is_as_fast_as_any(who: str) -> None:
    world = World(1)
    alpha, bravo = world.host("alpha", broker=True), world.host("bravo", broker=True)
    world.run(3.0)
    alpha.send(bravo, b"ping 1")
    world.run(IDLE_S + 5.0)
    for host in {"sender": (alpha,), "receiver": (bravo,), "both": (alpha, bravo)}[who]:
        renew(host)  # nodes at a broker hear no presence of it before hours are over
    began = world.now
    alpha.send(bravo, b"ping 2")
    assert world.run(5.0, until=lambda: b"pong 2" in alpha.payloads(b"pong")), world
    assert world.now - began < 0.5, f"{world}: {world.now - began:.3f} s"
    assert bravo.kinds().count("restarted") == alpha.kinds().count("restarted") == 0


def test_receiver_of_a_stream_under_a_newer_credential_asks_for_the_card() -> None:
    world = World(2)
    alpha, bravo = world.host("alpha", broker=True), world.host("bravo", broker=True)
    world.run(3.0)
    alpha.send(bravo, b"ping 1")
    world.run(IDLE_S + 5.0)
    renew(alpha)
    alpha.send(bravo, b"ping 2")
    world.run(2.0)
    assert bravo.node is not None
    assert bravo.node.plane.card(alpha.node_id) == alpha.node.plane.own_card


@pytest.mark.parametrize("broker", [False, True], ids=["lan", "broker"])
@pytest.mark.parametrize("who", [("alpha",), ("bravo",), ("alpha", "bravo")], ids="+".join)
def test_set_up_comes_about_whenever_a_credential_is_renewed_meanwhile(who: tuple[str, ...], broker: bool) -> None:
    late = []
    for step in range(STEP_COUNT):
        world = World(step)
        lans = () if broker else ("home",)
        hosts = {name: world.host(name, *lans, broker=broker) for name in ("alpha", "bravo")}
        world.run(3.0)
        alpha, bravo = hosts["alpha"], hosts["bravo"]
        for name in who:
            world.at(step * STEP_S, lambda host=hosts[name]: renew(host))
        alpha.send(bravo, b"ping 1")
        if not world.run(3.0, until=lambda alpha=alpha: b"pong 1" in alpha.payloads(b"pong")):
            late.append(step)
    assert late == []


def test_stream_that_carries_goes_on_when_both_ends_are_renewed() -> None:
    world = World(1)
    alpha, bravo = world.host("alpha"), world.host("bravo")
    world.run(3.0)
    alpha.send(bravo, b"ping 0")
    assert world.run(3.0, until=lambda: b"pong 0" in alpha.payloads(b"pong")), world
    assert alpha.node is not None
    (destination,) = alpha.node.status(now=world.now).destinations
    stream = destination.stream
    for number, host in enumerate((alpha, bravo), start=1):
        renew(host, 86400 * number)
        alpha.send(bravo, b"ping %d" % number)
        assert world.run(0.2, until=lambda number=number: b"pong %d" % number in alpha.payloads(b"pong")), world
    (destination,) = alpha.node.status(now=world.now).destinations
    assert destination.stream == stream
