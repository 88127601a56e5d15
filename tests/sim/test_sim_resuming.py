"""Whole nodes that met before: streams by the secret of the last one, and by signatures wherever it does not serve."""

from __future__ import annotations

from dataclasses import replace

import pytest
from kit.revoking import revoke
from kit.world import World

from conflux.anchor.frame import CHACHA20_POLY1305
from conflux.control.event import PairMessage
from conflux.sim.carrier import Secured
from conflux.sim.flights import Weather
from conflux.sim.world import Host
from conflux.stream.event import Pass
from conflux.stream.resuming import Resumption
from conflux.stream.resumptions import DISTRUST_S, Drop
from conflux.stream.streams import Streams

GONE_S = 60.0  # then no stream and no link is left


def met(
    seed: int, weather: Weather | None = None, *, gone_s: float = GONE_S, **config: float
) -> tuple[World, Host, Host]:
    """Return two nodes that had an exchange, of which nothing is open any more."""
    world = World(seed, weather)
    alpha, bravo = world.host("alpha", **config), world.host("bravo", **config)
    world.run(3.0)
    ping(world, alpha, bravo, 0, within_s=20.0)
    world.run(gone_s)
    return world, alpha, bravo


def ping(world: World, one: Host, other: Host, number: int, within_s: float = 1.0) -> float:
    """Send one packet and have it answered; return how long that took."""
    began = world.now
    one.send(other, b"ping %d" % number)
    assert world.run(within_s, until=lambda: b"pong %d" % number in one.payloads(b"pong")), world
    return world.now - began


def opened(host: Host) -> tuple[int, int]:
    counts = host.node.streams.opened
    return counts["signatures"], counts["resumption"]


def drops(host: Host) -> dict[str, int]:
    return {word: count for word, count in host.node.status(now=0.0).drops.items() if word.startswith("resume")}


def test_boards_sign_once_and_then_resume() -> None:
    world, alpha, bravo = met(1)
    assert opened(alpha) == opened(bravo) == (1, 1)  # the way back of the first exchange is resumed too
    for number in (1, 2, 3):
        assert ping(world, alpha, bravo, number) < 0.15
        world.run(GONE_S)
    assert opened(alpha) == opened(bravo) == (1, 4)
    assert drops(alpha) == drops(bravo) == {}


def test_either_end_resumes() -> None:
    world, alpha, bravo = met(2)
    ping(world, bravo, alpha, 1)
    assert opened(alpha) == opened(bravo) == (1, 2)


def heard(*hosts: Host) -> list[str]:
    """Return the list to which every message of these hosts is added, by name."""
    sent: list[str] = []
    for host in hosts:
        sign, send = host.node.plane._author.sign, host.node.plane.pairs.send

        def signed(to, seq, kind, body, *, re=0, sign=sign):
            sent.append(kind.name)
            return sign(to, seq, kind, body, re=re)

        def passed(peer, id_, what, body, *, again=False, send=send):
            sent.append(what.name)
            send(peer, id_, what, body, again=again)

        host.node.plane._author.sign, host.node.plane.pairs.send = signed, passed
    return sent


def test_one_message_each_way_brings_up_streams_and_link() -> None:
    world, alpha, bravo = met(3)
    sent = heard(alpha, bravo)
    ping(world, alpha, bravo, 1)
    assert sent == ["RESUME", "RESUMED"]
    assert world.secured == {Secured.HANDSHAKE: 1, Secured.KEYS: 1}


def test_nothing_is_left_of_an_exchange_that_the_next_packet_would_take() -> None:
    """A stream that the peer's RESUME opened beside one in use would save nothing, and make the answer wait."""
    world, alpha, bravo = met(3, gone_s=6.0, idle_timeout_s=2.0)
    sent = heard(alpha, bravo)
    for number in (1, 2, 3):
        ping(world, alpha, bravo, number)
        assert sent == ["RESUME", "RESUMED"] * number
        world.run(6.0)


def test_both_at_once_take_one_exchange() -> None:
    world, alpha, bravo = met(4)
    alpha.send(bravo, b"ping a")
    bravo.send(alpha, b"ping b")
    assert world.run(1.0, until=lambda: b"pong a" in alpha.payloads(b"pong") and b"pong b" in bravo.payloads(b"pong"))
    assert opened(alpha) == opened(bravo) == (1, 2)


def test_a_restarted_board_is_met_by_signatures_and_without_delay() -> None:
    world, alpha, bravo = met(5)
    bravo.power_off()
    world.run(1.0)
    bravo.power_on()
    world.run(3.0)
    assert ping(world, alpha, bravo, 1) < 0.5
    assert opened(bravo)[0] >= 1
    assert opened(alpha)[0] == 2


