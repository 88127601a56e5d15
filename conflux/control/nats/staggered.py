"""Connecting to whichever of several servers lets this node in first: they are tried a while apart."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from conflux.control.nats.config import STAGGER_S, Server
from conflux.control.nats.connection import Connection
from conflux.control.nats.end import ConnectError, End


async def first_connection(
    servers: Iterable[Server],
    connect: Callable[[Server], Awaitable[Connection]],
    failed: Callable[[Server, ConnectError], None],
) -> Connection | None:
    """Return the first connection; None: every server failed.

    failed: told of each failure as it comes.
    """
    waiting = list(servers)
    tasks: dict[asyncio.Future[Connection], Server] = {}
    try:
        while waiting or tasks:
            if waiting:
                server = waiting.pop(0)
                tasks[asyncio.ensure_future(connect(server))] = server
            done, _ = await asyncio.wait(
                tasks, timeout=STAGGER_S if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                server = tasks.pop(task)
                error = task.exception()
                if error is None:
                    return task.result()
                if not isinstance(error, ConnectError):
                    raise error
                failed(server, error)
    finally:
        await _discard(tasks)
    return None


async def _discard(tasks: Iterable[asyncio.Future[Connection]]) -> None:
    """End attempts that are not needed any more, and the connections that they made all the same."""
    for task in tasks:
        task.cancel()
    for made in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(made, Connection):
            made.close(End.REPLACED)
