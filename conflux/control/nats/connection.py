"""One connection to a server of the broker: subscriptions, messages out and in, pings, bounds."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from conflux.budget import TokenBucket
from conflux.control.drop import Drop
from conflux.control.lan.dial import connect_first, resolve
from conflux.control.nats.client import OneConnection, Transport
from conflux.control.nats.config import (
    CLOSE_S_MAX,
    NOTICE_BURST,
    NOTICE_RATE,
    PING_ANSWER_S_MAX,
    PING_S,
    PROBE_ANSWER_S_MAX,
    QUIET_S_MAX,
    SEND_BUFFER_BYTES_MAX,
    STALL_S,
    Server,
)
from conflux.control.nats.end import ConnectError, End, connect_error, end_of
from conflux.control.nats.protocol import Error, Info, Message, Ping, Pong, Said, ServerStream, Skipped
from conflux.control.nats.tls import Trust
from conflux.errors import RemoteProtocolError
from conflux.host.tcp import LOSSY_PATHS

PING = b"PING\r\n"
PONG = b"PONG\r\n"


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a server admits this node by.

    jwt: the user JWT.  sign: returns the 64-byte signature of a challenge; raises RemoteProtocolError if it is none.
    """

    jwt: str
    sign: Callable[[bytes], bytes]

    def signature(self, nonce_untrusted: str) -> bytes:
        """Return the signature of a challenge, as it goes to the server.  Raises ConnectError."""
        try:
            return base64.b64encode(self.sign(nonce_untrusted.encode("ascii", "replace")))
        except RemoteProtocolError:
            raise ConnectError(End.MALFORMED) from None


@dataclass(frozen=True, slots=True)
class Listener:
    """What a connection tells.  These calls do not block.

    message: one that came.  drop: counts what ends here.  leaving: the server goes down soon.
    """

    message: Callable[[Message], None]
    drop: Callable[[str], None]
    leaving: Callable[[], None]


