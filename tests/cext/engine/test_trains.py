"""Trains of datagrams that the kernel refuses: what is sent nevertheless, and when trains are tried again.

And trains that come: how many datagrams, and bytes, are counted.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.driven import Driven, build

PAUSE_S_MIN, PAUSE_S_MAX = 10, 640  # cext/engine/datagrams.c
REFUSALS = (errno.EIO, errno.EINVAL, errno.EMSGSIZE, errno.EOPNOTSUPP)


@pytest.fixture(scope="module")
def program() -> Path:
    sources = "engine/trains_driver.c", "engine/datagrams.c", "stun/stun.c"
    return build(*sources, wrapped=("sendmsg", "recvmmsg"), libraries=("crypto",))


class Link:
    """A link; the test decides what its kernel answers."""

    def __init__(self, driven: Driven) -> None:
        self._driven = driven

    def refuse(self, train: int, single: int = 0) -> None:
        """Answer trains, and single datagrams, with an errno; 0: they are sent."""
        self._driven.ask(f"refuse {train} {single}")

    def send(self, count: int) -> list[str]:
        """Send so many datagrams at once; return how many each system call had, with ! if it failed."""
        return self._driven.ask(f"send {count}").split()

    def receive(self, *trains: tuple[int, bytes]) -> tuple[int, ...]:
        """Let trains come in one system call, each with the size of its datagrams as the kernel says it.

        0: it says none.  Return what was counted until now: bytes and datagrams, then those of STUN among them.
        """
        words = " ".join(f"{segment} {data.hex() or '-'}" for segment, data in trains)
        return tuple(map(int, self._driven.ask(f"receive {len(trains)} {words}").split()))

    def later(self, duration_s: float) -> None:
        self._driven.ask(f"later {round(duration_s * 1000)}")

    @property
    def dropped(self) -> int:
        return int(self._driven.ask("dropped"))


@pytest.fixture
def link(program: Path) -> Iterator[Link]:
    with Driven(program) as driven:
        yield Link(driven)


@pytest.mark.parametrize("error", REFUSALS, ids=errno.errorcode.get)
def test_a_train_that_is_refused_goes_one_by_one(link: Link, error: int) -> None:
    assert link.send(5) == ["5"]
    link.refuse(error)
    assert link.send(5) == ["!5", *"11111"]
    assert link.send(3) == [*"111"]
    assert link.dropped == 0


def test_trains_are_tried_again_after_a_pause_that_doubles(link: Link) -> None:
    link.refuse(errno.EINVAL)
    pause_s = PAUSE_S_MIN
    for _ in range(10):
        assert link.send(2) == ["!2", "1", "1"]
        link.later(pause_s - 0.001)
        assert link.send(2) == ["1", "1"]
        link.later(0.001)
        pause_s = min(2 * pause_s, PAUSE_S_MAX)


def test_one_refused_train_in_between_costs_one_pause(link: Link) -> None:
    for _ in range(20):
        link.refuse(errno.EINVAL)
        assert link.send(2) == ["!2", "1", "1"]
        link.refuse(0)
        link.later(PAUSE_S_MIN)
        assert link.send(5) == ["5"]


def test_a_datagram_that_fails_alone_is_dropped_and_the_rest_is_sent(link: Link) -> None:
    link.refuse(errno.EMSGSIZE, errno.EMSGSIZE)
    assert link.send(2) == [
        "!2",
        "!1",
        "!1",
        "!1",
        "!1",
    ]  # each is tried twice: the first error may be about an earlier datagram
    assert link.dropped == 2


def test_an_error_that_is_not_about_trains_leaves_them(link: Link) -> None:
    link.refuse(errno.ENETUNREACH)
    assert link.send(5) == ["!5", "!5"]
    assert link.dropped == 1
    link.refuse(0)
    assert link.send(5) == ["5"]


STUN, DTLS, NOISE = b"\x01" + bytes(9), b"\x17" + bytes(9), b"\xff" + bytes(9)


@pytest.mark.parametrize(
    ("trains", "counted"),
    [
        ([(0, DTLS)], (10, 1, 0, 0)),
        ([(0, STUN)], (10, 1, 10, 1)),
        ([(0, b"")], (0, 1, 0, 0)),  # an empty datagram is one
        ([(10, 3 * DTLS)], (30, 3, 0, 0)),
        ([(10, 3 * DTLS + DTLS[:1])], (31, 4, 0, 0)),  # the last one of a train may be shorter
        ([(10, DTLS + STUN + NOISE + STUN[:4])], (34, 4, 14, 2)),
        ([(20, DTLS)], (10, 1, 0, 0)),
        ([(10, 2 * STUN), (0, NOISE), (0, b""), (10, DTLS + STUN)], (50, 6, 30, 3)),
        ([(1, bytes(500))], (500, 500, 500, 500)),
    ],
)
def test_every_datagram_of_a_train_that_comes_is_counted(
    link: Link, trains: list[tuple[int, bytes]], counted: tuple[int, ...]
) -> None:
    assert link.receive(*trains) == counted
    assert link.receive(*trains) == tuple(2 * each for each in counted)
