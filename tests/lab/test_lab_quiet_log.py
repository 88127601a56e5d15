"""What two daemons write in their logs: of what comes once a line, of what comes a thousand times a day none.

alpha ─ home ─ bravo
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from rig.quiet import SETTINGS, exchange
from rig.topology import Host, Lab, Lan, Realm, wait_for

LINES_A_DAY_MAX = 50


@dataclass(frozen=True)
class Pair:
    """Two nodes on a LAN."""

    lab: Lab
    home: Lan
    alpha: Host
    bravo: Host
    realm: Realm

    def exchange(self, *, back: bool = False) -> None:
        """Have one node ask the other, and wait until nothing of it is open."""
        sender, receiver = (self.bravo, self.alpha) if back else (self.alpha, self.bravo)
        exchange(sender, receiver.overlay_addresses()[0], tuple(self.realm.daemons.values()))

    def written(self, name: str = "alpha") -> list[str]:
        """Return the lines of a node's log."""
        return self.realm.daemons[name].output().splitlines()


@pytest.fixture
def pair(lab: Lab) -> Pair:
    lab.settings = dict(SETTINGS)
    home = lab.lan("home")
    alpha, bravo = lab.host("alpha", home), lab.host("bravo", home)
    return Pair(lab, home, alpha, bravo, lab.realm(alpha, bravo))


def test_lines_do_not_grow_with_what_is_sent(pair: Pair) -> None:
    pair.exchange()
    before = pair.written("alpha"), pair.written("bravo")
    for _ in range(5):
        pair.exchange()
        pair.exchange(back=True)
    after = pair.written("alpha"), pair.written("bravo")
    assert after == before, "ten streams opened and ended, and a line was written"
    assert max(map(len, after)) < LINES_A_DAY_MAX, after


def test_a_neighbour_that_dies_and_comes_back_is_told_and_its_streams_are_not(pair: Pair) -> None:
    pair.exchange()
    before = len(pair.written())
    alpha = pair.realm.daemons["alpha"]
    pair.realm.daemons["bravo"].kill()
    wait_for(lambda: "neighbour bravo lost" in alpha.output(), "bravo lost", within_s=10, logs=(alpha,))
    pair.realm.restart(pair.bravo)
    wait_for(lambda: alpha.output().count("neighbour bravo at") > 1, "bravo back", within_s=20, logs=(alpha,))
    pair.exchange()
    lines = pair.written()[before:]
    assert 2 <= len(lines) <= 4, lines


def test_a_refused_join_is_counted_once_and_written_once_whatever_was_tried(pair: Pair) -> None:
    token = pair.realm.invite()
    newcomer = pair.lab.host("newcomer", pair.home)
    done = newcomer.conflux("join", token, "--name", "bravo", check=False)
    assert (done.returncode, "has this name" in done.stderr) == (1, True), done.stderr
    assert pair.realm.daemons["alpha"].status().drops["join-name-taken"] == 1
    assert len([line for line in pair.written() if "a request to join" in line]) == 1, pair.written()
    newcomer.conflux("join", token, "--name", "carol")
    alpha = pair.realm.daemons["alpha"]
    wait_for(lambda: "carol joined" in alpha.output(), "the line of a join", within_s=5, logs=(alpha,))
    assert len([line for line in pair.written() if "carol joined" in line]) == 1, pair.written()
