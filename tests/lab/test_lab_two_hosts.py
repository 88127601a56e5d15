"""Two hosts on one LAN, end to end.

alpha --- br0 --- bravo
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from rig.gauge import Count
from rig.topology import SETTINGS, Host, Lab, Watch, wait_for

from conflux.api.rows import Links, Streams
from conflux.shell.feed import EventRow

pytestmark = pytest.mark.alone

IDLE_WITHIN_S = SETTINGS["stream"]["idle_timeout"] + 5.0  # what the project promises


class Pair:
    """Two hosts on one LAN, in one realm."""

    def __init__(self, lab: Lab) -> None:
        lan = lab.lan()
        self.alpha = lab.host("alpha", lan)
        self.bravo = lab.host("bravo", lan)
        for host in (self.alpha, self.bravo):
            host.count_data_plane()
        self.realm = lab.realm(self.alpha, self.bravo)
        self.bravo_ipv4, self.bravo_ipv6 = self.bravo.overlay_addresses()

    def await_idle(self) -> None:
        """Wait until neither daemon has a data-plane socket."""
        self.realm.await_idle(within_s=IDLE_WITHIN_S)

    def carried(self) -> list[Count]:
        """Return what each host's data plane has carried."""
        return [host.data_plane() for host in (self.alpha, self.bravo)]


@pytest.fixture(scope="module")
def pair(shared_lab: Lab) -> Pair:
    """The pair, for every test of this file."""
    return Pair(shared_lab)


@pytest.fixture(autouse=True)
def _every_test_starts_from_nothing(pair: Pair) -> None:
    pair.await_idle()


def test_the_first_packet_is_answered_in_ipv6_and_in_ipv4(pair: Pair) -> None:
    for address in (pair.bravo_ipv6, pair.bravo_ipv4):
        pair.await_idle()
        reply = pair.alpha.ping(address, "-c", "1", "-W", "5")
        assert reply.lost == 0, pair.realm.tails()


def test_the_answer_to_a_first_packet_waits_for_no_handshake(pair: Pair) -> None:
    watch = Watch(pair.bravo)
    wait_for(watch.connected, "conflux watch connecting", within_s=5)
    waited_s: list[float] = []
    while 0 not in waited_s:  # on a busy machine the answer may come first
        assert len(waited_s) < 10, waited_s
        pair.await_idle()
        assert pair.alpha.ping(pair.bravo_ipv6, "-c", "1", "-W", "5").lost == 0, pair.realm.tails()
        events: list[EventRow] = []
        while "frames" not in [event.event for event in events]:
            events += wait_for(watch.new, "packets of bravo", within_s=5, logs=pair.realm.logs())
        waited_s += [(event.took_ms or 0.0) / 1e3 for event in events if event.event == "handshake"]


def test_both_sides_may_start_at_the_same_moment(pair: Pair) -> None:
    alpha_ipv6 = pair.alpha.overlay_addresses()[1]
    pings = [
        pair.alpha.spawn("ping", "ping", "-n", "-c", "20", "-i", "0.02", "-W", "5", pair.bravo_ipv6),
        pair.bravo.spawn("ping", "ping", "-n", "-c", "20", "-i", "0.02", "-W", "5", alpha_ipv6),
    ]
    for ping in pings:
        ping.wait(15)
        assert " 0% packet loss" in ping.output(), ping.tail() + pair.realm.tails()


def test_threads_that_decide_get_priority_if_allowed_and_those_that_move_packets_do_not(pair: Pair) -> None:
    may = pair.alpha.run("nice", "-n", "-1", "nice").stdout.strip() == "-1"  # not as root of a user namespace
    for daemon in pair.realm.daemons.values():
        tasks = list(Path(f"/proc/{daemon.pid}/task").iterdir())
        nice = {(task / "comm").read_text().strip(): os.getpriority(os.PRIO_PROCESS, int(task.name)) for task in tasks}
        assert nice.pop("conflux-engine") == 0
        assert set(nice.values()) == {-10 if may else 0}


def test_no_packet_is_lost_or_overtaken_while_the_link_comes_up(pair: Pair) -> None:
    reply = pair.alpha.ping(pair.bravo_ipv6, "-c", "100", "-i", "0.003", "-W", "5")
    assert reply.lost == 0, pair.realm.tails()
    assert list(reply.numbers) == sorted(reply.numbers)


def test_large_packets_pass_in_fragments(pair: Pair) -> None:
    assert pair.alpha.ping(pair.bravo_ipv6, "-c", "3", "-i", "0.2", "-s", "4000", "-W", "5").lost == 0


def test_tcp_passes_both_ways(pair: Pair) -> None:
    assert pair.alpha.iperf3(pair.bravo, pair.bravo_ipv6, seconds=2) > 1.0
    assert pair.alpha.iperf3(pair.bravo, pair.bravo_ipv4, "--reverse", seconds=2) > 1.0


def test_conflux_ping_finds_a_node_by_its_name(pair: Pair) -> None:
    done = pair.alpha.conflux("ping", "bravo", "-c", "2", "-i", "0.2")
    assert "bravo" in done.stdout


def test_another_program_pings_while_conflux_ping_runs(pair: Pair) -> None:
    other = pair.alpha.spawn("other", "ping", "-n", "-c", "20", "-i", "0.05", "-W", "5", pair.bravo_ipv6)
    pair.alpha.conflux("ping", "bravo", "-c", "5", "-i", "0.2")
    other.wait(15)
    assert " 0% packet loss" in other.output(), other.tail() + pair.realm.tails()


