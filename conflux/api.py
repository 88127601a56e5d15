"""The daemon's side of the unix socket: one request per connection, JSON, a line each.

    client  {"do": "ping", "name": "sensor", "count": 2}
    daemon  {"item": {...}}          none or several, as they happen
    daemon  {"done": {...}}          or {"error": "text for a person"}; then the connection ends

Who may talk: root and the user the daemon runs as, by the kernel's word (SO_PEERCRED), besides the socket's mode.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import stat
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conflux.errors import ConfluxError, StateError, UserError

REQUEST_BYTES_MAX = 65536
REQUEST_TIMEOUT_S = 5.0  # a client that connects and says nothing gives its place back
REFUSED_TIMEOUT_S = 1.0
REFUSED_READ_COUNT_MAX = 16  # a megabyte; who sends more may lose the error's text
CLIENT_COUNT_MAX = 32  # chosen; a dashboard, a few watchers, and people

Arguments = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of an operation: its type and, for a number or text, its bounds."""

    kind: type
    default: object = None
    required: bool = False
    least: float = 0
    most: float = 1024  # of a text: its length

    def check(self, name: str, value: object) -> object:
        """Return value, or raise UserError saying what is expected."""
        is_whole = self.kind is float and type(value) is int  # 1 for 1.0; converted once it is known to be small
        if type(value) is not self.kind and not is_whole:
            raise UserError(f"{name} must be {_KINDS[self.kind]}")
        if self.kind is bool:
            return value
        size = len(value) if isinstance(value, str) else value
        assert isinstance(size, int | float)
        if not self.least <= size <= self.most:
            unit = " characters" if self.kind is str else ""
            raise UserError(f"{name} must be {_KINDS[self.kind]} of {self.least:g} to {self.most:g}{unit}")
        return float(size) if is_whole else value


_KINDS: dict[type, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


@dataclass(frozen=True, slots=True)
class Operation:
    """What a request does: either call, for one answer, or stream, for items until it ends."""

    call: Callable[[Arguments], Awaitable[object]] | None = None
    stream: Callable[[Arguments], AsyncIterator[object]] | None = None
    arguments: Mapping[str, Argument] = field(default_factory=dict)


def parse_untrusted(line: bytes, operations: Mapping[str, Operation]) -> tuple[Operation, Arguments]:
    """Return what one request line asks for.  Raises UserError naming what is wrong."""
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        raise UserError("the request is not JSON") from None
    if not isinstance(request, dict):
        raise UserError('the request is not an object such as {"do": "status"}')
    name = request.pop("do", None)
    operation = operations.get(name) if isinstance(name, str) else None
    if operation is None:
        raise UserError(f"unknown request {str(name)[:40]!r}; known: {', '.join(sorted(operations))}")
    if unknown := request.keys() - operation.arguments.keys():
        raise UserError(f"{name}: unknown argument {min(unknown)[:40]!r}")
    values: dict[str, object] = {}
    for key, argument in operation.arguments.items():
        if key in request:
            values[key] = argument.check(f"{name}: {key}", request[key])
        elif argument.required:
            raise UserError(f"{name}: {key} is missing")
        else:
            values[key] = argument.default
    return operation, values


class _NotServed(UserError):
    """This client gets nothing, whatever it asks."""


class ApiServer:
    """Serves operations on one unix socket.

    failed: told of an exception that is a bug; the client gets a short error.
    """

    def __init__(self, path: Path, operations: Mapping[str, Operation], failed: Callable[[Exception], None]) -> None:
        self._path = path
        self._operations = operations
        self._failed = failed
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()
        self.refused_count = 0

    async def start(self) -> None:
        """Listen.  Raises UserError if the path cannot be had."""
        listener = _listener(self._path)
        try:
            self._server = await asyncio.start_unix_server(self._connected, sock=listener, limit=REQUEST_BYTES_MAX)
        except BaseException:
            listener.close()
            raise

    async def stop(self) -> None:
        """End every connection and remove the socket."""
        if self._server is None:
            return
        self._server.close()
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None
        with contextlib.suppress(OSError):
            self._path.unlink()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            await self._serve(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass  # the client went away, or we stop
        finally:
            self._clients.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if not _permitted(writer):
                raise _NotServed("only root and the user the daemon runs as may talk to it")
            if len(self._clients) > CLIENT_COUNT_MAX:
                raise _NotServed(f"more than {CLIENT_COUNT_MAX} clients at once")
            if (line := await _read_line(reader)) is not None:
                operation, arguments = parse_untrusted(line, self._operations)
                await self._answer(operation, arguments, reader, writer)
        except ConnectionError:
            raise
        except ConfluxError as error:
            self.refused_count += 1
            await _refuse(reader, writer, str(error))
        except Exception as error:  # noqa: BLE001  # a bug: told to the daemon, which decides
            self._failed(error)
            await _refuse(reader, writer, "the daemon failed on this request; its log says how")

    async def _answer(
        self,
        operation: Operation,
        arguments: Arguments,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        if operation.call is not None:
            await _write(writer, {"done": await operation.call(arguments)})
            return
        assert operation.stream is not None
        # A watcher that hangs up must not be kept until the next event happens to be written to it.
        answering = asyncio.ensure_future(self._stream(operation.stream(arguments), writer))
        hung_up = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait((answering, hung_up), return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                await answering
        finally:
            for task in (answering, hung_up):
                task.cancel()
            await asyncio.gather(answering, hung_up, return_exceptions=True)

    async def _stream(self, items: AsyncIterator[object], writer: asyncio.StreamWriter) -> None:
        try:
            async for item in items:
                await _write(writer, {"item": item})
        finally:
            if (close := getattr(items, "aclose", None)) is not None:
                await close()
        await _write(writer, {"done": None})


def _permitted(writer: asyncio.StreamWriter) -> bool:
    size = struct.calcsize("3i")
    credentials = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    _, uid, _ = struct.unpack("3i", credentials)
    return uid in (0, os.geteuid())


async def _read_line(reader: asyncio.StreamReader) -> bytes | None:
    """Return the request, or None if the client left without one."""
    try:
        async with asyncio.timeout(REQUEST_TIMEOUT_S):
            return await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError:
        return None
    except asyncio.LimitOverrunError:
        raise _NotServed(f"the request is larger than {REQUEST_BYTES_MAX} bytes") from None
    except TimeoutError:
        raise _NotServed(f"no request within {REQUEST_TIMEOUT_S:g} seconds") from None


async def _write(writer: asyncio.StreamWriter, message: object) -> None:
    writer.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")
    await writer.drain()


async def _refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, text: str) -> None:
    """Write the error, then read what the client may still be sending: closing on it would take the error away."""
    await _write(writer, {"error": text})
    writer.write_eof()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(REFUSED_TIMEOUT_S):
            for _ in range(REFUSED_READ_COUNT_MAX):
                if not await reader.read(REQUEST_BYTES_MAX):
                    break


def _listener(path: Path) -> socket.socket:
    """Return a socket bound at path with mode 0600; what a killed daemon left there is replaced."""
    try:
        _clear(path)
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    except OSError as error:
        raise StateError(f"cannot make the socket {path}: {error.strerror}") from None
    mask = os.umask(0o177)
    try:
        listener.bind(str(path))
    except OSError as error:
        listener.close()
        raise StateError(f"cannot make the socket {path}: {error.strerror or error}") from None
    finally:
        os.umask(mask)
    return listener


def _clear(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise StateError(f"{path} is in the way: it is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()  # nobody listens
        else:
            raise StateError(f"another daemon listens on {path}")
