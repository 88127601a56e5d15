"""What holds for every test: Hypothesis as we want it, and tests that are coroutines."""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging
from collections.abc import Callable, Coroutine, Iterator
from functools import wraps
from typing import Any

import pytest
import uvloop
from hypothesis import settings
from kit.plain import python_in

from conflux.host.log import PACKAGE, message_of


class _Lines(logging.Handler):
    """Keeps the lines of the log that have a value of Python in them."""

    def __init__(self) -> None:
        super().__init__()
        self.wrong: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = message_of(record)
        if python_in(text) is not None:
            self.wrong.append(text)


@pytest.fixture(autouse=True)
def _log_without_python() -> Iterator[None]:
    """Fail a test in which the program writes a warning or an error that shows a value of Python."""
    handler, logger = _Lines(), logging.getLogger(PACKAGE)
    logger.addHandler(handler)
    yield
    logger.removeHandler(handler)
    assert handler.wrong == []


def pytest_collection_finish() -> None:
    """Take what was made until now, as hundreds of syntax trees, out of the collector's rounds: it stays to the end."""
    gc.collect()
    gc.freeze()


settings.register_profile("conflux", deadline=None, print_blob=True)  # a busy machine is no counterexample
settings.register_profile("quick", settings.get_profile("conflux"), max_examples=15)  # of `make quick`
settings.load_profile("conflux")

# A test that hangs fails.  Each wait inside a test has a deadline of its own, and a shorter one.
ASYNC_TEST_S = 60.0


def on_event_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Return the coroutine function as a plain one, which runs it on an event loop of its own: the daemon's, uvloop."""

    @wraps(test)
    def run(**arguments: Any) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(asyncio.wait_for(test(**arguments), ASYNC_TEST_S))

    return run


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> None:
    """Let a test be a coroutine function: `async def test_...`."""
    if inspect.iscoroutinefunction(pyfuncitem.obj):
        pyfuncitem.obj = on_event_loop(pyfuncitem.obj)
