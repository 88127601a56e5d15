"""A test may be a coroutine function; it runs on an event loop of its own, with fixtures and parameters."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import uvloop


@pytest.mark.parametrize("count", [1, 2])
async def test_fixtures_and_parameters_arrive(count: int, tmp_path: Path) -> None:
    await asyncio.sleep(0)
    assert count in (1, 2)
    assert tmp_path.is_dir()


async def test_the_event_loop_is_the_daemons() -> None:
    assert isinstance(asyncio.get_running_loop(), uvloop.Loop)


class TestInAClass:
    async def test_self_is_passed(self) -> None:
        assert isinstance(self, TestInAClass)
