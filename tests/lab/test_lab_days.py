"""Days that boards have: hosts and wires that are odd in a usual way.

alpha --- br0 --- bravo
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from rig.enter import STATE
from rig.topology import Host, Lab, Lan, wait_for

from conflux.api.rows import Links

BRIDGE_COUNT = 24  # more than the kernel lets one socket join, and than a link may try


def pair(lab: Lab) -> tuple[Lan, Host, Host]:
    lan = lab.lan()
    return lan, lab.host("alpha"), lab.host("bravo")


def test_lan_that_is_younger_than_many_container_networks_is_used_first(lab: Lab) -> None:
    lan, alpha, bravo = pair(lab)
    made = (
        f"ip link add br-{number:04x} type bridge; ip link set br-{number:04x} up; "
        f"ip addr add 172.17.{number}.1/24 brd + dev br-{number:04x}"
        for number in range(BRIDGE_COUNT)
    )
    alpha.run("sh", "-ec", "; ".join(made))
    for host in (alpha, bravo):
        lan.attach(host)
    realm = lab.realm(alpha, bravo)
    for source, target in ((alpha, bravo), (bravo, alpha)):
        assert source.ping(target.overlay_addresses()[1], "-c", "2", "-W", "5").lost == 0, realm.tails()
    (warning,) = [text for text in realm.daemons["alpha"].status().warnings if text.startswith("many-addresses")]
    assert "br-000b" in warning
    assert "no room for br-" in realm.daemons["alpha"].output(), "mDNS says it too"


def test_a_path_that_loses_large_packets_without_a_word_carries_both_planes(lab: Lab) -> None:
    lan, alpha, bravo = pair(lab)
    for host in (alpha, bravo):
        lan.attach(host)
        host.run("ip", "link", "set", "eth0", "gso_max_segs", "1")
        lan.shrink_port(host, 1300)
    lost = alpha.ping(bravo.addresses[0], "-c", "1", "-W", "1", "-s", "1400", "-M", "do")
    assert lost.lost == 1, "the wire takes large packets"
    realm = lab.realm(alpha, bravo)
    reply = alpha.ping(bravo.overlay_addresses()[1], "-c", "2", "-W", "5", "-s", "3000")
    assert reply.lost == 0, realm.tails()


@pytest.mark.parametrize(
    ("taken", "said"),
    [
        ("ip route flush dev conflux0 proto static", "has lost the route to"),
        ("ip address flush dev conflux0", "has lost"),
    ],
)
def test_a_device_that_a_network_manager_changed_has_the_daemon_end_to_be_started_anew(
    lab: Lab, taken: str, said: str
) -> None:
    alpha = lab.host("alpha", lab.lan())
    (daemon,) = lab.realm(alpha).logs()
    alpha.run("sh", "-c", taken)
    assert daemon.wait(15) == 75, daemon.tail()
    assert f"conflux0 {said}" in daemon.output()


def test_boards_on_one_cable_that_have_link_local_addresses_alone_reach_each_other(lab: Lab) -> None:
    lan, alpha, bravo = pair(lab)
    for host in (alpha, bravo):
        lan.attach(host)
        host.run("ip", "address", "flush", "dev", "eth0", "scope", "global")
    realm = lab.realm(alpha, bravo)
    for source, target in ((alpha, bravo), (bravo, alpha)):
        reply = source.ping(target.overlay_addresses()[1], "-c", "2", "-W", "5", "-s", "3000")
        assert reply.lost == 0, realm.tails()
    (link,) = alpha.ask(Links, "links").links
    assert (link.packet_bytes or 0) > 1300, "the interface's MTU is known"


@pytest.fixture
def resolv_conf() -> Iterator[Path]:
    """A file in the place of /etc/resolv.conf."""
    path = STATE / "resolv.conf"
    path.touch()
    subprocess.run(["mount", "--bind", path, "/etc/resolv.conf"], check=True)
    yield path
    subprocess.run(["umount", "/etc/resolv.conf"], check=True)


def test_name_server_that_does_not_answer_holds_up_neither_neighbours_nor_the_end(lab: Lab, resolv_conf: Path) -> None:
    lan, alpha, bravo = pair(lab)
    router = lab.host("router", lan)
    resolv_conf.write_text(f"nameserver {router.addresses[0]}\n")
    router.filter("incoming udp dport 53 counter drop")
    for host in (alpha, bravo):
        lan.attach(host)
        host.configure({"control.lan": {"peers": [f"node{number}.example.org:7464" for number in range(10)]}})
    realm = lab.realm(alpha, bravo)
    alpha_daemon = realm.daemons["alpha"]
    wait_for(lambda: alpha_daemon.status().control[0].neighbours, "a neighbour", within_s=8, logs=realm.logs())
    for daemon in realm.daemons.values():
        daemon.down()


def test_boards_whose_firewalls_let_in_two_ports_alone_reach_each_other(lab: Lab) -> None:
    lan, alpha, bravo = pair(lab)
    for host in (alpha, bravo):
        lan.attach(host)
        host.filter(
            "incoming ct state established,related accept",
            "incoming iif lo accept",
            "incoming meta l4proto ipv6-icmp accept",
            "incoming udp dport 5353 accept",
            "incoming tcp dport 7464 accept",
            'incoming iifname "conflux0" accept',
            "incoming counter drop",
        )
    realm = lab.realm(alpha, bravo)
    for source, target in ((alpha, bravo), (bravo, alpha)):
        assert source.ping(target.overlay_addresses()[1], "-c", "2", "-W", "5").lost == 0, realm.tails()
