"""cext/relay/relay.c against conflux/datapath/reference/relay.py: the same frames, marks and drops."""

from __future__ import annotations

import random
import struct
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from kit.driven import ALLOCATION, Driven, build

from conflux.anchor import frame as f
from conflux.carrier.interface import Hop
from conflux.datapath.config import DatapathConfig
from conflux.datapath.reference.relay import RelayTable
from conflux.datapath.status import RelayStatus
from conflux.errors import LocalProtocolError
from conflux.ids import LinkId, TetherId

TICK_NS = 1_953_125  # 1/512 s: whole in nanoseconds, exact as a float
TICKS_PER_S = 512
REASONS = ("relay-full", "relay-rate", "relay-aged", "relay-gone")
HEADER = struct.Struct(">BBBBIQ")


@pytest.fixture(scope="module")
def driver() -> Iterator[Driven]:
    with Driven(build("relay/relay_driver.c", "relay/relay.c", "base/map.c", wrapped=ALLOCATION)) as driven:
        yield driven


def side(hop: Hop) -> str:
    tether = int.from_bytes(hop.tether)
    return f"{hop.link} {tether} {hop.channel_count} {hop.label_out} {hop.label_in}"


class Twins:
    """Both tables, given the same."""

    def __init__(self, driver: Driven, config: DatapathConfig) -> None:
        self.drops: Counter[str] = Counter()
        self.now = 0
        self.marked_count = 0
        self._number = 0
        self._driver = driver
        self._reference = RelayTable(config, lambda reason: self.drops.update((reason,)))
        limits = (
            *(config.relay_route_bytes_max, config.relay_link_bytes_max, config.relay_bytes_max),
            *(config.relay_mark_bytes, round(config.relay_age_s_max * TICKS_PER_S) * TICK_NS),
            config.relay_bytes_per_s or 0,
        )
        self._ask("i " + " ".join(map(str, limits)), "")

    @property
    def now_s(self) -> float:
        return self.now / TICKS_PER_S

    def add(self, before: Hop, ahead: Hop) -> bool:
        trouble = ""
        try:
            self._reference.add(before, ahead, self.now_s)
        except LocalProtocolError as error:
            trouble = str(error)
        self._ask(f"a {side(before)} {side(ahead)} {self.now * TICK_NS}", trouble)
        return not trouble

    def remove(self, link: int, label: int) -> None:
        self._reference.remove((link, label))
        self._ask(f"d {link} {label}", "")

    def holds(self, link: int, label: int, feedback: bool) -> None:
        held = self._reference.holds((link, label), feedback=feedback)
        self._ask(f"h {link} {label} {feedback:d}", f"{held:d}")

    def receive(self, link: int, label: int, feedback: bool, size: int) -> None:
        self._number += 1
        frame = HEADER.pack(f.VERSION, f.FEEDBACK * feedback, 3, 0, label, self._number) + bytes(size - HEADER.size)
        channel = self._number % 5
        taken = self._reference.receive_untrusted((link, label), feedback, channel, frame, self.now_s)
        unordered = self._number % 2
        command = f"r {link} {label} {feedback:d} {channel} {unordered} {frame.hex()} {self.now * TICK_NS}"
        self._ask(command, f"{taken:d}")

    def next(self, link: int) -> bool:
        out = self._reference.next(LinkId(link), self.now_s)
        expected = ""
        if out is not None:
            flags, number = out.data[1], HEADER.unpack_from(out.data)[5]
            self.marked_count += flags & f.CE
            expected = f"{out.link} {int.from_bytes(out.tether)} {out.channel} {number % 2} {out.data.hex()}"
        self._ask(f"n {link} {self.now * TICK_NS}", expected)
        return out is not None

    def look(self) -> None:
        """Compare which links have frames waiting, and every route's counters."""
        ready = set(self._reference.ready())
        for link in range(5):
            self._ask(f"w {link}", f"{link in ready:d}")
        answer, drops = self._driver.ask("s").split(";")
        assert drops == self._drop_counts()
        assert sorted(answer.split()) == sorted(_status_line(each) for each in self._reference.status())

    def _ask(self, command: str, expected: str) -> None:
        assert self._driver.ask(command) == f"{expected};{self._drop_counts()}", command

    def _drop_counts(self) -> str:
        return " ".join(str(self.drops[reason]) for reason in REASONS)


