"""Dialling all at once because this host has another address."""

from __future__ import annotations

import random

from conflux.control.lan.target import HURRY_RATE, Target, Targets


async def test_all_are_dialled_when_an_address_comes_and_not_as_often_as_a_router_advertises_one() -> None:
    async def dial(target: Target) -> None:
        """Reach nobody."""

    targets = Targets(b"us", rng=random.Random(1), drop=print, connected=lambda target: False, dial=dial)
    targets.follow((("192.0.2.1", 7463),))
    (target,) = targets.all()

    def hurried(own: set[str], now: float) -> bool:
        target._wake.clear()
        targets.hurry(frozenset(own), now)
        return target._wake.is_set()

    try:
        assert hurried({"a"}, 0.0)
        assert not hurried({"a"}, 0.0), "nothing came"
        assert not hurried(set(), 0.0), "it went"
        assert hurried({"a"}, 0.0), "it is back"
        assert [hurried({str(number)}, 0.0) for number in range(4)] == [True, True, False, False]
        assert hurried({"3"}, 1 / HURRY_RATE), "what came too soon is news later"
    finally:
        await targets.stop()
