"""What a daemon lets go of when its last link has closed."""

from __future__ import annotations

import asyncio
import gc
import weakref
from types import SimpleNamespace

import pytest

from conflux.carrier.interface import CarrierEvent, Closed, Opened
from conflux.config import Config
from conflux.daemon import Daemon
from conflux.ids import LinkId

LINK = LinkId(1)


class Lost:
    """Known to nobody but itself."""

    def __init__(self) -> None:
        self.itself = self


async def outlives(event: CarrierEvent, socket_count: int) -> bool:
    """Say whether something lost is still there after an event of the carrier that leaves so many sockets open."""
    running = Daemon(Config(), None, None, None, None)
    heard: list[CarrierEvent] = []
    running.pump = SimpleNamespace(carrier_event=heard.append)
    running.carrier = SimpleNamespace(socket_count=lambda: socket_count)
    gc.disable()
    try:
        lost = weakref.ref(Lost())
        running._carrier_event(event)
        running._carrier_event(event)
        assert heard == [event, event]
        while running._rest is not None:  # noqa: ASYNC110  # a timer, of which nobody tells
            await asyncio.sleep(0)
        return lost() is not None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("event", "socket_count", "kept"),
    [(Closed(LINK, "asked"), 0, False), (Closed(LINK, "asked"), 1, True), (Opened(LINK), 0, True)],
    ids=["last link closed", "another is up", "link opened"],
)
def test_collector_looks_at_everything_once_nothing_is_up(event: CarrierEvent, socket_count: int, kept: bool) -> None:
    assert asyncio.run(outlives(event, socket_count)) is kept
