"""cext/queue/queue.c against conflux/datapath/reference/queue.py: the same operations, the same drops, the same order.

Time runs in steps of 1/512 s: whole numbers of nanoseconds and exact as floats, and never on a boundary of CoDel's.
"""

from __future__ import annotations

import random
import struct
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from kit.driven import Driven, build

from conflux.anchor.frame import PACKET
from conflux.datapath.reference.queue import AllQueues, FlowQueue

TICK_NS = 1_953_125
TICKS_PER_S = 512
REASONS = ("queue-full", "aged", "codel", "cleared")
NUMBER = struct.Struct("=I")
NUMBER_AT = 20


@pytest.fixture(scope="module")
def driver() -> Iterator[Driven]:
    with Driven(build("queue/queue_driver.c", "queue/queue.c", "packet/packet.c")) as driven:
        yield driven


class Twins:
    """Both queues, given the same."""

    def __init__(
        self, driver: Driven, bytes_max: int, packets_max: int, bundle_bytes_max: int, *, all_bytes_max: int = 10**10
    ) -> None:
        self.drops: Counter[str] = Counter()
        self.now = 0
        self._number = 0
        self._bundle_bytes_max = bundle_bytes_max
        self._driver = driver
        self._together = AllQueues(all_bytes_max)
        self._reference = FlowQueue(
            bytes_max=bytes_max,
            packets_max=packets_max,
            bundle_bytes_max=bundle_bytes_max,
            together=self._together,
            drop=lambda reason: self.drops.update((reason,)),
        )
        self._ask(f"n {bytes_max} {packets_max} {all_bytes_max}", "")

    @property
    def packet_count(self) -> int:
        return self._reference.packet_count

    @property
    def now_s(self) -> float:
        return self.now / TICKS_PER_S

    def push(self, flow: int, size: int, ecn: int) -> int:
        self._number += 1
        packet = bytes([0x45, ecn]) + bytes(NUMBER_AT - 2) + NUMBER.pack(self._number) + bytes(size - NUMBER_AT - 4)
        self._reference.push((PACKET, packet), flow, self.now_s)
        self._ask(f"p {flow} {size} {ecn} {self._number} {self.now * TICK_NS}", "")
        return self._number

    def take(self, bytes_max: int) -> list[int]:
        """Return the numbers of the bundle's packets."""
        if self._reference.packet_count == 0:
            self._ask(f"t {bytes_max} {self._bundle_bytes_max} {self.now * TICK_NS}", "")
            return []
        bucket, entries = self._reference.take(bytes_max, self.now_s)
        numbers = [NUMBER.unpack_from(packet, NUMBER_AT)[0] for _, packet in entries]
        taken = [f"{number}/{packet[1]}" for number, (_, packet) in zip(numbers, entries, strict=True)]
        expected = " ".join([str(bucket), *taken])
        self._ask(f"t {bytes_max} {self._bundle_bytes_max} {self.now * TICK_NS}", expected)
        return numbers

    def others(self, waiting: int) -> None:
        """Let so many bytes wait in other queues."""
        self._together.bytes = self._reference.bytes + waiting
        self._ask(f"o {waiting}", "")

    def move(self) -> None:
        self._reference.move(self.now_s)
        self._ask(f"m {self.now * TICK_NS}", "")

    def hold(self) -> None:
        self._reference.move(None)
        self._ask("h", "")

    def drop_aged(self, age_ticks: int) -> None:
        self._reference.drop_aged(age_ticks / TICKS_PER_S, self.now_s)
        self._ask(f"a {age_ticks * TICK_NS} {self.now * TICK_NS}", "")

    def clear(self) -> None:
        self._reference.clear("cleared")
        self._ask("c", "")

    def look(self) -> None:
        queue = self._reference
        oldest_s = queue.oldest_at()
        oldest = -1 if oldest_s is None else round(oldest_s * TICKS_PER_S) * TICK_NS
        self._ask("l", f"{queue.bytes} {queue.packet_count} {queue.marked_count} {oldest}")

    def _ask(self, command: str, expected: str) -> None:
        drops = " ".join(str(self.drops[reason]) for reason in REASONS)
        assert self._driver.ask(command) == f"{expected};{drops}", command


FLOWS = st.one_of(st.integers(0, 9), st.integers(0, 2**32 - 1))
PUSH = st.tuples(st.just("push"), FLOWS, st.integers(1, 30), st.integers(0, 3))
STEPS = st.lists(
    st.one_of(
        PUSH,
        PUSH,
        st.tuples(st.just("take"), st.integers(0, 6000), st.integers(1, 5), st.just(0)),
        st.tuples(st.just("wait"), st.integers(1, 60), st.just(0), st.just(0)),
        st.tuples(st.sampled_from(["move", "hold", "clear", "look"]), st.just(0), st.just(0), st.just(0)),
        st.tuples(st.just("age"), st.integers(0, 200), st.just(0), st.just(0)),
        st.tuples(st.just("others"), st.integers(0, 60_000), st.just(0), st.just(0)),
    ),
    max_size=100,
)


def size_of(flow: int, base: int) -> int:
    """Packets of one bucket have one size.

    After a drop by CoDel the C asks at once about a larger packet that the bundle has no room for; the reference asks
    with the next bundle.
    """
    return base + 100 * (flow % 8)


