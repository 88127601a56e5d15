"""Which of two connections to the same node stays."""

from __future__ import annotations

from kit.control import boot_id

from conflux.control.lan.handshake import Peer
from conflux.control.lan.neighbours import Neighbour, Neighbours
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
    assert neighbours.remove("first") is None
    removed = neighbours.remove("second")
    assert removed is not None
    assert len(neighbours) == 0
    assert not neighbours.has_instance(b"instance")
