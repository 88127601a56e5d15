"""A client of a NATS server for one question: it connects, asks, and goes.

It blocks, so it is for commands and tests, not for the daemon.  Nothing of a server is believed beyond its form: lines
and payloads are bounded, every wait has an end, and whatever else a server says raises RemoteProtocolError.

Nothing else here serves that: the daemon's client (control/nats/connection.py) takes no message above 33 kB where an
account may have 187, and sorts away the server's words, which these commands show, and nats-py bounds nothing and sends
a login also where TLS is missing.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Self

from conflux import __version__
from conflux.control.nats.end import quoted
from conflux.errors import RemoteProtocolError, UserError
from conflux.host import tcp

LINE_BYTES_MAX = 65536  # of INFO, which names every server of a cluster
PAYLOAD_BYTES_MAX = 1 << 20  # the largest that servers pass on, unless they are told otherwise
WAIT_S = 5.0  # for an answer, and for a connection
_CHUNK_BYTES = 65536


class ServerError(UserError):
    """The server ended or refused something.  said: its words, without quotation marks, fit for a terminal."""

    def __init__(self, said_untrusted: str) -> None:
        said = quoted(said_untrusted)
        super().__init__(f"the server says: {said}")
        self.said = said


class Message(NamedTuple):
    """A message that arrived."""

    subject: str
    reply: str  # "": none
    status: int | None  # of a message of the server itself: 503, nobody listens
    payload: bytes


class Login(NamedTuple):
    """Who connects: its JWT, and what signs the server's challenge."""

    jwt: str
    sign: Callable[[bytes], bytes]


