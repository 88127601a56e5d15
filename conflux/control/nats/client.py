"""nats-py, as far as this engine uses it: the handshake with a server, and the reading of its bytes.

The library trusts its server and is made for a program that is told of trouble.  What is different here:

- A client serves one connection.  Reconnecting is supervisor.py's: the library knows no jitter, and closes for good on
  an expired credential, on limits and on many other words of a server.
- The bytes go to protocol.py instead of the library's parser, which keeps lines and messages of any length.
- TLS is never left out.  The library goes on without it, credentials and all, if the server's first line, which is not
  protected, does not ask for it.
- Servers that a server names are not taken: a person, or the realm, names the brokers.
- Subscriptions and sending are connection.py's, which writes to the transport at once and never waits.
- aiohttp is not imported, though it may be there: 11 MB for WebSocket, which is not used.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol
from urllib.parse import ParseResult

from conflux.control.nats.config import CLOSE_S_MAX, INFO_BYTES_MAX, ROUND_S
from conflux.control.nats.end import ConnectError, End
from conflux.control.nats.tls import Trust
from conflux.host.metering import Meter
from conflux.usage.tally import Other


@contextmanager
def _hidden(name: str) -> Iterator[None]:
    """Have `import name` fail meanwhile, unless it was imported before."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # the documented way to say that there is no such module
    try:
        yield
    finally:
        del sys.modules[name]


with _hidden("aiohttp"):
    from nats.aio.client import Client
    from nats.aio.transport import TcpTransport
    from nats.protocol.command import pub_cmd, sub_cmd, unsub_cmd

# Its log repeats, with tracebacks, what a server says.  What matters comes as exceptions.
_log = logging.getLogger("nats")
_log.addHandler(logging.NullHandler())
_log.propagate = False

PING_OP, PONG_OP = b"PING\r\n", b"PONG\r\n"
NEVER_S = 10 * 365 * 86400  # the library's pings: connection.py has its own


class Reader(Protocol):
    """What stands in the place of the library's parser."""

    async def parse(self, data: bytes = b"") -> None:
        """Take bytes of the server; none at its end."""

    def reset(self) -> None:
        """Begin anew; no-op, as a client serves one connection."""


class _TlsProtocol(asyncio.StreamReaderProtocol):
    """What asyncio itself uses, except that the end of the stream closes the transport: TLS is never half-open."""

    def eof_received(self) -> bool:
        """Note the end."""
        super().eof_received()
        return False


