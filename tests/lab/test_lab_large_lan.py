"""A LAN of more boards than are all neighbours of each other: real daemons on one bridge.

b0 ... b13 --- br0        a ring with two neighbours each way, and chords: ten connections each at most
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import combinations

import pytest
from rig import gauge
from rig.topology import SETTINGS, Host, Lab, Realm, wait_for

from conflux.control.lan.circle import RING_FROM, SIDE_COUNT, STANDING_COUNT_MAX

COUNT = 14
START_WITHIN_S = 120.0  # on a machine that is busy with other things
WHOLE_WITHIN_S = 20.0  # after a loss was noticed
ASK_BYTES_MAX = 1_600  # of one board, both ways: a question (0.3 kB with what is around it), notices and a ping or two


class LargeLan:
    """The boards, which have found their places."""

    def __init__(self) -> None:
        lab = Lab({**SETTINGS, "control.lan": {"ring": True}})
        self.lab, lan = lab, lab.lan()
        self.hosts = [lab.host(f"b{number}", lan) for number in range(COUNT)]
        self.realm: Realm = lab.realm(self.hosts[0], *self.hosts[1:])
        self.settle(START_WITHIN_S)

    def settle(self, within_s: float, *, without: Host | None = None) -> None:
        """Wait until everybody has its place."""
        hosts = [host for host in self.hosts if host is not without]
        wait_for(lambda: self.is_whole(hosts), "a ring with chords", within_s=within_s, logs=self.realm.logs())

    def neighbours(self, host: Host) -> set[str]:
        """Return the names of the boards that stand beside one."""
        status = self.realm.daemons[host.name].status()
        return {each.name for channel in status.control for each in channel.neighbours}

    def is_whole(self, hosts: list[Host]) -> bool:
        """Say whether everybody has neighbours enough, knows them from both sides, and has nothing else open."""
        sides = {host.name: self.neighbours(host) for host in hosts}
        if any(not 2 * SIDE_COUNT <= len(names) <= STANDING_COUNT_MAX for names in sides.values()):
            return False
        if any(name not in sides.get(other, ()) for name, others in sides.items() for other in others):
            return False
        return all(gauge.established(self.realm.daemons[host.name].pid) == len(sides[host.name]) for host in hosts)

    def reach(self, source: Host, target: Host) -> None:
        """Have one board ping another by its name."""
        answer = source.conflux("ping", target.name, "-c", "1", check=False, within_s=60)
        assert answer.returncode == 0, f"{source.name} does not reach {target.name}: {answer.stderr}"


@pytest.fixture(scope="module")
def large() -> Iterator[LargeLan]:
    """The LAN; its tests follow one another."""
    lan = LargeLan()
    yield lan
    lan.lab.close()


def test_boards_have_ten_connections_at_most_and_each_reaches_each(large: LargeLan) -> None:
    assert len(large.hosts) >= RING_FROM
    sides = {host.name: large.neighbours(host) for host in large.hosts}
    assert max(map(len, sides.values())) <= STANDING_COUNT_MAX
    strangers = [(a, b) for a in large.hosts for b in large.hosts if a is not b and b.name not in sides[a.name]]
    assert strangers, "somebody is nobody's neighbour"
    for source, target in combinations(large.hosts, 2):  # and back: it is answered
        large.reach(source, target)


def test_a_question_for_a_name_that_nobody_has_comes_to_each_board_about_once(large: LargeLan) -> None:
    large.settle(START_WITHIN_S)
    before = [host.wire() for host in large.hosts]
    answer = large.hosts[3].conflux("ping", "nobody", "-c", "1", check=False, within_s=60)
    assert answer.returncode != 0
    passed = [host.wire().since(earlier) for host, earlier in zip(large.hosts, before, strict=True)]
    each = [traffic.rx_bytes + traffic.tx_bytes for traffic in passed]
    assert sum(each) / COUNT <= ASK_BYTES_MAX, each


def test_a_neighbour_that_is_killed_is_replaced_and_comes_back(large: LargeLan) -> None:
    lost = large.hosts[5]
    large.realm.daemons[lost.name].kill()
    began = time.monotonic()
    large.settle(WHOLE_WITHIN_S, without=lost)
    print(f"whole again after {time.monotonic() - began:.1f} s")
    large.reach(large.hosts[0], large.hosts[9])
    large.realm.restart(lost)
    large.settle(2 * WHOLE_WITHIN_S)
    for source, target in ((large.hosts[0], lost), (lost, large.hosts[9])):
        large.reach(source, target)
