"""The queue of one destination, and CoDel at its head."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from conflux.anchor.frame import PACKET
from conflux.datapath.reference.codel import INTERVAL_S, TARGET_S, CoDel
from conflux.datapath.reference.queue import BUCKET_COUNT, AllQueues, FlowQueue
from conflux.datapath.reference.served import FACTOR_MAX, WINDOW_S

BUNDLE = 4000
IPV4 = bytes.fromhex("4500 0000 0000 0000 4011 0000 64400001 64400002")
IPV4_ECT = b"\x45\x02" + IPV4[2:]


class Bench:
    """A queue, and what it dropped."""

    def __init__(self, *, bytes_max: int = 100_000, packets_max: int = 1000, together: AllQueues | None = None) -> None:
        self.drops: Counter[str] = Counter()
        self.queue = FlowQueue(
            bytes_max=bytes_max,
            packets_max=packets_max,
            bundle_bytes_max=BUNDLE,
            together=together or AllQueues(10**9),
            drop=self.count,
        )

    def count(self, reason: str) -> None:
        """Count one drop."""
        self.drops[reason] += 1

    def push(self, number: int, *, flow: int = 0, now: float = 0.0, size: int = 1000, head: bytes = IPV4) -> None:
        """Queue one numbered packet."""
        self.queue.push((PACKET, packet(number, size=size, head=head)), flow, now)

    def take(self, now: float = 0.0, *, bytes_max: int = BUNDLE) -> list[int]:
        """Take one bundle; return its packets' numbers."""
        _, entries = self.queue.take(bytes_max, now)
        return [int.from_bytes(body[20:24], "big") for _, body in entries]

    def drain(self, now: float = 0.0) -> list[int]:
        """Take everything; return the numbers."""
        numbers: list[int] = []
        while self.queue.packet_count:
            numbers += self.take(now)
        return numbers


def packet(number: int, *, size: int = 1000, head: bytes = IPV4) -> bytes:
    """Return one numbered packet."""
    return (head + number.to_bytes(4, "big")).ljust(size, b"\0")


def test_a_bundle_is_filled_up_to_its_size_and_no_further() -> None:
    bench = Bench()
    for number in range(5):
        bench.push(number)
    assert bench.take() == [0, 1, 2]  # three entries of 1003 bytes; a fourth would be 4012
    assert bench.take() == [3, 4]
    assert bench.queue.packet_count == bench.queue.bytes == 0


def test_a_packet_larger_than_a_bundle_travels_alone() -> None:
    bench = Bench()
    bench.push(0, size=BUNDLE + 1)
    bench.push(1)
    assert bench.take() == [0]
    assert bench.take() == [1]


def test_a_large_packet_waits_when_entries_have_the_room() -> None:
    bench = Bench()
    bench.push(0, size=BUNDLE + 1)
    assert bench.take(bytes_max=BUNDLE - 100) == []
    assert bench.queue.packet_count == 1
    assert bench.take() == [0]


def test_a_bundle_holds_one_bucket_and_buckets_take_turns() -> None:
    bench = Bench()
    for number in range(9):
        bench.push(number, flow=1)
    bench.push(100, flow=2)
    bench.push(200, flow=2 + BUCKET_COUNT)
    assert bench.take() == [0, 1, 2]
    assert bench.take() == [100, 200]
    assert bench.drain() == [3, 4, 5, 6, 7, 8]
    assert not bench.drops


def test_the_index_of_the_bucket_comes_with_its_packets() -> None:
    bench = Bench()
    bench.push(0, flow=5 + 3 * BUCKET_COUNT)
    assert bench.queue.take(BUNDLE, 0.0)[0] == 5


@pytest.mark.parametrize("bound", [{"packets_max": 10}, {"bytes_max": 10_000}])
def test_a_full_queue_drops_the_oldest_of_its_largest_bucket(bound: dict[str, int]) -> None:
    bench = Bench(**bound)
    bench.push(500, flow=1)
    for number in range(20):
        bench.push(number, flow=0)
    assert bench.drops == {"queue-full": 11}
    assert bench.queue.packet_count == 10
    assert bench.drain() == [500, *range(11, 20)]


