"""Real daemons on LANs that share only middle nodes: paths over relays, moved and healed under a live stream.

row   alpha ──a── rod ──m── ruth ──b── bravo
side  alpha ──a── rod ──b── bravo,  alpha ──a── ruth ──b── bravo

What was measured goes to build/lab_relays.json.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator
from typing import Any

import pytest
from rig.enter import deliver
from rig.joined_lans import SIDE_BY_SIDE, TWO_IN_A_ROW, JoinedLans
from rig.knowledge import Relay, dumpable, gained, node_facts, stream_fact
from rig.numbered import Numbered
from rig.topology import SETTINGS, Lab, Watch, wait_for

from conflux.control.presence import SOON_S_MAX

pytestmark = pytest.mark.alone

COLD_ROUNDS = 5
COLD_ONE_MS_MAX, COLD_TWO_MS_MAX = 300, 450  # what the project promises
RELAY_ADDS_MS_MAX = 5.0  # the project promises 1 ms; a test on a shared machine can ask for no more than this
HEALED_MS_MAX = 2000
MBIT = 10
ANNOUNCED_S = SOON_S_MAX + 0.5
SETTLE_S = 16.0  # answers are kept for 12 s, in case a request is repeated


@pytest.fixture(scope="module")
def figures() -> Iterator[dict[str, Any]]:
    """The figures of this file's tests, delivered at the end."""
    figures: dict[str, Any] = {}
    yield figures
    deliver("lab_relays.json", json.dumps(figures, indent=2) + "\n")


@pytest.fixture(scope="module")
def row() -> Iterator[JoinedLans]:
    """Two relays in a row."""
    lab = Lab(SETTINGS)
    yield JoinedLans(lab, TWO_IN_A_ROW)
    lab.close()


@pytest.fixture
def fresh_row() -> Iterator[JoinedLans]:
    """A row in which no packet was sent yet, whose daemons can be dumped, and whose relays have heard of both ends.

    A node announces itself once, soon after its start.  So the ends start anew when all the others are connected.
    """
    lab = Lab(SETTINGS)
    wrapped = {name: dumpable(lab.state / name) for name in ("alpha", "rod", "ruth")}
    row = JoinedLans(lab, TWO_IN_A_ROW, wrapped)
    for name in ("alpha", "bravo"):
        row.realm.daemons[name].down()
        row.realm.restart(row[name], *wrapped.get(name, ()))
    row.await_joined()
    row["alpha"].run("sleep", str(ANNOUNCED_S), within_s=ANNOUNCED_S + 10)
    yield row
    lab.close()


@pytest.fixture(scope="module")
def side() -> Iterator[JoinedLans]:
    """Two relays side by side."""
    lab = Lab(SETTINGS)
    yield JoinedLans(lab, SIDE_BY_SIDE)
    lab.close()


# ── a row of two ──


def test_without_conflux_nothing_passes(row: JoinedLans) -> None:
    for address in row["bravo"].addresses:
        assert row["alpha"].run("ping", "-c", "1", "-W", "1", address, check=False).returncode


def test_two_relays_in_a_row_carry_ipv6_ipv4_and_tcp(row: JoinedLans, figures: dict[str, Any]) -> None:
    alpha, bravo = row["alpha"], row["bravo"]
    ipv4, ipv6 = bravo.overlay_addresses()
    for address in (ipv6, ipv4):
        row.await_idle()
        assert alpha.ping(address, "-c", "3", "-i", "0.2", "-W", "5").lost == 0, row.realm.tails()
        assert row.path("alpha", "bravo") == ["rod", "ruth"]
    assert alpha.ping(ipv6, "-c", "2", "-s", "4000", "-W", "5").lost == 0
    figures["throughput_relay2_mbit"] = round(alpha.iperf3(bravo, ipv6, seconds=3), 2)
    assert figures["throughput_relay2_mbit"] > 1.0
    assert alpha.iperf3(bravo, ipv4, "--reverse", seconds=2) > 1.0