def _status_line(route: RelayStatus) -> str:
    sides = [f"{side.link}/{side.label_in}/{side.label_out}" for side in (route.before, route.ahead)]
    counts = (route.frames_ahead, route.bytes_ahead, route.frames_back, route.bytes_back)
    return "-".join((*sides, *map(str, counts)))


def hops(route: int, link_before: int, link_ahead: int) -> tuple[Hop, Hop]:
    before = Hop(LinkId(link_before), TetherId(b"t" * 8), 2, label_out=4000 + route, label_in=1000 + route)
    ahead = Hop(LinkId(link_ahead), TetherId(b"u" * 8), 3, label_out=3000 + route, label_in=2000 + route)
    return before, ahead


LINKS = st.integers(0, 3)
ROUTES = st.integers(0, 7)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), ROUTES, LINKS, LINKS),
        st.tuples(st.just("arrive"), ROUTES, st.integers(0, 1), st.sampled_from([32, 100, 1000, 5000])),
        st.tuples(st.just("arrive"), ROUTES, st.integers(0, 1), st.sampled_from([32, 100, 1000, 5000])),
        st.tuples(st.just("leave"), LINKS, st.integers(1, 6), st.just(0)),
        st.tuples(st.just("wait"), st.sampled_from([0, 1, 20, 600]), st.just(0), st.just(0)),
        st.tuples(st.just("remove"), ROUTES, st.integers(0, 1), st.just(0)),
        st.tuples(st.just("holds"), ROUTES, st.integers(0, 1), st.integers(0, 1)),
    ),
    max_size=120,
)
CONFIGS = st.builds(
    DatapathConfig,
    relay_route_bytes_max=st.sampled_from([3000, 8000, 100_000]),
    relay_link_bytes_max=st.sampled_from([6000, 20_000, 10**9]),
    relay_bytes_max=st.sampled_from([10_000, 30_000, 10**9]),
    relay_mark_bytes=st.sampled_from([0, 2000, 10**9]),
    relay_age_s_max=st.sampled_from([0.5, 2.0]),
    relay_bytes_per_s=st.sampled_from([None, None, 4096, 262144]),
)


@given(steps=STEPS, config=CONFIGS)
@settings(max_examples=300)
def test_the_same_operations_give_the_same_frames_marks_and_drops(
    driver: Driven, steps: list[tuple[str, int, int, int]], config: DatapathConfig
) -> None:
    twins = Twins(driver, config)
    routes = {number: hops(number, number % 3, 3) for number in range(4)}
    for pair in routes.values():
        twins.add(*pair)
    for what, one, two, three in steps:
        if what == "add":
            pair = hops(one, two, three)
            if twins.add(*pair):
                routes[one] = pair
        elif what == "wait":
            twins.now += one
        elif what == "leave":
            for _ in range(two):
                twins.next(one)
        elif one in routes:
            hop = routes[one][two]
            if what == "arrive":
                for _ in range(4):
                    twins.receive(hop.link, hop.label_in, bool(two), three)
            elif what == "remove":
                twins.remove(hop.link, hop.label_in)
                del routes[one]
            else:
                twins.holds(hop.link, hop.label_in, bool(three))
        twins.look()
    for link in range(4):
        while twins.next(link):
            pass
    twins.look()
    for reason in twins.drops:
        event(reason)
    event(f"marked: {twins.marked_count > 0}")


