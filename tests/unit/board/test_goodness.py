"""When an update is good."""

from __future__ import annotations

import pytest

from conflux.board.goodness import ANSWER_S, READY_S, SETTLED_S, Goodness, Seen, Verdict
from conflux.board.trial import Peer, Trial

PEERS = (Peer("node-1", "kitchen"), Peer("node-2", "attic"))
GOOD = Seen(runs=True, lacks="", settled=True, failed=(), answered=True)


def trial(*, was_ready: bool = True, failed: tuple[str, ...] = (), peers: tuple[Peer, ...] = PEERS) -> Trial:
    return Trial("B", "0.2.0", "A", "0.1.0", "boot-1", was_ready, failed, peers)


def test_ready_settled_and_answered_is_good():
    assert Goodness(trial(), now=0).look(GOOD, now=1) == Verdict(True, "")


def test_a_daemon_that_is_never_ready_is_bad_after_its_time_and_says_what_it_lacks():
    goodness, seen = Goodness(trial(), now=0), GOOD._replace(lacks="the device conflux0 is down")
    assert goodness.look(seen, now=READY_S - 1) is None
    assert goodness.waits_for == "the daemon: the device conflux0 is down"
    verdict = goodness.look(seen, now=READY_S)
    assert verdict == Verdict(False, "the daemon was not ready within 300 s: the device conflux0 is down")


def test_a_daemon_that_does_not_run_is_bad_even_where_none_was_ready():
    goodness = Goodness(trial(was_ready=False), now=0)
    assert goodness.look(GOOD._replace(runs=False, lacks="no daemon listens"), now=1) is None
    verdict = goodness.look(GOOD._replace(runs=False, lacks="no daemon listens"), now=READY_S)
    assert verdict is not None
    assert not verdict.good


def test_a_board_that_was_in_no_realm_needs_not_be_ready():
    goodness = Goodness(trial(was_ready=False, peers=()), now=0)
    assert goodness.look(GOOD._replace(lacks="it waits for a realm", answered=False), now=1) == Verdict(True, "")


def test_a_unit_that_failed_is_bad_at_once_and_named():
    verdict = Goodness(trial(), now=0).look(GOOD._replace(settled=False, failed=("nftables.service",)), now=1)
    assert verdict == Verdict(False, "failed: nftables.service")


def test_a_unit_that_had_failed_before_the_update_does_not_count():
    goodness = Goodness(trial(failed=("own.service",)), now=0)
    assert goodness.look(GOOD._replace(failed=("own.service",)), now=1) == Verdict(True, "")


def test_units_that_start_for_ever_are_bad():
    goodness, seen = Goodness(trial(), now=0), GOOD._replace(settled=False)
    assert goodness.look(seen, now=SETTLED_S - 1) is None
    assert goodness.look(seen, now=SETTLED_S) == Verdict(False, "units were still starting after 420 s")


def test_peers_are_asked_once_the_daemon_is_ready_and_have_their_time_from_then_on():
    goodness, silent = Goodness(trial(), now=0), GOOD._replace(answered=False)
    assert not goodness.asks_peers
    assert goodness.look(silent._replace(lacks="no control channel is up"), now=100) is None
    assert not goodness.asks_peers
    assert goodness.look(silent, now=200) is None
    assert goodness.asks_peers
    assert goodness.waits_for == "an answer of kitchen, attic"
    assert goodness.look(silent, now=200 + ANSWER_S - 1) is None
    verdict = goodness.look(silent, now=200 + ANSWER_S)
    assert verdict == Verdict(
        False, "none of those who answered before (kitchen, attic) answered within 120 s after the update"
    )


def test_one_peer_that_answers_is_enough():
    goodness = Goodness(trial(), now=0)
    assert goodness.look(GOOD._replace(answered=False), now=1) is None
    assert goodness.look(GOOD, now=100) == Verdict(True, "")


def test_a_board_that_reached_nobody_needs_to_reach_nobody():
    goodness = Goodness(trial(peers=()), now=0)
    assert goodness.look(GOOD._replace(answered=False), now=1) == Verdict(True, "")
    assert not goodness.asks_peers


def test_a_daemon_that_stops_before_the_verdict_is_not_good():
    goodness = Goodness(trial(), now=0)
    assert goodness.look(GOOD._replace(answered=False), now=1) is None
    assert goodness.look(GOOD._replace(runs=False, lacks="it ended"), now=5) is None
    verdict = goodness.look(GOOD._replace(runs=False, lacks="it ended"), now=READY_S)
    assert verdict is not None
    assert not verdict.good


@pytest.mark.parametrize("count", [1, 4, 5, 16])
def test_many_names_make_a_short_sentence(count):
    peers = tuple(Peer(f"node-{number}", f"board-{number}") for number in range(count))
    goodness = Goodness(trial(peers=peers), now=0)
    goodness.look(GOOD._replace(answered=False), now=0)
    verdict = goodness.look(GOOD._replace(answered=False), now=ANSWER_S)
    assert verdict is not None
    assert len(verdict.why) < 200