def test_a_cold_first_ping_is_answered_in_time(row: JoinedLans, figures: dict[str, Any]) -> None:
    for what, to, limit_ms in (("one", "ruth", COLD_ONE_MS_MAX), ("two", "bravo", COLD_TWO_MS_MAX)):
        times_ms: list[float] = []
        address = row[to].overlay_addresses()[1]
        for _ in range(COLD_ROUNDS):
            row.await_idle()
            reply = row["alpha"].ping(address, "-c", "1", "-W", "5")
            assert reply.lost == 0, row.realm.tails()
            times_ms += reply.times_ms
        figures[f"cold_{what}_ms"] = times_ms
        assert statistics.median(times_ms) < limit_ms, times_ms


def test_a_relay_adds_little_to_a_warm_ping(row: JoinedLans, figures: dict[str, Any]) -> None:
    times_ms: dict[str, list[float]] = {"rod": [], "ruth": [], "bravo": []}
    for _ in range(3):  # in turns, so that other load of the machine falls on all alike
        for to, times in times_ms.items():
            reply = row["alpha"].ping(row[to].overlay_addresses()[1], "-c", "40", "-i", "0.02", "-W", "5")
            times += reply.times_ms[5:]
    direct, one, two = (statistics.median(times) for times in times_ms.values())
    figures["warm_ms"] = {"direct": direct, "one": one, "two": two}
    figures["relay_adds_ms"] = round((two - direct) / 2, 3)
    assert figures["relay_adds_ms"] < RELAY_ADDS_MS_MAX, figures["warm_ms"]


def test_what_two_relays_hold_and_tell_pairs_no_ends_and_names_no_stream(
    fresh_row: JoinedLans, figures: dict[str, Any]
) -> None:
    row = fresh_row
    watched = {name: Watch(row[name]) for name in ("alpha", "rod", "ruth")}
    for watch in watched.values():
        wait_for(watch.connected, "conflux watch connecting", within_s=5)
    relays = {name: Relay(row[name], row.realm.daemons[name], watch) for name, watch in watched.items()}
    row.speak("alpha", "bravo")
    before = {name: relay.look() for name, relay in relays.items()}
    flow = row["alpha"].spawn("stream", "ping", "-n", "-i", "0.05", row["bravo"].overlay_addresses()[1])
    row["alpha"].run("sleep", str(SETTLE_S), within_s=SETTLE_S + 10)
    streams = [
        stream_fact(f"the stream of {one} to {other}", row.stream(one, other).stream)
        for one, other in (("alpha", "bravo"), ("bravo", "alpha"))
    ]
    answers = flow.output().count("time=")
    after = {name: relay.look() for name, relay in relays.items()}
    remembered = [finding for name in ("rod", "ruth") for finding in relays[name].remembers(streams)]
    for name in ("rod", "ruth"):
        assert len(row[name].status().relays) == 2
    wait_for(lambda: flow.output().count("time=") > answers, "the stream flowing on", within_s=5)
    flow.kill()
    facts = {name: node_facts(row.nodes[name]) for name in ("alpha", "bravo")}

    # The ends know it, so the search would have found it in a relay too.
    alpha = gained("alpha", before["alpha"], after["alpha"], facts["alpha"], facts["bravo"], streams)
    assert sum("stream of" in finding for finding in alpha) >= 4, alpha
    assert any("pairs both ends" in finding for finding in alpha), alpha
    assert all(after["rod"].dump.holding(fact) for fact in facts["alpha"]), "rod knows its neighbour"

    leaks = gained("rod", before["rod"], after["rod"], facts["alpha"], facts["bravo"], streams)
    leaks += gained("ruth", before["ruth"], after["ruth"], facts["bravo"], facts["alpha"], streams)
    leaks += remembered
    figures["relay_leaks"] = len(leaks)
    assert leaks == []


# ── two side by side ──


@pytest.fixture
def quiet(side: JoinedLans) -> JoinedLans:
    """Both relays are up, and nothing flows."""
    for name in ("rod", "ruth"):
        if side.realm.daemons[name].exit_code is not None:
            side.realm.restart(side[name])
    side.await_joined()
    side.await_idle(60)
    return side


def test_one_relay_carries_ipv6_ipv4_and_tcp(quiet: JoinedLans, figures: dict[str, Any]) -> None:
    alpha, bravo = quiet["alpha"], quiet["bravo"]
    ipv4, ipv6 = bravo.overlay_addresses()
    for address in (ipv6, ipv4):
        assert alpha.ping(address, "-c", "3", "-i", "0.2", "-W", "5").lost == 0, quiet.realm.tails()
    assert len(quiet.path("alpha", "bravo")) == 1
    figures["throughput_relay_mbit"] = round(alpha.iperf3(bravo, ipv6, seconds=3), 2)
    assert figures["throughput_relay_mbit"] > 1.0
    assert alpha.iperf3(bravo, ipv4, "--reverse", seconds=2) > 1.0


