"""Two associations and a bad network between them, by seed."""

from __future__ import annotations

import ctypes

import pytest
from kit.sctp import MS, PACKET_BYTES_MIN, SECOND, Load, Side, WorldConfig, WorldResult, run_world
from kit.sctp_late import PATHS, SECONDS, late

LIFETIME = 2
RETRANSMITS = 1


def world(seed: int = 1, **changes: int) -> WorldConfig:
    """Return a path of 20 ms round trip, without faults and without a load."""
    config = WorldConfig(
        seed=seed,
        until_ns=60 * SECOND,
        packet_bytes_max=1400,
        window_bytes=8 << 20,
        send_bytes_max=16 << 20,
        connect=3,
        stop_when_done=1,
    )
    for wire in config.wire:
        wire.delay_ns = 10 * MS
    for name, value in changes.items():
        setattr(config, name, value)
    return config


def on_wires(config: WorldConfig, **changes: int) -> WorldConfig:
    for wire in config.wire:
        for name, value in changes.items():
            setattr(wire, name, value)
    return config


def mixed(messages: int, size_max: int = 65536) -> Load:
    return Load(messages=messages, size_min=1, size_max=size_max, streams=8, unordered=2)


def assert_all_came_once(result: WorldResult, sent: int, back: int = 0) -> None:
    for receiver, count in ((result.side[1], sent), (result.side[0], back)):
        assert receiver.opened == 1
        assert (receiver.delivered, receiver.twice, receiver.misordered, receiver.corrupted) == (count, 0, 0, 0)


@pytest.mark.parametrize("connect", [1, 2, 3])
def test_either_side_or_both_may_begin(sctp: ctypes.CDLL, connect: int) -> None:
    config = world(connect=connect)
    config.load[0] = config.load[1] = mixed(20)
    result = run_world(sctp, config)
    assert_all_came_once(result, 20, 20)
    assert result.side[0].opened_ns < 100 * MS


@pytest.mark.parametrize("seed", range(8))
def test_lost_handshakes_are_repeated(sctp: ctypes.CDLL, seed: int) -> None:
    config = on_wires(world(seed), loss_ppm=400_000)
    config.load[0] = config.load[1] = mixed(2, 2000)
    assert_all_came_once(run_world(sctp, config), 2, 2)


@pytest.mark.parametrize(
    ("loss", "duplicate", "jitter", "flip"),
    [
        (0, 0, 0, 0),
        (10_000, 0, 0, 0),
        (100_000, 0, 0, 0),
        (0, 100_000, 0, 0),
        (0, 0, 5 * MS, 0),
        (0, 0, 0, 20_000),
        (50_000, 50_000, 5 * MS, 10_000),
    ],
)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_reliable_messages_come_once_and_in_order(
    sctp: ctypes.CDLL, seed: int, loss: int, duplicate: int, jitter: int, flip: int
) -> None:
    config = on_wires(world(seed), loss_ppm=loss, duplicate_ppm=duplicate, jitter_ns=jitter, flip_ppm=flip)
    config.load[0] = mixed(300)
    config.load[1] = mixed(300, 3000)
    result = run_world(sctp, config)
    assert_all_came_once(result, 300, 300)
    for side in result.side:
        assert side.state.held_bytes == 0
        assert side.held_bytes_max <= config.window_bytes + 4 * 65536


@pytest.mark.parametrize("unordered", [0, 1])
@pytest.mark.parametrize(("reliability", "value"), [(LIFETIME, 30), (RETRANSMITS, 0), (RETRANSMITS, 1)])
def test_given_up_messages_hold_nothing_up(sctp: ctypes.CDLL, reliability: int, value: int, unordered: int) -> None:
    config = on_wires(world(until_ns=30 * SECOND, stop_when_done=0), loss_ppm=100_000)
    config.load[0] = Load(
        messages=2000,
        size_min=1,
        size_max=8000,
        streams=4,
        unordered=unordered,
        reliability=reliability,
        reliability_value=value,
    )
    result = run_world(sctp, config)
    sender, receiver = result.side
    assert (receiver.twice, receiver.misordered, receiver.corrupted) == (0, 0, 0)
    assert sender.counts.messages_abandoned > 0
    assert receiver.delivered >= sender.sent - sender.counts.messages_abandoned
    assert receiver.delivered > 1000
    assert receiver.state.held_bytes == 0
    assert receiver.delivered_last_ns < 15 * SECOND