class Client(AbstractContextManager["Client"]):
    """One connection.  Waits end with TimeoutError, a closed connection with ConnectionError, both OSErrors."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffer = bytearray()
        self._subscription_count = 0
        self._pong_count_owed = 0  # more than one after an error: it came before the PONG
        self.info: dict[str, Any] = {}

    @classmethod
    def open(
        cls, host: str, port: int, login: Login, *, tls: ssl.SSLContext | None = None, wait_s: float = WAIT_S
    ) -> Self:
        """Connect and log in.

        tls: None for a server without TLS.  Raises OSError (ssl.SSLError among them), ServerError for a login that is
        refused, RemoteProtocolError for what is no NATS server.
        """
        sock = tcp.connect(host, port, timeout_s=wait_s)
        client = cls(sock)
        try:
            client._greet(host, login, tls, wait_s)
        except BaseException:
            client.close()
            raise
        return client

    def _greet(self, host: str, login: Login, tls: ssl.SSLContext | None, wait_s: float) -> None:
        deadline = time.monotonic() + wait_s
        word, _, rest = self._line(deadline).partition(" ")
        if word != "INFO":
            raise RemoteProtocolError("malformed", "what listens there is no NATS server")
        self.info = _info(rest)
        if tls is not None:
            if not (self.info.get("tls_required") or self.info.get("tls_available")):
                raise RemoteProtocolError("malformed", "the server has no TLS")
            if self._buffer:
                raise RemoteProtocolError("malformed", "bytes between INFO and TLS")
            self._socket = tls.wrap_socket(self._socket, server_hostname=host)
        nonce = self.info.get("nonce")
        signature = login.sign(nonce.encode()) if isinstance(nonce, str) else b""
        connect = {
            "jwt": login.jwt,
            "sig": urlsafe_b64encode(signature).decode().rstrip("="),
            "verbose": False,
            "pedantic": False,
            "lang": "python",
            "version": __version__,
            "protocol": 1,
            "headers": True,
            "no_responders": True,
            "tls_required": tls is not None,
        }
        self._send(f"CONNECT {json.dumps(connect)}\r\n".encode())
        self._until_pong(deadline)

    def certificate(self) -> Mapping[str, Any] | None:
        """Return what the server showed, as ssl tells it; None without TLS."""
        return self._socket.getpeercert() if isinstance(self._socket, ssl.SSLSocket) else None

    def close(self) -> None:
        """End the connection.  Safe to repeat."""
        self._socket.close()

    def __exit__(self, *_: object) -> None:
        self.close()

    def subscribe(self, subject: str) -> None:
        """Ask for the messages of a subject, wildcards included."""
        self._subscription_count += 1
        self._send(f"SUB {subject} {self._subscription_count}\r\n".encode())

    def publish(self, subject: str, payload: bytes = b"", reply: str = "") -> None:
        """Send a message."""
        self._send(b"PUB " + " ".join(filter(None, (subject, reply, str(len(payload))))).encode() + b"\r\n")
        self._send(payload + b"\r\n")

    def flush(self, wait_s: float = WAIT_S) -> list[Message]:
        """Wait until the server has done all that it was told; return what arrived.  Raises ServerError."""
        return self._until_pong(time.monotonic() + wait_s)

    def receive(self, wait_s: float = WAIT_S) -> Iterator[Message]:
        """Yield messages as they arrive, until wait_s is over.  Raises ServerError."""
        deadline = time.monotonic() + wait_s
        while True:
            try:
                message = self._next(deadline)
            except TimeoutError:
                return
            if message is not None:
                yield message

    def request(self, subject: str, payload: bytes = b"", *, wait_s: float = WAIT_S) -> Iterator[Message]:
        """Yield the answers to a message; an answer of the server itself, that nobody listens, is the last."""
        inbox = f"_INBOX.{os.urandom(12).hex()}"
        self.subscribe(inbox)
        self.publish(subject, payload, inbox)
        for message in self.receive(wait_s):
            if message.subject == inbox:
                yield message
                if message.status is not None:
                    return

    # ── bytes ──

    def _send(self, data: bytes) -> None:
        self._socket.settimeout(WAIT_S)
        self._socket.sendall(data)

    def _until_pong(self, deadline: float) -> list[Message]:
        self._send(b"PING\r\n")
        self._pong_count_owed += 1
        found = []
        while self._pong_count_owed:
            if (message := self._next(deadline)) is not None:
                found.append(message)
        return found

    def _next(self, deadline: float) -> Message | None:
        """Return the next message, or None for any other line."""
        word, _, rest = self._line(deadline).partition(" ")
        match word.upper():
            case "MSG":
                return self._message(rest.split(), deadline, has_headers=False)
            case "HMSG":
                return self._message(rest.split(), deadline, has_headers=True)
            case "PING":
                self._send(b"PONG\r\n")
            case "PONG":
                self._pong_count_owed = max(0, self._pong_count_owed - 1)
            case "INFO":
                self.info |= _info(rest)
            case "-ERR":
                raise ServerError(rest.strip().strip("'"))
            case "+OK":
                pass
            case _:
                raise RemoteProtocolError("malformed", f"the server sent {word[:16]!r}")
        return None

    def _message(self, words: list[str], deadline: float, *, has_headers: bool) -> Message:
        sizes = 2 if has_headers else 1
        if not 2 + sizes <= len(words) <= 3 + sizes or not all(
            size.isascii() and size.isdecimal() and len(size) < 10 for size in words[-sizes:]
        ):
            raise RemoteProtocolError("malformed", "a message without its sizes")
        total, header_size = int(words[-1]), int(words[-2]) if has_headers else 0
        if total > PAYLOAD_BYTES_MAX or header_size > total:
            raise RemoteProtocolError("malformed", f"a message of {total} bytes, {header_size} of headers")
        self._fill(total + 2, deadline)
        data = bytes(self._buffer[:total])
        del self._buffer[: total + 2]
        status = data[:header_size].split(b"\r\n", 1)[0].partition(b" ")[2][:3]
        reply = words[2] if len(words) == 3 + sizes else ""
        return Message(words[0], reply, int(status) if status.isdigit() else None, data[header_size:])

    def _line(self, deadline: float) -> str:
        while (end := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > LINE_BYTES_MAX:
                raise RemoteProtocolError("malformed", "a line without an end")
            self._read(deadline)
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line.decode("utf-8", "replace")

    def _fill(self, size: int, deadline: float) -> None:
        while len(self._buffer) < size:
            self._read(deadline)

    def _read(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the server did not answer in time")
        self._socket.settimeout(left)
        data = self._socket.recv(_CHUNK_BYTES)
        if not data:
            raise ConnectionError("the server closed the connection")
        self._buffer += data


def _info(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise RemoteProtocolError("malformed", "INFO without an object")
    return value
