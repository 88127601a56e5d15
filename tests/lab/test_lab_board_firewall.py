"""Boards behind the firewall of the image: what Conflux needs comes in, and nothing else.

alpha --- br0 --- bravo      both with firmware/tree/etc/nftables.conf
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest
from kit.tree import TREE
from rig.topology import Host, Lab, Realm

RULES = TREE / "firmware/tree/etc/nftables.conf"
CARD = Path("/run/conflux-board/nftables")
LISTEN = """
import socket, sys, time
listeners = []
for port in map(int, sys.argv[1:]):
    listener = socket.create_server(("0.0.0.0", port))
    listeners.append(listener)
print("listening", flush=True)
time.sleep(60)
"""
TRY = """
import socket, sys
for port in map(int, sys.argv[2:]):
    try:
        socket.create_connection((sys.argv[1], port), timeout=2).close()
        print(port)
    except OSError:
        pass
"""


class Boards:
    """Two boards of one realm."""

    def __init__(self, lab: Lab) -> None:
        lan = lab.lan()
        self.alpha, self.bravo = lab.host("alpha", lan), lab.host("bravo", lan)
        CARD.mkdir(parents=True, exist_ok=True)
        (CARD / "card.nft").write_text("add element inet board tcp_open { 7465 }\n")  # what a card asked for
        for host in (self.alpha, self.bravo):
            host.run("nft", "-f", RULES)
        self.realm = Realm(self.alpha)
        self.realm.admit(self.bravo, self.realm.invite())


@pytest.fixture(scope="module")
def boards(shared_lab: Lab) -> Boards:
    return Boards(shared_lab)


def reached(boards: Boards, address: str, *ports: int) -> list[int]:
    """Return on which ports of bravo, where something listens, alpha is let in."""
    words = (sys.executable, "-c", TRY, address, *map(str, ports))
    return [int(word) for word in boards.alpha.run(*words, within_s=60).stdout.split()]


def test_boards_join_and_reach_each_other(boards: Boards) -> None:
    reply = boards.alpha.ping(boards.bravo.overlay_addresses()[1], "-c", "3", "-W", "5")
    assert reply.lost == 0, boards.realm.tails()


def test_what_was_opened_is_let_in_and_nothing_else(boards: Boards) -> None:
    ports = (22, 7465, 7480, 80, 8080, 111)
    listening = boards.bravo.spawn("listen", sys.executable, "-c", LISTEN, *map(str, ports))
    underlay, overlay = boards.bravo.addresses[0], boards.bravo.overlay_addresses()[0]
    try:
        assert wait_listening(boards.bravo, len(ports))
        assert reached(boards, underlay, *ports) == [22, 7465, 7480]
        assert reached(boards, overlay, *ports) == list(ports), "members are let in as the realm allows them"
    finally:
        listening.kill()


def wait_listening(host: Host, count: int) -> bool:
    """Wait until a program listens on so many ports besides the daemon's."""
    from rig.topology import wait_for

    def are_there() -> bool:
        lines = host.run("ss", "-Hltn4").stdout.splitlines()
        return sum("0.0.0.0:" in line.split()[3] for line in lines) >= count

    return bool(wait_for(are_there, "listeners", within_s=20))


def test_the_rules_of_the_image_are_whole(boards: Boards) -> None:
    said = boards.alpha.run("nft", "list", "table", "inet", "board").stdout
    assert "policy drop" in said
    assert "7465" in said
    assert socket.getservbyname("ssh") == 22