class Connection:
    """A connection that a server admitted.  end: why it ended; None while it is up."""

    def __init__(self, server: Server, transport: Transport, listener: Listener, trust: Trust) -> None:
        self.server = server
        self.end: End | None = None
        self.ping_s = PING_S
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._listener = listener
        self._client = OneConnection(transport, self, trust)
        self._stream = ServerStream()
        self._notices = TokenBucket(NOTICE_RATE, NOTICE_BURST)
        self._said: End | None = None  # what the server announced
        self._sids: dict[str, int] = {}  # of every subscription, by its subject
        self._sid = 0
        self._heard_at = self._loop.time()
        self._heard_count = 0  # reads that brought something: the loop's time is too coarse to tell their order
        self._asked_count = 0  # what it was when something was asked last
        self._flush: asyncio.Future[None] | None = None
        self._ping: asyncio.TimerHandle | None = None
        self._quiet: asyncio.TimerHandle | None = None
        self._answer: asyncio.TimerHandle | None = None
        self._closing: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls,
        server: Server,
        *,
        trust: Trust,
        credentials: Credentials,
        listener: Listener,
        subjects: Iterable[str],
        allows: Callable[[str], bool],
    ) -> Connection:
        """Connect, and listen to subjects; on return the server knows of them.  Raises ConnectError.

        allows: whether an address may be dialled.
        """
        connection: Connection | None = None
        reached: tuple[str, float] | None = None  # the address, and when it answered
        try:
            addresses = [each for each in await resolve(*server) if allows(each.host)]
            if not addresses:
                raise ConnectError(End.UNREACHABLE, "its name has no address")
            sock, address = await connect_first(addresses, small=lambda each: each.host in LOSSY_PATHS)
            reached = address.host, asyncio.get_running_loop().time()
            connection = cls(server, Transport(sock, trust), listener, trust)
            await connection._introduce(credentials)
            connection.listen(subjects)
            await connection._flushed()
        except asyncio.CancelledError:
            _note_stall(reached)
            if connection is not None:
                connection.abort(End.STOPPED)
            raise
        except Exception as error:  # noqa: BLE001  # the library raises what its server makes it raise
            _note_stall(reached)
            found = connect_error(error)
            if connection is not None:
                connection.abort(found.end)
            raise found from None
        connection._watch()
        return connection

    async def _introduce(self, credentials: Credentials) -> None:
        host, port = self.server
        await self._client.open(
            f"tls://[{host}]:{port}" if ":" in host else f"tls://{host}:{port}",
            jwt=lambda: credentials.jwt.encode(),
            sign=credentials.signature,
            ended=lambda: self.abort(self._said or End.LOST),
        )

    # ── the interface ─────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def up(self) -> bool:
        """Whether a message that is sent now may still arrive."""
        return self.end is None

    @property
    def backlog_bytes(self) -> int:
        """Bytes that were sent and are still in the buffer."""
        return self._transport.backlog_bytes

    def listen(self, subjects: Iterable[str]) -> None:
        """Listen to these subjects, and no longer to others."""
        wanted = dict.fromkeys(subjects)
        for subject in [each for each in self._sids if each not in wanted]:
            self._transport.unsubscribe(self._sids.pop(subject))
        for subject in wanted:
            if subject not in self._sids:
                self._sid += 1
                self._sids[subject] = self._sid
                self._transport.subscribe(subject, self._sid)

    def send(
        self, subject: str, data: bytes, *, reply: str = "", backlog_bytes_max: int = SEND_BUFFER_BYTES_MAX
    ) -> bool:
        """Send a message; return False if the connection ended or too much waits."""
        if self.end is not None or self.backlog_bytes + len(data) > backlog_bytes_max:
            return False
        self._transport.publish(subject, data, reply)
        return True

    @property
    def in_doubt(self) -> bool:
        """Whether the server has yet to answer a ping."""
        return self._answer is not None

    def expect(self) -> None:
        """Probe the server if nothing comes for a while: something was sent that has an answer."""
        self._asked_count = self._heard_count
        if self._quiet is None and self.end is None:
            self._quiet = self._loop.call_later(QUIET_S_MAX, self._see_whether_quiet)

    def probe(self) -> None:
        """Ping the server; if nothing comes in a short time, the connection ends."""
        self._send_ping(PROBE_ANSWER_S_MAX)

    def retire(self, after_s: float) -> None:
        """Close later; what arrives until then is still heard."""
        self._loop.call_later(after_s, self.close, End.REPLACED)

    def close(self, end: End) -> None:
        """Close in order: everything sent goes out first, if that takes no longer than CLOSE_S_MAX."""
        if self.end is None:
            self._ended(end)
            self._closing = self._loop.create_task(self._close())

    def abort(self, end: End) -> None:
        """Close at once."""
        if self.end is None:
            self._ended(end)
            self._transport.abort()
            self._closing = self._loop.create_task(self._close())

    async def gone(self) -> None:
        """Wait until nothing of a closed connection is left."""
        if self._closing is not None:
            await asyncio.wait([self._closing])

    def _ended(self, end: End) -> None:
        self.end = end
        for timer in (self._ping, self._quiet, self._answer):
            if timer is not None:
                timer.cancel()
        if not self.closed.done():
            self.closed.set_result(None)

    async def _close(self) -> None:
        """Have the library end its tasks.  Whatever it says of that, the transport is closed afterwards."""
        with contextlib.suppress(Exception):
            async with asyncio.timeout(CLOSE_S_MAX):
                await self._client.close()
        self._transport.abort()

    # ── what the server says ──────────────────────────────────────────────────────────────────────────────────────────

    async def parse(self, data: bytes = b"") -> None:
        """Take bytes of the server, for the library.  Bytes that break the protocol end the connection."""
        if self.end is not None:
            return
        self._heard_at = self._loop.time()
        self._heard_count += 1
        self._answered()
        try:
            for said in self._stream.feed_untrusted(data):
                self._take_untrusted(said)
                if self.end is not None:
                    return
        except RemoteProtocolError:
            self._listener.drop(Drop.MALFORMED)
            self.abort(End.MALFORMED)
        except Exception as error:  # noqa: BLE001  # the library would only log it: it is a bug of ours
            self._loop.call_exception_handler({"message": "a broker's message", "exception": error})
            self.abort(End.LOCAL)

    def reset(self) -> None:
        """Do nothing: the library would begin anew on this connection, which serves once."""

    def _take_untrusted(self, said: Said) -> None:
        self._transport.heard(is_ping=isinstance(said, Ping | Pong))
        if isinstance(said, Message):
            self._listener.message(said)
            return
        if isinstance(said, Skipped):
            self._listener.drop(Drop.OVERSIZED)
            return
        if not self._notices.take(self._loop.time()):
            self._listener.drop(Drop.FLOOD)
            self.abort(End.FLOOD)
        elif isinstance(said, Ping):
            self._transport.send(PONG)
        elif isinstance(said, Pong):
            if self._flush is not None and not self._flush.done():
                self._flush.set_result(None)
        elif isinstance(said, Info):
            self._take_info_untrusted(said)
        elif isinstance(said, Error):
            self._take_error_untrusted(said)

    def _take_info_untrusted(self, info: Info) -> None:
        """Look whether the server is about to go down.  The servers that it names are not taken."""
        try:
            told = json.loads(info.text)
        except (ValueError, RecursionError):
            raise RemoteProtocolError(Drop.MALFORMED, "INFO that is no JSON") from None
        if isinstance(told, dict) and told.get("ldm") is True:
            self._listener.leaving()

    def _take_error_untrusted(self, error: Error) -> None:
        """Sort what the server does not like.  If it ends the connection for that, it does so itself."""
        self._said = end_of(error.said) or self._said
        if error.said.lower().startswith(("permissions violation", "maximum subscriptions", "invalid ")):
            self._listener.drop(Drop.NOT_PERMITTED)

    # ── pings ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _flushed(self) -> None:
        """Wait until the server has taken everything that was sent."""
        self._flush = self._loop.create_future()
        self._transport.send(PING)
        await asyncio.wait([self._flush, self.closed], return_when=asyncio.FIRST_COMPLETED)
        if self.end is not None:
            raise ConnectError(self.end)

    def _watch(self) -> None:
        """Ping the server after every ping_s in which it said nothing."""
        silence_s = self._loop.time() - self._heard_at
        if silence_s >= self.ping_s:
            self._send_ping(PING_ANSWER_S_MAX)
        wait_s = self.ping_s - silence_s if silence_s < self.ping_s else self.ping_s
        self._ping = self._loop.call_later(wait_s, self._watch)

    def _see_whether_quiet(self) -> None:
        self._quiet = None
        if self._heard_count == self._asked_count:
            self.probe()

    def _answered(self) -> None:
        """Take note that the server lives: it is in doubt no more."""
        if self._answer is not None:
            self._answer.cancel()
            self._answer = None

    def _send_ping(self, answer_s_max: float) -> None:
        if self.end is not None:
            return
        if self._answer is None:
            self._transport.send(PING)
        elif self._answer.when() <= self._loop.time() + answer_s_max:
            return
        else:
            self._answer.cancel()  # a ping is under way; now its answer is wanted sooner
        self._answer = self._loop.call_later(answer_s_max, self._is_silent)

    def _is_silent(self) -> None:
        self._answer = None
        self.abort(End.SILENT)


def _note_stall(reached: tuple[str, float] | None) -> None:
    """Take note of an address that answered, and let no handshake through: its path may lose whole packets."""
    if reached is not None and asyncio.get_running_loop().time() >= reached[1] + STALL_S:
        LOSSY_PATHS.note(reached[0])