def test_a_planned_move_loses_nothing(quiet: JoinedLans, figures: dict[str, Any]) -> None:
    address = quiet["bravo"].overlay_addresses()[1]
    assert quiet["alpha"].ping(address, "-c", "1", "-W", "5").lost == 0
    flow = Numbered(quiet["alpha"], quiet["bravo"], address, mbit=MBIT, seconds=8)
    took_ms = []
    stream = quiet.stream("alpha", "bravo").stream
    for _ in range(3):
        (relay,) = quiet.path("alpha", "bravo")
        other = "ruth" if relay == "rod" else "rod"
        took_ms.append(quiet.move("alpha", "bravo", other))
        assert quiet.path("alpha", "bravo") == [other]
    assert not flow.ended(), "the moves took longer than the packets"
    assert quiet.stream("alpha", "bravo").stream == stream
    account = flow.account()
    figures |= {"move_ms": took_ms, "moved_packets": len(account.sent_at), "move_lost_packets": len(account.lost)}
    assert (account.lost, account.repeated) == ([], 0), quiet.realm.tails()


def test_each_direction_keeps_its_own_relay(quiet: JoinedLans) -> None:
    alpha, bravo = quiet["alpha"], quiet["bravo"]
    flow = alpha.spawn("stream", "ping", "-n", "-i", "0.05", bravo.overlay_addresses()[1])
    wait_for(lambda: flow.output().count("time=") > 5, "a stream", within_s=10, logs=quiet.realm.logs())
    for one, other, wanted in (("alpha", "bravo", "rod"), ("bravo", "alpha", "ruth")):
        if quiet.path(one, other) != [wanted]:
            quiet.move(one, other, wanted)
    assert (quiet.path("alpha", "bravo"), quiet.path("bravo", "alpha")) == (["rod"], ["ruth"])
    answers = flow.output().count("time=")
    wait_for(lambda: flow.output().count("time=") > answers + 40, "answers", within_s=10, logs=quiet.realm.logs())
    for relay, before, ahead in (("rod", "alpha", "bravo"), ("ruth", "bravo", "alpha")):
        (route,) = quiet[relay].status().relays
        assert (route.before.name, route.ahead.name) == (before, ahead)
        assert route.ahead_frames > 30
    flow.kill()


@pytest.mark.parametrize("end", ["killed", "unplugged"])
def test_a_lost_relay_is_replaced_in_time_under_the_same_stream(
    quiet: JoinedLans, figures: dict[str, Any], end: str
) -> None:
    address = quiet["bravo"].overlay_addresses()[1]
    assert quiet["alpha"].ping(address, "-c", "1", "-W", "5").lost == 0
    flow = Numbered(quiet["alpha"], quiet["bravo"], address, mbit=MBIT, seconds=7)
    wait_for(lambda: quiet.stream("alpha", "bravo").frames > 500, "packets flowing", within_s=5)
    stream, (relay,) = quiet.stream("alpha", "bravo").stream, quiet.path("alpha", "bravo")
    lost_at = time.monotonic()
    if end == "killed":
        quiet.realm.daemons[relay].kill()
    else:
        quiet[relay].unplug()
    other = "ruth" if relay == "rod" else "rod"
    wait_for(lambda: quiet.path("alpha", "bravo") == [other], "another path", within_s=5, logs=quiet.realm.logs())
    assert quiet.stream("alpha", "bravo").stream == stream
    account = flow.account()
    healed_ms = account.healed_ms(lost_at)
    figures[f"heal_{end}"] = {
        "healed_ms": round(healed_ms),
        "lost_packets": len(account.lost),
        "sent_packets": len(account.sent_at),
    }
    quiet[relay].plug_in()
    assert healed_ms < HEALED_MS_MAX, quiet.realm.tails()
    assert len(account.lost) < HEALED_MS_MAX / 1000 * MBIT * 1e6 / 8 / 1200