@given(steps=STEPS, base=st.sampled_from([40, 700, 1400]), bundle=st.sampled_from([500, 3000, 16384]))
@settings(max_examples=200)
def test_the_same_operations_give_the_same_packets_marks_and_drops(
    driver: Driven, steps: list[tuple[str, int, int, int]], base: int, bundle: int
) -> None:
    twins = Twins(driver, 20_000, 60, bundle, all_bytes_max=100_000)
    for what, one, two, three in steps:
        if what == "push":
            for _ in range(two):
                twins.push(one, size_of(one, base), three)
        elif what == "take":
            for _ in range(two):
                twins.take(one)
        elif what == "wait":
            twins.now += one
        elif what == "move":
            twins.move()
        elif what == "hold":
            twins.hold()
        elif what == "age":
            twins.drop_aged(one)
        elif what == "others":
            twins.others(one)
        elif what == "clear":
            twins.clear()
        twins.look()
    for reason in twins.drops:
        event(reason)


@given(
    seconds=st.integers(1, 3),
    sizes=st.lists(st.integers(800, 1500), min_size=8, max_size=8),
    flows=st.lists(st.integers(0, 7), min_size=1, max_size=3),
    offered=st.integers(2, 6),
    ecn=st.sampled_from([0, 0, 1, 2, 3]),
    pauses=st.sets(st.integers(0, 5), max_size=3),
)
@settings(max_examples=15)
def test_a_standing_queue_is_signalled_at_the_same_packets(
    driver: Driven, seconds: int, sizes: list[int], flows: list[int], offered: int, ecn: int, pauses: set[int]
) -> None:
    """More comes than leaves, with pauses in which the queue empties."""
    twins = Twins(driver, 10**9, 10**6, 1500)
    twins.move()
    for tick in range(seconds * TICKS_PER_S):
        twins.now = tick
        paused = tick * 2 // TICKS_PER_S in pauses
        for number in range(0 if paused else offered):
            flow = flows[(tick + number) % len(flows)]
            twins.push(flow, sizes[flow], ecn)
        for _ in range(20 if paused else 1):
            twins.take(1503)
    twins.look()
    event(f"codel dropped: {twins.drops['codel'] > 0}")
    assert ecn or pauses or twins.drops["codel"] > 0


@pytest.mark.parametrize("seed", range(8))
def test_the_bound_follows_what_leaves_in_both(driver: Driven, seed: int) -> None:
    """The queue is always full, and served at one rate after another, with stalls in between."""
    chance = random.Random(seed)
    twins = Twins(driver, 20_000, 10**6, 3000)
    deepest = 0
    for _ in range(30):
        rate, stall = chance.choice([0, 1, 3, 9]), chance.choice([0, 0, 5, 30, 400, 600])
        for _ in range(chance.randrange(10, 80)):
            for _ in range(12):
                twins.push(chance.randrange(3), 1000, 1)
            deepest = max(deepest, twins.packet_count)
            twins.look()
            for _ in range(rate):
                twins.take(3009)
            twins.now += 1
        twins.now += stall
    assert 20 < deepest <= 80, "between once and four times the bound"


@given(sizes=st.lists(st.integers(40, 3000), min_size=1, max_size=60), bytes_max=st.integers(100, 20_000))
def test_packets_of_any_size_make_the_same_bundles(driver: Driven, sizes: list[int], bytes_max: int) -> None:
    twins = Twins(driver, 50_000, 50, 4000)
    for number, size in enumerate(sizes):
        twins.push(number % 3, size, 0)
    while twins.packet_count:
        twins.take(bytes_max if bytes_max >= 4000 else 4000)


# ── what the reference has not ───────────────────────────────────────────────────────────────────────────────────────


def test_pieces_put_back_come_first_and_count_as_before(driver: Driven) -> None:
    twins = Twins(driver, 10**6, 100, 1000)
    for flow in (1, 1, 2):
        twins.push(flow, 3000, 0)
    assert driver.ask("s 3 0").split(";")[0] == "1/0"
    assert driver.ask("l").split(";")[0] == "9000 5 0 0"
    assert driver.ask("t 2006 1000 0").split(";")[0] == "1 1/0 1/0"
    assert driver.ask("t 3003 1000 0").split(";")[0] == "2 3/0"
    assert driver.ask("t 9000 1000 0").split(";")[0] == "1 1/0 2/0"
    assert driver.ask("l").split(";")[0] == "0 0 0 -1"


def test_pieces_of_a_buckets_last_packet_keep_its_turn(driver: Driven) -> None:
    twins = Twins(driver, 10**6, 100, 1000)
    twins.push(1, 3000, 0)
    twins.push(2, 3000, 0)
    assert driver.ask("s 2 0").split(";")[0] == "1/0"
    assert driver.ask("t 1503 1000 0").split(";")[0] == "1 1/0"
    assert driver.ask("t 1503 1000 0").split(";")[0] == "2 2/0"


def test_packets_put_back_do_not_count_as_served(driver: Driven) -> None:
    """A super-packet sent piece by piece is taken whole each time; the bound grows only by the pieces that left."""
    twins = Twins(driver, 10_000, 1000, 1000)
    twins.push(1, 9000, 0)
    for _ in range(20):
        driver.ask("s 1 0")
    for _ in range(30):
        driver.ask("p 1 1000 0 1 0")
    assert driver.ask("l").split()[:2] == ["10000", "10"]


def test_codel_does_not_decide_twice_about_a_packet(driver: Driven) -> None:
    """The packet is seconds late, with many behind it: a decision every 100 ms would drop it sooner or later."""
    twins = Twins(driver, 10**9, 10**4, 0)
    twins.move()
    twins.now = 1
    for _ in range(2000):
        twins.push(1, 1000, 0)
    late = 4 * TICKS_PER_S
    assert driver.ask(f"t 1003 0 {late * TICK_NS}").split(";")[0] == "1 1/0"
    for step in range(40):
        assert driver.ask(f"s 1 {(late + step * 50 + 100) * TICK_NS}").split(";")[0] != ""
        before = driver.ask("l").split(";")
        assert driver.ask(f"t 1003 0 {(late + step * 50 + 149) * TICK_NS}").split(";")[1] == before[1]
