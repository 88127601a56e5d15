"""A server that speaks NATS with TLS, as wrongly as a script says, and nodes' channels to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import struct
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from kit.broker import Operator
from kit.cluster import HOST, Broker, Certificates, certificates

from conflux.control.nats.config import Server

NONCE = "bm9uY2Ugb2YgYSBsaWU"  # of the shape that servers send
INFO: dict[str, Any] = {"tls_required": True, "auth_required": True, "headers": True, "nonce": NONCE}


class Session:
    """One connection to the liar."""

    def __init__(self, liar: Liar, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.heard: list[bytes] = []
        self._liar = liar
        self._writer = writer

    async def say(self, data: bytes) -> None:
        """Send bytes."""
        self._writer.write(data)
        await self._writer.drain()

    async def introduce(self, **info: Any) -> None:
        """Send the first line, as an honest server does unless info says otherwise, and begin TLS."""
        await self.say(b"INFO %s\r\n" % json.dumps({**INFO, **info}).encode())
        await self._writer.start_tls(self._liar.context)

    async def hear(self, word: bytes) -> bytes:
        """Return the next line that begins with a word; those before it are kept in heard."""
        while True:
            line = await self.reader.readline()
            if not line:
                raise ConnectionError("the client went away")
            self.heard.append(line)
            if line.startswith(word):
                return line

    async def admit(self) -> None:
        """Introduce itself, and answer until the client is connected and listens."""
        await self.introduce()
        for _ in range(2):  # one ends the handshake; the other says that the subscriptions have been heard
            await self.hear(b"PING")
            await self.say(b"PONG\r\n")

    def stop_reading(self) -> None:
        """Take no more bytes."""
        transport: Any = self._writer.transport
        transport.pause_reading()

    def reset(self) -> None:
        """Break the connection off: the client gets a reset, as from a router that forgot it."""
        self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def until_the_end(self) -> None:
        """Read until the client goes away."""
        while data := await self.reader.read(65536):
            self.heard.append(data)

    def subjects(self) -> list[str]:
        """Return what the client listens to."""
        return [line.split()[1].decode() for line in self.heard if line.startswith(b"SUB ")]


Script = Callable[[Session], Awaitable[None]]


class Liar:
    """The server.  sessions: those that began.  failures: what a script raised."""

    def __init__(self, script: Script, context: ssl.SSLContext) -> None:
        self.context = context
        self.sessions: list[Session] = []
        self.failures: list[BaseException] = []
        self._script = script
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> Server:
        """Listen; return where."""
        self._server = await asyncio.start_server(self._serve, HOST, 0, limit=1 << 20)
        return HOST, self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close everything."""
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        session = Session(self, reader, writer)
        self.sessions.append(session)
        try:
            await self._script(session)
        except OSError:
            pass  # the client had enough
        except Exception as error:  # noqa: BLE001  # a test looks at them
            self.failures.append(error)
        finally:
            writer.transport.abort()
            self._tasks.discard(task)


def server_context(tls: Certificates, **options: Any) -> ssl.SSLContext:
    """Return the TLS context of a server with these certificates.  options: attributes to set."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as place:
        file = Path(place, "both.pem")
        file.write_text(tls.certificate + tls.key)
        context.load_cert_chain(file)
    for name, value in options.items():
        setattr(context, name, value)
    return context


@contextlib.asynccontextmanager
async def lying(
    script: Script, *, tls: Certificates | None = None, **options: Any
) -> AsyncIterator[tuple[Liar, Broker]]:
    """Run a liar; yield it, and the broker that its clients take it for.  options: of its TLS context."""
    tls = tls or certificates()
    liar = Liar(script, server_context(tls, **options))
    address = await liar.start()
    try:
        yield liar, Broker([], Operator(), tls, elsewhere=(address,))
    finally:
        await liar.stop()
    assert liar.failures == []