def serve(bench: Bench, *, seconds: float, bundles: int, start: float = 0.0) -> float:
    """Send so many bundles of 3000 bytes every millisecond; return when that ended."""
    for step in range(round(seconds * 1000)):
        now = start + step / 1000
        for number in range(3 * bundles):
            bench.push(number, now=now)
        for _ in range(bundles):
            bench.take(now)
    return start + seconds


def burst(bench: Bench, now: float) -> int:
    """Queue a thousand packets at once; return how many stay."""
    for number in range(1000):
        bench.push(number, now=now)
    return bench.queue.packet_count


def test_a_queue_holds_what_leaves_in_a_window_but_no_less_than_its_bound_and_no_more_than_four_times() -> None:
    for bundles, held in ((0, 100), (1, 150), (2, 300), (4, 400), (8, 400)):
        bench = Bench(bytes_max=100_000, packets_max=10**6)
        now = serve(bench, seconds=0.4, bundles=bundles)
        assert not bench.drops
        assert burst(bench, now) == pytest.approx(held, rel=0.05)
        assert bench.drops == {"queue-full": 1000 - bench.queue.packet_count}


def test_a_slow_path_has_the_bound_and_no_more() -> None:
    """At 50 Mbit/s, and at three times that, 50 ms are less than 1 MiB."""
    for mbit in (50, 150):
        bench = Bench(bytes_max=1024 * 1024, packets_max=10**6)
        for step in range(1000):
            for number in range(mbit // 8):
                bench.push(number, now=step / 1000)
            while bench.queue.packet_count:
                bench.take(step / 1000)
        for number in range(3000):
            bench.push(number, now=1.0)
        assert bench.queue.packet_count == 1048


def test_a_stall_shrinks_the_grown_bound_a_little_and_a_second_resets_it() -> None:
    for stall_s, held in ((0.02, 290), (WINDOW_S, 265), (0.25, 155), (0.5, 100), (2.0, 100)):
        bench = Bench(bytes_max=100_000, packets_max=10**6)
        now = serve(bench, seconds=0.4, bundles=2)
        assert burst(bench, now + stall_s) == pytest.approx(held, rel=0.1)


def test_when_nothing_leaves_the_bound_shrinks_and_the_oldest_packets_go() -> None:
    bench = Bench(bytes_max=100_000, packets_max=10**6)
    now = serve(bench, seconds=0.4, bundles=4)
    held = [burst(bench, now)]
    for step in range(20):
        now += WINDOW_S
        bench.take(now)
        bench.push(step, now=now)
        held.append(bench.queue.packet_count)
    assert held[0] == FACTOR_MAX * 100
    assert held == sorted(held, reverse=True)
    assert held[-1] <= 100


def test_all_queues_together_are_bounded_and_a_new_one_finds_room() -> None:
    together = AllQueues(1_000_000)
    benches = [Bench(bytes_max=800_000, together=together) for _ in range(4)]
    held = []
    for bench in benches:
        burst(bench, 0.0)
        held.append(bench.queue.packet_count)
    assert held == [500, 250, 125, 62], "as much as is still free"
    assert together.bytes == sum(bench.queue.bytes for bench in benches) <= 1_000_000
    benches[0].queue.clear("refused")
    assert burst(benches[1], 0.0) == 406
    for bench in benches:
        bench.drain()
    assert together.bytes == 0
    assert burst(benches[3], 0.0) > 0


def test_packets_that_waited_too_long_are_dropped_and_the_rest_stay() -> None:
    bench = Bench()
    for number in range(4):
        bench.push(number, flow=number % 2, now=float(number))
    bench.queue.drop_aged(2.0, 3.0)
    assert bench.drops == {"aged": 2}
    assert bench.queue.oldest_at() == 2.0
    assert sorted(bench.drain()) == [2, 3]


def test_clear_counts_each_packet_under_its_reason() -> None:
    bench = Bench()
    for number in range(4):
        bench.push(number, flow=number)
    bench.queue.clear("refused")
    assert bench.drops == {"refused": 4}
    assert bench.queue.packet_count == bench.queue.bytes == 0
    assert bench.queue.oldest_at() is None


def overload(bench: Bench, *, seconds: float, head: bytes = IPV4) -> list[int]:
    """Queue twice as much as is taken; return what came out.  There is a route since 0."""
    out: list[int] = []
    number = 0
    for step in range(int(seconds * 1000)):
        now = step / 1000
        for _ in range(6):
            bench.push(number, now=now, head=head)
            number += 1
        out += bench.take(now)
    return out


def test_codel_drops_from_a_standing_queue_and_order_holds() -> None:
    bench = Bench(bytes_max=10**9, packets_max=10**6)
    bench.queue.move(0.0)
    out = overload(bench, seconds=2.0)
    assert set(bench.drops) == {"codel"}
    assert bench.drops["codel"] > 10
    assert out == sorted(out)


def test_packets_that_support_marks_are_marked_and_none_is_dropped() -> None:
    bench = Bench(bytes_max=10**9, packets_max=10**6)
    bench.queue.move(0.0)
    out = overload(bench, seconds=2.0, head=IPV4_ECT)
    assert not bench.drops
    assert bench.queue.marked_count > 10
    assert out == list(range(len(out)))


def test_codel_sleeps_while_packets_have_no_route() -> None:
    bench = Bench(bytes_max=10**9, packets_max=10**6)
    bench.queue.move(None)
    for number in range(1000):
        bench.push(number, now=number / 1000)
    bench.queue.move(5.0)
    out: list[int] = []
    step = 0
    while bench.queue.packet_count:
        step += 1
        out += bench.take(5.0 + step / 100)  # slowly: the last leaves 3 s later
    assert out == list(range(1000))
    assert not bench.drops


def test_a_new_route_beside_the_old_does_not_reset_codel() -> None:
    bench = Bench(bytes_max=10**9, packets_max=10**6)
    bench.queue.move(0.0)
    for number in range(1000):
        bench.push(number, now=1.0)
    bench.queue.move(1.5)  # make-before-break: these packets are in a standing queue
    step = 0
    while bench.queue.packet_count:
        step += 1
        bench.take(1.5 + step / 100)
    assert bench.drops["codel"] > 0


# ── CoDel alone ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_codel_waits_one_interval_before_its_first_drop() -> None:
    codel = CoDel()
    above = TARGET_S * 2
    assert not codel.signal(above, 10_000, 1500, 1.0)
    assert not codel.signal(above, 10_000, 1500, 1.0 + INTERVAL_S * 0.99)
    assert codel.signal(above, 10_000, 1500, 1.0 + INTERVAL_S)


def test_codel_drops_faster_the_longer_the_queue_stands() -> None:
    codel = CoDel()
    times = [step / 1000 for step in range(3000) if codel.signal(0.02, 10_000, 1500, step / 1000)]
    gaps = [after - before for before, after in pairwise(times)]
    assert times[0] == pytest.approx(INTERVAL_S, abs=0.002)
    assert gaps[0] == pytest.approx(INTERVAL_S, abs=0.002)
    assert gaps[3] == pytest.approx(INTERVAL_S / 2, abs=0.002)  # interval / sqrt(4)
    assert max(after - before for before, after in pairwise(gaps)) < 0.002


@pytest.mark.parametrize(("sojourn_s", "backlog"), [(TARGET_S / 2, 10_000), (TARGET_S * 2, 1500)])
def test_codel_stops_when_the_queue_is_short(sojourn_s: float, backlog: int) -> None:
    codel = CoDel()
    for step in range(1000):
        codel.signal(0.02, 10_000, 1500, step / 1000)
    assert codel.dropping
    assert not codel.signal(sojourn_s, backlog, 1500, 1.0)
    assert not codel.dropping
    assert not codel.signal(0.02, 10_000, 1500, 1.001)


def test_codel_remembers_its_rate_for_a_while() -> None:
    codel = CoDel()
    for step in range(1000):
        codel.signal(0.02, 10_000, 1500, step / 1000)
    codel.signal(0.0, 10_000, 1500, 1.0)
    times = [step / 1000 for step in range(1000, 1400) if codel.signal(0.02, 10_000, 1500, step / 1000)]
    other = CoDel()
    fresh = [step / 1000 for step in range(400) if other.signal(0.02, 10_000, 1500, step / 1000)]
    assert len(times) > 3 + len(fresh)
