"""A member is thrown out while real daemons run: its live ping stops everywhere, and it cannot come back.

gate --- br0 --- rod, kitchen, barn        gate made the realm; kitchen is revoked; barn is down meanwhile
"""

from __future__ import annotations

import re
import time

import pytest
from rig.enter import add_figures
from rig.topology import Daemon, Host, Lab, Process, Realm, wait_for

from conflux.cli.revoke import RevokedNodes

REVOKED_S_MAX = 5.0  # from the command to the last packet that is let in, on every node


class House:
    """The four hosts, their realm, and a ping between kitchen and rod in each direction."""

    def __init__(self, lab: Lab) -> None:
        lan = lab.lan()
        self.gate, self.rod, self.kitchen, self.barn = (
            lab.host(name, lan) for name in ("gate", "rod", "kitchen", "barn")
        )
        self.realm = lab.realm(self.gate, self.rod, self.kitchen, self.barn)
        self.address = {host.name: host.overlay_addresses()[1] for host in lab.hosts.values()}

    def daemon(self, host: Host) -> Daemon:
        return self.realm.daemons[host.name]

    def ping(self, host: Host, to: Host) -> Process:
        """Send five packets a second to a host until the lab ends."""
        return host.spawn("ping", "ping", "-D", "-n", "-i", "0.2", self.address[to.name])

    def id_of(self, host: Host) -> str:
        found = self.daemon(host).status().node.id
        return found


def reply_times(ping: Process) -> list[float]:
    """Return when each reply came, in Unix seconds."""
    return [float(at) for at in re.findall(r"^\[([0-9.]+)\] .* bytes from ", ping.output(), re.MULTILINE)]


def wait_for_replies(ping: Process, realm: Realm) -> None:
    wait_for(lambda: len(reply_times(ping)) > 5, "replies", within_s=20, logs=realm.logs())


def neighbours(daemon: Daemon) -> set[str]:
    return {each.name for each in daemon.status().control[0].neighbours}


@pytest.fixture
def house(lab: Lab) -> House:
    return House(lab)


def test_live_pings_of_a_revoked_node_stop_within_seconds_on_every_node(house: House) -> None:
    pings = [house.ping(house.kitchen, house.rod), house.ping(house.rod, house.kitchen)]
    pings.append(house.ping(house.kitchen, house.gate))
    for ping in pings:
        wait_for_replies(ping, house.realm)
    went_on = house.ping(house.rod, house.gate)
    wait_for_replies(went_on, house.realm)
    revoked_at = time.time()
    said = house.gate.conflux("realm", "revoke", "kitchen", "--reason", "stolen").stdout
    assert "kitchen" in said
    time.sleep(REVOKED_S_MAX + 3.0)
    late_s = max(max(reply_times(ping)) for ping in pings) - revoked_at
    add_figures("control.json", {"revoke_s": round(max(late_s, 0.0), 3)})
    assert late_s < REVOKED_S_MAX, house.realm.tails()
    assert max(reply_times(went_on)) > time.time() - 1.0  # a stream of others does not notice
    for host in (house.gate, house.rod, house.barn):
        status = house.daemon(host).status()
        assert "kitchen" not in neighbours(house.daemon(host))
        assert all("kitchen" not in (each.name, each.node) for each in status.links if each.link)
        assert all(each.name != "kitchen" for each in status.streams)
    warnings = house.daemon(house.kitchen).status().warnings
    assert any(warning.startswith("revoked: this node was revoked") and "stolen" in warning for warning in warnings)
    (row,) = house.barn.ask(RevokedNodes, "realm", "revoked").revoked
    assert (row.node, row.reason) == (house.id_of(house.kitchen), "stolen")


def test_revoked_node_stays_out_of_nodes_that_were_killed_or_away(house: House) -> None:
    kitchen_id = house.id_of(house.kitchen)
    house.daemon(house.barn).kill()  # a power cut, before the revocation
    house.gate.conflux("realm", "revoke", "kitchen")
    wait_for(
        lambda: neighbours(house.daemon(house.kitchen)) == set(), "kitchen alone", within_s=5, logs=house.realm.logs()
    )
    house.daemon(house.gate).kill()
    house.realm.restart(house.gate)  # what it signed is on its disk
    house.daemon(house.kitchen).kill()
    # kitchen forgets that it is revoked, as a thief would have it, and is there before barn, which was away.
    for kept in (house.kitchen.state / "state" / "lists").glob("*"):
        kept.unlink()
    house.realm.restart(house.kitchen)
    house.realm.restart(house.barn)
    knocking = house.ping(house.kitchen, house.barn)
    time.sleep(8.0)
    assert reply_times(knocking) == [], house.realm.tails()
    for host in (house.gate, house.rod, house.barn):
        assert "kitchen" not in neighbours(house.daemon(host))
        (row,) = host.ask(RevokedNodes, "realm", "revoked").revoked
        assert row.node == kitchen_id


def test_name_of_a_revoked_node_is_free_for_another_board(lab: Lab) -> None:
    lan = lab.lan()
    gate, kitchen, spare = (lab.host(name, lan) for name in ("gate", "kitchen", "spare"))
    realm: Realm = lab.realm(gate, kitchen)
    before = kitchen.overlay_addresses()
    gate.conflux("realm", "revoke", "kitchen", "--reason", "broken")
    spare.conflux("join", realm.invite(), "--name", "kitchen")
    realm.restart(spare)
    (row,) = gate.ask(RevokedNodes, "realm", "revoked").revoked
    assert row.reason == "broken"
    reply = gate.ping(spare.overlay_addresses()[1], "-c", "3", "-i", "0.3", "-W", "5")
    assert reply.lost == 0, realm.tails()
    gate.conflux("ping", "kitchen", "-c", "1")
    assert spare.overlay_addresses()[1] != before[1]
    realm.daemons["kitchen"].down()
    for name in ("realm.anchor", "realm.chain"):  # all but its keys
        (kitchen.state / "state" / name).unlink()
    refused = kitchen.conflux("join", realm.invite(), "--name", "pantry", check=False)
    assert refused.returncode == 1
    assert "new keys" in refused.stderr


def test_list_written_while_no_daemon_runs_is_told_when_it_starts(house: House) -> None:
    house.daemon(house.gate).down()
    said = house.gate.conflux("realm", "revoke", "kitchen").stdout
    assert "no daemon runs here" in said
    assert "kitchen" in neighbours(house.daemon(house.rod))
    house.realm.restart(house.gate)
    wait_for(
        lambda: "kitchen" not in neighbours(house.daemon(house.rod)),
        "the list at rod",
        within_s=10,
        logs=house.realm.logs(),
    )
