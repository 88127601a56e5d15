"""How the search explains its candidates."""

import pytest

from conflux.ids import NodeId
from conflux.search.first import FAILURE_PAUSE_S_MIN, FirstSearch
from conflux.search.interface import Measured, Path

ME, THERE = NodeId(b"m" * 16), NodeId(b"t" * 16)
DIRECT = Path((THERE,))


@pytest.mark.parametrize(
    ("said", "later_s"),
    [
        ("failed (dial: timeout); not tried for 2 s more", 0.0),
        ("failed (dial: timeout); may be tried again", FAILURE_PAUSE_S_MIN),
    ],
)
def test_a_path_that_failed_says_so_and_when_it_is_tried_again(said, later_s):
    search = FirstSearch(ME)
    search.failed(DIRECT, "dial: timeout", now=100.0)
    (row,) = search.explain(THERE, now=100.0 + later_s)
    assert (row.hops, row.why, row.failed) == ((THERE,), said, 1)


def test_a_path_that_opens_is_forgiven():
    search = FirstSearch(ME)
    (row,) = search.explain(THERE, now=100.0)
    assert row.why == "never measured"
    search.failed(DIRECT, "dial: timeout", now=100.0)
    search.opened(DIRECT, 0.04, now=101.0)
    search.measured(DIRECT, Measured(0.004, 10, 0, 0), now=101.0)
    (row,) = search.explain(THERE, now=101.0)
    assert (row.why, row.rtt_ms, row.open_ms) == ("measured", 4.0, 40.0)
