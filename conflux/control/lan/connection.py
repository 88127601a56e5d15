"""One TLS connection between neighbours, as asyncio sees it: frames in, frames out, pings, bounds."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Callable
from typing import cast

from conflux.control.lan.config import (
    CLOSE_S_MAX,
    PING_S,
    PROBE_S_MAX,
    SILENCE_S_MAX,
    TCP_UNACKED_MS_MAX,
    WRITE_BUFFER_BYTES_MAX,
)
from conflux.control.lan.frame import FrameReader, FrameType, encode_frame
from conflux.control.lan.lans import SocketAddress
from conflux.errors import RemoteProtocolError

EARLY_FRAME_COUNT_MAX = 64  # what may come before the handshake's end has been seen here


def prepare_socket(sock: socket.socket) -> None:
    """Set what every connection of ours has."""
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, TCP_UNACKED_MS_MAX)


class Connection(asyncio.Protocol):
    """Frames over one transport.

    During the handshake, read() hands them out one by one; afterwards run() has them delivered.  reason says why the
    connection ended.
    """

    def __init__(self) -> None:
        self.reason = ""
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.remote = ""
        self.ends: tuple[SocketAddress, SocketAddress] | None = None  # local and remote, once TLS stands
        self._transport: asyncio.Transport | None = None
        self._reader = FrameReader()
        self._frames: deque[tuple[FrameType, bytes]] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._deliver: Callable[[bytes], None] | None = None
        self._told: Callable[[bool], None] = lambda joins: None
        self._heard_at = 0.0
        self._ping_s = PING_S
        self._timer: asyncio.TimerHandle | None = None
        self._probe: asyncio.TimerHandle | None = None

    # ── asyncio's side ───────────────────────────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one, but does not inherit from it
        local, remote = transport.get_extra_info("sockname"), transport.get_extra_info("peername")
        self.remote = str((remote or ("?",))[0])
        self.ends = (local, remote) if local and remote else None
        self._heard_at = asyncio.get_running_loop().time()

    def data_received(self, data: bytes) -> None:
        self._heard_at = asyncio.get_running_loop().time()
        if self.reason:
            return
        try:
            for kind, body in self._reader.feed_untrusted(data):
                self._take(kind, body)
        except RemoteProtocolError as error:
            self.abort(error.reason)

    def connection_lost(self, exc: Exception | None) -> None:
        self.reason = self.reason or ("reset" if exc is not None else "closed by the peer")
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        if self._probe is not None:
            self._probe.cancel()
        self._wake()
        if not self.closed.done():
            self.closed.set_result(None)

    # ── ours ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def tls(self) -> ssl.SSLObject:
        """The TLS state under the connection.  Raises RemoteProtocolError if the connection is gone."""
        tls = None if self._transport is None else self._transport.get_extra_info("ssl_object")
        if tls is None:
            raise RemoteProtocolError("closed", self.reason)
        found: ssl.SSLObject = tls
        return found

    @property
    def made(self) -> bool:
        """Whether TLS ever stood."""
        return self.remote != ""

    @property
    def up(self) -> bool:
        """Whether what is sent still has a chance to arrive."""
        return self._transport is not None and not self.reason

    @property
    def backlog_bytes(self) -> int:
        """How much of what was sent is still here."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def send(self, kind: FrameType, body: bytes = b"") -> bool:
        """Send one frame; return False if the connection is gone, or goes because the peer does not keep up."""
        if self._transport is None or self.reason:
            return False
        if self.backlog_bytes + len(body) > WRITE_BUFFER_BYTES_MAX:
            self.abort("slow")
            return False
        self._transport.write(encode_frame(kind, body))
        return True

    async def read(self, *expected: FrameType) -> tuple[FrameType, bytes]:
        """Return the next frame of the handshake.  Raises RemoteProtocolError if it is another than expected."""
        while not self._frames:
            if self.reason:
                raise RemoteProtocolError("closed", self.reason)
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        kind, body = self._frames.popleft()
        if kind not in expected:
            raise RemoteProtocolError("malformed", f"{kind.name} where it has no place")
        return kind, body

    def run(
        self,
        deliver: Callable[[bytes], None],
        *,
        told: Callable[[bool], None] = lambda joins: None,
        ping_s: float = PING_S,
    ) -> None:
        """Deliver every envelope from now on, and ping after ping_s of silence.

        told: is called when the peer says whether it joins LANs.
        """
        self._deliver = deliver
        self._told = told
        self._ping_s = ping_s
        early, self._frames = self._frames, deque()
        try:
            for kind, body in early:
                self._take(kind, body)
        except RemoteProtocolError as error:
            self.abort(error.reason)
            return
        self._watch()

    def probe(self) -> None:
        """Make sure that the peer is there: it has to be heard of very soon."""
        if self._probe is None and self.send(FrameType.PING):
            self._probe = asyncio.get_running_loop().call_later(PROBE_S_MAX, self._probed, self._heard_at)

    def _probed(self, heard_at_before: float) -> None:
        self._probe = None
        if self._heard_at == heard_at_before:
            self.abort("silent")

    def retire(self, after_s: float) -> None:
        """Close later: what is on its way here is still delivered."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(after_s, self.close, "duplicate")

    def close(self, reason: str) -> None:
        """Close in order: what was sent goes out, and the peer hears of the end."""
        self.reason = self.reason or reason
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.close()
            self._timer = asyncio.get_running_loop().call_later(CLOSE_S_MAX, self.abort, reason)

    def abort(self, reason: str) -> None:
        """Close at once."""
        self.reason = self.reason or reason
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()
        self._wake()

    def _take(self, kind: FrameType, body: bytes) -> None:
        if self._deliver is None:
            if len(self._frames) >= EARLY_FRAME_COUNT_MAX:
                raise RemoteProtocolError("flood", "more than a handshake")
            self._frames.append((kind, body))
            self._wake()
        elif kind is FrameType.ENVELOPE:
            self._deliver(body)
        elif kind is FrameType.PING:
            self.send(FrameType.PONG)
        elif kind is FrameType.STANDING:
            if body not in (b"\0", b"\1"):
                raise RemoteProtocolError("malformed", "a standing is 0 or 1")
            self._told(body == b"\1")
        elif kind is not FrameType.PONG:
            raise RemoteProtocolError("malformed", f"{kind.name} after the handshake")

    def _watch(self) -> None:
        """Ping a peer that has been silent for a while, and give it up when that goes on."""
        loop = asyncio.get_running_loop()
        if self._transport is None or self.reason:
            return
        silence_s = loop.time() - self._heard_at
        if silence_s >= SILENCE_S_MAX:
            self.abort("silent")
            return
        if silence_s >= self._ping_s:
            self.send(FrameType.PING)
        wait_s = self._ping_s - silence_s if silence_s < self._ping_s else min(PING_S, SILENCE_S_MAX - silence_s)
        self._timer = loop.call_later(max(wait_s, 0.01), self._watch)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
