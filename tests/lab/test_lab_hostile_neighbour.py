"""A hostile device on the LAN of two members, and one on another network of the first.

outside ─ wan ─ alpha ─┬─ home ─┬─ bravo          alpha uses eth0, the home network, alone
                                └─ mallory: a member whose program is another one, and an outsider's tools
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import pytest
from rig.enter import TREE
from rig.topology import Host, Lab, LabFailure, Process, Realm, wait_for

from conflux.control.lan.handshake import realm_tag
from conflux.state.directory import StateDir

PORT = 7464
PYTHON = TREE / ".venv" / "bin" / "python"
TOOL = TREE / "tests" / "lab" / "rig" / "hostile.py"
LINE_CHARS_MAX = 400


@dataclass(frozen=True)
class Street:
    """Two members at home, and those who mean them harm."""

    alpha: Host
    bravo: Host
    mallory: Host
    outside: Host
    realm: Realm

    def attack(self, what: str, *arguments: object, host: Host | None = None) -> Process:
        """Let a host do something until it is killed."""
        found = (host or self.mallory).spawn(what, PYTHON, TOOL, what, *map(str, arguments))
        if what != "announce":
            wait_for(lambda: found.output(), f"the tool for {what}", within_s=10, logs=(found,))
        return found

    @property
    def tag(self) -> str:
        """What anybody reads in the members' announcements."""
        member = StateDir.open(self.alpha.state / "state").member()
        assert member is not None
        return realm_tag(member.realm_id).hex()

    def neighbours(self, host: Host) -> list[str]:
        """Return the names of a host's neighbours."""
        channels = self.realm.daemons[host.name].status().control
        return [neighbour.name for channel in channels for neighbour in channel.neighbours]


@pytest.fixture(scope="module")
def street(shared_lab: Lab) -> Street:
    home, wan = shared_lab.lan("home"), shared_lab.lan("wan")
    alpha, bravo, mallory = (shared_lab.host(name, home) for name in ("alpha", "bravo", "mallory"))
    wan.attach(alpha)
    outside = shared_lab.host("outside", wan)
    alpha.configure({"control.lan": {"interfaces": ["eth0"]}, "node": {"log_level": "info"}})
    realm = shared_lab.realm(alpha, bravo)
    mallory.conflux("join", realm.invite(), "--name", "mallory")
    return Street(alpha, bravo, mallory, outside, realm)


@pytest.mark.parametrize("kind", ["bridge", "ping", "envelope"])
def test_frames_of_a_member_without_end_delay_neither_status_nor_another_stream(street: Street, kind: str) -> None:
    target = street.alpha.overlay_addresses()[1]
    assert street.bravo.ping(target, "-c", "2", "-i", "0.2", "-W", "5").received
    flood = street.attack("flood", f"{street.mallory.state}/state", street.alpha.addresses[0], kind)
    wait_for(lambda: "neighbour of alpha" in flood.output(), "mallory as a neighbour", within_s=10, logs=(flood,))
    reply = street.bravo.ping(target, "-c", "10", "-i", "0.2", "-W", "3")
    begun = time.monotonic()
    status = street.realm.daemons["alpha"].status()
    assert time.monotonic() - begun < 5  # 20 s and more before; starting the command takes most of it
    assert reply.received == 10, street.realm.tails()
    assert max(reply.times_ms) < 1000
    if kind == "envelope":
        assert status.drops["flood"] > 0
        flood.kill()
    else:
        flood.wait(10)
        assert "neighbour mallory lost: it says too much (flood)" in street.realm.daemons["alpha"].output()


def test_a_liar_that_is_announced_fills_no_log_and_only_addresses_on_the_link_are_dialled(street: Street) -> None:
    daemon, own = street.realm.daemons["alpha"], street.mallory.addresses[0]
    service = street.attack("listen", "127.0.0.1", 6667, host=street.bravo)  # which uses all its interfaces
    liar = street.attack("lie", own, 7777)
    before = len(daemon.output())
    inward = street.attack("announce", own, street.tag, "127.0.0.1", 6667, 5)
    time.sleep(1.0)  # they come before those of the liar
    many = street.attack("announce", own, street.tag, own, 7777, 50)
    wait_for(lambda: "knock" in liar.output(), "a dial of the liar", within_s=15, logs=(daemon, liar))
    wait_for(
        lambda: daemon.status().drops.get("left-alone", 0) > 20, "the liar left alone", within_s=15, logs=(daemon,)
    )
    knocks = liar.output().count("knock")
    written = daemon.output()[before:]
    for process in (service, liar, inward, many):
        process.kill()
    assert "knock" not in service.output()
    assert knocks <= 20  # two nodes at home, each after 1, 2, 4, 8 s
    assert len(written) < 20_000
    assert max(map(len, written.splitlines())) <= LINE_CHARS_MAX


def test_an_address_added_to_the_members_names_keeps_them_apart_no_longer_than_a_moment(street: Street) -> None:
    own = street.mallory.addresses[0]
    street.realm.daemons["bravo"].down()
    stalls, adds = street.attack("listen", own, PORT), street.attack("add", own, own)
    daemon = street.realm.restart(street.bravo)
    wait_for(lambda: street.neighbours(street.bravo) == ["alpha"], "alpha", within_s=10, logs=(daemon, adds))
    assert street.bravo.ping(street.alpha.overlay_addresses()[1], "-c", "2", "-i", "0.2", "-W", "5").received == 2
    for process in (stalls, adds):
        process.kill()


def test_an_interface_that_is_not_named_hears_no_connection_and_no_link_offers_it(street: Street) -> None:
    knock = "import socket, sys; socket.create_connection((sys.argv[1], 7464), 3)"
    for address in street.alpha.addresses[2:]:
        with pytest.raises(LabFailure, match="Connection refused"):
            street.outside.run(PYTHON, "-c", knock, address)
    street.outside.run("ip", "route", "add", f"{street.alpha.addresses[0]}/32", "via", street.alpha.addresses[2])
    with pytest.raises(LabFailure, match="Connection refused"):  # the host takes packets for any of its addresses
        street.outside.run(PYTHON, "-c", knock, street.alpha.addresses[0])
    listening = street.alpha.run("ss", "-ltnH").stdout
    ours = [line.split()[3] for line in listening.splitlines() if f":{PORT}" in line]
    assert ours
    assert all("%eth0" in address for address in ours)
    street.mallory.run(PYTHON, "-c", knock, street.alpha.addresses[0])
    assert street.bravo.ping(street.alpha.overlay_addresses()[1], "-c", "1", "-W", "5").received
    udp = street.alpha.run("ss", "-lunpH").stdout
    bound = [line.split()[3] for line in udp.splitlines() if "conflux" in line]
    assert any(address.startswith("10.7.1.") for address in bound)
    assert not any(address.startswith(("10.7.2.", "[fd00:7:2:")) for address in bound), bound
