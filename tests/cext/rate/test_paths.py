"""The congestion control of cext/rate/rate.c, on simulated paths; CONFLUX_RATE_SEEDS=20: with more seeds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from kit.rate_paths import CUBIC, OURS, PIPE_KB, Outcome, beside, build, jain, lan, lossy, near, run, step

SEEDS = range(1, 1 + int(os.environ.get("CONFLUX_RATE_SEEDS", "1")))


@pytest.fixture(scope="session")
def world() -> Path:
    return build()


@pytest.fixture(params=SEEDS)
def seed(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.mark.parametrize("pipes", [0.25, 1, 4])
@pytest.mark.parametrize(("loss", "good_mbit"), [(0.0, 49), (0.01, 48), (0.05, 44)])
def test_random_loss_costs_little_more_than_itself(
    world: Path, seed: int, pipes: float, loss: float, good_mbit: float
) -> None:
    outcome = run(world, *lossy(loss, pipes), seed=seed)
    assert outcome.good(2) > good_mbit
    assert outcome.queue(2) < 3
    assert outcome.queue(2, part=0.95) < 12
    assert outcome.good_worst(2, 0.2) > 0.7 * good_mbit  # no periodic collapse


@pytest.mark.parametrize("words", [("reorder=0.01", "reorder_ms=5"), ("jitter=5",)])
def test_reordering_and_jitter_cost_nothing(world: Path, seed: int, words: tuple[str, ...]) -> None:
    outcome = run(world, *lossy(0.01, 1), *words, seed=seed)
    assert outcome.good(2) > 48
    assert outcome.queue(2) < 5


def test_loss_by_congestion_lowers_the_rate(world: Path, seed: int) -> None:
    """A flow that does not respond to loss takes 30 of 50 Mbit/s; the buffer holds 3 ms."""
    other = "flow=udp,start=10000,stop=20000,span=10000:20000:30"
    outcome = run(world, "seconds=25", "buffer_kb=20", OURS, other, seed=seed)
    assert outcome.good(11, 20, flow=1) > 0.9 * 30
    assert 17 < outcome.good(11, 20) < 23
    assert outcome.good(21.5, 25) > 45


@pytest.mark.parametrize(("mbit", "rtt_ms"), [(1000, 0.05), (2000, 0.1), (3000, 0.3)])
def test_a_lan_is_full_within_forty_milliseconds(world: Path, seed: int, mbit: int, rtt_ms: float) -> None:
    outcome = run(world, *lan(mbit, rtt_ms, 0), seed=seed)
    assert outcome.good(0.04) > 0.97 * mbit
    assert outcome.good(0.04, 0.08) > 0.9 * mbit


@pytest.mark.parametrize(("mbit", "rtt_ms"), [(1000, 0.05), (2000, 0.1), (3000, 0.3)])
def test_a_receiver_that_stalls_gets_all_it_can_take(world: Path, seed: int, mbit: int, rtt_ms: float) -> None:
    outcome = run(world, *lan(mbit, rtt_ms, 3), seed=seed)
    assert outcome.good(0.1) > 0.83 * mbit  # the receiver stalls for 0.75 ms in every 5.75
    assert outcome.good_worst(0.1, 0.1) > 0.65 * mbit


@pytest.mark.parametrize("buffer_ms", [10, 50])
@pytest.mark.parametrize("bucket_kb", [0, 16, 64])
def test_a_near_bottleneck_is_full_and_its_queue_short(world: Path, seed: int, buffer_ms: int, bucket_kb: int) -> None:
    outcome = run(world, *near(buffer_ms, bucket_kb), seed=seed)
    assert outcome.good(1) > 49
    assert outcome.queue(1) < 2.5
    assert outcome.queue(1, part=0.95) < 4.5


def test_a_slow_link_is_full_with_a_queue_of_few_packets(world: Path, seed: int) -> None:
    outcome = run(world, "seconds=40", "mbit=0.1", "buffer_kb=50", OURS, seed=seed)
    assert outcome.good(5) > 0.095
    assert outcome.queue(5) <= 5 * 112  # packets of 112 ms each
    outcome = run(world, "seconds=20", "mbit=1", "buffer_kb=125", OURS, seed=seed)
    assert outcome.good(2) > 0.95
    assert outcome.queue(2) <= 5 * 11.2


@pytest.mark.parametrize(("mbit", "then"), [(40, 10), (4, 1)])
def test_a_rate_that_steps_by_four_is_followed_both_ways(world: Path, seed: int, mbit: float, then: float) -> None:
    outcome = run(world, *step(mbit, then), seed=seed)
    assert outcome.queue(10, 20, part=1) < 400
    assert outcome.queue(12.5, 20, part=0.95) < 40 + 28 / then
    assert outcome.good(11, 20) > 0.95 * then
    assert outcome.good(22, 30) > 0.95 * mbit


@pytest.mark.parametrize(("mbit", "every_ms", "rtt_ms"), [(100, 5, 5), (50, 10, 10), (300, 10, 1)])
def test_batched_acknowledgements_do_not_starve_the_flow(
    world: Path, seed: int, mbit: int, every_ms: int, rtt_ms: int
) -> None:
    words = (f"mbit={mbit}", f"aggregate={every_ms}", "buffer_kb=2000", f"{OURS},rtt={rtt_ms}", "loss=0.01")
    outcome = run(world, *words, seed=seed)
    assert outcome.good(2) > 0.97 * mbit
    assert outcome.queue(2) < 15


def settled(outcome: Outcome) -> float:
    """Return Jain's index, from ten seconds after the second flow joined at 5 s."""
    return jain(outcome.shares(15))


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(beside(f"{OURS},start=5000", 0.05), id="0.05-bdp"),
        pytest.param(beside(f"{OURS},start=5000", 0.25), id="0.25-bdp"),
        pytest.param(beside(f"{OURS},start=5000", 1), id="1-bdp"),
        pytest.param(beside(f"{OURS},start=5000", 4), id="4-bdp"),
        pytest.param((*beside(f"{OURS},start=5000", 1), "loss=0.01"), id="lossy"),
        pytest.param(("seconds=30", f"{OURS},rtt=0.3", f"{OURS},rtt=0.3,start=5000"), id="near"),
    ],
)
def test_two_of_ours_share_evenly(world: Path, seed: int, words: tuple[str, ...]) -> None:
    outcome = run(world, *words, seed=seed)
    assert settled(outcome) > 0.95
    assert sum(outcome.good(15, flow=flow) for flow in range(2)) > 48
    assert outcome.queue(15) < 35


