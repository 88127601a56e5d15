"""The page's server: one request a connection, and a bound on all that a reader can cost.

What is more than the bounds waits in the kernel's queue, and then is not answered.  So a flood takes a small share of
one processor at most; the daemon, which is asked once a second, does not notice.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections import Counter
from collections.abc import Collection
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Final

from conflux.budget import TokenBucket
from conflux.host.tcp import bound_segments
from conflux.ids import IPAddress
from conflux.web import answer
from conflux.web.answer import Answer
from conflux.web.health import Health
from conflux.web.measured import measured, measured_at
from conflux.web.places import is_near
from conflux.web.request import HEAD_BYTES_MAX, HEAD_END, Refused, Turned, parse_untrusted, require_ours
from conflux.web.source import Source

CONNECTION_COUNT_MAX: Final = 48  # chosen: a few open pages and Prometheus; a browser opens up to six at once
READER_COUNT_MAX: Final = 12  # connections of one address, or of one IPv6 network of a LAN
ACCEPTS_PER_S: Final = 100.0  # chosen: some percent of a small board's processor
ACCEPT_BURST: Final = 50.0
BACKLOG: Final = 32
HEAD_WITHIN_S: Final = 5.0  # from the connection to the end of the request's head
TAKEN_WITHIN_S: Final = 10.0  # from the answer to its last byte being taken, and the connection closed by the reader
REST_BYTES_MAX: Final = 65536  # that a reader sends after its request, and are read so that it gets the answer


class PageServer:
    """Serves one board's page at some addresses.

    names: those that a Host header may have beside the addresses, in lower case.  drops: what was not answered, by
    reason.
    """

    def __init__(self, source: Source, health: Health) -> None:
        self.names: Collection[str] = ()
        self.drops: Counter[Turned] = Counter()
        self._source = source
        self._health = health
        self._page = answer.page()
        self._budget = TokenBucket(ACCEPTS_PER_S, ACCEPT_BURST)
        self._readers: Counter[object] = Counter()
        self._serving: set[asyncio.Task[None]] = set()
        self._room = asyncio.Event()  # for one connection more
        self._room.set()
        self._listeners: dict[IPAddress, tuple[socket.socket, asyncio.Task[None]]] = {}

    @property
    def places(self) -> Collection[IPAddress]:
        """The addresses that it listens at."""
        return self._listeners.keys()

    @property
    def connection_count(self) -> int:
        """How many readers are being served."""
        return len(self._serving)

    def listen(self, address: IPAddress, port: int) -> int:
        """Serve at one address more; return the port.  port: 0: any.  Raises OSError."""
        listener = socket.socket(socket.AF_INET6 if address.version == 6 else socket.AF_INET, socket.SOCK_STREAM)
        try:
            listener.setblocking(False)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound_segments(listener)
            listener.bind((str(address), port))
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
        self._listeners[address] = (listener, asyncio.create_task(self._accept(listener)))
        return int(listener.getsockname()[1])

    async def leave(self, address: IPAddress) -> None:
        """Serve at an address no more."""
        listener, accepting = self._listeners.pop(address)
        accepting.cancel()
        await asyncio.gather(accepting, return_exceptions=True)
        listener.close()

    async def stop(self) -> None:
        """End every connection and every listener."""
        for address in list(self._listeners):
            await self.leave(address)
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        await self._health.stop()

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._room.wait()
            await asyncio.sleep(self._budget.wait_s(time.monotonic()))
            try:
                connection, peer = await loop.sock_accept(listener)
            except OSError:  # gone before it was taken, or no descriptor is left
                await asyncio.sleep(1 / ACCEPTS_PER_S)
                continue
            self._budget.take(time.monotonic())
            address = ip_address(peer[0].partition("%")[0])
            reader = _reader(address)
            if self._readers[reader] >= READER_COUNT_MAX or len(self._serving) >= CONNECTION_COUNT_MAX:
                self.drops[Turned.CROWD] += 1
                _reset(connection)
                continue
            self._readers[reader] += 1
            task = asyncio.create_task(self._serve(connection, address))
            self._serving.add(task)
            if len(self._serving) >= CONNECTION_COUNT_MAX:
                self._room.clear()
            task.add_done_callback(lambda task, reader=reader: self._ended(task, reader))  # type: ignore[misc]

    def _ended(self, task: asyncio.Task[None], reader: object) -> None:
        self._serving.discard(task)
        self._room.set()
        self._readers[reader] -= 1
        if not self._readers[reader]:
            del self._readers[reader]
        if not task.cancelled():
            task.result()  # an exception here is a bug, and the event loop says so

    async def _serve(self, connection: socket.socket, reader: IPAddress) -> None:
        """Answer one request; whatever happens, the connection is closed within some seconds."""
        try:
            async with asyncio.timeout(HEAD_WITHIN_S):
                got = await self._answer(connection, reader)
            if got is not None:
                async with asyncio.timeout(TAKEN_WITHIN_S):
                    await _send(connection, got)
        except TimeoutError:
            self.drops[Turned.SLOW] += 1
            _reset(connection)
        except OSError:  # the reader is gone
            pass
        finally:
            connection.close()

    async def _answer(self, connection: socket.socket, reader: IPAddress) -> bytes | None:
        """Read a request and return the answer; None: there is none."""
        own = ip_address(connection.getsockname()[0].partition("%")[0])
        if not is_near(reader):
            self.drops[Turned.STRANGER] += 1
            return None
        head = await _head(connection)
        if head is None:
            return None
        try:
            request = parse_untrusted(head)
            require_ours(request.host, self.names, {own, *self.places})
            return (await self._look_up(request.path)).encode(with_body=request.with_body)
        except Refused as refused:
            self.drops[Turned.REQUEST] += 1
            return answer.refusal(refused).encode(with_body=True)

    async def _look_up(self, path: str) -> Answer:
        match path:
            case "/":
                return self._page
            case "/state.json":
                seen = await self._source.seen()
                findings, samples = self._health.findings(), self._source.history.samples
                return answer.state(seen, findings, samples, now=time.time(), bench_at=measured_at())
            case "/bench":
                return measured()
            case "/metrics":
                from conflux.web.metrics import metrics  # 4 MB, and most boards are asked by no Prometheus

                return metrics(await self._source.seen(), self.drops)
        raise Refused(404, "there is nothing here: the page is at /, metrics are at /metrics")


def _reader(address: IPAddress) -> object:
    """Return who shares a bound: one address, and in IPv6 all of a network, whose hosts make addresses as they like."""
    return IPv6Network((address, 64), strict=False) if isinstance(address, IPv6Address) else address


async def _head(connection: socket.socket) -> bytes | None:
    """Return the head of the request, without the empty line; too much of it is returned as it is.  None: no head."""
    loop = asyncio.get_running_loop()
    data = b""
    while HEAD_END not in data and len(data) <= HEAD_BYTES_MAX:
        more = await loop.sock_recv(connection, HEAD_BYTES_MAX)
        if not more:
            return None
        data += more
    return data.partition(HEAD_END)[0]


async def _send(connection: socket.socket, data: bytes) -> None:
    """Send the answer and wait until the reader has closed: closing before that could discard what it has not read."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(connection, data)
    connection.shutdown(socket.SHUT_WR)
    rest = 0
    while rest <= REST_BYTES_MAX and (more := await loop.sock_recv(connection, HEAD_BYTES_MAX)):
        rest += len(more)


def _reset(connection: socket.socket) -> None:
    """Close at once: what is not sent yet is not kept for a reader that does not read."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
