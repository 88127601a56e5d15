"""The command line's side of the daemon's unix socket; api.py describes what is said on it."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

from conflux.errors import UserError

ANSWER_TIMEOUT_S = 30.0  # a daemon that is silent for longer is hung
LINE_BYTES_MAX = 1 << 24  # a status with every stream and link of a busy node


class NotRunning(UserError):
    """No daemon listens on the socket."""


class _EndedEarly(UserError):
    """The connection ended without an answer."""


class ApiClient:
    """Asks one daemon; every request has its own connection."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def call(self, do: str, **arguments: object) -> object:
        """Return the answer of one request.  Raises UserError with the daemon's words."""
        answer: object = None
        for kind, value in self._lines(do, arguments, ANSWER_TIMEOUT_S):
            if kind == "done":
                answer = value
        return answer

    def stream(self, do: str, **arguments: object) -> Iterator[object]:
        """Yield the items of a request as they come.  Raises UserError with the daemon's words."""
        for kind, value in self._lines(do, arguments, None):
            if kind == "item":
                yield value

    def call_to_end(self, do: str, timeout_s: float) -> None:
        """Make a request that the daemon never answers: it closes the connection as its last act.

        Raises UserError if that takes longer than timeout_s.
        """
        try:
            for _ in self._lines(do, {}, timeout_s):
                pass
        except _EndedEarly:
            return

    def _lines(self, do: str, arguments: dict[str, object], timeout_s: float | None) -> Iterator[tuple[str, object]]:
        with self._connect() as connection:
            connection.settimeout(timeout_s)
            given = {name: value for name, value in arguments.items() if value is not None}
            ended = False
            try:
                connection.sendall(json.dumps({"do": do, **given}).encode() + b"\n")
                with connection.makefile("rb") as lines:
                    while line := lines.readline(LINE_BYTES_MAX):
                        kind, value = _parse(line)
                        ended = ended or kind == "done"
                        yield kind, value
            except TimeoutError:
                raise UserError(f"the daemon on {self._path} has not answered for {timeout_s:g} seconds") from None
            except ConnectionError:
                pass
            if not ended:
                raise _EndedEarly("the daemon ended before it answered")

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(str(self._path))
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
            raise NotRunning(f"no daemon listens on {self._path}: start it with `conflux up`") from None
        except PermissionError:
            connection.close()
            raise UserError(
                f"no permission to talk to the daemon on {self._path}: run as root or as its user"
            ) from None
        except OSError as error:
            connection.close()
            raise UserError(f"cannot talk to the daemon on {self._path}: {error.strerror or error}") from None
        return connection


def _parse(line: bytes) -> tuple[str, object]:
    try:
        message = json.loads(line)
        ((kind, value),) = message.items()
    except (ValueError, AttributeError):
        raise UserError("the daemon's answer makes no sense: is it of another version?") from None
    if kind == "error":
        raise UserError(str(value))
    return kind, value
