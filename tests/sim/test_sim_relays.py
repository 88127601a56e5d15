"""LANs that share only nodes in the middle: routes through relays, moved and repaired under a live stream.

one relay        alpha ──a── rod ──b── bravo
two in a row     alpha ──a── rod ──m── ruth ──b── bravo
two side by side alpha ──a── rod ──b── bravo,  alpha ──a── ruth ──b── bravo
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from kit.chain import held
from kit.world import World

from conflux.errors import UserError
from conflux.ids import LinkId, StreamId
from conflux.link.event import LinkEnd
from conflux.node.carrying import REFRESH_S
from conflux.node.event import Event, EventKind, Reason
from conflux.node.status import DestinationStatus
from conflux.route.message import RefusalWord, Setup
from conflux.route.onion import Peeled
from conflux.route.relays import refuse
from conflux.shell.feed import event_text
from conflux.sim.flights import Weather
from conflux.sim.world import Host

Line = Callable[[], Any]  # makes a world and its hosts, from sender to receiver

IDLE_S = 15.0


def one_relay(seed: int = 1, weather: Weather | None = None) -> tuple[World, Host, Host, Host]:
    world = World(seed, weather)
    alpha, rod, bravo = world.host("alpha", "a"), world.host("rod", "a", "b"), world.host("bravo", "b")
    world.run(3.0)
    return world, alpha, rod, bravo


def two_in_a_row(seed: int = 1, weather: Weather | None = None) -> tuple[World, Host, Host, Host, Host]:
    world = World(seed, weather)
    alpha, rod = world.host("alpha", "a"), world.host("rod", "a", "m")
    ruth, bravo = world.host("ruth", "m", "b"), world.host("bravo", "b")
    world.run(3.0)
    return world, alpha, rod, ruth, bravo


def side_by_side(seed: int = 1, weather: Weather | None = None) -> tuple[World, Host, Host, Host, Host]:
    world = World(seed, weather)
    alpha, rod = world.host("alpha", "a"), world.host("rod", "a", "b")
    ruth, bravo = world.host("ruth", "a", "b"), world.host("bravo", "b")
    world.run(3.0)
    return world, alpha, rod, ruth, bravo


def path(host: Host, to: Host) -> list[str]:
    """Return the names of the hops that carry host's stream."""
    (found,) = [each for each in host.node.status(now=host.world.now).destinations if each.node == to.node_id]
    return [host.world.hosts[hop].name for hop in found.path]


def told(host: Host, kind: EventKind) -> list[str]:
    """Return the sentence of each event of a kind, as host's watchers read it."""
    return [event_text(event, host.node.name_of) for _, event in host.events if event.kind is kind]


def is_of(event: Event, kind: EventKind, host: Host) -> bool:
    return (event.kind, event.node) == (kind, host.node_id)


def answered(world: World, alpha: Host, bravo: Host, text: str, within_s: float) -> float:
    """Send a ping and return how long its answer took."""
    sent = world.now
    alpha.send(bravo, b"ping " + text.encode())
    assert world.run(within_s, until=lambda: b"pong " + text.encode() in alpha.payloads(b"pong")), world
    return world.now - sent


def flow(world: World, alpha: Host, bravo: Host, seconds: float, every_s: float = 0.005) -> None:
    """Let alpha send numbered packets."""
    end = world.now + seconds

    def tick() -> None:
        if world.now < end:
            alpha.send(bravo, b"data %d" % len(sent))
            sent.append(world.now)
            world.at(every_s, tick)

    sent: list[float] = []
    tick()
    alpha.sent = sent


def lost(alpha: Host, bravo: Host) -> set[int]:
    got = bravo.payloads(b"data ")
    assert len(got) == len(set(got)), "a packet came twice"
    return set(range(len(alpha.sent))) - {int(payload.split()[1]) for payload in got}


def test_one_relay_joins_two_lans() -> None:
    world, alpha, rod, bravo = one_relay()
    assert answered(world, alpha, bravo, "1", 1.0) < 0.300
    assert path(alpha, bravo) == ["rod", "bravo"]
    assert path(bravo, alpha) == ["rod", "alpha"]
    assert answered(world, alpha, bravo, "2", 1.0) < 0.010
    assert len(rod.node.status(now=world.now).relays) == 2


