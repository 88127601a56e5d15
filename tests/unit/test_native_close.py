"""An engine ends when it is told to, whatever its thread is doing at that moment."""

import time

from conflux.bench.link import small_packet
from conflux.bench.pair import Pair

PAIR_COUNT = 800  # few closes meet the thread between its look at the flag and at the wake-up
CLOSE_S_MAX = 10.0  # far above a busy machine's delay, far below the half minute until SCTP's next heartbeat


def test_an_engine_that_is_closed_while_it_wakes_ends_at_once():
    slowest = 0.0
    for _ in range(PAIR_COUNT):
        with Pair() as pair:
            pair.near.engine.packet(small_packet(100), 0.0)  # wakes the thread
            began = time.perf_counter()
        slowest = max(slowest, time.perf_counter() - began)
    assert slowest < CLOSE_S_MAX
