"""What a daemon gives back when its last link has closed."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from conflux.carrier.interface import CarrierEnd, CarrierEvent, Closed, Opened
from conflux.daemon.rest import Rest
from conflux.ids import LinkId

LINK = LinkId(1)


class Cycle:
    """An object that only itself refers to."""

    def __init__(self) -> None:
        self.itself = self


async def outlives(event: CarrierEvent, socket_count: int) -> bool:
    """Say whether a cycle is still there after an event of the carrier that leaves so many sockets open."""
    rest = Rest(lambda: socket_count)
    gc.disable()
    try:
        cycle = weakref.ref(Cycle())
        rest.note(event)
        rest.note(event)
        while rest.due:  # noqa: ASYNC110  # a timer, which tells nobody that it fired
            await asyncio.sleep(0)
        return cycle() is not None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("event", "socket_count", "kept"),
    [(Closed(LINK, CarrierEnd.ASKED), 0, False), (Closed(LINK, CarrierEnd.ASKED), 1, True), (Opened(LINK), 0, True)],
    ids=["last link closed", "another is up", "link opened"],
)
def test_the_collector_looks_at_everything_once_nothing_is_up(
    event: CarrierEvent, socket_count: int, kept: bool
) -> None:
    assert asyncio.run(outlives(event, socket_count)) is kept