def test_lifetimes_shorter_than_the_round_trip_do_not_starve_the_rate(sctp: ctypes.CDLL) -> None:
    config = on_wires(world(until_ns=10 * SECOND), loss_ppm=10_000, rate_bytes_s=2_500_000, queue_bytes=100_000)
    config.load[0] = Load(
        messages=100_000,
        size_min=3000,
        size_max=3000,
        streams=1,
        unordered=1,
        reliability=LIFETIME,
        reliability_value=15,
    )
    result = run_world(sctp, config)
    assert result.side[1].delivered_bytes > 8_000_000  # of 25


def test_bulk_keeps_the_rate_of_a_lossy_path(sctp: ctypes.CDLL) -> None:
    # 50 Mbit/s, 50 ms, 1 % lost each way: a loss-based sender gets 1-3 Mbit/s of it.
    config = on_wires(
        world(until_ns=10 * SECOND), delay_ns=25 * MS, loss_ppm=10_000, rate_bytes_s=6_250_000, queue_bytes=312_500
    )
    config.load[0] = Load(messages=100_000, size_min=6000, size_max=6000, streams=4, unordered=1)
    receiver = run_world(sctp, config).side[1]
    assert receiver.delivered_bytes * 8 / 10 > 42_000_000
    assert receiver.latency_sum_ns / receiver.delivered < 50 * MS  # 25 of them is the path


@pytest.mark.parametrize("turn_ms", [1, 3, 10])
@pytest.mark.parametrize(("mbit", "delay_ms", "loss_percent"), PATHS)
@pytest.mark.parametrize("both", [False, True])
def test_a_thread_that_runs_late_sends_no_slower(
    sctp: ctypes.CDLL, turn_ms: int, mbit: int, delay_ms: float, loss_percent: int, both: bool
) -> None:
    # As on a board with other work.  When its own delay counted as the path's rate, it fell to 1 % of this.
    receiver = run_world(sctp, late(mbit, delay_ms, loss_percent, turn_ms, both=both)).side[1]
    assert receiver.delivered_bytes * 8 / SECONDS > 0.75 * mbit * 1_000_000


def test_repairs_that_are_lost_are_seen_without_a_timeout(sctp: ctypes.CDLL) -> None:
    config = on_wires(
        world(until_ns=20 * SECOND), loss_ppm=200_000, rate_bytes_s=2_500_000, queue_bytes=200_000, delay_ns=10 * MS
    )
    config.load[0] = Load(messages=2000, size_min=1200, size_max=1200, streams=1, unordered=1)
    result = run_world(sctp, config)
    assert_all_came_once(result, 2000)
    counts = result.side[0].counts
    assert counts.chunks_retransmitted > 400
    assert counts.timeouts <= 2


def test_lost_tail_is_probed_before_the_timeout(sctp: ctypes.CDLL) -> None:
    late = 0
    for seed in range(20):
        config = on_wires(world(seed), loss_ppm=100_000)
        config.load[0] = Load(messages=50, size_min=100, size_max=100, streams=1, unordered=1, gap_ns=200 * MS)
        result = run_world(sctp, config)
        assert_all_came_once(result, 50)
        late += result.side[0].counts.timeouts
        assert result.side[0].counts.probes_tail > 0
    assert late < 40  # of a hundred lost: those whose probe, or the probe's acknowledgement, was lost too


def test_whole_unordered_messages_pass_those_with_holes(sctp: ctypes.CDLL) -> None:
    config = on_wires(world(until_ns=20 * SECOND), delay_ns=50 * MS, loss_ppm=20_000)
    config.load[0] = Load(messages=2000, size_min=1000, size_max=1000, streams=1, unordered=1, gap_ns=8 * MS)
    receiver = run_world(sctp, config).side[1]
    assert receiver.delivered == 2000
    assert (
        receiver.latency_sum_ns / receiver.delivered < 56 * MS
    )  # two in a hundred take three times the 50 of the path


