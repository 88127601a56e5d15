"""A site whose board has no way out: its bridge box joins the LAN and the broker, and relays what the board sends.

alpha ── afar ── broker ── uplink ── gate ── site ── bravo

alpha made the realm.  The broker's host is the router between afar and uplink.  gate has the capability "bridge" and
forwards no IP; bravo has no route but to its LAN, so whatever leaves it was carried by gate.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from kit.figures import note
from rig.broker import Broker, broker_detail, is_on_broker, until_on_broker
from rig.topology import SETTINGS, Host, Lab, Realm, wait_for

from conflux.api.rows import ChannelRow, Streams
from conflux.cli.members import Members

JOIN_S_MAX = 10.0  # of a machine that runs other things too
ANSWER_MS_MAX = 5000.0


class Site:
    """The hosts, their realm, and its broker."""

    def __init__(self, lab: Lab) -> None:
        afar, uplink, site = lab.lan("afar"), lab.lan("uplink"), lab.lan("site")
        self.alpha, self.server = lab.host("alpha", afar), lab.host("broker", afar, uplink)
        self.gate, self.bravo = lab.host("gate", uplink, site), lab.host("bravo", site)
        self.server.run("sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
        for host, near in ((self.alpha, 0), (self.gate, 2)):
            host.run("ip", "route", "add", "default", "via", self.server.addresses[near])
        self.realm = Realm(self.alpha)
        self.broker = Broker(self.alpha, self.server)
        self.broker.start()
        until_on_broker(self.realm, self.alpha)
        self.realm.admit(self.gate, self.realm.invite(1, "--capability", "bridge"))
        until_on_broker(self.realm, self.gate)
        token, began = self.realm.invite(), time.monotonic()
        self.bravo.conflux("join", token, "--name", "bravo")
        self.joined_s = time.monotonic() - began
        self.realm.restart(self.bravo)
        self.await_bridge()
        self.gate_id = self.realm.daemons["gate"].status().node.id

    def lan(self, host: Host) -> ChannelRow:
        """Return what a host's status says of its LANs."""
        rows = self.realm.daemons[host.name].status().control
        return next(row for row in rows if row.name == "lan")

    def await_bridge(self, *, there: bool = True) -> None:
        """Wait until bravo has a neighbour that joins its LAN and something else, gate; or has none."""
        expected = {"gate": True} if there else {}
        wait_for(
            lambda: {each.name: each.bridging for each in self.lan(self.bravo).neighbours} == expected,
            f"bravo's neighbours: {expected}",
            within_s=50,
            logs=self.realm.logs(),
        )

    def paths(self, host: Host) -> list[list[str]]:
        """Return the relays of every stream of a host that leads anywhere."""
        rows = host.ask(Streams, "streams").streams
        paths = [row.path[:-1] for row in rows if row.direction == "out" and row.path]
        return [["gate" if hop == self.gate_id else hop for hop in path] for path in paths]  # by name, or by id

    def reaches(self, sender: Host, receiver: Host) -> float:
        """Ping by both addresses; return the milliseconds of the first answer."""
        ipv4, ipv6 = receiver.overlay_addresses()
        first_ms = sender.first_answer_ms(ipv6)
        assert first_ms < ANSWER_MS_MAX, self.realm.tails()
        for address in (ipv6, ipv4):
            assert sender.ping(address, "-c", "3", "-i", "0.2", "-W", "5").lost == 0, self.realm.tails()
        return first_ms


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """The site, for all tests of this file."""
    lab = Lab(SETTINGS)
    yield Site(lab)
    lab.close()


def test_board_without_a_way_out_joins_by_the_bridge_box(site: Site) -> None:
    note("join_by_bridge_s", site.joined_s)
    assert site.joined_s < JOIN_S_MAX
    answer = site.bravo.run("ping", "-n", "-c", "1", "-W", "1", site.server.addresses[2], check=False)
    assert answer.returncode != 0, "bravo has a way out"
    names = {row.name for row in site.alpha.ask(Members, "realm", "members").members}
    assert names == {"alpha", "gate", "bravo"}


def test_board_and_a_member_afar_reach_each_other_by_the_box_as_relay(site: Site) -> None:
    note("first_packet_to_behind_bridge_ms", site.reaches(site.alpha, site.bravo))
    flow = site.alpha.spawn("flow", "ping", "-n", "-i", "0.2", site.bravo.overlay_addresses()[1])
    assert site.paths(site.alpha) == [["gate"]], site.realm.tails()
    assert site.paths(site.bravo) == [["gate"]], site.realm.tails()
    flow.kill()
    site.realm.await_idle(within_s=25)
    note("first_packet_from_behind_bridge_ms", site.reaches(site.bravo, site.alpha))


def test_status_says_who_joins_what_and_who_has_no_way_to_the_broker(site: Site) -> None:
    assert site.lan(site.gate).detail.endswith(", joins eth1 and the broker")
    assert is_on_broker(site.realm, site.gate)
    assert not is_on_broker(site.realm, site.bravo)
    assert "unreachable" in broker_detail(site.realm, site.bravo)
    assert not site.lan(site.alpha).neighbours


def test_without_the_box_nothing_passes_and_everything_does_when_it_is_back(site: Site) -> None:
    address = site.bravo.overlay_addresses()[1]
    site.realm.daemons["gate"].kill()
    site.await_bridge(there=False)
    assert site.alpha.ping(address, "-c", "3", "-i", "0.2", "-W", "3").lost == 3
    assert site.paths(site.alpha) == []

    site.realm.restart(site.gate)
    until_on_broker(site.realm, site.gate)
    site.await_bridge()
    began = time.monotonic()
    site.reaches(site.alpha, site.bravo)
    note("bridge_back_s", time.monotonic() - began)
    site.reaches(site.bravo, site.alpha)
    assert site.lan(site.gate).detail.endswith(", joins eth1 and the broker")
