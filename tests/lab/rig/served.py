"""The page served in a thread of this process, of a board that is made up."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any

from conflux.web.health import Health
from conflux.web.server import PageServer
from conflux.web.source import Source


@contextmanager
def served(ask: Callable[[], dict[str, Any]], fill: Callable[[Source], None] = lambda source: None) -> Iterator[int]:
    """Serve the page on loopback; yield the port.  ask: returns the status.  fill: puts a history into the source."""
    loop, ready, ports = asyncio.new_event_loop(), threading.Event(), list[int]()
    ended: asyncio.Future[None] = loop.create_future()

    async def serve() -> None:
        source = Source(ask)
        fill(source)
        server = PageServer(source, Health([sys.executable, "-c", ""]))
        ports.append(server.listen(ip_address("127.0.0.1"), 0))
        ready.set()
        await ended
        await server.stop()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    ready.wait()
    try:
        yield ports[0]
    finally:
        loop.call_soon_threadsafe(ended.set_result, None)
        thread.join()
        loop.close()
