"""Relays under any traffic, and malicious relays: what they may change is noticed, the rest is refused."""

from __future__ import annotations

from collections import Counter, deque

from hypothesis import assume, given
from hypothesis import strategies as st
from kit.chain import Chain, down, near_side, packet, up

from conflux.anchor import frame as f
from conflux.anchor.codec import peek
from conflux.carrier.interface import Hop, OutFrame
from conflux.datapath.config import DatapathConfig
from conflux.datapath.interface import Feedback
from conflux.datapath.reference.datapath import ReferenceDatapath
from conflux.datapath.reference.relay import FRAME_COST_BYTES, QUANTUM_BYTES
from conflux.errors import LocalProtocolError
from conflux.ids import LinkId, TetherId

RELAY_COUNTS = st.integers(1, 3)
BURSTS = st.lists(st.tuples(st.integers(0, 7), st.integers(40, 1400)), min_size=1, max_size=20)  # flow, size
CONFIG = DatapathConfig(bundle_bytes_max=3000)  # several frames even of a few packets


def offer(chain: Chain, burst: list[tuple[int, int]], now: float) -> set[bytes]:
    """Give A packets to send; return them."""
    packets = [packet(number, size=size, port=5000 + flow) for number, (flow, size) in enumerate(burst)]
    for each in packets:
        chain.a.packet(each, now=now)
    return set(packets)


def drops(chain: Chain) -> Counter[str]:
    """Return every node's drops."""
    return sum((Counter(node.drop_counts()) for node in chain.nodes), Counter())


@given(relay_count=RELAY_COUNTS, bursts=st.lists(BURSTS, min_size=1, max_size=4))
def test_everything_arrives_once_and_reports_come_back(relay_count: int, bursts: list[list[tuple[int, int]]]) -> None:
    chain = Chain(relay_count, CONFIG)
    labels: dict[int, set[int]] = {}
    sealed: dict[bytes, set[int]] = {}

    def tap(hop: int, out: OutFrame) -> list[bytes]:
        labels.setdefault(hop, set()).add(peek(out.data)[2])
        sealed.setdefault(out.data[:1] + out.data[2:4] + out.data[8:], set()).add(out.channel)
        return [out.data]

    for step, burst in enumerate(bursts):
        sent = offer(chain, burst, float(step))
        assert sorted(chain.carry(float(step), tap)) == sorted(sent)
    assert labels == {hop: {near_side(hop).label_out} for hop in range(relay_count + 1)}
    assert all(len(channels) == 1 for channels in sealed.values()), "a frame keeps its channel"
    now = len(bursts) + 1.0
    chain.carry_back(now)
    report = [upcall for upcall in iter(chain.a.next_upcall, None) if isinstance(upcall, Feedback)][-1]
    assert report.received_count <= len(sealed)
    assert report.lost_count == 0
    assert drops(chain) == {}


@given(relay_count=RELAY_COUNTS, burst=BURSTS, script=st.lists(st.sampled_from("pppdt2r"), min_size=1, max_size=40))
def test_a_relay_that_drops_repeats_delays_or_tampers_costs_packets_and_nothing_else(
    relay_count: int, burst: list[tuple[int, int]], script: list[str]
) -> None:
    chain = Chain(relay_count, CONFIG)
    todo = deque(script)
    delayed: dict[int, list[bytes]] = {}
    counts: Counter[str] = Counter()

    def malice(hop: int, out: OutFrame) -> list[bytes]:
        act = todo.popleft() if todo else "p"
        counts[act] += 1
        late = delayed.pop(hop, [])
        if act == "d":
            return late
        if act == "r":
            delayed[hop] = [out.data]
            return late
        if act == "t":
            return [out.data[:-1] + bytes([out.data[-1] ^ 1]), *late]
        return [out.data, *late] if act == "p" else [out.data, out.data, *late]

    sent = offer(chain, burst, 0.0)
    delivered = chain.carry(0.0, malice)
    assert len(delivered) == len(set(delivered)), "nothing twice"
    assert set(delivered) <= sent, "nothing changed, nothing made up"
    assert set(drops(chain)) <= {"auth", "replay"}
    assert chain.b.drop_counts().get("auth", 0) <= 2 ** (relay_count + 1) * counts["t"]
    if counts["t"] + counts["d"] + counts["r"] == 0:
        assert set(delivered) == sent
    left = offer(chain, [(1, 100)], 1.0)
    assert chain.carry(1.0) == list(left), "the stream goes on"


