"""Trains of datagrams before a kernel that refuses some: what goes all the same, and when they are tried again."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest
from driven import Driven, build

PAUSE_S_MIN, PAUSE_S_MAX = 10, 640  # cext/engine_datagrams.c
REFUSALS = (errno.EIO, errno.EINVAL, errno.EMSGSIZE, errno.EOPNOTSUPP)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("trains"), "trains_driver.c", "engine_datagrams.c", wrapped=("sendmsg",))


class Link:
    """A link whose kernel says what it is told to."""

    def __init__(self, driven: Driven) -> None:
        self._driven = driven

    def refuse(self, train: int, single: int = 0) -> None:
        """Answer trains, and single datagrams, with an errno; 0: they go."""
        self._driven.ask(f"refuse {train} {single}")

    def send(self, count: int) -> list[str]:
        """Send so many datagrams at once; how many each call of the kernel's had, with ! those that failed."""
        return self._driven.ask(f"send {count}").split()

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


def test_what_fails_alone_too_is_dropped_and_the_rest_goes_on(link: Link) -> None:
    link.refuse(errno.EMSGSIZE, errno.EMSGSIZE)
    assert link.send(2) == ["!2", "!1", "!1", "!1", "!1"]  # each tried twice: the first error may be an earlier one's
    assert link.dropped == 2


def test_an_error_that_is_not_about_trains_leaves_them(link: Link) -> None:
    link.refuse(errno.ENETUNREACH)
    assert link.send(5) == ["!5", "!5"]
    assert link.dropped == 1
    link.refuse(0)
    assert link.send(5) == ["5"]