def test_two_relays_join_three_lans() -> None:
    world, alpha, _, _, bravo = two_in_a_row()
    assert answered(world, alpha, bravo, "1", 1.0) < 0.450
    assert path(alpha, bravo) == ["rod", "ruth", "bravo"]


def test_a_node_heard_through_a_relay_is_dialled_through_it_first() -> None:
    world, alpha, _, bravo = one_relay()
    answered(world, alpha, bravo, "1", 1.0)
    assert told(alpha, EventKind.DIAL) == ["by rod", ""]
    world.run(25.0)
    alpha.events.clear()
    answered(world, alpha, bravo, "2", 1.0)
    world.run(1.0)
    assert told(alpha, EventKind.DIAL)[0] == "by rod"


def test_a_guess_that_the_destination_corrects_leaves_no_link() -> None:
    world = World(1)
    alpha, rod = world.host("alpha", "a"), world.host("rod", "a", "b")
    _, bravo = world.host("ruth", "a", "b"), world.host("bravo", "b")
    rod.relaying = False  # but it still passes control messages on, so alpha tries it first
    rod.power_off()
    rod.power_on()
    world.run(3.0)
    flow(world, alpha, bravo, 20.0, every_s=0.1)
    world.run(15.0)
    assert path(alpha, bravo) == ["ruth", "bravo"]
    names = [world.hosts[link.peer].name for link in alpha.node.status(now=world.now).links]
    assert "rod" not in names


def test_idle_leaves_nothing_on_relays() -> None:
    world, alpha, rod, ruth, bravo = two_in_a_row()
    answered(world, alpha, bravo, "1", 1.0)
    world.run(IDLE_S + 15.0)  # the direct dial gets no answer and is given up after ten seconds
    for host in (alpha, rod, ruth, bravo):
        status = host.node.status(now=world.now)
        links = [link for link in status.links if link.state != "idle"]  # idle: a failed dial is remembered
        assert (host.endpoints, status.relays, status.routes, links) == ({}, (), (), []), host.name
        assert status.datapath.relays == ()


@pytest.mark.parametrize("line", [one_relay, two_in_a_row])
def test_the_end_of_a_stream_arrives_through_relays(line: Line) -> None:
    world, alpha, *_, bravo = line()
    answered(world, alpha, bravo, "1", 1.0)
    world.run(IDLE_S + 10.0)
    for host in (alpha, bravo):
        assert told(host, EventKind.ENDED) == ["done"], host.name


def knowledge(relay: Host, facts: list[bytes]) -> list[int]:
    """Return how often each fact occurs in anything that the relay's process can reach."""
    strings = [bytes(item) for item in held(relay.node) if isinstance(item, bytes | bytearray)]
    return [sum(fact in item for item in strings) for fact in facts]


def test_two_relays_hold_nothing_that_joins_the_ends_or_names_a_stream() -> None:
    world, alpha, rod, ruth, bravo = two_in_a_row()
    ends = [alpha.node_id, bravo.node_id, alpha.address.packed, bravo.address.packed]
    before = {
        relay.name: knowledge(relay, ends) for relay in (rod, ruth)
    }  # presence tells which nodes are in the realm
    answered(world, alpha, bravo, "1", 1.0)
    world.run(2.0)
    streams = [
        bytes.fromhex(sender.stream)
        for host in (alpha, bravo)
        for sender in host.node.status(now=world.now).datapath.senders
    ]
    assert len(streams) == 2
    for relay, far in ((rod, bravo), (ruth, alpha)):
        assert len(relay.node.status(now=world.now).relays) == 2
        assert knowledge(relay, streams) == [0, 0], f"{relay.name} can name a stream"
        learned = [after - old for after, old in zip(knowledge(relay, ends), before[relay.name], strict=True)]
        about_far = learned[1::2] if far is bravo else learned[0::2]
        assert about_far == [0, 0], f"{relay.name} learned of {far.name} from carrying its packets"
        assert [event for _, event in relay.events if far.node_id in (event.node, *event.path)] == []