def test_a_shutdown_comes_after_all_data(sctp: ctypes.CDLL) -> None:
    config = on_wires(world(close_at_end=1), loss_ppm=50_000)
    config.load[0] = mixed(50)
    result = run_world(sctp, config)
    assert_all_came_once(result, 50)
    assert [side.why for side in result.side] == ["asked", "shutdown"]
    assert [side.closed for side in result.side] == [1, 1]


def test_abort_ends_both_at_once(sctp: ctypes.CDLL) -> None:
    config = world(close_at_end=2)
    config.load[0] = mixed(5)
    result = run_world(sctp, config)
    assert [side.why for side in result.side] == ["asked", "aborted"]


@pytest.mark.parametrize("seed", range(5))
def test_streams_are_reset_on_a_lossy_path(sctp: ctypes.CDLL, seed: int) -> None:
    config = on_wires(world(seed, reset_at_end=1), loss_ppm=100_000)
    config.load[0] = mixed(50)
    result = run_world(sctp, config)
    assert_all_came_once(result, 50)
    assert result.side[0].resets_out == 8
    assert result.side[1].resets_in == 8


def assert_size(side: Side, bytes_: int) -> None:
    assert side.state.packet_bytes == bytes_


def test_the_largest_packet_is_found_as_soon_as_there_is_use_for_it(sctp: ctypes.CDLL) -> None:
    config = world(packet_bytes_max=8900, until_ns=SECOND, stop_when_done=0)
    config.load[0] = Load(messages=1, size_min=20000, size_max=20000, streams=1, unordered=1)
    sender, receiver = run_world(sctp, config).side
    assert_size(sender, 8900)
    assert_size(receiver, PACKET_BYTES_MIN)


@pytest.mark.parametrize("passes", [1152, 1300, 1472, 4000, 8999])
def test_the_largest_packet_that_passes_is_found(sctp: ctypes.CDLL, passes: int) -> None:
    config = on_wires(world(packet_bytes_max=9000, until_ns=20 * SECOND, stop_when_done=0), packet_bytes_max=passes)
    config.load[0] = Load(messages=500, size_min=20000, size_max=20000, streams=1, unordered=1, gap_ns=20 * MS)
    result = run_world(sctp, config)
    assert_all_came_once(result, 500)
    assert passes - 36 < result.side[0].state.packet_bytes <= passes
    assert result.side[0].counts.timeouts == 0


def test_a_path_that_becomes_narrow_is_noticed(sctp: ctypes.CDLL) -> None:
    config = on_wires(
        world(packet_bytes_max=9000, until_ns=60 * SECOND, stop_when_done=0),
        narrow_from_ns=5 * SECOND,
        packet_bytes_narrow=1300,
    )
    config.load[0] = Load(
        messages=2000,
        size_min=20000,
        size_max=20000,
        streams=1,
        unordered=1,
        gap_ns=20 * MS,
        reliability=LIFETIME,
        reliability_value=250,
    )
    result = run_world(sctp, config)
    sender, receiver = result.side
    assert sender.closed == 0
    assert receiver.delivered > 1850  # 40 s of them, less what expired until the hole was found
    assert 1264 < sender.state.packet_bytes <= 1300


def test_a_cut_path_heals(sctp: ctypes.CDLL) -> None:
    config = on_wires(world(), cut_from_ns=2 * SECOND, cut_until_ns=6 * SECOND)
    config.load[0] = Load(messages=500, size_min=1000, size_max=1000, streams=2, unordered=0, gap_ns=10 * MS)
    result = run_world(sctp, config)
    assert_all_came_once(result, 500)
    assert result.side[1].delivered_last_ns < 12 * SECOND


def test_a_path_cut_for_good_ends_in_half_a_minute(sctp: ctypes.CDLL) -> None:
    config = on_wires(world(until_ns=120 * SECOND), cut_from_ns=2 * SECOND, cut_until_ns=500 * SECOND)
    config.load[0] = Load(messages=500, size_min=1000, size_max=1000, streams=2, unordered=0, gap_ns=10 * MS)
    result = run_world(sctp, config)
    assert result.side[0].why == "timeout"
    assert result.side[0].closed == 1