def test_a_board_that_lost_the_secret_alone_is_met_almost_at_once() -> None:
    world, alpha, bravo = met(6)
    bravo.node.streams.resuming.forget_all()
    assert ping(world, alpha, bravo, 1, within_s=2.0) < 0.3
    assert drops(bravo) == {Drop.UNKNOWN: 1}
    world.run(GONE_S)
    ping(world, alpha, bravo, 2)
    assert drops(bravo) == {Drop.UNKNOWN: 1}, "they have a new one"


def test_a_board_that_does_not_resume_is_met_as_before() -> None:
    world = World(7)
    alpha, bravo = world.host("alpha"), world.host("bravo")
    bravo.node.streams.resuming._resumption = Resumption.OFF
    world.run(3.0)
    for number in range(2):
        assert ping(world, alpha, bravo, number) < 0.15
        world.run(GONE_S)
    assert opened(alpha) == opened(bravo) == (4, 0)
    assert drops(alpha) == drops(bravo) == {}


@pytest.mark.parametrize("seed", range(8, 14))
def test_lost_and_reordered_messages_cost_a_second_at_most(seed: int) -> None:
    world, alpha, bravo = met(seed, Weather(control_loss=0.2, control_repeat=0.2, jitter_s=0.02))
    for number in range(1, 4):
        ping(world, alpha, bravo, number, within_s=20.0)
        world.run(GONE_S)
    ping(world, bravo, alpha, 9, within_s=20.0)
    assert not world.secured[Secured.DIFFERENTLY], world.secured


def test_a_link_that_a_secret_opened_ends_when_the_peer_signs() -> None:
    world, alpha, bravo = met(15)
    ping(world, alpha, bravo, 1)
    assert world.secured[Secured.KEYS] == 1
    (link,) = alpha.carrier.endpoints
    bravo.node.streams.resuming.forget_all()
    bravo.node.streams.open(alpha.node.plane.own_card, now=world.now)
    bravo.drain()
    assert world.run(1.0, until=lambda: link not in alpha.carrier.endpoints)
    world.run(GONE_S)
    ping(world, alpha, bravo, 2)
    assert not world.secured[Secured.DIFFERENTLY]


def test_a_thief_who_uses_the_secret_as_well_is_found_out_by_both() -> None:
    world, alpha, bravo = met(20)
    kept = alpha.node.streams.resuming.secrets._kept[bravo.node_id][0]
    card = alpha.node.plane.card(bravo.node_id)
    assert card is not None
    thief = Streams(
        alpha.node.member,
        boot=alpha.node.plane.boot,
        aead=CHACHA20_POLY1305,
        entropy=lambda size: bytes(size),
        lists=lambda: alpha.node.plane.lists.digest,
    )
    thief.resuming.secrets._add(replace(kept, secret=bytearray(kept.secret)))
    thief.open(card, now=world.now)
    stolen = thief.next_transmit()
    assert isinstance(stolen, Pass)
    message = PairMessage(stolen.id, stolen.what, stolen.body, None)
    bravo.node._resuming.receive(message, world.now)
    assert ping(world, alpha, bravo, 1, within_s=3.0) < 1.5, "it is opened by signatures"
    assert drops(bravo) == {Drop.CONFLICT: 1}
    for host, other in ((alpha, bravo), (bravo, alpha)):
        assert not host.node.streams.resuming.secrets.trusts(other.node_id, world.now)
        assert len(host.node.streams.resuming.secrets) == 0
    before = opened(alpha)[1]
    world.run(GONE_S)
    ping(world, alpha, bravo, 2)
    assert opened(alpha)[1] == before
    world.run(DISTRUST_S)
    ping(world, alpha, bravo, 3)
    world.run(GONE_S)
    ping(world, alpha, bravo, 4)
    assert opened(alpha)[1] > before


def test_revocation_erases_the_secret_of_a_node_at_once() -> None:
    world, alpha, bravo = met(21)
    revoke(alpha, bravo)
    assert len(alpha.node.streams.resuming.secrets) == 0
    theirs = bravo.node.streams
    theirs.open(alpha.node.plane.own_card, now=world.now)
    resume = theirs.next_transmit()
    assert isinstance(resume, Pass)
    alpha.node._resuming.receive(PairMessage(resume.id, resume.what, resume.body, bravo.node_id), world.now)
    assert drops(alpha) == {Drop.UNKNOWN: 1}
    assert alpha.node.streams.peers() == frozenset()