def test_planned_move_loses_nothing() -> None:
    world, alpha, rod, ruth, bravo = side_by_side()
    answered(world, alpha, bravo, "1", 1.0)
    for _ in range(3):
        bravo.received.clear()
        before = path(alpha, bravo)
        other = ruth if before == ["rod", "bravo"] else rod
        flow(world, alpha, bravo, 3.0, every_s=0.001)
        world.run(1.0)
        alpha.node.move(bravo.node_id, (other.node_id,), now=world.now)
        alpha.drain()
        world.run(4.0)
        assert path(alpha, bravo) == [other.name, "bravo"]
        assert lost(alpha, bravo) == set()


def test_a_move_onto_a_path_that_is_being_tried_already_is_made() -> None:
    world, alpha, rod, ruth, bravo = side_by_side()
    alpha.send(bravo, b"ping 1")
    assert world.run(1.0, until=lambda: "frames" in alpha.kinds())
    other = ruth if path(alpha, bravo)[0] == "rod" else rod
    alpha.node.move(bravo.node_id, (other.node_id,), now=world.now)
    alpha.drain()
    world.run(1.0)
    assert path(alpha, bravo) == [other.name, "bravo"]


def test_the_two_directions_may_take_different_relays() -> None:
    world, alpha, rod, ruth, bravo = side_by_side()
    answered(world, alpha, bravo, "1", 1.0)
    alpha.node.move(bravo.node_id, (rod.node_id,), now=world.now)
    bravo.node.move(alpha.node_id, (ruth.node_id,), now=world.now)
    alpha.drain()
    bravo.drain()
    world.run(3.0)
    answered(world, alpha, bravo, "2", 1.0)
    assert (path(alpha, bravo), path(bravo, alpha)) == (["rod", "bravo"], ["ruth", "alpha"])


@pytest.mark.parametrize("closed", ["first link", "second link"])
def test_a_link_let_go_under_a_set_up_costs_a_second_link_and_not_the_path(closed: str) -> None:
    world, alpha, rod, bravo = one_relay()
    near, far = (alpha, rod) if closed == "first link" else (rod, bravo)
    alpha.send(bravo, b"ping 1")
    assert world.run(1.0, until=lambda: [event for _, event in near.events if is_of(event, EventKind.LINK, far)] != [])
    (endpoint,) = [end for end in far.endpoints.values() if end.far_token.startswith(near.name)]
    far.carrier.shut(endpoint)  # while the set-up is on its way
    far.drain()
    assert world.run(1.0, until=lambda: b"pong 1" in alpha.payloads(b"pong")), world
    assert "failed" not in alpha.kinds()
    closings = [event.reason for _, event in near.events if is_of(event, EventKind.CLOSED, far)]
    assert closings == [Reason(LinkEnd.PEER)]


def test_a_path_whose_links_are_let_go_again_and_again_has_failed() -> None:
    world, alpha, rod, bravo = one_relay()
    alpha.send(bravo, b"ping 1")
    for _ in range(2):
        alpha.events.clear()
        assert world.run(1.0, until=lambda: "link" in alpha.kinds())
        (endpoint,) = [end for end in rod.endpoints.values() if end.far_token.startswith("alpha")]
        rod.carrier.shut(endpoint)
        rod.drain()
    assert world.run(1.0, until=lambda: "failed" in alpha.kinds())
    assert told(alpha, EventKind.FAILED) == ["by rod: rod closed the link (link-closed)"]


@pytest.mark.parametrize("silent", [True, False])
def test_killed_relay_is_replaced_in_under_two_seconds_and_the_stream_lives_on(silent: bool) -> None:
    world, alpha, rod, ruth, bravo = side_by_side()
    answered(world, alpha, bravo, "1", 1.0)
    used = rod if path(alpha, bravo)[0] == "rod" else ruth
    flow(world, alpha, bravo, 6.0)
    world.run(1.0)
    stream = alpha.node.status(now=world.now).destinations[0].stream
    killed = world.now
    bravo.received.clear()
    used.power_off(silent=silent)
    other = ruth if used is rod else rod
    assert world.run(2.0, until=lambda: bool(bravo.received) and path(alpha, bravo) == [other.name, "bravo"]), world
    assert world.now - killed < 2.0
    world.run(6.0)
    assert alpha.node.status(now=world.now).destinations[0].stream == stream, "the same stream"
    missing = lost(alpha, bravo)
    assert max(missing, default=0) < 200 + 2.0 / 0.005, "after the repair nothing more is lost"


