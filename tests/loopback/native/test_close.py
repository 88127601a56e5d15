"""An engine ends when it is told to, whatever its thread does at that moment."""

import time

from conflux.bench.link import small_packet
from conflux.bench.pair import Pair

PAIR_COUNT = 800  # few closes hit the moment between the thread's look at the flag and its wait for the wake-up
CLOSE_S_MAX = 10.0  # far more than a busy machine's delay, far less than the 30 s until SCTP's next heartbeat


def test_an_engine_closed_while_it_wakes_ends_at_once():
    slowest = 0.0
    for _ in range(PAIR_COUNT):
        with Pair() as pair:
            pair.near.engine.packet(small_packet(100), 0.0)  # wakes the thread
            began = time.perf_counter()
        slowest = max(slowest, time.perf_counter() - began)
    assert slowest < CLOSE_S_MAX