@given(steps=STEPS, config=CONFIGS)
def test_every_frame_that_came_leaves_or_is_counted(
    driver: Driven, steps: list[tuple[str, int, int, int]], config: DatapathConfig
) -> None:
    Twins(driver, config)  # a new table; from here on only the C
    routes: dict[int, tuple[Hop, Hop]] = {}
    arrived = left = now = 0
    counts = [0, 0, 0, 0]

    def ask(command: str) -> str:
        nonlocal counts
        answer, drops = driver.ask(command).split(";")
        counts = [int(each) for each in drops.split()]
        return answer

    for what, one, two, three in steps:
        if what == "add":
            before, ahead = hops(one, two, three)
            if not ask(f"a {side(before)} {side(ahead)} {now * TICK_NS}"):
                routes[one] = (before, ahead)
        elif what == "wait":
            now += one
        elif what == "leave":
            for _ in range(two):
                left += ask(f"n {one} {now * TICK_NS}") != ""
        elif one in routes:
            hop = routes[one][two]
            if what == "remove":
                ask(f"d {hop.link} {hop.label_in}")
                del routes[one]
            elif what == "arrive":
                arrived += 1
                frame_hex = HEADER.pack(1, 2 * two, 0, 0, hop.label_in, arrived).hex() + "00" * (three - 16)
                assert ask(f"r {hop.link} {hop.label_in} {two} 0 0 {frame_hex} {now * TICK_NS}") == "1"
    for link in range(4):
        while ask(f"n {link} {now * TICK_NS}"):
            left += 1
    assert arrived == left + sum(counts)


def test_feedback_under_a_label_of_data_is_not_taken(driver: Driven) -> None:
    twins = Twins(driver, DatapathConfig())
    before, ahead = hops(1, 1, 2)
    twins.add(before, ahead)
    for hop, feedback in ((before, True), (ahead, False)):
        twins.holds(hop.link, hop.label_in, feedback)
        twins.receive(hop.link, hop.label_in, feedback, 100)
    twins.receive(1, 2001, True, 100)
    twins.look()


def test_a_frame_may_wait_for_the_whole_age_and_no_longer(driver: Driven) -> None:
    for waited in (1024, 1025):
        twins = Twins(driver, DatapathConfig(relay_age_s_max=2.0))
        before, ahead = hops(1, 1, 2)
        twins.add(before, ahead)
        twins.receive(1, before.label_in, False, 100)
        twins.now += waited
        assert twins.next(2) == (waited == 1024)
    assert twins.drops == {"relay-aged": 1}


def test_a_tether_without_channels_is_refused(driver: Driven) -> None:
    Twins(driver, DatapathConfig())
    assert driver.ask("a 1 5 0 1 1 2 5 1 1 1 0").startswith("a tether without channels")
    assert driver.ask("a 1 5 1 1 1 2 5 0 1 1 0").startswith("a tether without channels")
    assert driver.ask("a 1 5 9 1 1 2 5 1 1 1 0").startswith("a tether without channels, or with too many")
    assert driver.ask("a 1 5 1 1 1 2 5 9 1 1 0").startswith("a tether without channels, or with too many")
    assert driver.ask("s").startswith(";")


def test_an_allowance_outlives_its_routes(driver: Driven) -> None:
    twins = Twins(driver, DatapathConfig(relay_bytes_per_s=65536))
    before, ahead = hops(1, 1, 2)
    for _ in range(3):
        twins.add(before, ahead)
        for _ in range(3):
            twins.receive(1, before.label_in, False, 30_000)
        twins.remove(1, before.label_in)
        twins.now += 20
    assert twins.drops == {"relay-rate": 7, "relay-gone": 2}
    twins.now += 2 * TICKS_PER_S
    twins.add(before, ahead)
    twins.receive(1, before.label_in, False, 60_000)
    assert twins.drops["relay-rate"] == 7


