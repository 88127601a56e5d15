"""The heap of deadlines."""

from __future__ import annotations

import weakref

from conflux.datapath.timers import Timer, Timers


class Owner:
    """Has one deadline, `at`, and notes when it was woken."""

    def __init__(self, at: float | None = None) -> None:
        self.at = at
        self.fired: list[float] = []
        self.timer = Timer(lambda: self.at, self.fire)

    def fire(self, now: float) -> None:
        """Note when it was woken."""
        self.fired.append(now)
        self.at = None


def test_the_first_deadline_is_the_next_timeout() -> None:
    timers = Timers()
    assert timers.next_timeout() is None
    for at in (3.0, 1.0, 2.0):
        timers.arm(Owner(at).timer)
    assert timers.next_timeout() == 1.0


def test_a_timer_fires_once_its_deadline_has_come_and_not_before() -> None:
    timers, owner = Timers(), Owner(1.0)
    timers.arm(owner.timer)
    timers.handle_timeout(now=0.999)
    assert not owner.fired
    timers.handle_timeout(now=1.0)
    timers.handle_timeout(now=2.0)
    assert owner.fired == [1.0]
    assert timers.next_timeout() is None


def test_a_deadline_that_moved_later_is_noticed_when_due() -> None:
    timers, owner = Timers(), Owner(1.0)
    timers.arm(owner.timer)
    owner.at = 5.0
    timers.handle_timeout(now=1.0)
    assert not owner.fired
    assert timers.next_timeout() == 5.0


def test_a_deadline_that_moved_earlier_counts_once_armed() -> None:
    timers, owner = Timers(), Owner(5.0)
    timers.arm(owner.timer)
    owner.at = 1.0
    timers.arm(owner.timer)
    assert timers.next_timeout() == 1.0
    timers.handle_timeout(now=1.0)
    timers.handle_timeout(now=5.0)
    assert owner.fired == [1.0]


def test_a_cancelled_timer_never_fires() -> None:
    timers, owner = Timers(), Owner(1.0)
    timers.arm(owner.timer)
    timers.cancel(owner.timer)
    assert timers.next_timeout() is None
    timers.handle_timeout(now=2.0)
    assert not owner.fired


def test_an_ended_timer_releases_its_owner_while_the_heap_keeps_its_place() -> None:
    timers, owner = Timers(), Owner(1.0)
    timers.arm(Owner(0.5).timer)
    timers.arm(owner.timer)
    timer, gone = owner.timer, weakref.ref(owner)
    timers.end(timer)
    del owner
    assert gone() is None
    timers.arm(timer)
    timers.handle_timeout(now=0.75)
    assert timers.next_timeout() is None


def test_a_timer_may_arm_itself_again_while_it_fires() -> None:
    timers, owner = Timers(), Owner(1.0)

    def fire(now: float) -> None:
        owner.fired.append(now)
        owner.at = now + 1

    owner.timer.fire = fire
    timers.arm(owner.timer)
    timers.handle_timeout(now=1.0)
    assert timers.next_timeout() == 2.0
    timers.handle_timeout(now=2.5)
    assert owner.fired == [1.0, 2.5]