def test_epochs_turn_across_a_move() -> None:
    world, alpha, rod, ruth, bravo = side_by_side()
    answered(world, alpha, bravo, "1", 1.0)
    flow(world, alpha, bravo, 300.0, every_s=0.1)
    for number in range(10):
        world.run(30.0)
        alpha.node.move(bravo.node_id, ((rod, ruth)[number % 2].node_id,), now=world.now)
        alpha.drain()
    world.run(2.0)
    assert lost(alpha, bravo) == set()
    assert alpha.kinds().count("rekey") >= 2
    assert alpha.kinds().count("handshake") == 1


def test_the_near_relay_tells_that_the_far_one_was_killed() -> None:
    world, alpha, _, ruth, bravo = two_in_a_row()
    backup = world.host("rita", "m", "b")
    world.run(3.0)
    answered(world, alpha, bravo, "1", 1.0)
    used = next(host for host in (ruth, backup) if host.name in path(alpha, bravo))
    flow(world, alpha, bravo, 10.0)
    world.run(1.0)
    bravo.received.clear()
    used.power_off(silent=True)
    assert world.run(8.0, until=lambda: len(bravo.received) > 20), world


def test_a_node_that_does_not_relay_is_not_used() -> None:
    world = World(3)
    alpha, rod, bravo = world.host("alpha", "a"), world.host("rod", "a", "b"), world.host("bravo", "b")
    rod.relaying = False
    rod.power_off()
    rod.power_on()
    world.run(3.0)
    alpha.send(bravo, b"ping 1")
    world.run(45.0)  # three tries, each as long as a dial without an answer
    assert alpha.payloads(b"pong") == []
    assert rod.node.status(now=world.now).relays == ()
    assert "unreachable" in alpha.kinds()


def test_a_hundred_routes_through_one_relay_at_once() -> None:
    world = World(5)
    rod = world.host("rod", "a", "b")
    left = [world.host(f"left-{number}", "a") for number in range(10)]
    right = [world.host(f"right-{number}", "b") for number in range(10)]
    world.run(3.0)
    for a in left:
        for b in right:
            world.at(world.rng.random() * 2.0, lambda a=a, b=b: a.send(b, b"ping " + b.name.encode()))
    assert world.run(10.0, until=lambda: all(len(host.payloads(b"pong")) == 10 for host in left)), world
    assert len(rod.node.status(now=world.now).relays) == 200


@pytest.mark.parametrize("seed", range(6))
def test_bad_weather_across_two_relays(seed: int) -> None:
    weather = Weather(
        delay_s=0.01, jitter_s=0.01, control_loss=0.1, control_repeat=0.1, frame_loss=0.05, frame_repeat=0.05
    )
    world, alpha, rod, ruth, bravo = two_in_a_row(seed, weather)
    for number in range(40):
        alpha.send(bravo, b"ping %d" % number)
        world.run(0.25)
    world.run(5.0)
    got = alpha.payloads(b"pong")
    assert len(got) == len(set(got)), f"{world}: a packet came twice"
    assert len(got) > 20, f"{world}: {len(got)} of 40"
    world.run(2 * IDLE_S + 30.0)
    for host in (alpha, rod, ruth, bravo):
        assert host.endpoints == {}, f"{world}: {host.name} keeps a link"
        assert host.node.status(now=world.now).relays == (), f"{world}: {host.name} keeps a route"