def test_a_route_for_which_there_is_no_memory_leaves_nothing_behind(driver: Driven) -> None:
    twins = Twins(driver, DatapathConfig(relay_bytes_per_s=65536))
    refused = 0
    for number in range(60):  # past the first growth of every table
        before, ahead = hops(number, number, 100 + number)
        for allocations in range(6):
            driver.ask(f"x {allocations}")
            answer = driver.ask(f"a {side(before)} {side(ahead)} 0").split(";")[0]
            driver.ask("x -1")
            if not answer:
                driver.ask(f"d {before.link} {before.label_in}")
            else:
                assert answer == "no memory for another route"
                refused += 1
            for hop, feedback in ((before, False), (ahead, True)):
                twins.holds(hop.link, hop.label_in, feedback)
        twins.add(before, ahead)
    assert refused > 60 * 3
    twins.look()


def test_a_frame_for_which_there_is_no_memory_is_counted(driver: Driven) -> None:
    twins = Twins(driver, DatapathConfig())
    before, ahead = hops(1, 1, 2)
    twins.add(before, ahead)
    driver.ask("x 0")
    frame = HEADER.pack(f.VERSION, 0, 3, 0, before.label_in, 1) + bytes(100)
    assert driver.ask(f"r {before.link} {before.label_in} 0 0 0 {frame.hex()} 0") == "1;1 0 0 0"
    driver.ask("x -1")
    assert driver.ask("w 2").startswith("0")


@pytest.mark.parametrize("seed", range(12))
def test_the_twins_agree_over_a_long_life(driver: Driven, seed: int) -> None:
    """Links are overrun, marked, stalled for seconds and removed."""
    chance = random.Random(seed)
    config = DatapathConfig(
        relay_route_bytes_max=chance.choice([8000, 60_000]),
        relay_link_bytes_max=chance.choice([20_000, 100_000]),
        relay_bytes_max=chance.choice([50_000, 10**9]),
        relay_mark_bytes=chance.choice([2000, 10_000]),
        relay_bytes_per_s=chance.choice([None, 2**20]),
    )
    twins = Twins(driver, config)
    routes = {number: hops(number, number % 4, (number + 1 + number // 4) % 4) for number in range(12)}
    for pair in routes.values():
        twins.add(*pair)
    for _ in range(3000):
        number = chance.choice(tuple(routes))
        two = chance.randrange(2)
        hop = routes[number][two]
        act = chance.random()
        if act < 0.6:
            twins.receive(hop.link, hop.label_in, bool(two), chance.choice([32, 100, 1400, 9000, 16_416]))
        elif act < 0.98:
            twins.next(hop.link)
        elif act < 0.99:
            twins.remove(hop.link, hop.label_in)
            twins.look()
            twins.add(*routes[number])
        else:
            twins.now += chance.choice([1, 1, 1, 100, 1200])
    twins.look()
    assert twins.marked_count > 0
    assert twins.drops["relay-full"] > 0
    assert twins.drops["relay-aged"] + twins.drops["relay-gone"] > 0


@pytest.mark.parametrize("number", range(3))
def test_the_twins_agree_while_many_routes_come_and_go(driver: Driven, number: int) -> None:
    """The hash table grows several times, and empties."""
    seed = random.Random(number)
    twins = Twins(driver, DatapathConfig())
    live: list[tuple[Hop, Hop]] = []
    for step in range(600):
        if live and seed.random() < (0.2 if step < 300 else 0.8):
            pair = live.pop(seed.randrange(len(live)))
            hop = pair[seed.randrange(2)]
            twins.remove(hop.link, hop.label_in)
            for each, feedback in zip(pair, (False, True), strict=True):
                twins.holds(each.link, each.label_in, feedback)
        else:
            labels = [seed.getrandbits(32) for _ in range(4)]
            links = seed.sample(range(5), 2)
            before = Hop(LinkId(links[0]), TetherId(b"t" * 8), 2, labels[0], labels[1])
            ahead = Hop(LinkId(links[1]), TetherId(b"u" * 8), 2, labels[2], labels[3])
            assert twins.add(before, ahead)
            live.append((before, ahead))
        if live:
            index = seed.randrange(2)
            hop = seed.choice(live)[index]
            twins.receive(hop.link, hop.label_in, bool(index), 100)
            twins.next(seed.randrange(5))
    twins.look()
