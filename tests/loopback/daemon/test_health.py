"""What is wrong with the host is noticed and said without being asked."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest

from conflux.daemon import health
from conflux.daemon.health import Health


@pytest.fixture(autouse=True)
def _quick(monkeypatch) -> None:
    for name in ("CHECK_S", "SETTLE_S", "CONFIRM_S", "PAUSE_S"):
        monkeypatch.setattr(health, name, 0.01)


async def test_trouble_that_stays_ends_the_daemon_and_one_that_heals_does_not() -> None:
    found = iter(["no route", None, None, "no address", "no address"])
    told: list[str] = []
    await asyncio.wait_for(Health(trouble=lambda: next(found), warnings=list, lost=told.append).run(), 5)
    assert told == ["no address"]


async def test_what_cannot_be_looked_at_is_no_trouble_and_is_looked_at_again(caplog) -> None:
    found: Iterator[str | OSError] = iter(
        [OSError("no descriptor"), "no route", OSError("no descriptor"), *2 * ["gone"]]
    )

    def trouble() -> str:
        match next(found):
            case OSError() as error:
                raise error
            case str(words):
                return words

    told: list[str] = []
    await asyncio.wait_for(Health(trouble=trouble, warnings=list, lost=told.append).run(), 5)
    assert told == ["gone"]
    assert set(caplog.messages) == {"cannot look at the device: no descriptor"}


async def test_each_new_warning_is_logged_once_and_again_when_it_comes_back(caplog) -> None:
    rounds = iter([["a: 1", "b"], ["a: 2"], [], ["a: 3"]])
    said = asyncio.Event()

    def warnings() -> list[str]:
        found = next(rounds, None)
        if found is None:
            said.set()
        return found or []

    with caplog.at_level(logging.WARNING):
        task = asyncio.create_task(Health(trouble=lambda: None, warnings=warnings, lost=print).run())
        await asyncio.wait_for(said.wait(), 5)
        task.cancel()
    assert sorted(caplog.messages) == ["a: 1", "a: 3", "b"]