@pytest.mark.parametrize(("first", "second"), [(50, 10), (10, 50)])
def test_two_of_ours_on_paths_of_unlike_length_share(world: Path, seed: int, first: int, second: int) -> None:
    words = ("seconds=30", f"buffer_kb={PIPE_KB}", f"{OURS},rtt={first}", f"{OURS},rtt={second},start=5000")
    outcome = run(world, *words, seed=seed)
    assert settled(outcome) > 0.85
    assert outcome.queue(15) < 35


@pytest.mark.parametrize("pipes", [1, 2, 4])
def test_beside_cubic_neither_starves(world: Path, seed: int, pipes: float) -> None:
    outcome = run(world, *beside(CUBIC, pipes, 90), seed=seed)
    assert 0.3 < outcome.shares(30)[0] < 0.7
    outcome = run(world, "seconds=90", f"buffer_kb={PIPE_KB * pipes}", f"{OURS},start=10000", CUBIC, seed=seed)
    assert 0.3 < outcome.shares(40)[0] < 0.7


@pytest.mark.parametrize("rtt_ms", [0.3, 10])
def test_beside_cubic_on_a_short_path_neither_starves(world: Path, seed: int, rtt_ms: float) -> None:
    words = ("seconds=60", f"buffer_kb={PIPE_KB}", f"{OURS},rtt={rtt_ms}", f"{CUBIC},rtt={rtt_ms}")
    assert 0.3 < run(world, *words, seed=seed).shares(20)[0] < 0.7


def test_an_application_that_sends_little_does_not_lower_the_estimate(world: Path, seed: int) -> None:
    spans = "span=0:5000:0,span=5000:10000:10,span=15000:20000:0"
    outcome = run(world, "seconds=20", f"buffer_kb={PIPE_KB}", f"{OURS},{spans}", seed=seed)
    assert outcome.good(6, 10) == pytest.approx(10, rel=0.05)
    assert min(outcome.cut(outcome.flows[0].estimate_mbit, 5, 15)) > 45
    assert outcome.good(15.1, 15.5) > 45  # at once, after five idle seconds
    assert outcome.queue(15, 15.1, part=1) < 2  # and not in one burst
    assert outcome.queue(6, 10) < 1


def test_a_path_that_becomes_longer_is_not_taken_for_a_crowd_for_long(world: Path, seed: int) -> None:
    words = ("seconds=60", "buffer_kb=1250", f"{OURS},rtt_step=10000:100")
    assert run(world, *words, seed=seed).good(14) > 45
    assert run(world, *words, "loss=0.01", seed=seed).good(20) > 40


@pytest.mark.parametrize("pings_mbit", [0, 0.03])
@pytest.mark.parametrize("loss", [0, 0.01])
def test_a_path_that_became_longer_while_little_went_is_believed_at_once(
    world: Path, seed: int, pings_mbit: float, loss: float
) -> None:
    pings = f",span=2000:5000:{pings_mbit}" if pings_mbit else ""
    spans = f"span=0:2000:0{pings},span=5000:8000:0"
    outcome = run(world, "seconds=8", f"loss={loss}", f"{OURS},rtt=0.3,rtt_step=3000:50,{spans}", seed=seed)
    assert outcome.good(5.6) > 45
    assert outcome.queue(5.6) < 3


def test_a_rate_known_of_a_shorter_path_does_not_flood_a_longer_one(world: Path, seed: int) -> None:
    spans = "span=0:2000:0,span=2000:5000:0.03,span=5000:8000:0"
    words = ("seconds=8", "mbit=2000", "step=3000:50", f"{OURS},rtt=0.3,rtt_step=3000:50,{spans}")
    outcome = run(world, *words, seed=seed)
    assert outcome.good(5.6) > 45
    assert outcome.flows[0].lost < 450  # a new link overshoots once, by what fills path and buffer
