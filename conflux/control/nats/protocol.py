"""What a NATS server says, cut out of a stream of bytes.  Sans-IO.

    INFO {json}␍␊     PING␍␊     PONG␍␊     +OK␍␊     -ERR 'text'␍␊
    MSG subject sid [reply] length␍␊ payload ␍␊
    HMSG subject sid [reply] header-length length␍␊ header payload ␍␊

Everything is bounded before it is kept: the client library would buffer a line without an end, and a message of any
length that its first line claims.  A message too long for an envelope is skipped, not refused: another member may have
sent it, and must not be able to end our connection.  Source: docs.nats.io, "NATS Protocol".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from conflux.control.drop import Drop
from conflux.control.nats.config import (
    HEADER_BYTES_MAX,
    INFO_BYTES_MAX,
    LINE_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    SKIPPED_BYTES_MAX,
)
from conflux.errors import RemoteProtocolError

_END = b"\r\n"
_NUMBER = re.compile(rb"[0-9]{1,8}")
_TOKEN = re.compile(rb"[!-~]+")
_STATUS = re.compile(rb"NATS/1\.0 +([0-9]{3})(?: [^\r\n]*)?\r\n")


class Message(NamedTuple):
    """A message.  status: the number in its header, such as 503 for "nobody listens"; None: it has none."""

    subject: str
    payload: bytes
    status: int | None = None


class Skipped(NamedTuple):
    """A message that is too long for an envelope, or has a header too long to be a server's."""

    byte_count: int


class Info(NamedTuple):
    """What a server says about itself, as JSON that is not parsed yet."""

    text: bytes


class Error(NamedTuple):
    """Why the server refuses something, or ends the connection, in its words."""

    said: str


class Ping(NamedTuple):
    """The server wants a sign of life."""


class Pong(NamedTuple):
    """The answer to a ping."""


class Ok(NamedTuple):
    """A nod, which was not asked for."""


Said = Message | Skipped | Info | Error | Ping | Pong | Ok


class _Body(NamedTuple):
    """The message whose first line has been read."""

    subject: str
    header_bytes: int
    byte_count: int


class ServerStream:
    """Cuts a server's bytes into what it says."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._scanned = 0  # bytes of the buffer in which there is no end of a line
        self._body: _Body | None = None
        self._skip = 0  # bytes still to come that nobody wants
        self._skipped: Skipped | None = None

    def feed_untrusted(self, data: bytes) -> Iterator[Said]:
        """Take bytes, and yield what is complete with them.  Raises RemoteProtocolError; then the stream is of no use.

        Whoever does not exhaust the iterator gets the rest the next time.
        """
        self._buffer += data
        while (said := self._next()) is not None:
            yield said

    def _next(self) -> Said | None:
        if self._skip and not self._pass_over():
            return None
        if self._skipped is not None:
            skipped, self._skipped = self._skipped, None
            return skipped
        if self._body is not None:
            return self._whole_message(self._body)
        line = self._line()
        if line is None:
            return None
        said = self._read(line)
        return self._next() if said is None else said  # at most twice: the first line of a message, then its end

    def _pass_over(self) -> bool:
        """Drop bytes of a message that nobody wants; return whether all of them have come."""
        count = min(self._skip, len(self._buffer))
        del self._buffer[:count]
        self._skip -= count
        return self._skip == 0

    def _line(self) -> bytes | None:
        end = self._buffer.find(_END, max(0, self._scanned - 1))
        length = len(self._buffer) if end < 0 else end
        if length > (INFO_BYTES_MAX if self._buffer[:4].upper() == b"INFO" else LINE_BYTES_MAX):
            raise _refuse("a line without an end")
        if end < 0:
            self._scanned = length
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + len(_END)]
        self._scanned = 0
        return line

    def _read(self, line: bytes) -> Said | None:
        """Return what a line says; None: a message begins."""
        word, _, rest = line.partition(b" ")
        match word.upper():
            case b"MSG":
                self._begin(rest.split(), number_count=1)
                return None
            case b"HMSG":
                self._begin(rest.split(), number_count=2)
                return None
            case b"PING":
                return Ping()
            case b"PONG":
                return Pong()
            case b"+OK":
                return Ok()
            case b"INFO":
                return Info(rest.strip())
            case b"-ERR":
                return Error(rest.decode("ascii", "replace").strip().strip("'"))
        raise _refuse("a line that is none of the protocol's")

    def _begin(self, words: list[bytes], *, number_count: int) -> None:
        """Take the first line of a message: subject, sid, perhaps a subject to reply to, numbers."""
        if not 2 + number_count <= len(words) <= 3 + number_count:
            raise _refuse("a message whose first line has too few words, or too many")
        numbers = words[-number_count:]
        if not all(_NUMBER.fullmatch(number) for number in (words[1], *numbers)) or not _TOKEN.fullmatch(words[0]):
            raise _refuse("a message whose first line is none")
        byte_count = int(numbers[-1])
        header_bytes = int(numbers[0]) if number_count == 2 else 0
        if header_bytes > byte_count or byte_count > SKIPPED_BYTES_MAX:
            raise _refuse("a message of an impossible length")
        if byte_count > MESSAGE_BYTES_MAX or header_bytes > HEADER_BYTES_MAX:
            self._skip, self._skipped = byte_count + len(_END), Skipped(byte_count)
        else:
            self._body = _Body(words[0].decode("ascii"), header_bytes, byte_count)

    def _whole_message(self, body: _Body) -> Message | None:
        whole = body.byte_count + len(_END)
        if len(self._buffer) < whole:
            return None
        data = bytes(self._buffer[: body.byte_count])
        if self._buffer[body.byte_count : whole] != _END:
            raise _refuse("a message longer than it says")
        del self._buffer[:whole]
        self._body = None
        status = _STATUS.match(data, 0, body.header_bytes)
        return Message(body.subject, data[body.header_bytes :], None if status is None else int(status[1]))


def _refuse(detail: str) -> RemoteProtocolError:
    return RemoteProtocolError(Drop.MALFORMED, detail)
