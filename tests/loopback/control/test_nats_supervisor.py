"""How often a node tries to connect to a broker, and after what."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from conflux.control.nats.back_off import BackOff
from conflux.control.nats.config import Server
from conflux.control.nats.connection import Connection
from conflux.control.nats.end import ConnectError, End
from conflux.control.nats.supervisor import Supervisor

SERVERS = (("a.example", 4222), ("b.example", 4222))


class NotedWaits(BackOff):
    """Waits that are over at once until enough were noted, and then never."""

    def __init__(self, count: int) -> None:
        super().__init__(random.Random(1))
        self.kinds: list[str] = []
        self.all_noted = asyncio.Event()
        self._count = count

    def _note(self, kind: str) -> float:
        self.kinds.append(kind)
        if len(self.kinds) < self._count:
            return 0.0
        self.all_noted.set()
        return 3600.0

    def start_s(self) -> float:
        return 0.0

    def failed_s(self, *, round_s: float) -> float:
        return self._note("failed")

    def refused_s(self) -> float:
        return self._note("refused")


class FakeConnection:
    """A connection that stays up."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.end: End | None = None
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def close(self, end: End) -> None:
        self.end = end
        self.closed.set_result(None)

    async def gone(self) -> None:
        pass


def ends(*found: End) -> Callable[[Server], Awaitable[Connection]]:
    """Return what admits the first time, and afterwards answers as found, by server."""
    admitted: list[Server] = []

    async def connect(server: Server) -> Connection:
        if not admitted:
            admitted.append(server)
            return FakeConnection(server)
        raise ConnectError(found[SERVERS.index(server)])

    return connect


async def waits_of(*found: End) -> list[str]:
    """Return what a node waits for that has a connection and cannot make the one that is to replace it."""
    up = asyncio.Event()
    supervisor = Supervisor(SERVERS, rng=random.Random(1), connect=ends(*found), up=lambda connection: up.set())
    waits = supervisor._back_off = NotedWaits(3)
    supervisor.start()
    try:
        async with asyncio.timeout(20.0):
            await up.wait()
            supervisor.replace()
            await waits.all_noted.wait()
        assert supervisor.connection is not None
        assert not supervisor.refused
    finally:
        await supervisor.stop()
    return waits.kinds


async def test_newer_credential_that_is_refused_is_not_shown_every_few_seconds_while_the_older_one_serves():
    assert await waits_of(End.NOT_ADMITTED, End.NOT_ADMITTED) == ["refused"] * 3
    assert await waits_of(End.NOT_ADMITTED, End.UNREACHABLE) == ["refused"] * 3


async def test_server_that_does_not_answer_is_tried_again_soon_while_the_older_connection_serves():
    assert await waits_of(End.UNREACHABLE, End.SILENT) == ["failed"] * 3
