"""Large LANs, with the real machines of every board.  tests/lab/lan_scale.py has them with a thousand."""

from __future__ import annotations

import statistics

import pytest

from conflux.control.lan.circle import STANDING_COUNT_MAX
from conflux.control.lan.config import PING_S
from conflux.sim.site import Site

COUNT = 40
LIKE_NOW = 10  # nodes: up to here everybody is a neighbour of everybody


def grown(count: int = COUNT, seed: int = 1, messages: int = 15) -> Site:
    """Return a LAN that has found itself, and its tree."""
    site = Site(count, seed)
    site.run(20.0)
    for _ in range(messages):
        site.broadcast(site.rng.choice(site.boards))
    return site


def told_all(site: Site, times: int = 5) -> bool:
    """Say whether everybody hears what some of the honest say."""
    honest = [board for board in site.living() if not board.swallows]
    return all(site.broadcast(site.rng.choice(honest)) == 1.0 for _ in range(times))


@pytest.mark.parametrize("count", [2, 5, 8, LIKE_NOW])
def test_small_lan_is_a_mesh_as_ever(count: int) -> None:
    site = grown(count, messages=0)
    assert {board.degree for board in site.boards} == {count - 1}
    assert not any(board.standing.circle.is_ring for board in site.boards)


@pytest.mark.parametrize("count", [11, 20, COUNT])
def test_larger_lan_has_eight_neighbours_each_and_everybody_gets_everything_once(count: int) -> None:
    site = grown(count)
    degrees = [board.degree for board in site.boards]
    assert statistics.mean(degrees) <= 8.0
    assert max(degrees) <= STANDING_COUNT_MAX
    assert site.parts() == [count]
    before = site.stats["copies"]
    assert told_all(site, 10)
    assert (site.stats["copies"] - before) / 10 / count < 1.2
    assert all(len(board.open) == board.degree for board in site.boards), "nothing is open that does not stand"


def test_at_rest_pings_alone_pass_and_one_end_of_each_connection_sends_them() -> None:
    site = grown()
    site.run(60.0)  # what was said last has settled
    before = site.stats.copy()
    degree = statistics.mean(board.degree for board in site.boards)
    bytes_per_minute = site.rest_bytes_per_minute(minutes=10)
    passed = site.stats - before
    assert passed["frames"] == passed["pings"] + passed["pongs"] == 2 * passed["pings"]
    per_connection = passed["pings"] / (COUNT * degree / 2)
    assert 0.9 * 600 / PING_S <= per_connection <= 600 / PING_S
    assert bytes_per_minute < 4000  # eight neighbours; with everybody it would be 18 kB


def test_question_for_a_name_that_nobody_has_costs_little() -> None:
    site = grown(80)
    before = site.stats["bytes"]
    for _ in range(5):
        assert site.broadcast(site.rng.choice(site.boards), told=1) == 1.0
    assert (site.stats["bytes"] - before) / 5 <= 40_000


@pytest.mark.parametrize(("share", "first"), [(0.3, 0.8), (0.5, 0.0)])
def test_after_many_died_at_once_everybody_is_found_again(share: float, first: float) -> None:
    site = grown(seed=3)
    site.kill(site.rng.sample(site.boards, int(COUNT * share)))
    assert site.broadcast(site.rng.choice(site.living()), 1.0) >= first
    site.run(100.0)
    assert len(site.parts()) == 1
    assert told_all(site)
    assert max(board.degree for board in site.living()) <= STANDING_COUNT_MAX


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_boards_that_swallow_keep_nothing_from_the_others(share: float) -> None:
    site = grown(seed=4)
    for board in site.rng.sample(site.boards, int(COUNT * share)):
        board.swallows = True
    honest = [board for board in site.boards if not board.swallows]
    shares = [site.broadcast(site.rng.choice(honest)) for _ in range(20)]
    assert statistics.mean(shares) > 0.99
    assert shares[-10:] == [1.0] * 10


def test_two_halves_find_each_other_within_seconds() -> None:
    site = grown(seed=5)
    site.split(lambda board: board.number % 2 == 0)
    site.run(120.0)
    assert site.parts() == [COUNT // 2, COUNT // 2]
    site.split(None)
    site.run(20.0)
    assert site.parts() == [COUNT]
    assert told_all(site)


def test_coming_and_going_leaves_nobody_alone() -> None:
    site = grown(seed=6)
    for second in range(60):
        if second % 2:
            site.add()
        else:
            site.kill([site.rng.choice(site.living())])
        site.run(1.0)
    site.run(100.0)
    assert len(site.parts()) == 1
    assert told_all(site)
    assert max(board.degree for board in site.living()) <= STANDING_COUNT_MAX


def test_one_that_claims_many_places_has_no_more_connections_and_parts_nobody() -> None:
    """Any device can announce instances; none of these proves itself, and none takes the place of one that did."""
    site = grown(seed=7)
    fakes = [site.rng.randbytes(8) for _ in range(3 * COUNT)]
    for board in site.boards:
        for fake in fakes:
            board.standing.circle.alive(fake)
        board.soon()
    site.run(2.0)
    assert site.parts() == [COUNT], "meanwhile"
    assert told_all(site, 3)
    site.run(60.0)
    assert site.parts() == [COUNT]
    assert told_all(site, 3)