def test_idle_leaves_no_socket_no_stream_no_link_and_no_byte(pair: Pair) -> None:
    assert pair.alpha.ping(pair.bravo_ipv6, "-c", "3", "-i", "0.1").lost == 0
    assert any(daemon.sockets() for daemon in pair.realm.daemons.values())
    pair.await_idle()
    before = pair.carried()
    for host in (pair.alpha, pair.bravo):
        assert host.ask(Streams, "streams").streams == ()
        assert host.ask(Links, "links").links == ()
    # That nothing happens can only be shown by waiting.  A forgotten link would check for consent within 24 s.
    assert pair.alpha.run("sleep", "25").returncode == 0
    assert pair.carried() == before


def test_a_killed_peer_is_noticed_and_traffic_flows_again_when_it_returns(pair: Pair) -> None:
    stream = pair.alpha.spawn("stream", "ping", "-n", "-i", "0.05", pair.bravo_ipv6)

    def answers() -> int:
        return stream.output().count("time=")

    wait_for(lambda: answers() > 10, "a running stream", within_s=10, logs=pair.realm.logs())
    pair.realm.daemons["bravo"].kill()
    alpha = pair.realm.daemons["alpha"]
    wait_for(lambda: not alpha.sockets(), "alpha letting go of the dead link", within_s=20, logs=(alpha,))
    pair.realm.restart(pair.bravo)
    before = answers()
    wait_for(lambda: answers() > before + 5, "traffic after bravo's return", within_s=20, logs=pair.realm.logs())
    stream.kill()


def test_a_cable_pulled_for_seconds_is_survived(pair: Pair) -> None:
    stream = pair.alpha.spawn("stream", "ping", "-n", "-i", "0.05", pair.bravo_ipv6)

    def answers() -> int:
        return stream.output().count("time=")

    wait_for(lambda: answers() > 10, "a running stream", within_s=10, logs=pair.realm.logs())
    pair.bravo.unplug()
    silent_since = answers()
    pair.alpha.run("sleep", "3")
    assert answers() <= silent_since + 2
    pair.bravo.plug_in()
    wait_for(lambda: answers() > silent_since + 7, "traffic after the pull", within_s=30, logs=pair.realm.logs())
    stream.kill()


def test_noise_on_the_data_plane_is_survived(pair: Pair) -> None:
    stream = pair.alpha.spawn("stream", "ping", "-n", "-i", "0.02", "-c", "150", pair.bravo_ipv6)
    daemon = pair.realm.daemons["alpha"]
    ports = wait_for(
        lambda: {int(address.rsplit(":", 1)[1], 16) for address in daemon.sockets()},
        "a data-plane socket on alpha",
        within_s=5,
        logs=pair.realm.logs(),
    )
    noise = (
        "import os, socket\n"
        "family = socket.AF_INET6 if ':' in '{address}' else socket.AF_INET\n"
        "with socket.socket(family, socket.SOCK_DGRAM) as sender:\n"
        "    for size in (0, 1, 12, 20, 100, 1200) * 50:\n"
        "        for port in {ports}:\n"
        "            sender.sendto(os.urandom(size), ('{address}', port))\n"
    )
    for address in pair.alpha.addresses:
        pair.bravo.run("python", "-c", noise.format(address=address, ports=ports))
    stream.wait(20)
    assert " 0% packet loss" in stream.output(), stream.tail() + pair.realm.tails()
    assert "Traceback" not in daemon.output()


def test_a_peer_that_falls_silent_is_suspected_in_a_second_and_let_go(pair: Pair) -> None:
    stream = pair.alpha.spawn("stream", "ping", "-n", "-i", "0.05", pair.bravo_ipv6)
    wait_for(lambda: stream.output().count("time=") > 10, "a stream", within_s=10, logs=pair.realm.logs())
    watch = Watch(pair.alpha)
    wait_for(watch.connected, "conflux watch connecting", within_s=5)
    events: list[str] = []

    def happened(*kinds: str) -> bool:
        events.extend(event.event for event in watch.new())
        return any(kind in events for kind in kinds)

    pair.bravo.unplug()
    wait_for(lambda: happened("suspect"), f"suspicion, among {events}", within_s=2, logs=pair.realm.logs())
    alpha = pair.realm.daemons["alpha"]
    pings = stream.output()
    stream.kill()
    wait_for(lambda: not alpha.sockets(), "alpha letting go of the link", within_s=40, logs=(alpha,))
    pair.bravo.plug_in()
    assert pings.count("time=") >= 10
    wait_for(
        lambda: pair.alpha.ping(pair.bravo_ipv6, "-c", "1", "-W", "2").received,
        "an answer after the peer's return",
        within_s=20,
        logs=pair.realm.logs(),
    )


def test_sigterm_leaves_no_device_and_no_route(pair: Pair) -> None:
    pair.realm.daemons["bravo"].down()
    assert "conflux0" not in all_links_and_routes(pair.bravo)
    pair.realm.restart(pair.bravo)


def test_sigkill_leaves_no_device_and_no_route(pair: Pair) -> None:
    pair.realm.daemons["bravo"].kill()
    assert "conflux0" not in all_links_and_routes(pair.bravo)
    pair.realm.restart(pair.bravo)
    reply = pair.alpha.ping(pair.bravo_ipv6, "-c", "2", "-i", "0.5", "-W", "5")
    assert reply.received, pair.realm.tails()


def all_links_and_routes(host: Host) -> str:
    return host.run("sh", "-c", "ip link; ip route; ip -6 route").stdout
