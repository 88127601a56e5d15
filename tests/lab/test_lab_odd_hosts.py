"""Hosts that are not as one expects: what they use already, what they lack.

alpha --- br0 --- bravo
"""

from __future__ import annotations

import subprocess
from contextlib import suppress

from rig.topology import Lab, Realm

REALM = "10.7.0.0/16"  # the LAN is 10.7.1.0/24


def test_a_realm_that_covers_the_lan_leaves_the_lan_alone_and_works_by_ipv6(lab: Lab) -> None:
    lan = lab.lan()
    alpha, bravo = lab.host("alpha", lan), lab.host("bravo", lan)
    refused = alpha.conflux("realm", "create", "lab", "--node", "alpha", "--ipv4", REALM, check=False)
    assert (refused.returncode, "overlaps 10.7.1." in refused.stderr) == (1, True), refused.stderr
    alpha.run("ip", "addr", "flush", "dev", "eth0", "scope", "global")
    alpha.conflux("realm", "create", "lab", "--node", "alpha", "--ipv4", REALM)  # away from that LAN it may be
    alpha.run("ip", "addr", "add", f"{alpha.addresses[0]}/24", "brd", "+", "dev", "eth0")
    alpha.run("ip", "addr", "add", f"{alpha.addresses[1]}/64", "dev", "eth0", "nodad")
    realm = Realm(alpha, created=True)
    joined = bravo.conflux("join", realm.invite(), "--name", "bravo")
    assert "warning: ipv4-collides" in joined.stderr
    realm.restart(bravo)
    for host, other in ((alpha, bravo), (bravo, alpha)):
        assert any("ipv4-collides" in warning for warning in host.status().warnings)
        assert host.ping(other.addresses[0], "-c", "1", "-W", "2").received == 1, "the LAN's IPv4 is cut off"
        assert host.conflux("ping", other.name, "-c", "1", check=False).returncode == 0, realm.tails()


def test_a_lease_inside_the_realm_has_the_daemon_start_anew_and_leave_the_lan_alone(lab: Lab) -> None:
    """As systemd does after exit code 75, the lab starts it again: now it names the network and leaves IPv4 out."""
    lan = lab.lan()
    alpha, bravo = lab.host("alpha", lan), lab.host("bravo", lan)
    for host in (alpha, bravo):
        host.run("ip", "-4", "addr", "flush", "dev", "eth0")
    alpha.conflux("realm", "create", "lab", "--node", "alpha", "--ipv4", REALM)
    realm = Realm(alpha, created=True)
    realm.admit(bravo, realm.invite())
    leases = {host.name: (host, f"10.7.200.{number}") for number, host in enumerate((alpha, bravo), 1)}
    for host, address in leases.values():
        host.run("ip", "addr", "add", f"{address}/24", "brd", "+", "dev", "eth0")
    for name, (host, _) in leases.items():
        daemon = realm.daemons[name]
        assert daemon.wait(10) == 75, daemon.tail()
        assert "10.7.200.0/24 on eth0 lies in the realm's prefix 10.7.0.0/16" in daemon.output()
        realm.restart(host)
    for name, (host, _) in leases.items():
        other, address = leases["bravo" if name == "alpha" else "alpha"]
        assert host.ping(address, "-c", "1", "-W", "2").received == 1, "the LAN's IPv4 is cut off"
        assert host.conflux("ping", other.name, "-c", "1", check=False).returncode == 0, realm.tails()
        assert any("ipv4-collides" in warning for warning in host.status().warnings)
    host, _ = leases["bravo"]
    host.run("ip", "addr", "del", "10.7.200.2/24", "dev", "eth0")
    host.run("ip", "addr", "add", "10.7.201.2/24", "dev", "eth0")
    host.run("sleep", "3")
    assert realm.daemons["bravo"].exit_code is None, "a change of the lease ended it again"


def test_a_board_comes_up_on_a_full_card_and_on_one_that_is_read_only(lab: Lab) -> None:
    lan = lab.lan()
    alpha, bravo = lab.host("alpha", lan), lab.host("bravo", lan)
    card = bravo.state / "state"
    card.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k,mode=700", "card", card], check=True)
    realm = lab.realm(alpha, bravo)
    realm.daemons["bravo"].down()
    with (card / "filler").open("wb", buffering=0) as filler, suppress(OSError):
        while filler.write(bytes(4096)):
            pass
    realm.restart(bravo)
    assert alpha.conflux("ping", "bravo", "-c", "1", check=False).returncode == 0, realm.tails()
    assert any("state-full" in warning for warning in bravo.status().warnings)
    realm.daemons["bravo"].down()
    subprocess.run(["mount", "-o", "remount,ro", card], check=True)
    realm.restart(bravo)
    assert alpha.conflux("ping", "bravo", "-c", "1", check=False).returncode == 0, realm.tails()
    assert "no command reaches this daemon; set api.socket" in realm.daemons["bravo"].output()


CONTAINER = 'mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys && exec "$@"'


def test_a_container_without_ipv6_joins_and_is_reached_by_ipv4(lab: Lab) -> None:
    lan = lab.lan()
    alpha, bravo = lab.host("alpha", lan), lab.host("bravo", lan)
    bravo.run("sh", "-c", "echo 1 | tee /proc/sys/net/ipv6/conf/*/disable_ipv6")
    realm = Realm(alpha)
    token = realm.invite()
    container = ("unshare", "--mount", "sh", "-c", CONTAINER, "sh")
    bravo.configure({"tun": {"ipv4": False}, "realm": {"token": token}})
    refused = bravo.run(*container, lab.program, "up", "--foreground", "--config", bravo.config, check=False)
    assert (refused.returncode, "conflux0 can have no address: IPv6 is switched off" in refused.stderr) == (1, True)
    bravo.configure({"realm": {"token": token}, "node": {"name": "bravo"}})  # the token is not used up
    realm.restart(bravo, *container)
    assert any("no-ipv6" in warning for warning in bravo.status().warnings)
    for host, other in ((alpha, "bravo"), (bravo, "alpha")):
        assert host.conflux("ping", other, "-c", "1", check=False).returncode == 0, realm.tails()


def test_a_daemon_started_with_closed_descriptors_comes_up_and_ends_well(lab: Lab) -> None:
    alpha = lab.host("alpha", lab.lan())
    alpha.conflux("realm", "create", "lab", "--node", "alpha")
    for closed in ("<&- >&- 2>&-", "<&- >&-"):
        daemon = alpha.daemon("sh", "-c", f'exec "$@" {closed}', "sh")
        assert alpha.conflux("down").returncode == 0
        assert daemon.wait(10) == 0, daemon.tail()