def test_a_relay_cannot_end_a_stream_by_saying_unknown_stream() -> None:
    world, alpha, rod, ruth, bravo = side_by_side()
    answered(world, alpha, bravo, "1", 1.0)
    other = ruth if path(alpha, bravo)[0] == "rod" else rod
    relays = other.node.routes.relays
    relays.begin = lambda link, setup, peeled, *, now: relays._send(
        link, refuse(setup.request, peeled.route_key, RefusalWord.UNKNOWN_STREAM)
    )
    (before,) = alpha.node.status(now=world.now).destinations
    alpha.node.move(bravo.node_id, (other.node_id,), now=world.now)
    alpha.drain()
    world.run(2.0)
    (after,) = alpha.node.status(now=world.now).destinations
    assert (after.state, after.stream, after.path) == ("flowing", before.stream, before.path)
    assert any("unknown-stream" in text for text in told(alpha, EventKind.FAILED))


def test_a_move_through_oneself_the_destination_or_one_relay_twice_is_refused() -> None:
    world, alpha, rod, _, bravo = side_by_side()
    answered(world, alpha, bravo, "1", 1.0)
    for via in ([alpha], [bravo], [rod, rod], [rod] * 4):
        with pytest.raises(UserError, match="at most 4 hops"):
            alpha.node.move(bravo.node_id, tuple(host.node_id for host in via), now=world.now)
    with pytest.raises(UserError, match="nothing to move"):
        alpha.node.move(rod.node_id, None, now=world.now)


def test_a_path_that_is_no_better_is_measured_once_beside_the_active_one() -> None:
    world = World(1)
    alpha, bravo, carol = world.host("alpha", "a"), world.host("bravo", "a"), world.host("carol", "b")
    world.host("rod", "a", "b")
    world.run(3.0)
    answered(world, carol, bravo, "rod has its links", within_s=5)
    answered(world, carol, alpha, "rod has its links", within_s=5)
    flow(world, alpha, bravo, 5.0, every_s=0.2)
    world.run(5.0)
    assert path(alpha, bravo) == ["bravo"]
    relayed = [row for row in alpha.node.search.explain(bravo.node_id, now=world.now) if len(row.hops) > 1]
    assert [row.opened for row in relayed] == [2], "once to open its links, once to measure it"


# ── a suspicion that proves wrong ──


def direct(seed: int = 1) -> tuple[World, Host, Host]:
    world = World(seed)
    alpha, bravo = world.host("alpha", "a"), world.host("bravo", "a")
    world.run(3.0)
    return world, alpha, bravo


def row_of(alpha: Host) -> DestinationStatus:
    (row,) = alpha.node.status(now=alpha.world.now).destinations
    return row


def withhold_reports(host: Host, seconds: float) -> None:
    """Drop the frames of a host for a while.  It sends no packets, so they are its feedback."""
    send, host._send_frame = host._send_frame, lambda frame: None
    host.world.at(seconds, lambda: setattr(host, "_send_frame", send))


def delay_setups(last: Host, after_s: float) -> None:
    """Let the last hop answer every set-up from now on only after a while."""
    routes, look = last.node.routes, last.node.routes._receive_last_hop

    def late(link: LinkId, setup: Setup, peeled: Peeled, stream: StreamId) -> None:
        look(link, setup, peeled, stream, last.world.now)
        last.node.handle_timeout(now=last.world.now)  # hand its outputs on
        last.drain()

    def later(link: LinkId, setup: Setup, peeled: Peeled, stream: StreamId, now: float) -> None:
        last.world.at(after_s, lambda: late(link, setup, peeled, stream))

    routes._receive_last_hop = later


def refuse_setups(last: Host, after_s: float) -> None:
    """Let the last hop refuse every set-up from now on, after a while."""
    routes = last.node.routes
    routes._receive_last_hop = lambda link, setup, peeled, stream, now: routes._send(
        link, refuse(setup.request, peeled.route_key, RefusalWord.BUSY)
    )
    delay_setups(last, after_s)


