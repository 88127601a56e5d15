"""What cext/queue.c makes of what it is told of the way: how long a standing queue is borne with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from driven import Driven, build

MS = 1_000_000
PACKET_BYTES = 1000
NOT_ECT = 0


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driven]:
    directory: Path = tmp_path_factory.mktemp("queue")
    with Driven(build(directory, "queue_driver.c", "queue.c", "packet.c")) as driven:
        yield driven


def first_drop_ms(driver: Driven, queued_ms: int, rtt_ms: int, searching_until_ms: int = 0) -> int | None:
    """Return when CoDel first drops from a queue that always has so many milliseconds in it; None: not in 2 s."""
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
def test_on_a_short_way_more_than_a_few_milliseconds_stand_no_longer_than_by_default(
    driver: Driven, rtt_ms: int
) -> None:
    assert first_drop_ms(driver, 4, rtt_ms) is None
    assert first_drop_ms(driver, 30, rtt_ms) == pytest.approx(30 + 100, abs=2)


def test_on_a_long_way_a_round_trip_of_queue_stands_and_more_does_not(driver: Driven) -> None:
    assert first_drop_ms(driver, 49, rtt_ms=50) is None
    assert first_drop_ms(driver, 60, rtt_ms=50) == pytest.approx(60 + 200, abs=2)


def test_no_way_is_so_long_that_nothing_is_dropped(driver: Driven) -> None:
    assert first_drop_ms(driver, 300, rtt_ms=100_000) == pytest.approx(300 + 1000, abs=2)


def test_what_queues_while_the_rate_is_being_found_is_not_dropped(driver: Driven) -> None:
    assert first_drop_ms(driver, 30, 0, searching_until_ms=2000) is None
    assert first_drop_ms(driver, 30, 0, searching_until_ms=500) == pytest.approx(530 + 100, abs=2)