def test_frames_on_a_cut_path_expire(sctp: ctypes.CDLL) -> None:
    config = on_wires(world(until_ns=10 * SECOND), cut_from_ns=SECOND, cut_until_ns=500 * SECOND)
    config.load[0] = Load(
        messages=500,
        size_min=1000,
        size_max=1000,
        streams=1,
        unordered=1,
        gap_ns=10 * MS,
        reliability=LIFETIME,
        reliability_value=250,
    )
    sender = run_world(sctp, config).side[0]
    assert sender.unsent_bytes_max < 50 * 1000
    assert sender.counts.messages_abandoned > 350


def test_a_small_window_is_kept_to(sctp: ctypes.CDLL) -> None:
    config = on_wires(world(window_bytes=128 * 1024), loss_ppm=20_000)
    config.load[0] = mixed(200)
    result = run_world(sctp, config)
    assert_all_came_once(result, 200)
    assert result.side[1].held_bytes_max <= 128 * 1024 + 4 * 65536


def test_a_large_window_fills_a_long_fast_path(sctp: ctypes.CDLL) -> None:
    # 1 Gbit/s, 100 ms: 12.5 MB, nine thousand packets, in flight.
    config = on_wires(
        world(until_ns=3 * SECOND, window_bytes=16 << 20, send_bytes_max=48 << 20),
        delay_ns=50 * MS,
        rate_bytes_s=125_000_000,
        queue_bytes=12_500_000,
        loss_ppm=1_000,
    )
    config.load[0] = Load(messages=100_000, size_min=65536, size_max=65536, streams=4, unordered=1)
    assert run_world(sctp, config).side[1].delivered_bytes > 150_000_000


def test_the_same_seed_makes_the_same_world(sctp: ctypes.CDLL) -> None:
    def once() -> bytes:
        config = on_wires(world(7), loss_ppm=50_000, jitter_ns=3 * MS, duplicate_ppm=10_000)
        config.load[0] = mixed(100)
        return bytes(run_world(sctp, config))

    assert once() == once()


PATHS = pytest.mark.parametrize(
    ("rate_bytes_s", "rtt_ns", "queue_bytes"),
    [
        (6_250_000, 50 * MS, 312_500),
        (6_250_000, 300_000, 312_500),
        (125_000, 40 * MS, 20_000),
        (125_000_000, MS, 500_000),
    ],
)
PINGED_S = 6


def pings(messages: int, size: int) -> Load:
    """Return a load of 20 pings, one every 0.3 s, and then all the rest at once."""
    return Load(
        messages=20 + messages,
        size_min=size,
        size_max=size,
        streams=4,
        unordered=1,
        reliability=LIFETIME,
        reliability_value=250,
        pings=20,
        ping_bytes=84,
        ping_gap_ns=300 * MS,
    )


@PATHS
def test_a_large_packet_after_sparse_pings_is_not_held_back(
    sctp: ctypes.CDLL, rate_bytes_s: int, rtt_ns: int, queue_bytes: int
) -> None:
    config = on_wires(world(), delay_ns=rtt_ns // 2, rate_bytes_s=rate_bytes_s, queue_bytes=queue_bytes)
    config.load[0] = pings(1, 3900)
    result = run_world(sctp, config)
    assert_all_came_once(result, 21)
    assert result.side[1].latency_max_ns < rtt_ns + 4100 * SECOND // rate_bytes_s + 5 * MS


@PATHS
@pytest.mark.parametrize("other_way", [False, True])
def test_bulk_is_fast_soon_after_pings_or_feedback_alone(
    sctp: ctypes.CDLL, rate_bytes_s: int, rtt_ns: int, queue_bytes: int, other_way: bool
) -> None:
    """other_way: while one end sends only a little, bulk comes to it."""
    config = on_wires(world(), delay_ns=rtt_ns // 2, rate_bytes_s=rate_bytes_s, queue_bytes=queue_bytes)
    config.load[0] = pings(3 * rate_bytes_s // 8000, 8000)
    if other_way:
        config.load[1] = Load(
            messages=PINGED_S * rate_bytes_s // 8000, size_min=8000, size_max=8000, streams=1, unordered=1
        )
    result = run_world(sctp, config)
    receiver = result.side[1]
    assert receiver.delivered >= 20 + 3 * rate_bytes_s // 8000 * 0.98 - 4  # startup overshoots once
    assert receiver.delivered_last_ns - PINGED_S * SECOND < 3 * SECOND * 1.1 + 10 * rtt_ns
