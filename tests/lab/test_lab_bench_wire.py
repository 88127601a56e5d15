"""The wire that a bench puts between hosts delays, loses and limits packets as asked, each by itself.

alpha --wire-- bravo, charlie        bench/overlays/wire.py and the program it compiles
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from overlays.ground import Ground
from overlays.wire import Condition

PINGS = 1000


@pytest.fixture
def ground() -> Iterator[Ground]:
    ground = Ground(seed=1)
    yield ground
    ground.close()


def test_a_wire_delays_each_way_by_half(ground: Ground) -> None:
    alpha, bravo = ground["alpha"], ground["bravo"]
    ground.wire.impair(Condition("long", rtt_ms=50))
    pings = alpha.ping(bravo.addresses[0], "-c", "40", "-i", "0.02")
    assert pings.lost == 0
    assert 50 <= pings.median_ms < 55
    assert alpha.ping(bravo.addresses[0], "-c", "1").times_ms[0] > 50
    assert bravo.ping(ground["charlie"].addresses[0], "-c", "5", "-i", "0.02").median_ms < 5, "they are on one side"


def test_a_wire_loses_its_share_of_packets_each_way(ground: Ground) -> None:
    ground.wire.impair(Condition("lossy", loss_percent=10))
    pings = ground["alpha"].ping(ground["bravo"].addresses[0], "-c", str(PINGS), "-i", "0.002", "-W", "1")
    assert 0.13 < pings.lost / pings.sent < 0.25, "19 in 100 either way"
    counts = ground.wire.counts()
    assert min(counts["to_far"]["lost"], counts["to_near"]["lost"]) > 0


def test_a_wire_carries_no_more_than_its_rate_and_no_super_packets(ground: Ground) -> None:
    alpha, bravo = ground["alpha"], ground["bravo"]
    ground.wire.impair(Condition("rate", rate_mbit=20, queue_bytes=50_000))
    assert 15 < alpha.iperf3(bravo, bravo.addresses[0], seconds=2) < 20
    counts = ground.wire.counts()
    assert counts["to_far"]["queue_full"] > 0
    assert counts["to_far"]["oversize"] == counts["to_near"]["oversize"] == 0