class Transport(TcpTransport):
    """The bytes of one connection: plain until the server's first line, then TLS."""

    def __init__(self, sock: socket.socket, trust: Trust) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._sock: socket.socket | None = sock
        self._trust = trust
        self.is_tls = False
        self.meter: Meter | None = None

    def __bool__(self) -> bool:
        """True, also before connect(): the library makes no other transport then."""
        return True

    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: int) -> None:
        """Take the socket, which is connected."""
        if self._sock is not None:
            self.meter = Meter(self._sock.fileno(), Other.BROKER)
        reader, writer = await asyncio.open_connection(sock=self._sock, limit=INFO_BYTES_MAX)
        self._sock = None  # the transport's now
        self._bare_io_reader = self._io_reader = reader
        self._bare_io_writer = self._io_writer = writer

    async def connect_tls(
        self, uri: str | ParseResult, ssl_context: ssl.SSLContext, buffer_size: int, connect_timeout: int
    ) -> None:
        """Go on in TLS.  Bytes that came before it are forgotten with the plain reader."""
        assert self._io_writer is not None
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=INFO_BYTES_MAX)
        protocol = _TlsProtocol(reader)
        try:
            transport = await loop.start_tls(
                self._io_writer.transport,
                protocol,
                ssl_context,
                server_hostname=uri if isinstance(uri, str) else uri.hostname,
                ssl_handshake_timeout=ROUND_S,
                ssl_shutdown_timeout=CLOSE_S_MAX,
            )
        except ConnectionError:
            raise ConnectError(End.TLS, "it closed the connection") from None
        assert transport is not None
        self._io_reader, self._io_writer = reader, asyncio.StreamWriter(transport, protocol, reader, loop)
        self._trust.judge(transport.get_extra_info("peercert"))
        self.is_tls = True

    def send(self, data: bytes) -> None:
        """Write bytes: at once, or as soon as those before them have gone.  No-op after the end."""
        if self._io_writer is not None and not self._io_writer.is_closing():
            self._io_writer.write(data)
            if self.meter is not None and data not in (PING_OP, PONG_OP):
                self.meter.message()
            elif self.meter is not None:
                self.meter.ping(sent=len(data))

    def heard(self, *, is_ping: bool) -> None:
        """Take note that the server said something."""
        if self.meter is not None and is_ping:
            self.meter.ping(received=len(PING_OP))
        elif self.meter is not None:
            self.meter.message()

    def publish(self, subject: str, data: bytes, reply: str) -> None:
        """Send a message.  reply: the subject for an answer; empty: none is wanted."""
        self.send(pub_cmd(subject, reply, data))

    def subscribe(self, subject: str, sid: int) -> None:
        """Listen to a subject, which may have wildcards.  sid: our number for it."""
        self.send(sub_cmd(subject, "", sid))

    def unsubscribe(self, sid: int) -> None:
        """Listen no more."""
        self.send(unsub_cmd(sid, 0))

    @property
    def backlog_bytes(self) -> int:
        """Bytes that were written and are still here."""
        return 0 if self._io_writer is None else self._io_writer.transport.get_write_buffer_size()

    def close(self) -> None:
        """Close in order."""
        if self.meter is not None:
            self.meter.close()
        super().close()  # type: ignore[no-untyped-call]

    def abort(self) -> None:
        """Close at once."""
        if self.meter is not None:
            self.meter.close()
        if self._io_writer is not None:
            with contextlib.suppress(AttributeError):  # asyncio's TLS transport, closed twice, has no protocol any more
                self._io_writer.transport.abort()
        if self._sock is not None:
            self._sock.close()


class OneConnection(Client):
    """A client of the library that serves one connection to one server."""

    def __init__(self, transport: Transport, reader: Reader, trust: Trust) -> None:
        super().__init__()
        self._transport = self._moved = transport
        self._trust = trust
        self._ps = reader  # type: ignore[assignment]

    async def open(
        self,
        url: str,
        *,
        jwt: Callable[[], bytes],
        sign: Callable[[str], bytes],
        ended: Callable[[], None],
    ) -> None:
        """Connect, by TLS, as the owner of a user JWT.  Raises whatever the library does, and ConnectError.

        jwt: returns the token.  sign: returns the signature, in base64, of the server's challenge.  ended: is called
        when the connection has ended by itself.
        """

        is_open = False

        async def on_error(error: Exception) -> None:
            if not (is_open or self.is_connected):
                raise error  # or it would try again, for ever
            ended()

        async def on_closed() -> None:
            ended()

        await self.connect(
            [url],
            error_cb=on_error,
            closed_cb=on_closed,
            allow_reconnect=False,
            connect_timeout=int(ROUND_S),
            ping_interval=NEVER_S,
            no_echo=True,
            tls=self._trust.context(),
            user_jwt_cb=jwt,
            signature_cb=sign,
        )
        if not self.is_connected:
            raise ConnectError(End.LOST)  # neither an answer to the first ping nor an error
        if self._moved.meter is not None:
            self._moved.meter.settle()
        is_open = True  # a reset is told of when the library has left that state: it is no error of connecting

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        """Keep of the server's first line what the handshake needs, and insist on TLS and on a challenge."""
        if info.get("tls_required") is not True and info.get("tls_available") is not True:
            raise ConnectError(End.NO_TLS)
        nonce, headers = info.get("nonce"), info.get("headers") is True
        if not isinstance(nonce, str):
            raise ConnectError(End.OPEN)
        info.clear()  # the library reads it again
        info.update(tls_required=True, auth_required=True, nonce=nonce, headers=headers)
        self._auth_configured = True
