"""Which of two connections to the same node stays."""

from __future__ import annotations

from kit.control import boot_id

from conflux.control.lan.handshake import Peer
from conflux.control.lan.neighbours import GONE_COUNT_MAX, Neighbour, Neighbours
from conflux.ids import NodeId

SMALL, LARGE = NodeId(b"a" * 16), NodeId(b"b" * 16)


def neighbour(name: str, *, dialled: bool, at: float = 100.0, boot: int = 1, session: bytes = b"s") -> Neighbour[str]:
    peer = Peer(LARGE, "large", boot_id(boot), b"instance", 2**40, session * 32, SMALL)
    return Neighbour(peer, name, dialled, at)


def test_connection_that_the_smaller_id_dialled_stays_in_either_order() -> None:
    for order in ((True, False), (False, True)):
        neighbours: Neighbours[str] = Neighbours(SMALL)
        losers = [neighbours.admit(neighbour(f"dialled {dialled}", dialled=dialled)) for dialled in order]
        assert [entry.connection for entry in neighbours.all()] == ["dialled True"]
        assert [loser.connection for loser in losers if loser] == ["dialled False"]


def test_late_second_connection_replaces_the_first_which_its_dialler_lost() -> None:
    neighbours: Neighbours[str] = Neighbours(SMALL)
    neighbours.admit(neighbour("first", dialled=True))
    loser = neighbours.admit(neighbour("second", dialled=False, at=106.0))
    assert loser is not None
    assert loser.connection == "first"


def test_newer_boot_replaces_and_older_does_not() -> None:
    neighbours: Neighbours[str] = Neighbours(SMALL)
    neighbours.admit(neighbour("old", dialled=True, boot=1))
    assert neighbours.admit(neighbour("new", dialled=False, boot=2)) is not None
    late = neighbour("late", dialled=True, boot=1, at=200.0)
    assert neighbours.admit(late) is late
    assert [entry.connection for entry in neighbours.all()] == ["new"]


def test_lost_connection_that_was_replaced_removes_no_neighbour() -> None:
    neighbours: Neighbours[str] = Neighbours(SMALL)
    neighbours.admit(neighbour("first", dialled=True))
    neighbours.admit(neighbour("second", dialled=True, at=200.0))
    assert neighbours.remove("first", 201.0, "peer") is None
    removed = neighbours.remove("second", 202.0, "peer")
    assert removed is not None
    assert len(neighbours) == 0
    assert not neighbours.has_instance(b"instance")


def test_who_left_is_remembered_until_it_is_back_and_a_crowd_pushes_out_the_oldest() -> None:
    neighbours: Neighbours[str] = Neighbours(SMALL)
    neighbours.admit(neighbour("first", dialled=True))
    neighbours.remove("first", 101.0, "closed")
    (gone,) = neighbours.departed()
    assert (gone.peer.node, gone.at, gone.why) == (LARGE, 101.0, "closed")
    neighbours.admit(neighbour("second", dialled=True, at=110.0))
    assert neighbours.departed() == ()
    for number in range(GONE_COUNT_MAX + 1):
        peer = Peer(NodeId(number.to_bytes(16, "big")), "x", boot_id(1), b"instance", 2**40, b"s" * 32, SMALL)
        there = Neighbour(peer, f"{number}", dialled=True, since=120.0)
        neighbours.admit(there)
        neighbours.remove(there.connection, 121.0, "closed")
    assert [gone.peer.node[-1] for gone in neighbours.departed()] == list(range(1, GONE_COUNT_MAX + 1))