@given(relay_count=RELAY_COUNTS, hop=st.integers(0, 3), place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_one_flipped_bit_anywhere_is_one_drop(relay_count: int, hop: int, place: int, bit: int) -> None:
    assume(hop <= relay_count)
    chain = Chain(relay_count)
    chain.a.packet(packet(1), now=0.0)
    flipped = -1

    def flip(at: int, out: OutFrame) -> list[bytes]:
        nonlocal flipped
        if at != hop:
            return [out.data]
        flipped = place % len(out.data)
        return [out.data[:flipped] + bytes([out.data[flipped] ^ 1 << bit]) + out.data[flipped + 1 :]]

    delivered = chain.carry(0.0, flip)
    if (flipped, 1 << bit) == (1, f.CE):  # the mark, which a relay may set
        assert delivered == [packet(1)]
        assert drops(chain) == {}
    else:
        assert delivered == []
        assert drops(chain).total() == 1
        assert set(drops(chain)) <= {"version", "reserved", "unknown-label", "unknown-epoch", "auth"}


@given(relay_count=RELAY_COUNTS, hop=st.integers(0, 3), place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_feedback_with_one_flipped_bit_tells_the_sender_nothing(
    relay_count: int, hop: int, place: int, bit: int
) -> None:
    assume(hop <= relay_count)
    chain = Chain(relay_count)
    chain.a.packet(packet(1), now=0.0)
    chain.carry(0.0)

    def flip(at: int, out: OutFrame) -> list[bytes]:
        index = place % len(out.data)
        assume((index, 1 << bit) != (1, f.CE))
        changed = out.data[:index] + bytes([out.data[index] ^ 1 << bit]) + out.data[index + 1 :]
        return [changed if at == hop else out.data]

    chain.carry_back(0.2, flip)
    assert not any(isinstance(upcall, Feedback) for upcall in iter(chain.a.next_upcall, None))
    assert drops(chain).total() == 1


@given(data=st.binary(max_size=80), relay_count=RELAY_COUNTS)
def test_any_bytes_at_a_relay_are_passed_on_whole_or_dropped(data: bytes, relay_count: int) -> None:
    chain = Chain(relay_count)
    for index, relay in enumerate(chain.relays):
        for link in (up(index), down(index + 1)):
            for label in (b"", near_side(index).label_out.to_bytes(4), near_side(index + 1).label_in.to_bytes(4)):
                frame = bytes([f.VERSION]) + data[:3] + label + data[3:]
                before = sum(relay.drop_counts().values())
                relay.frame_untrusted(link, frame, now=0.0, channel=1)
                waiting = [out for each in relay.relayable() for out in chain.relayed(index, each, 0.0)]
                assert len(waiting) + sum(relay.drop_counts().values()) - before == 1
                for out in waiting:
                    assert (out.data[:4], out.data[8:]) == (frame[:4], frame[8:])


# ── the table against what it promises ───────────────────────────────────────────────────────────────────────────────

LINKS = st.integers(0, 3)
ROUTES = st.integers(0, 5)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), ROUTES, LINKS, LINKS),
        st.tuples(st.just("remove"), ROUTES, st.booleans(), st.just(0)),
        st.tuples(st.just("arrive"), ROUTES, st.booleans(), st.sampled_from([32, 100, 1000, 5000])),
        st.tuples(st.just("leave"), LINKS, st.integers(1, 4), st.just(0)),
        st.tuples(st.just("wait"), st.sampled_from([0, 1, 30]), st.just(0), st.just(0)),
    ),
    max_size=80,
)


