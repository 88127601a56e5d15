"""A node's count of bytes outlives its streams, and is bounded."""

from conflux.datapath.traffic import NODE_COUNT_MAX, Traffic, TrafficBook
from conflux.ids import NodeId

ATTIC, BARN = NodeId(b"a" * 16), NodeId(b"b" * 16)


def test_streams_that_ended_and_live_ones_add_up():
    book = TrafficBook()
    book.add(Traffic(ATTIC, 100, 0, None))
    book.add(Traffic(ATTIC, 0, 30, 7.0))
    assert book.with_live([Traffic(ATTIC, 5, 1, 6.0), Traffic(BARN, 2, 0, None)]) == (
        Traffic(ATTIC, 105, 31, 7.0),
        Traffic(BARN, 2, 0, None),
    )
    assert book.with_live([]) == (Traffic(ATTIC, 100, 30, 7.0),), "to look does not count"


def test_of_too_many_nodes_the_one_whose_stream_ended_longest_ago_is_forgotten():
    book = TrafficBook()
    crowd = [NodeId(number.to_bytes(16, "big")) for number in range(NODE_COUNT_MAX + 1)]
    for node in crowd[:-1]:
        book.add(Traffic(node, 1, 0, None))
    book.add(Traffic(crowd[0], 1, 0, None))
    book.add(Traffic(crowd[-1], 1, 0, None))
    assert {each.node for each in book.with_live([])} == {crowd[0], *crowd[2:]}
