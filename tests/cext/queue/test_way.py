"""How long cext/queue/queue.c lets a queue stand, by the RTT of its way."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kit.driven import Driven, build

MS = 1_000_000
PACKET_BYTES = 1000
NOT_ECT = 0


@pytest.fixture(scope="module")
def driver() -> Iterator[Driven]:
    with Driven(build("queue/queue_driver.c", "queue/queue.c", "packet/packet.c")) as driven:
        yield driven


def first_drop_ms(driver: Driven, queued_ms: int, rtt_ms: int, searching_until_ms: int = 0) -> int | None:
    """Return when CoDel first drops from a queue that always holds so many milliseconds; None: not in 2 s."""
    driver.ask("n 1000000 1000 1000000000")
    driver.ask("m 0")
    for ms in range(2000):
        driver.ask(f"w {rtt_ms * MS} {int(ms < searching_until_ms)} {ms * MS}")
        driver.ask(f"p 1 {PACKET_BYTES} {NOT_ECT} {ms} {ms * MS}")
        if ms < queued_ms:
            continue
        drops = driver.ask(f"t {PACKET_BYTES + 3} {PACKET_BYTES + 3} {ms * MS}").split(";")[1].split()
        if drops[2] != "0":
            return ms
    return None


@pytest.mark.parametrize("rtt_ms", [0, 1, 20])
def test_a_short_way_keeps_codels_default_target(driver: Driven, rtt_ms: int) -> None:
    assert first_drop_ms(driver, 4, rtt_ms) is None
    assert first_drop_ms(driver, 30, rtt_ms) == pytest.approx(30 + 100, abs=2)


def test_a_long_way_may_have_one_round_trip_of_queue(driver: Driven) -> None:
    assert first_drop_ms(driver, 49, rtt_ms=50) is None
    assert first_drop_ms(driver, 60, rtt_ms=50) == pytest.approx(60 + 200, abs=2)


def test_no_way_is_so_long_that_nothing_is_dropped(driver: Driven) -> None:
    assert first_drop_ms(driver, 300, rtt_ms=100_000) == pytest.approx(300 + 1000, abs=2)


def test_the_queue_of_a_search_for_the_rate_is_not_dropped(driver: Driven) -> None:
    assert first_drop_ms(driver, 30, 0, searching_until_ms=2000) is None
    assert first_drop_ms(driver, 30, 0, searching_until_ms=500) == pytest.approx(530 + 100, abs=2)
