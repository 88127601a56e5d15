"""The doctor names what is broken on a board, and nothing else.

alpha --- br0 --- bravo
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from rig.topology import Host, Lab, Realm, wait_for

from conflux.state.directory import StateDir

Bad = dict[str, tuple[str, str]]  # text and remedy by check


def examined(host: Host, *wrapper: str) -> list[dict[str, Any]]:
    """Return the findings of `conflux doctor`, whose exit code fits them."""
    words = (*wrapper, str(host.lab.program), "doctor", "--json", "--config", str(host.configured()))
    done = host.run(*words, check=False)
    assert not done.stderr, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)["findings"]
    assert done.returncode == (1 if any(each["grade"] == "bad" for each in found) else 0)
    return found


def wrong(host: Host, *wrapper: str) -> Bad:
    """Return everything that the doctor calls bad; each has a remedy."""
    found = {
        each["check"]: (each["text"], each["remedy"]) for each in examined(host, *wrapper) if each["grade"] == "bad"
    }
    assert all(remedy for _, remedy in found.values())
    return found


@pytest.fixture(scope="module")
def realm(shared_lab: Lab) -> Realm:
    lan = shared_lab.lan()
    made = shared_lab.realm(shared_lab.host("alpha", lan), shared_lab.host("bravo", lan))
    for daemon in made.daemons.values():
        wait_for(lambda: daemon.status().control[0].neighbours, "a neighbour", within_s=15)  # noqa: B023
    return made


@pytest.fixture
def alpha(realm: Realm) -> Iterator[Host]:
    yield realm.root
    realm.root.run("nft", "delete", "table", "inet", "lab", check=False)


def test_nothing_is_wrong_on_two_boards_that_work(alpha: Host) -> None:
    for host in alpha.lab.hosts.values():
        assert wrong(host) == {}
    seen = {each["check"] for each in examined(alpha) if each["grade"] == "good"}
    assert {"tun", "port", "firewall", "fence", "multicast", "neighbours", "clock", "credential"} <= seen


def test_multicast_that_this_board_drops_is_found(alpha: Host) -> None:
    alpha.block_multicast()
    found = wrong(alpha)
    assert set(found) == {"multicast", "firewall"}
    assert "a firewall of this board drops it" in found["multicast"][0]


def test_multicast_that_this_board_does_not_let_in_is_found_and_the_remedy_mends_it(alpha: Host) -> None:
    alpha.filter("incoming udp dport 5353 counter drop")
    found = wrong(alpha)
    assert set(found) == {"multicast", "firewall"}
    assert "not heard here" in found["multicast"][0]
    alpha.run(*found["firewall"][1].removeprefix("sudo ").split())
    assert wrong(alpha) == {}


def test_a_network_that_does_not_pass_multicast_is_told_from_a_board_that_drops_it(alpha: Host) -> None:
    (lan,) = alpha.lans
    table = "add table bridge lab; add chain bridge lab passing { type filter hook forward priority 0; }"
    drop = "add rule bridge lab passing udp dport 5353 drop"
    subprocess.run([*lan.enter, "nft", f"{table}; {drop}"], check=True)
    try:
        found = wrong(alpha)
    finally:
        subprocess.run([*lan.enter, "nft", "delete table bridge lab"], check=True)
    assert set(found) == {"multicast"}
    assert "bravo did not answer: this network does not pass multicast" in found["multicast"][0]


def test_a_port_that_a_firewall_blocks_is_found_and_the_remedy_mends_it(alpha: Host) -> None:
    alpha.filter("incoming tcp dport 7464 counter drop")
    found = wrong(alpha)
    assert set(found) == {"port", "firewall"}
    assert "does not answer: a firewall drops it" in found["port"][0]
    alpha.run(*found["firewall"][1].removeprefix("sudo ").split())
    assert wrong(alpha) == {}


def test_a_network_of_this_host_in_the_realms_prefix_is_found(alpha: Host) -> None:
    inside, _ = alpha.overlay_addresses()
    alpha.run("ip", "link", "add", "other0", "type", "bridge")
    alpha.run("ip", "addr", "add", f"{inside.rpartition('.')[0]}.77/24", "dev", "other0")
    try:
        found = wrong(alpha)
    finally:
        alpha.run("ip", "link", "del", "other0")
    assert set(found) == {"prefixes"}
    assert "on other0 lies in the realm's prefix" in found["prefixes"][0]


def test_an_mtu_that_another_program_changed_is_found_and_the_remedy_mends_it(alpha: Host) -> None:
    alpha.run("ip", "link", "set", "dev", "conflux0", "mtu", "1500")
    found = wrong(alpha)
    assert set(found) == {"mtu"}
    alpha.run(*found["mtu"][1].removeprefix("sudo ").split())
    assert wrong(alpha) == {}


def test_a_user_without_rights_a_broken_file_and_no_daemon_stop_nothing(alpha: Host, lab: Lab) -> None:
    alone = lab.host("alone", lab.lan())
    alone.configure({"tun": {"mtu": 5}, "control.lan": {"prot": 1}})
    nobody = ("setpriv", "--reuid", "65534", "--clear-groups")
    for wrapper in ((), nobody):
        found = wrong(alone, *wrapper)
        assert {"configuration", "daemon"} <= set(found), found
    hidden = {each["check"] for each in examined(alpha, *nobody) if each["grade"] == "unseen"}
    assert {"state", "firewall", "fence"} <= hidden
    assert set(wrong(alpha, *nobody)) == set()


def test_a_board_that_is_off_says_what_its_clock_its_disk_and_its_files_lack(lab: Lab) -> None:
    charlie = lab.host("charlie", lab.lan())
    card = charlie.state / "state"
    card.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,mode=700", "card", card], check=True)
    assert set(wrong(charlie)) == {"daemon", "state"}, "it is in no realm"
    charlie.conflux("realm", "create", "lab", "--node", "charlie")
    assert set(wrong(charlie)) == {"daemon"}
    StateDir.open(card).save_floor(int(time.time()) + 3 * 86400 - 3600)
    found = wrong(charlie)
    assert set(found) == {"daemon", "clock"}
    assert "2 days behind" in found["clock"][0]
    (card / "node.key").chmod(0o644)
    with (card / "filler").open("wb", buffering=0) as filler, suppress(OSError):
        while filler.write(bytes(4096)):
            pass
    without_tun = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /dev/net && exec "$@"', "sh")
    found = wrong(charlie, *without_tun)
    assert set(found) == {"daemon", "clock", "state", "disk", "tun"}
    assert "is full" in found["disk"][0]
