"""Where nodes of a large LAN are, and what waits for a connection to one."""

from __future__ import annotations

from conflux.control.lan.errands import (
    INSTANCE_COUNT_MAX,
    OTHERS_COUNT_MAX,
    WAIT_S,
    WAITING_BYTES_MAX,
    WAITING_COUNT_MAX,
    Errands,
    Waiting,
)
from conflux.control.lan.ways import COUNT_MAX, FIRST_S, WAY_S, WORD_COUNT_MAX, WORD_EACH_MAX, Ways
from conflux.ids import NodeId

ALPHA, BRAVO, ROD = (NodeId(name.ljust(16, b".")) for name in (b"alpha", b"bravo", b"rod"))
HERE, THERE = b"here....", b"there..."


def test_where_a_node_proved_to_be_counts_more_than_what_messages_say() -> None:
    ways = Ways()
    ways.heard_untrusted(ALPHA, THERE, ROD, 0.0)
    assert ways.instance(ALPHA, 1.0) == THERE
    assert not ways.is_proved(ALPHA)
    ways.proved(ALPHA, HERE)
    ways.heard_untrusted(ALPHA, THERE, ROD, 2.0)
    assert ways.instance(ALPHA, 3.0) == HERE
    assert ways.is_proved(ALPHA)


def test_what_messages_say_counts_for_ten_minutes() -> None:
    ways = Ways()
    ways.heard_untrusted(ALPHA, THERE, ROD, 0.0)
    assert ways.by(ALPHA, WAY_S - 1) == ROD
    assert ways.by(ALPHA, WAY_S) is None
    assert ways.instance(ALPHA, WAY_S) is None


def test_who_is_gone_is_nowhere() -> None:
    ways = Ways()
    ways.proved(ALPHA, HERE)
    ways.heard_untrusted(BRAVO, HERE, ROD, 0.0)
    ways.gone(HERE)
    assert ways.instance(ALPHA, 0.0) is None
    assert ways.instance(BRAVO, 0.0) is None


def test_who_proves_another_instance_was_at_the_one_before() -> None:
    ways = Ways()
    assert ways.proved(ALPHA, HERE) is None
    assert ways.proved(ALPHA, HERE) is None
    assert ways.proved(ALPHA, THERE) == HERE


def test_what_was_said_first_is_tried_first_and_the_other_word_after_it() -> None:
    """Who lies speaks after it has heard."""
    ways = Ways()
    ways.heard_untrusted(ALPHA, HERE, ROD, 0.0)
    ways.heard_untrusted(ALPHA, THERE, BRAVO, FIRST_S - 1)
    assert ways.instance(ALPHA, FIRST_S) == HERE
    assert ways.by(ALPHA, FIRST_S) == ROD
    assert ways.instance(ALPHA, FIRST_S, again=True) == THERE
    assert ways.by(ALPHA, FIRST_S, again=True) == BRAVO


def test_one_word_alone_is_tried_again() -> None:
    ways = Ways()
    ways.heard_untrusted(ALPHA, HERE, ROD, 0.0)
    ways.heard_untrusted(ALPHA, HERE, ROD, 1.0)
    assert ways.instance(ALPHA, 1.0, again=True) == HERE


def test_a_later_word_counts_first_and_the_one_before_is_left() -> None:
    ways = Ways()
    ways.heard_untrusted(ALPHA, HERE, ROD, 0.0)
    ways.heard_untrusted(ALPHA, THERE, BRAVO, FIRST_S)
    assert ways.instance(ALPHA, FIRST_S) == THERE
    assert ways.instance(ALPHA, FIRST_S, again=True) == HERE


def test_one_neighbour_with_made_up_names_pushes_out_only_its_own_words() -> None:
    ways = Ways()
    ways.heard_untrusted(ALPHA, HERE, ROD, 0.0)
    for number in range(2 * WORD_COUNT_MAX):
        ways.heard_untrusted(NodeId(number.to_bytes(16, "big")), THERE, BRAVO, 1.0)
    assert ways.instance(ALPHA, 1.0) == HERE
    assert len(ways._words) == 1 + WORD_EACH_MAX


def test_ways_are_bounded_and_the_oldest_is_forgotten() -> None:
    ways = Ways()
    for number in range(2 * WORD_COUNT_MAX):
        node, via = NodeId(number.to_bytes(16, "big")), NodeId((number % 64).to_bytes(16, "big"))
        ways.proved(node, HERE)
        ways.heard_untrusted(node, THERE, via, 0.0)
    assert len(ways._proved) == COUNT_MAX
    assert len(ways._words) == WORD_COUNT_MAX
    assert sum(map(len, ways._told_by.values())) == WORD_COUNT_MAX


def test_errands_wait_for_one_dial_and_are_bounded() -> None:
    errands = Errands()
    assert errands.add(HERE, Waiting(ALPHA, b"one", True), 0.0)
    assert HERE in errands
    assert errands.late(WAIT_S - 1) == []
    assert errands.late(WAIT_S) == [HERE]
    assert errands.take(HERE) == [Waiting(ALPHA, b"one", True)]
    assert errands.take(HERE) == []
    assert HERE not in errands
    took = [errands.add(HERE, Waiting(ALPHA, b"x", True), 0.0) for _ in range(WAITING_COUNT_MAX + 1)]
    assert took == [True] * WAITING_COUNT_MAX + [False]
    assert not errands.add(HERE, Waiting(ALPHA, bytes(WAITING_BYTES_MAX), True), 0.0)
    for number in range(INSTANCE_COUNT_MAX - 1):
        assert errands.add(bytes((number,)) * 8, Waiting(ALPHA, b"x", True), 0.0)
    assert not errands.add(THERE, Waiting(ALPHA, b"x", True), 0.0)


def test_errands_of_others_leave_room_for_those_of_this_node() -> None:
    errands = Errands()
    took = [errands.add(bytes((number,)) * 8, Waiting(ALPHA, b"x", False), 0.0) for number in range(20)]
    assert sum(took) == OTHERS_COUNT_MAX
    assert errands.add(THERE, Waiting(ALPHA, b"x", True), 0.0)
