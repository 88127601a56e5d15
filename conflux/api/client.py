"""The client of the daemon's Unix socket, for the command line; server.py describes the protocol."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator

from conflux.errors import UserError, words_of

TYPE_CHECKING = False  # it takes longer to import than all that this module does
if TYPE_CHECKING:
    from pathlib import Path

ANSWER_TIMEOUT_S = 30.0  # what asks other nodes may take as long
LOOK_TIMEOUT_S = 5.0  # what only looks takes milliseconds: a daemon that is silent for longer hangs
PATIENCE_S = 1.0  # then what takes long is told from a daemon that hangs, by a question that takes no time
LOOK = "links"  # the request that costs least
LINE_BYTES_MAX = 1 << 24  # a status with every stream and link of a busy node


class NotRunning(UserError):
    """No daemon listens on the socket."""


class HangsError(UserError):
    """The daemon is there and does not answer."""


class _EndedEarly(UserError):
    """The connection ended without an answer."""


class ApiClient:
    """Asks one daemon; every request has a connection of its own."""

    def __init__(self, path: Path | str) -> None:
        self._path = path
        self._holder = 0  # the process that listened the last time

    def look(self, do: str, **arguments: object) -> object:
        """Return the answer to a request that only looks.  Raises UserError, soon if the daemon hangs."""
        return self._call(do, arguments, LOOK_TIMEOUT_S)

    def call(self, do: str, **arguments: object) -> object:
        """Return the answer to one request, soon if the daemon hangs.  Raises UserError with the daemon's text."""
        return self._call(do, arguments, ANSWER_TIMEOUT_S, is_slow=True)

    def _call(self, do: str, arguments: dict[str, object], timeout_s: float, *, is_slow: bool = False) -> object:
        answer: object = None
        for kind, value in self._lines(do, arguments, timeout_s, is_slow=is_slow):
            if kind == "done":
                answer = value
        return answer

    def stream(self, do: str, **arguments: object) -> Iterator[object]:
        """Yield the items of a request as they come.  Raises UserError with the daemon's text."""
        self._require_awake()  # items may be long in coming, so this alone tells a daemon that hangs
        for kind, value in self._lines(do, arguments, None):
            if kind == "item":
                yield value

    def call_to_end(self, do: str, timeout_s: float) -> int:
        """Make a request that the daemon does not answer: it closes the connection when it ends.

        Returns the daemon's process.  Raises UserError if that takes longer than timeout_s, and soon if it hangs.
        """
        self._require_awake()
        try:
            for _ in self._lines(do, {}, timeout_s):
                pass
        except (_EndedEarly, NotRunning):  # it was there a moment ago
            pass
        return self._holder

    def _require_awake(self) -> None:
        """Raise HangsError or NotRunning unless the daemon answers anything."""
        try:
            self.look(LOOK)
        except (HangsError, NotRunning):
            raise
        except UserError:
            pass  # an answer, of which the request itself will hear

    def _await(self, connection: socket.socket) -> None:
        """Return when an answer begins, or the daemon answers something else at least.  Raises HangsError."""
        connection.settimeout(PATIENCE_S)
        try:
            connection.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            self._require_awake()

    def _lines(
        self, do: str, arguments: dict[str, object], timeout_s: float | None, *, is_slow: bool = False
    ) -> Iterator[tuple[str, object]]:
        """Yield the kind and value of each line of an answer.  is_slow: the daemon may have to ask other nodes."""
        with self._connect() as connection:
            holder = self._holder = _pid(connection)
            connection.settimeout(timeout_s)
            given = {name: value for name, value in arguments.items() if value is not None}
            ended = False
            try:
                connection.sendall(json.dumps({"do": do, **given}).encode() + b"\n")
                if is_slow:
                    self._await(connection)
                    connection.settimeout(timeout_s)
                with connection.makefile("rb") as lines:
                    while line := lines.readline(LINE_BYTES_MAX):
                        kind, value = _parse(line)
                        ended = ended or kind == "done"
                        yield kind, value
            except TimeoutError:
                raise HangsError(
                    f"the daemon (pid {holder}) has not answered for {timeout_s:g} seconds: its log may say why; "
                    f"kill {holder} ends it, and kill -9 {holder} if that does not"
                ) from None
            except ConnectionError:
                pass
            if not ended:
                raise _EndedEarly("the daemon ended before it answered")

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(LOOK_TIMEOUT_S)
        try:
            connection.connect(str(self._path))
        except (TimeoutError, BlockingIOError):  # more clients wait than the kernel keeps
            connection.close()
            raise HangsError(f"the daemon on {self._path} takes no clients any more: it hangs") from None
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
            raise NotRunning(f"no daemon listens on {self._path}: start it with `conflux up`") from None
        except PermissionError:
            connection.close()
            raise UserError(
                f"no permission to talk to the daemon on {self._path}: run as root or as its user; "
                "members of the group conflux may look"
            ) from None
        except OSError as error:
            connection.close()
            raise UserError(f"cannot talk to the daemon on {self._path}: {words_of(error)}") from None
        return connection


def _pid(connection: socket.socket) -> int:
    """Return the process that listens at the other end."""
    return int(struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])


def _parse(line: bytes) -> tuple[str, object]:
    try:
        message = json.loads(line)
        ((kind, value),) = message.items()
    except (ValueError, AttributeError):
        raise UserError("the daemon's answer makes no sense: is it of another version?") from None
    if kind == "error":
        raise UserError(str(value))
    return kind, value