@pytest.mark.parametrize("line", [direct, one_relay, two_in_a_row])
def test_a_probe_refused_after_feedback_resumed_changes_nothing(line: Line) -> None:
    world, alpha, *_, bravo = line()
    flow(world, alpha, bravo, 8.0, every_s=0.01)
    world.run(3.0)
    began, before = world.now, row_of(alpha)
    alpha.events.clear()
    withhold_reports(bravo, 0.6)
    refuse_setups(bravo, 0.5)
    assert world.run(1.0, until=lambda: "suspect" in alpha.kinds()), world
    assert world.run(2.0, until=lambda: "failed" in alpha.kinds()), world
    assert row_of(alpha).state == "flowing"
    world.run(4.0)
    assert (row_of(alpha).stream, row_of(alpha).path) == (before.stream, before.path)
    assert {"handshake", "frames", "moved"} & set(alpha.kinds()) == set()
    waits = [at - alpha.sent[int(payload.split()[1])] for at, payload in bravo.received if at > began]
    assert max(waits) < 0.05, "no packet waited"
    world.run(3.0)
    assert lost(alpha, bravo) == set()


def test_a_neighbour_that_sends_feedback_is_not_taken_for_gone_when_a_set_up_gets_no_answer() -> None:
    world, alpha, bravo = direct()
    flow(world, alpha, bravo, 8.0, every_s=0.01)
    world.run(3.0)
    before, links = row_of(alpha), set(alpha.endpoints)
    withhold_reports(bravo, 0.6)
    refuse_setups(bravo, 60.0)
    world.run(5.0)
    assert "direct: no answer of bravo came back (timeout)" in told(alpha, EventKind.FAILED)
    assert (row_of(alpha).stream, set(alpha.endpoints)) == (before.stream, links)
    world.run(3.0)
    assert lost(alpha, bravo) == set()


@pytest.mark.parametrize("line", [direct, one_relay])
def test_a_probe_refused_without_feedback_ends_the_route(line: Line) -> None:
    world, alpha, *_, bravo = line()
    flow(world, alpha, bravo, 6.0, every_s=0.01)
    world.run(3.0)
    withhold_reports(bravo, 60.0)
    refuse_setups(bravo, 0.01)
    assert world.run(2.0, until=lambda: "failed" in alpha.kinds()), world
    assert row_of(alpha).path is None


def route_of(alpha: Host, bravo: Host) -> int | None:
    return alpha.node._to._lives._destinations[bravo.node_id].sending.active.route


@pytest.mark.parametrize("line", [direct, one_relay])
@pytest.mark.parametrize("asked", [False, True])
def test_a_probe_confirmed_after_feedback_resumed_moves_the_stream_only_if_that_was_asked_for(
    line: Line, asked: bool
) -> None:
    world, alpha, *relays, bravo = line()
    flow(world, alpha, bravo, 7.0, every_s=0.01)
    world.run(3.0)
    before = route_of(alpha, bravo)
    alpha.events.clear()
    withhold_reports(bravo, 0.6)
    delay_setups(bravo, 0.5)
    assert world.run(1.0, until=lambda: "suspect" in alpha.kinds()), world
    if asked:
        alpha.node.move(bravo.node_id, tuple(relay.node_id for relay in relays), now=world.now)
        alpha.drain()
    world.run(3.0)
    assert (route_of(alpha, bravo) != before) == asked
    assert row_of(alpha).state == "flowing"
    assert len([route for route in alpha.node.status(now=world.now).routes if route.direction == "out"]) == 1
    assert "failed" not in alpha.kinds()
    world.run(3.0)
    assert lost(alpha, bravo) == set()


@pytest.mark.parametrize("line", [direct, one_relay])
def test_a_refresh_that_is_refused_is_tried_again_and_the_route_carries_on(line: Line) -> None:
    world, alpha, *_, bravo = line()
    flow(world, alpha, bravo, REFRESH_S + 30.0, every_s=2.0)
    world.run(REFRESH_S - 10.0)
    before, route = row_of(alpha), route_of(alpha, bravo)
    alpha.events.clear()
    refuse_setups(bravo, 0.0)
    world.run(20.0)
    assert alpha.kinds() == ["failed"] * 2
    assert route_of(alpha, bravo) == route
    del bravo.node.routes._receive_last_hop
    world.run(20.0)
    assert route_of(alpha, bravo) not in (route, None)
    kinds = [kind for kind in alpha.kinds() if kind != "rekey"]  # a key may be due meanwhile
    assert (row_of(alpha).stream, kinds) == (before.stream, ["failed"] * 2)
    assert lost(alpha, bravo) == set()