@given(steps=STEPS)
def test_frames_leave_in_order_or_are_counted_or_wait_within_bounds(
    steps: list[tuple[str, int, int, int]],
) -> None:
    config = DatapathConfig(relay_route_bytes_max=8000, relay_link_bytes_max=20_000, relay_bytes_max=30_000)
    datapath = ReferenceDatapath(config)
    routes: dict[int, tuple[Hop, Hop]] = {}
    arrived = left = 0
    newest: Counter[tuple[int, int]] = Counter()  # by link and label, what left last
    now = 0.0

    def take(link: int) -> bool:
        nonlocal left
        promised = LinkId(link) in datapath.relayable()
        out = datapath.next_relayed(LinkId(link), now=now)
        assert promised or out is None
        if out is None:
            return False
        left += 1
        flags, _, label, number = peek(out.data)
        assert out.link == link
        assert any(label == side.label_out and side.link == link for pair in routes.values() for side in pair)
        assert bool(flags & f.FEEDBACK) == (label >= 4000)
        assert newest[link, label] < number
        newest[link, label] = number
        return True

    for what, one, two, three in steps:
        if what == "add" and one not in routes:
            before = Hop(LinkId(two), TetherId(b"t" * 8), 2, label_out=4000 + one, label_in=1000 + one)
            ahead = Hop(LinkId(three), TetherId(b"u" * 8), 2, label_out=3000 + one, label_in=2000 + one)
            try:
                datapath.add_relay(before, ahead, now=now)
                routes[one] = (before, ahead)
            except LocalProtocolError:
                assert two == three
        elif what == "remove" and one in routes:
            side = routes.pop(one)[two]
            datapath.remove_relay(side.link, side.label_in)
        elif what == "arrive" and one in routes:
            arrived += 1
            side = routes[one][two]
            header = bytes([f.VERSION, f.FEEDBACK if two else 0, 0, 0]) + side.label_in.to_bytes(4)
            datapath.frame_untrusted(side.link, header + arrived.to_bytes(8) + bytes(three - 16), now=now)
        elif what == "leave":
            for _ in range(two):
                take(one)
        elif what == "wait":
            now += one / 10
    assert set(datapath.drop_counts()) <= {"relay-full", "relay-aged", "relay-gone"}
    before_last = left
    for link in range(4):
        while take(link):
            pass
    assert (left - before_last) * FRAME_COST_BYTES <= config.relay_bytes_max
    assert arrived == left + sum(datapath.drop_counts().values())
    assert datapath.relayable() == ()
    for pair in routes.values():
        datapath.remove_relay(pair[0].link, pair[0].label_in)
    assert datapath.status().relays == ()


@given(route_count=st.integers(2, 8), sizes=st.lists(st.sampled_from([64, 500, 1500, 16_000]), min_size=8, max_size=8))
def test_routes_that_always_have_frames_get_equal_shares(route_count: int, sizes: list[int]) -> None:
    datapath = ReferenceDatapath(DatapathConfig(relay_link_bytes_max=2**30, relay_bytes_max=2**30))
    for route in range(route_count):
        before = Hop(LinkId(1), TetherId(b"t" * 8), 2, label_out=1000 + route, label_in=1000 + route)
        ahead = Hop(LinkId(2), TetherId(b"u" * 8), 2, label_out=1000 + route, label_in=2000 + route)
        datapath.add_relay(before, ahead, now=0.0)
        size = sizes[route]
        header = bytes([f.VERSION, 0, 0, 0]) + before.label_in.to_bytes(4) + bytes(8)
        for _ in range(100_000 // (size + FRAME_COST_BYTES)):
            datapath.frame_untrusted(LinkId(1), header + bytes(size - 16), now=0.0)
    shares: Counter[int] = Counter()
    while sum(shares.values()) < 60_000 * route_count:
        out = datapath.next_relayed(LinkId(2), now=0.0)
        assert out is not None
        shares[peek(out.data)[2]] += len(out.data) + FRAME_COST_BYTES
    assert len(shares) == route_count
    assert max(shares.values()) - min(shares.values()) <= 2 * QUANTUM_BYTES
