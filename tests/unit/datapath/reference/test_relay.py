"""Frames that are passed on: labels, bounds, turns and marks; and that a relay holds nothing else."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from kit.chain import (
    A4,
    B4,
    CHANNEL_COUNT,
    DATA,
    FEEDBACK,
    STREAM,
    A,
    B,
    Chain,
    down,
    far_side,
    held,
    near_side,
    packet,
    tether,
    up,
)

from conflux.anchor import frame as f
from conflux.anchor.codec import Receiver, Sender, peek, relabel
from conflux.carrier.interface import Hop, OutFrame
from conflux.datapath.config import DatapathConfig
from conflux.datapath.interface import Feedback
from conflux.datapath.reference.datapath import ReferenceDatapath
from conflux.datapath.reference.relay import FRAME_COST_BYTES, QUANTUM_BYTES
from conflux.datapath.status import RelaySideStatus, RelayStatus
from conflux.errors import LocalProtocolError
from conflux.ids import LinkId

BEFORE, BESIDE, AHEAD = LinkId(1), LinkId(2), LinkId(3)


def sealed(number: int, *, size: int = 1000, label: int = 0, flags: int = 0) -> bytes:
    """Return a frame of a size under a key of no stream; its number is the counter."""
    return bytes([f.VERSION, flags, 0, 0]) + label.to_bytes(4) + number.to_bytes(8) + bytes(size - 16)


def number_of(out: OutFrame) -> int:
    """Return the counter of a frame."""
    return peek(out.data)[3]


def hops(route: int, before: LinkId = BEFORE, ahead: LinkId = AHEAD) -> tuple[Hop, Hop]:
    """Return both hops of route number n through one relay; their labels in are 1000 + n and 2000 + n."""
    return (
        Hop(before, tether(before), CHANNEL_COUNT, label_out=3000 + route, label_in=1000 + route),
        Hop(ahead, tether(ahead), CHANNEL_COUNT, label_out=4000 + route, label_in=2000 + route),
    )


def relay(route_count: int, **limits: float | int | None) -> ReferenceDatapath:
    """Return a relay of so many routes."""
    datapath = ReferenceDatapath(DatapathConfig(**limits))  # a test names what exists
    for route in range(route_count):
        datapath.add_relay(*hops(route), now=0.0)
    return datapath


def arrive(
    datapath: ReferenceDatapath, number: int, route: int = 0, *, size: int = 1000, now: float = 0.0, channel: int = 0
) -> None:
    """Give a relay one frame."""
    frame = sealed(number, size=size, label=1000 + route)
    datapath.frame_untrusted(BEFORE, frame, now=now, channel=channel)


def leave(datapath: ReferenceDatapath, link: LinkId = AHEAD, *, now: float = 0.0) -> list[OutFrame]:
    """Return what a relay has for a link."""
    return list(iter(lambda: datapath.next_relayed(link, now=now), None))


# ── switching ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_frame_leaves_under_the_next_label_and_is_otherwise_untouched() -> None:
    datapath = relay(2)
    datapath.frame_untrusted(BEFORE, sealed(7, label=1001), now=0.0, channel=2)
    assert datapath.relayable() == (AHEAD,)
    assert leave(datapath) == [OutFrame(AHEAD, tether(AHEAD), 2, sealed(7, label=4001))]
    datapath.frame_untrusted(AHEAD, sealed(8, label=2001, flags=f.FEEDBACK), now=0.0, channel=0)
    assert datapath.relayable() == (BEFORE,)
    assert leave(datapath, BEFORE) == [OutFrame(BEFORE, tether(BEFORE), 0, sealed(8, label=3001, flags=f.FEEDBACK))]
    assert datapath.relayable() == ()
    assert datapath.drop_counts() == {}


def test_a_narrower_tether_ahead_takes_every_channel() -> None:
    datapath = ReferenceDatapath()
    before, ahead = hops(0)
    datapath.add_relay(before, Hop(AHEAD, ahead.tether, 3, ahead.label_out, ahead.label_in), now=0.0)
    for channel in range(4):
        arrive(datapath, channel, channel=channel)
    assert [out.channel for out in leave(datapath)] == [0, 1, 2, 0]


def test_packets_cross_and_reports_come_back() -> None:
    for relay_count in (1, 2, 3):
        chain = Chain(relay_count)
        packets = [packet(number) for number in range(10)]
        for each in packets:
            chain.a.packet(each, now=1.0)
        assert chain.carry(1.0) == packets
        chain.carry_back(1.2)
        reports = [upcall for upcall in iter(chain.a.next_upcall, None) if isinstance(upcall, Feedback)]
        assert [(report.received_count, report.lost_count) for report in reports] == [(1, 0)]
        assert all(node.drop_counts() == {} for node in chain.nodes)


def test_a_relay_has_streams_of_its_own() -> None:
    chain = Chain(0)
    chain.b.add_relay(*hops(0), now=0.0)
    arrive(chain.b, 5)
    chain.a.packet(packet(1), now=0.0)
    assert chain.carry(0.0) == [packet(1)]
    assert [number_of(out) for out in leave(chain.b)] == [5]


@pytest.mark.parametrize(
    ("link", "label", "flags"),
    [
        pytest.param(BEFORE, 1009, 0, id="guessed"),
        pytest.param(BEFORE, 0, 0, id="no label"),
        pytest.param(AHEAD, 1000, 0, id="another link's label"),
        pytest.param(BESIDE, 1000, 0, id="no link of the route's"),
        pytest.param(AHEAD, 4000, 0, id="our own frame thrown back"),
        pytest.param(BEFORE, 3000, f.FEEDBACK, id="our own feedback thrown back"),
        pytest.param(AHEAD, 2000, 0, id="data the wrong way"),
        pytest.param(BEFORE, 1000, f.FEEDBACK, id="feedback the wrong way"),
    ],
)
def test_a_frame_under_no_label_of_its_link_and_direction_is_dropped(link: LinkId, label: int, flags: int) -> None:
    datapath = relay(1)
    datapath.frame_untrusted(link, sealed(1, label=label, flags=flags), now=0.0)
    assert datapath.relayable() == ()
    assert datapath.drop_counts() == {"unknown-label": 1}


def test_a_malformed_frame_is_not_passed_on() -> None:
    datapath = relay(1)
    good = sealed(1, label=1000)
    for bad in (b"", good[:31], b"\x02" + good[1:], good[:1] + b"\x04" + good[2:], good[:3] + b"\x01" + good[4:]):
        datapath.frame_untrusted(BEFORE, bad, now=0.0)
    datapath.frame_untrusted(BEFORE, sealed(1, size=f.FRAME_BYTES_MAX + 1, label=1000), now=0.0)
    assert datapath.relayable() == ()
    assert datapath.drop_counts() == {"truncated": 2, "version": 1, "reserved": 2, "oversized": 1}
    datapath.frame_untrusted(BEFORE, sealed(1, size=f.FRAME_BYTES_MAX, label=1000), now=0.0)
    assert [len(out.data) for out in leave(datapath)] == [f.FRAME_BYTES_MAX]


# ── tables ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("side", [0, 1], ids=["before", "ahead"])
def test_the_label_of_either_hop_removes_both_directions(side: int) -> None:
    datapath = relay(2)
    arrive(datapath, 1, 0)
    arrive(datapath, 2, 1)
    hop = hops(0)[side]
    datapath.remove_relay(hop.link, hop.label_in)
    datapath.remove_relay(hop.link, hop.label_in)
    arrive(datapath, 3, 0)
    datapath.frame_untrusted(AHEAD, sealed(4, label=2000, flags=f.FEEDBACK), now=0.0)
    assert datapath.drop_counts() == {"relay-gone": 1, "unknown-label": 2}
    assert [number_of(out) for out in leave(datapath)] == [2]
    datapath.add_relay(*hops(0), now=0.0)
    arrive(datapath, 5, 0)
    assert [number_of(out) for out in leave(datapath)] == [5]


def test_the_last_route_leaves_nothing_behind() -> None:
    def kinds(root: ReferenceDatapath) -> set[str]:
        return {type(each).__name__ for each in held(root)}

    datapath = relay(3)
    for route in range(3):
        arrive(datapath, 1, route)
    assert kinds(datapath) >= {"Way", "LinkQueue", "Hop"}, "the search finds what is there"
    for route in range(3):
        datapath.remove_relay(BEFORE, 1000 + route)
    assert datapath.relayable() == ()
    assert datapath.next_relayed(AHEAD, now=0.0) is None
    assert datapath.status().relays == ()
    assert kinds(datapath) <= kinds(ReferenceDatapath())


def test_an_unknown_label_removes_nothing() -> None:
    datapath = relay(1)
    for link, label in ((BEFORE, 2000), (AHEAD, 1000), (BEFORE, 3000), (BESIDE, 1000), (BEFORE, 0)):
        datapath.remove_relay(link, label)
    arrive(datapath, 1)
    assert len(leave(datapath)) == 1


def test_a_route_back_over_its_own_link_is_refused() -> None:
    datapath = ReferenceDatapath()
    with pytest.raises(LocalProtocolError):
        datapath.add_relay(*hops(0, BEFORE, BEFORE), now=0.0)
    assert datapath.status().relays == ()


def test_a_label_has_one_use() -> None:
    datapath = relay(1)
    before, ahead = hops(0)
    other_before, other_ahead = hops(1)
    for sides in ((before, ahead), (before, other_ahead), (other_before, ahead), (ahead, other_before)):
        with pytest.raises(LocalProtocolError):
            datapath.add_relay(*sides, now=0.0)
    chain = Chain(0)
    with pytest.raises(LocalProtocolError):
        chain.b.add_relay(far_side(0), ahead, now=0.0)
    with pytest.raises(LocalProtocolError):
        chain.a.add_relay(before, near_side(0), now=0.0)
    chain.b.add_relay(before, ahead, now=0.0)
    with pytest.raises(LocalProtocolError):
        chain.b.add_receiver_route(STREAM, before, now=0.0)
    chain.a.add_relay(before, ahead, now=0.0)
    with pytest.raises(LocalProtocolError):
        chain.a.set_route(STREAM, ahead, now=0.0)
    chain.a.packet(packet(1), now=0.0)
    assert chain.carry(0.0) == [packet(1)]


# ── what a relay holds ───────────────────────────────────────────────────────────────────────────────────────────────


def test_status_shows_links_labels_and_counts() -> None:
    datapath = relay(1)
    arrive(datapath, 1, size=500)
    arrive(datapath, 2, size=600)
    datapath.frame_untrusted(AHEAD, sealed(3, size=70, label=2000, flags=f.FEEDBACK), now=0.0)
    leave(datapath)
    leave(datapath, BEFORE)
    assert datapath.status().relays == (
        RelayStatus(
            before=RelaySideStatus(BEFORE, label_in=1000, label_out=3000),
            ahead=RelaySideStatus(AHEAD, label_in=2000, label_out=4000),
            frames_ahead=2,
            bytes_ahead=1100,
            frames_back=1,
            bytes_back=70,
        ),
    )


def test_a_relay_holds_no_key_no_name_and_no_packet() -> None:
    secrets = [STREAM, A, B, A4.packed, B4.packed, DATA.key, FEEDBACK.key, b"plaintext"]

    def found(datapath: ReferenceDatapath) -> set[bytes]:
        dump = [bytes(each) for each in held(datapath) if isinstance(each, (bytes, bytearray))]
        dump += [str(each).encode() for each in held(datapath) if not isinstance(each, (bytes, bytearray))]
        return {secret for secret in secrets if any(secret in each for each in dump)}

    chain = Chain(2)
    chain.a.packet(packet(1), now=0.0)
    assert found(chain.a) >= {STREAM, A4.packed, b"plaintext"}, "the search finds what is there"
    for out in chain.frames(0.0):
        chain.cross(0, out, 0.0)
    assert found(chain.relays[0]) == set(), "while a frame waits"
    for out in chain.relayed(0, down(1), 0.0):
        chain.cross(1, out, 0.0)
    for out in chain.relayed(1, down(2), 0.0):
        chain.cross(2, out, 0.0)
    chain.carry_back(0.2)
    assert found(chain.relays[0]) == found(chain.relays[1]) == set()
    for datapath in chain.relays:
        assert not any(isinstance(each, (Sender, Receiver)) for each in held(datapath)), "nothing that could unseal"


def test_two_relays_share_no_label_but_that_of_the_hop_between_them() -> None:
    chain = Chain(3)
    chain.a.packet(packet(1), now=0.0)
    seen: list[OutFrame] = chain.frames(0.0)
    chain.cross(0, seen[0], 0.0)
    for index in range(3):
        seen += chain.relayed(index, down(index + 1), 0.0)
        chain.cross(index + 1, seen[-1], 0.0)
    assert len({out.data[4:8] for out in seen}) == 4
    assert len({out.channel for out in seen}) == 1
    for one, other in pairwise(seen):
        assert (one.data[:4], one.data[8:]) == (other.data[:4], other.data[8:])


# ── bounds ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_route_that_is_full_loses_its_oldest_frames() -> None:
    cost = 1000 + FRAME_COST_BYTES
    datapath = relay(1, relay_route_bytes_max=3 * cost)
    for number in range(5):
        arrive(datapath, number)
    assert [number_of(out) for out in leave(datapath)] == [2, 3, 4]
    assert datapath.drop_counts() == {"relay-full": 2}


COST = 1000 + FRAME_COST_BYTES


def pass_on(datapath: ReferenceDatapath, *, per_ms: int, route: int = 0) -> float:
    """Have so many frames of a route arrive and leave every millisecond; return when that ended."""
    for step in range(400):
        for number in range(per_ms):
            arrive(datapath, number, route, now=step / 1000)
        leave(datapath, now=step / 1000)
    return 0.4


def flood(datapath: ReferenceDatapath, route: int, now: float, count: int = 1000) -> None:
    """Give a relay many frames of one route."""
    for number in range(count):
        arrive(datapath, number, route, now=now)


@pytest.mark.parametrize(("per_ms", "held"), [(0, 100), (1, 100), (3, 150), (6, 300), (20, 400)])
def test_a_route_over_a_fast_link_holds_what_leaves_in_a_window(per_ms: int, held: int) -> None:
    datapath = relay(1, relay_route_bytes_max=100 * COST, relay_link_bytes_max=200 * COST)
    now = pass_on(datapath, per_ms=per_ms)
    assert datapath.drop_counts() == {}
    flood(datapath, 0, now)
    assert len(leave(datapath, now=now)) == pytest.approx(held, rel=0.05)


def test_routes_share_the_room_of_a_fast_link_and_a_flood_drops_its_own_frames() -> None:
    """One neighbour has 127 routes over a fast link, another has one."""
    datapath = relay(128, relay_route_bytes_max=1000 * COST, relay_link_bytes_max=2000 * COST)
    now = pass_on(datapath, per_ms=90)
    for _ in range(100):
        for route in range(127):
            flood(datapath, route, now, 1)
    dropped = datapath.drop_counts()["relay-full"]
    for number in range(10):
        arrive(datapath, number, 127, now=now)
    assert datapath.drop_counts()["relay-full"] == dropped, "the new route finds room"
    left = Counter(peek(out.data)[2] - 4000 for out in leave(datapath, now=now))
    assert left[127] == 10
    assert {left[route] for route in range(127)} <= {62, 63}, "a 128th each of four times the room"


def test_fast_links_together_hold_no_more_than_slow_ones() -> None:
    datapath = ReferenceDatapath(
        DatapathConfig(relay_route_bytes_max=100 * COST, relay_link_bytes_max=200 * COST, relay_bytes_max=800 * COST)
    )
    for route in range(8):
        datapath.add_relay(*hops(route, ahead=LinkId(AHEAD + route)), now=0.0)
    for step in range(100):
        for route in range(8):
            flood(datapath, route, step / 1000, 20)
            leave(datapath, LinkId(AHEAD + route), now=step / 1000)
    for route in range(8):
        flood(datapath, route, 0.1)
    held = [len(leave(datapath, LinkId(AHEAD + route), now=0.1)) for route in range(8)]
    assert held == [400, 200, 100, 50, 25, 13, 6, 3], "half of what is still free"


def test_a_link_without_routes_forgets_what_left() -> None:
    datapath = relay(1, relay_route_bytes_max=100 * COST, relay_link_bytes_max=200 * COST)
    now = pass_on(datapath, per_ms=20)
    datapath.remove_relay(BEFORE, 1000)
    datapath.add_relay(*hops(0), now=now)
    flood(datapath, 0, now)
    assert len(leave(datapath, now=now)) == 100


def test_a_flood_drops_its_own_frames() -> None:
    cost = 1000 + FRAME_COST_BYTES
    datapath = relay(3, relay_link_bytes_max=12 * cost)
    for number in range(100):
        arrive(datapath, number, 0)
    for route in (1, 2):
        for number in range(2):
            arrive(datapath, number, route)
    left = Counter(peek(out.data)[2] - 4000 for out in leave(datapath))
    assert left == {0: 6, 1: 2, 2: 2}, "half of the room for one route alone; the others find theirs"
    assert datapath.drop_counts() == {"relay-full": 94}


def test_many_small_frames_are_charged_more_than_their_bytes() -> None:
    datapath = relay(1, relay_route_bytes_max=100_000)
    for number in range(10_000):
        arrive(datapath, number, size=32)
    assert len(leave(datapath)) == 100_000 // (32 + FRAME_COST_BYTES)


def test_all_links_together_are_bounded() -> None:
    cost = 1000 + FRAME_COST_BYTES
    datapath = ReferenceDatapath(DatapathConfig(relay_bytes_max=10 * cost))
    for route in range(50):
        datapath.add_relay(*hops(route, ahead=LinkId(AHEAD + route)), now=0.0)
        for number in range(3):
            arrive(datapath, number, route)
    waiting = sum(len(leave(datapath, link)) for link in datapath.relayable())
    assert 5 <= waiting <= 10
    assert datapath.drop_counts() == {"relay-full": 150 - waiting}
    arrive(datapath, 1, 49)
    assert len(leave(datapath, LinkId(AHEAD + 49))) == 1, "what left makes room"


def test_a_frame_that_could_never_fit_drops_no_other() -> None:
    datapath = relay(1, relay_route_bytes_max=5000)
    arrive(datapath, 1)
    arrive(datapath, 2, size=5000)
    assert [number_of(out) for out in leave(datapath)] == [1]
    assert datapath.drop_counts() == {"relay-full": 1}


def test_each_neighbour_has_an_allowance_of_its_own() -> None:
    datapath = ReferenceDatapath(DatapathConfig(relay_bytes_per_s=400_000))
    datapath.add_relay(*hops(0), now=0.0)
    datapath.add_relay(*hops(1, before=BESIDE), now=0.0)
    for number in range(200):
        arrive(datapath, number)
    assert len(leave(datapath)) == 100, "a burst of a quarter of a second"
    datapath.frame_untrusted(BESIDE, sealed(1, label=1001), now=0.0)
    assert len(leave(datapath)) == 1
    for number in range(200):
        arrive(datapath, number, now=0.1)
    assert len(leave(datapath, now=0.1)) == 40
    assert datapath.drop_counts() == {"relay-rate": 260}


def test_the_largest_frame_fits_a_small_allowance() -> None:
    datapath = relay(1, relay_bytes_per_s=1000)
    arrive(datapath, 1, size=f.FRAME_BYTES_MAX)
    arrive(datapath, 2, size=32)
    assert [number_of(out) for out in leave(datapath)] == [1]
    assert datapath.drop_counts() == {"relay-rate": 1}


def test_a_route_set_up_anew_does_not_refill_the_allowance() -> None:
    datapath = relay(1, relay_bytes_per_s=400_000)
    for number in range(100):
        arrive(datapath, number)
    leave(datapath)
    datapath.remove_relay(BEFORE, 1000)
    datapath.add_relay(*hops(1), now=0.01)
    for number in range(100):
        arrive(datapath, number, 1, now=0.01)
    assert len(leave(datapath, now=0.01)) == 4
    datapath.remove_relay(BEFORE, 1001)
    datapath.add_relay(*hops(2, BESIDE), now=10.0)
    buckets = [each for each in held(datapath) if type(each).__name__ == "TokenBucket"]
    assert buckets == [datapath._pending._answers], "full again, and forgotten"


def test_frames_that_waited_too_long_are_dropped() -> None:
    datapath = relay(2, relay_age_s_max=2.0)
    arrive(datapath, 1, 0, now=0.0)
    arrive(datapath, 2, 1, now=1.0)
    assert [number_of(out) for out in leave(datapath, now=2.5)] == [2]
    arrive(datapath, 3, 1, now=3.0)
    assert leave(datapath, now=9.0) == []
    assert datapath.relayable() == ()
    assert datapath.drop_counts() == {"relay-aged": 2}


# ── turns ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_routes_share_a_link_by_bytes() -> None:
    datapath = relay(3)
    sizes = (16_384, 4096, 1024)
    for route, size in enumerate(sizes):
        for number in range(400_000 // (size + FRAME_COST_BYTES)):
            arrive(datapath, number, route, size=size)
    costs: Counter[int] = Counter()
    while sum(costs.values()) < 600_000:
        out = datapath.next_relayed(AHEAD, now=0.0)
        assert out is not None
        costs[peek(out.data)[2] - 4000] += len(out.data) + FRAME_COST_BYTES
        assert max(costs.values()) - min(costs[route] for route in range(3)) <= 3 * QUANTUM_BYTES
    assert datapath.drop_counts() == {}


def test_a_quiet_route_waits_for_one_frame_among_a_hundred_busy_ones() -> None:
    datapath = relay(101, relay_link_bytes_max=2**30)
    for number in range(3):
        for route in range(100):
            arrive(datapath, number, route, size=16_384)
    for _ in range(150):
        datapath.next_relayed(AHEAD, now=0.0)
    arrive(datapath, 77, 100, size=100)
    out = datapath.next_relayed(AHEAD, now=0.0)
    assert out is not None
    assert number_of(out) == 77


def test_a_route_is_not_quiet_again_before_all_others_had_a_turn() -> None:
    datapath = relay(2)
    arrive(datapath, 0, 1, size=f.FRAME_BYTES_MAX)
    datapath.next_relayed(AHEAD, now=0.0)
    for number in range(1, 33):
        arrive(datapath, number, 1, size=8000)
    order = []
    for _ in range(8):  # it has one frame of the largest size at a time
        arrive(datapath, 0, 0, size=f.FRAME_BYTES_MAX)
        while (out := datapath.next_relayed(AHEAD, now=0.0)) is not None:
            order.append(peek(out.data)[2] - 4000)
            if order[-1] == 0:
                break
    first = order.index(0)
    bytes_between = 8000 * order[first:].count(1)
    assert bytes_between >= 0.8 * f.FRAME_BYTES_MAX * 3, "as much as the other had to send, frame by frame"


def test_links_come_longest_unserved_first() -> None:
    datapath = relay(1)
    datapath.add_relay(*hops(1, ahead=LinkId(9)), now=0.0)
    for number in range(2):
        arrive(datapath, number, 0)
        arrive(datapath, number, 1)
    assert datapath.relayable() == (AHEAD, LinkId(9))
    datapath.next_relayed(AHEAD, now=0.0)
    assert datapath.relayable() == (LinkId(9), AHEAD)


def test_order_within_a_route_is_kept() -> None:
    datapath = relay(2)
    for number in range(50):
        arrive(datapath, number, number % 2)
    order = leave(datapath)
    for route in range(2):
        numbers = [number_of(out) for out in order if peek(out.data)[2] == 4000 + route]
        assert numbers == list(range(route, 50, 2))


# ── marks ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_frames_are_marked_while_the_queue_is_over_its_threshold() -> None:
    cost = 1000 + FRAME_COST_BYTES
    datapath = relay(2, relay_mark_bytes=4 * cost)
    arrive(datapath, 99, 1)
    for number in range(10):
        arrive(datapath, number)
    marks = {number_of(out): peek(out.data)[0] for out in leave(datapath)}
    assert marks == {number: f.CE if number < 5 else 0 for number in [99, *range(10)]}, "with 99 there is no queue"


def test_a_mark_that_is_set_stays() -> None:
    datapath = relay(1)
    datapath.frame_untrusted(BEFORE, sealed(1, label=1000, flags=f.CE), now=0.0)
    assert [peek(out.data)[0] for out in leave(datapath)] == [f.CE]


def test_marks_reach_the_sender_and_the_inner_flow() -> None:
    chain = Chain(2, DatapathConfig(relay_mark_bytes=0, bundle_bytes_max=1500))
    for number in range(3):
        chain.a.packet(packet(number, size=1200, ect=True), now=0.0)
    delivered = chain.carry(0.0)
    assert [each[1] & 3 for each in delivered] == [3, 3, 2]
    chain.carry_back(0.2)
    reports = [upcall for upcall in iter(chain.a.next_upcall, None) if isinstance(upcall, Feedback)]
    assert [report.marked_count for report in reports] == [2]


# ── what a relay can do to a stream ──────────────────────────────────────────────────────────────────────────────────


def test_a_frame_that_a_relay_forged_is_dropped_at_the_end() -> None:
    chain = Chain(1)
    forger = Sender(f.CHACHA20_POLY1305, bytes(32), b"npre", 0)
    forged = forger.seal(far_side(1).label_in, 0, [(f.PACKET, packet(1))])
    chain.b.frame_untrusted(up(1), forged, now=0.0)
    assert chain.b.next_delivery() is None
    assert chain.b.drop_counts() == {"auth": 1}


def test_feedback_that_a_relay_forged_is_dropped_at_the_sender() -> None:
    chain = Chain(1)
    chain.a.packet(packet(1), now=0.0)
    chain.carry(0.0)
    chain.b.handle_timeout(now=0.2)
    out = chain.b.next_feedback(now=0.2)
    assert out is not None
    label = near_side(0).label_in
    chain.a.frame_untrusted(down(0), relabel(out.data[:-1] + bytes([out.data[-1] ^ 1]), label, False), now=0.2)
    assert chain.a.drop_counts() == {"auth": 1}
    for _ in range(2):
        chain.a.frame_untrusted(down(0), relabel(out.data, label, False), now=0.2)
    assert chain.a.drop_counts() == {"auth": 1, "replay": 1}
