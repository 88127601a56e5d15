"""The server of the daemon's Unix socket: one request per connection, in lines of JSON.

    client  {"do": "ping", "name": "sensor", "count": 2}
    daemon  {"item": {...}}          zero or more, as they happen
    daemon  {"done": {...}}          or {"error": "text for a person"}; then the connection ends

Root and the user that the daemon runs as may ask everything; who is in the group conflux may look, and change nothing.
The kernel says who connects (SO_PEERCRED, SO_PEERGROUPS); the mode of the socket keeps all others out too.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import errno
import json
import os
import socket
import stat
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from conflux.api.scheme import plain
from conflux.budget import TokenBucket
from conflux.errors import ConfluxError, StateError, UserError, words_of
from conflux.state.directory import CANNOT_WRITE

REQUEST_BYTES_MAX = 65536
REQUEST_TIMEOUT_S = 5.0  # a client that connects and sends nothing must not keep its place
REFUSED_TIMEOUT_S = 1.0
REFUSED_READ_COUNT_MAX = 16  # reads of 64 kB: a client that sends more than a megabyte may lose the error's text
CLIENT_COUNT_MAX = 32  # admitted at once; chosen: a dashboard, a few watchers, and people
LOOKER_COUNT_MAX = 24  # of them may be users who may only look: they cannot keep the owner out
REFUSED_COUNT_MAX = 8  # no owners, not admitted, and still told why: more than these are closed without a word
LOOKS_PER_S = 10.0  # of all who may only look, together; the page asks once a second, `conflux top` every two
LOOKS_BURST = 30.0
PROBE_TIMEOUT_S = 1.0
SO_PEERGROUPS = 59  # asm-generic/socket.h; the socket module has no name for it
GROUP_COUNT_MAX = 65536  # NGROUPS_MAX of the kernel

Arguments = Mapping[str, Any]


class Argument(NamedTuple):
    """One argument of an operation: its type and, for a number or text, its bounds."""

    kind: type
    default: object = None
    required: bool = False
    least: float = 0  # of a text: its length, as for most
    most: float = 1024

    def check(self, name: str, value: object) -> object:
        """Return value.  Raises UserError with what is expected."""
        is_whole = self.kind is float and type(value) is int  # 1 for 1.0; converted below, when it is known to be small
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


class Operation(NamedTuple):
    """What a request does: either call, which returns one answer, or stream, which yields items until it ends.

    looks: it changes nothing, so who may look may ask it.
    """

    call: Callable[[Arguments], Awaitable[object]] | None = None
    stream: Callable[[Arguments], AsyncIterator[object]] | None = None
    arguments: Mapping[str, Argument] = MappingProxyType({})
    looks: bool = False


def parse_untrusted(
    line: bytes, operations: Mapping[str, Operation], otherwise: Operation | None = None
) -> tuple[Operation, Arguments]:
    """Return the operation that one request line asks for, and its arguments.  Raises UserError with what is wrong.

    otherwise: what a request for another operation gets, without arguments; None: an error.
    """
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        raise UserError("the request is not JSON") from None
    if not isinstance(request, dict):
        raise UserError('the request is not an object such as {"do": "status"}')
    name = request.pop("do", None)
    operation = operations.get(name) if isinstance(name, str) else None
    if operation is None and otherwise is not None:
        return otherwise, {}
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


class NoRoomError(StateError):
    """The disk takes no socket: it is full or read-only."""


class Access(enum.Enum):
    """What a user may ask of the daemon."""

    ALL = enum.auto()
    LOOK = enum.auto()
    NOTHING = enum.auto()


class _NotServed(UserError):
    """This client is not served, whatever it asks."""


class _NotAdmitted(_NotServed):
    """This client, which is no owner, has no place."""


class ApiServer:
    """Serves operations on one Unix socket.

    failed: told of an exception that is a bug; the client gets a short error.  drops: requests refused, by reason.
    otherwise: see parse_untrusted().  group: who is in it may look; None: nobody may but root and the daemon's user.
    """

    def __init__(
        self,
        path: Path,
        operations: Mapping[str, Operation],
        failed: Callable[[Exception], None],
        drops: Counter[str],
        *,
        otherwise: Operation | None = None,
        group: int | None = None,
    ) -> None:
        self._path = path
        self._group = group
        self._operations = operations
        self._failed = failed
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()  # every connection, admitted or not
        self._owners: set[asyncio.Task[None]] = set()  # those admitted, by what they may ask
        self._lookers: set[asyncio.Task[None]] = set()
        self._looks = TokenBucket(LOOKS_PER_S, LOOKS_BURST)
        self._refused_count = 0  # not admitted, and being told why
        self._drops = drops
        self._otherwise = otherwise

    async def start(self) -> None:
        """Listen.  Raises StateError if the socket cannot be made at the path."""
        listener = _listener(self._path, self._group)
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
            pass  # the client closed the connection, or the server stops
        finally:
            for tasks in (self._clients, self._owners, self._lookers):
                tasks.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            access = self._admit(writer)
            if (line := await _read_line(reader)) is not None:
                operation, arguments = parse_untrusted(line, self._operations, self._otherwise)
                if access is not Access.ALL and not operation.looks:
                    raise _NotServed("you may look at this node and not change it: do that as root")
                await self._answer(operation, arguments, reader, writer)
        except ConnectionError:
            raise
        except _NotAdmitted as error:
            self._drops["api-refused"] += 1
            await self._turn_away(reader, writer, str(error))
        except ConfluxError as error:
            self._drops["api-refused"] += 1
            await _refuse(reader, writer, str(error))
        except Exception as error:  # noqa: BLE001  # a bug: the daemon decides what follows
            self._failed(error)
            await _refuse(reader, writer, "the daemon failed on this request; its log says how")

    def _admit(self, writer: asyncio.StreamWriter) -> Access:
        """Return what the user that connected may ask, and give it a place.  Raises _NotServed."""
        access = access_of(*_peer(writer.get_extra_info("socket")), own_uid=os.geteuid(), group=self._group)
        if access is Access.NOTHING:
            raise _NotAdmitted("only root, the user the daemon runs as and the group conflux may talk to it")
        if len(self._owners) + len(self._lookers) >= CLIENT_COUNT_MAX:
            kind = _NotServed if access is Access.ALL else _NotAdmitted  # `conflux down` takes a silent end for done
            raise kind(f"more than {CLIENT_COUNT_MAX} clients at once")
        if access is Access.LOOK:
            if len(self._lookers) >= LOOKER_COUNT_MAX:
                raise _NotAdmitted(f"more than {LOOKER_COUNT_MAX} clients at once that may only look")
            if not self._looks.take(time.monotonic()):
                raise _NotAdmitted(f"more than {LOOKS_PER_S:g} requests a second of users who may only look")
        task = asyncio.current_task()
        assert task is not None
        (self._owners if access is Access.ALL else self._lookers).add(task)
        return access

    async def _turn_away(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, text: str) -> None:
        """Tell a client without a place why, if not too many are being told: each keeps a descriptor meanwhile."""
        if self._refused_count >= REFUSED_COUNT_MAX:
            return
        self._refused_count += 1
        try:
            await _refuse(reader, writer, text)
        finally:
            self._refused_count -= 1

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
        # Without watching for the end of the connection, a client that is gone would be kept until the next item.
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


def access_of(uid: int, groups: Collection[int], *, own_uid: int, group: int | None) -> Access:
    """Return what a process of user uid may ask of a daemon of user own_uid.

    groups: that the process is in.  group: whose members may look.
    """
    if uid in (0, own_uid):
        return Access.ALL
    return Access.LOOK if group is not None and group in groups else Access.NOTHING


def _peer(connection: socket.socket) -> tuple[int, frozenset[int]]:
    """Return the user that connected and its groups, as the kernel noted them then (unix(7): pid, uid, gid)."""
    size = struct.calcsize("3I")
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    _, uid, gid = struct.unpack("3I", credentials)
    room = 64
    while True:
        try:
            groups = connection.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, room * 4)
            break
        except OSError as error:
            if error.errno != errno.ERANGE or room >= GROUP_COUNT_MAX:
                groups = b""  # no such option: what is not known does not count
                break
            room *= 4
    return uid, frozenset((gid, *struct.unpack(f"{len(groups) // 4}I", groups)))


async def _read_line(reader: asyncio.StreamReader) -> bytes | None:
    """Return the request line, or None if the client closed the connection before its end."""
    try:
        async with asyncio.timeout(REQUEST_TIMEOUT_S):
            return await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError:
        return None
    except asyncio.LimitOverrunError:
        raise _NotServed(f"the request is larger than {REQUEST_BYTES_MAX} bytes") from None
    except TimeoutError:
        raise _NotServed(f"no request within {REQUEST_TIMEOUT_S:g} seconds") from None


def encode(message: object) -> bytes:
    """Return a message as one line of JSON.  A record of named fields, wherever it stands in it, becomes an object."""
    return json.dumps(plain(message), separators=(",", ":")).encode() + b"\n"


async def _write(writer: asyncio.StreamWriter, message: object) -> None:
    writer.write(encode(message))
    await writer.drain()


async def _refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, text: str) -> None:
    """Write the error, then read what the client still sends: closing before that would discard the error."""
    await _write(writer, {"error": text})
    writer.write_eof()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(REFUSED_TIMEOUT_S):
            for _ in range(REFUSED_READ_COUNT_MAX):
                if not await reader.read(REQUEST_BYTES_MAX):
                    break


def make_room(path: Path) -> None:
    """Make the directory of a socket, whatever the umask: those who may look have to come through.  Raises OSError."""
    mask = os.umask(0o022)
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    finally:
        os.umask(mask)


def _listener(path: Path, group: int | None) -> socket.socket:
    """Return a socket bound at path, with mode 0600, or 0660 for a group; the socket of a killed daemon is replaced."""
    try:
        _refuse_shared(path.parent)
        _clear(path)
        make_room(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    except OSError as error:
        raise _no_socket(path, error) from None
    mask = os.umask(0o177 if group is None else 0o117)  # it is for its own group until chown, and nobody listens yet
    try:
        listener.bind(str(path))
        if group is not None:
            os.chown(path, -1, group, follow_symlinks=False)
    except OSError as error:
        listener.close()
        raise _no_socket(path, error) from None
    finally:
        os.umask(mask)
    return listener


def _no_socket(path: Path, error: OSError) -> StateError:
    kind = NoRoomError if error.errno in CANNOT_WRITE else StateError
    return kind(f"cannot make the socket {path}: {words_of(error)}")


def _refuse_shared(folder: Path) -> None:
    """Raise StateError if any user may put another file in the place of the socket."""
    with contextlib.suppress(FileNotFoundError):
        mode = folder.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise StateError(f"every user may replace files in {folder}: chmod o-w {folder}")


def _clear(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise StateError(f"{path} is in the way: it is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(PROBE_TIMEOUT_S)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()  # no process listens on it
            return
        except (BlockingIOError, TimeoutError):
            pass  # its queue is full: a process listens, and hangs
    raise StateError(f"another daemon listens on {path}: conflux down ends it")
