"""Whose questions a bridge to a broker has met."""

from __future__ import annotations

from typing import Any, NamedTuple

from conflux.control.lan.met import MET_COUNT_MAX, Met
from conflux.ids import NodeId


class Peer(NamedTuple):
    """What is asked of a peer."""

    node: NodeId
    instance: bytes
    buckets: frozenset[int]


def met(machine: Met, number: int, instance: bytes = b"here....", buckets: tuple[int, ...] = (1,)) -> None:
    peer: Any = Peer(NodeId(number.to_bytes(16, "big")), instance, frozenset(buckets))
    machine.met(peer)


def test_one_node_counts_once_whatever_instances_it_chooses() -> None:
    machine = Met()
    for turn in range(100):
        met(machine, 1, turn.to_bytes(8, "big"), (turn % 64,))
    assert len(machine) == 1
    assert machine.buckets() == {99 % 64}


def test_they_are_bounded_and_the_one_that_was_met_longest_ago_goes() -> None:
    machine = Met()
    for number in range(MET_COUNT_MAX + 1):
        met(machine, number, buckets=(number,))
    assert len(machine) == MET_COUNT_MAX
    assert 0 not in machine.buckets()
    assert MET_COUNT_MAX in machine.buckets()


def test_who_is_gone_or_no_member_any_more_is_forgotten() -> None:
    machine = Met()
    met(machine, 1, b"one.....", (1,))
    met(machine, 2, b"two.....", (2,))
    met(machine, 3, b"three...", (3,))
    machine.gone(b"one.....")
    machine.forget(frozenset({NodeId((2).to_bytes(16, "big"))}))
    assert machine.buckets() == {3}
