"""One TLS connection between neighbours, as a protocol of asyncio: frames in and out, pings, bounds."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import cast

from conflux.control.drop import Drop
from conflux.control.lan.config import (
    CLOSE_S_MAX,
    PING_S,
    PROBE_S_MAX,
    SILENCE_S_MAX,
    TCP_UNACKED_MS_MAX,
    WRITE_BUFFER_BYTES_MAX,
)
from conflux.control.lan.frame import TREE_FRAMES, FrameReader, FrameType, encode_frame
from conflux.control.lan.lans import SocketAddress
from conflux.control.lan.ration import Ration
from conflux.errors import RemoteProtocolError
from conflux.host.metering import Meter
from conflux.host.tcp import bound_segments
from conflux.ids import NodeId

EMPTY_FRAME_BYTES = len(encode_frame(FrameType.PING, b""))
TURN_FRAME_COUNT_MAX = 16  # handled before others get their turn: a few milliseconds, if each is the dearest there is


def prepare_socket(sock: socket.socket, *, has_small_segments: bool = True) -> None:
    """Set the options that every control connection's socket has."""
    sock.setblocking(False)
    if has_small_segments:
        bound_segments(sock)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, TCP_UNACKED_MS_MAX)


def use_device(sock: socket.socket, device: str) -> None:
    """Let a socket send and receive by one interface alone, from Linux 5.7 on without privileges; "": by any."""
    if device:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())


def give_up(sock: socket.socket) -> None:
    """Close a socket that a transport may still hold, when TLS did not come about.

    Closed at once, its number would go to the next socket, and the loop would take that one for the transport's.
    """
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)  # the transport reads the end, and closes
    asyncio.get_running_loop().call_later(2 * CLOSE_S_MAX, sock.close)


class Connection(asyncio.Protocol):
    """Frames over one transport.

    During the handshake, read() returns them one by one; after run() they are delivered.  What is not read yet waits in
    the transport, which stops reading meanwhile.  reason: why the connection ended; empty while it is up.
    """

    def __init__(self) -> None:
        self.reason = ""
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.remote = ""
        self.ends: tuple[SocketAddress, SocketAddress] | None = None  # local and remote, once TLS stands
        self._transport: asyncio.Transport | None = None
        self._reader = FrameReader()
        self._ration = Ration()
        self._is_paused = False
        self._turn: asyncio.Handle | None = None  # frames wait for it
        self._waiter: asyncio.Future[None] | None = None
        self._deliver: Callable[[bytes], None] | None = None
        self._joins: Callable[[bool], None] = lambda joins: None
        self._tree: Callable[[FrameType, bytes], None] | None = None
        self._heard_at = 0.0
        self._ping_s = PING_S
        self._timer: asyncio.TimerHandle | None = None
        self._probe: asyncio.TimerHandle | None = None
        self._meter: Meter | None = None

    # ── callbacks of asyncio ──────────────────────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note the transport and the addresses of both ends."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one, but does not inherit from it
        local, remote = transport.get_extra_info("sockname"), transport.get_extra_info("peername")
        self.remote = str((remote or ("?",))[0])
        self.ends = (local, remote) if local and remote else None
        self._heard_at = asyncio.get_running_loop().time()
        with contextlib.suppress(AttributeError, OSError):  # a transport without a socket
            self._meter = Meter(transport.get_extra_info("socket").fileno())

    def data_received(self, data: bytes) -> None:
        """Take bytes of the peer; bytes that are no frames end the connection."""
        self._heard_at = asyncio.get_running_loop().time()
        if self.reason:
            return
        self._reader.feed(data)
        if self._turn is None:
            self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end; what came before it counts."""
        if self._meter is not None:
            self._meter.close()
        self._transport = None
        if not self.reason:
            self._go_on()
        self.reason = self.reason or ("reset" if exc is not None else "closed by the peer")
        for handle in (self._timer, self._probe, self._turn):
            if handle is not None:
                handle.cancel()
        self._wake()
        if not self.closed.done():
            self.closed.set_result(None)

    # ── the interface ─────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def tls(self) -> ssl.SSLObject:
        """The TLS state of the connection.  Raises RemoteProtocolError if the connection ended."""
        tls = None if self._transport is None else self._transport.get_extra_info("ssl_object")
        if tls is None:
            raise RemoteProtocolError(Drop.CLOSED, self.reason)
        found: ssl.SSLObject = tls
        return found

    @property
    def made(self) -> bool:
        """Whether TLS was ever up."""
        return self.remote != ""

    @property
    def heard_s(self) -> float:
        """For how long the peer has said nothing, in seconds."""
        return asyncio.get_running_loop().time() - self._heard_at

    @property
    def up(self) -> bool:
        """Whether a frame that is sent now may still arrive."""
        return self._transport is not None and not self.reason

    @property
    def backlog_bytes(self) -> int:
        """Bytes that were sent and are still in the buffer."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def send(self, kind: FrameType, body: bytes = b"") -> bool:
        """Send one frame; return False if the connection ended, or ends now as the peer does not keep up."""
        if self._transport is None or self.reason:
            return False
        if self.backlog_bytes + len(body) > WRITE_BUFFER_BYTES_MAX:
            self.abort("slow")
            return False
        self._transport.write(encode_frame(kind, body))
        self._note(kind, sent=True)
        return True

    async def read(self, *expected: FrameType) -> tuple[FrameType, bytes]:
        """Return the next frame of the handshake.  Raises RemoteProtocolError if it is of no expected type."""
        while True:
            head = self._reader.head_untrusted()
            if head is not None and head.kind not in expected:
                raise RemoteProtocolError(Drop.MALFORMED, f"{head.kind.name} instead of {expected[0].name}")
            frame = self._reader.take_untrusted()
            if frame is not None:
                return frame
            if self.reason:
                raise RemoteProtocolError(Drop.CLOSED, self.reason)
            self._pause(False)
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    def run(
        self,
        deliver: Callable[[bytes], None],
        *,
        joins: Callable[[bool], None] = lambda joins: None,
        tree: Callable[[FrameType, bytes], None] | None = None,
        ping_s: float = PING_S,
        peer: NodeId | None = None,
    ) -> None:
        """Deliver every encoded envelope from now on, and ping after ping_s of silence.

        peer: whose bytes are counted from now on.  joins: is called when the peer says whether it is a bridge.  tree:
        takes the frames of a large LAN, and raises RemoteProtocolError; None: the peer is of a build that has none.
        """
        self._deliver = deliver
        self._tree = tree
        if self._meter is not None:
            self._meter.settle(peer)
        self._joins = joins
        self._ping_s = ping_s
        self._go_on()
        self._watch()

    def probe(self) -> None:
        """Ping the peer; without a sign of it within PROBE_S_MAX the connection ends."""
        if self._probe is None and self.send(FrameType.PING):
            self._probe = asyncio.get_running_loop().call_later(PROBE_S_MAX, self._probed, self._heard_at)

    def _probed(self, heard_at_before: float) -> None:
        self._probe = None
        if self._heard_at == heard_at_before:
            self.abort("silent")

    def retire(self, after_s: float) -> None:
        """Close later; frames that arrive until then are still delivered."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(after_s, self.close, "duplicate")

    def close(self, reason: str) -> None:
        """Close in order: everything sent goes out, and then the end of the stream."""
        self.reason = self.reason or reason
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._pause(False)  # the end of the stream is read too
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

    def _go_on(self) -> None:
        """Handle as many frames as may be handled in one turn; stop reading while there are more."""
        self._turn = None
        try:
            wait_s = self._handle()
        except RemoteProtocolError as error:
            self.abort(error.reason)
            return
        if self.reason:
            return
        self._pause(wait_s is not None)
        if wait_s is not None and self._deliver is not None:
            loop = asyncio.get_running_loop()
            self._turn = loop.call_later(wait_s, self._go_on) if wait_s else loop.call_soon(self._go_on)

    def _handle(self) -> float | None:
        """Handle the frames of one turn; return for how long those that are left have to wait, None: none is left."""
        now = asyncio.get_running_loop().time()
        for _ in range(TURN_FRAME_COUNT_MAX):
            head = self._reader.head_untrusted()
            if head is None or not head.is_whole:
                self._ration.ran_dry()
                return None
            if self._deliver is None:
                self._wake()  # read() takes it
                return 0.0
            wait_s = self._ration.hold_s(head, now)
            if wait_s:
                return wait_s
            self._heard_at = now
            frame = self._reader.take_untrusted()
            assert frame is not None
            self._take(self._deliver, *frame)
            if self.reason:
                return None
        return 0.0

    def _pause(self, paused: bool) -> None:
        """Stop reading, or begin again."""
        if paused is not self._is_paused and self._transport is not None:
            self._is_paused = paused
            (self._transport.pause_reading if paused else self._transport.resume_reading)()

    def _note(self, kind: FrameType, *, sent: bool) -> None:
        """Have the meter know what kind of frame passes."""
        if self._meter is None:
            return
        if kind not in (FrameType.PING, FrameType.PONG):
            self._meter.message()
        elif sent:
            self._meter.ping(sent=EMPTY_FRAME_BYTES)
        else:
            self._meter.ping(received=EMPTY_FRAME_BYTES)

    def _take(self, deliver: Callable[[bytes], None], kind: FrameType, body: bytes) -> None:
        self._note(kind, sent=False)
        if kind is FrameType.ENVELOPE:
            deliver(body)
        elif kind is FrameType.PING:
            self.send(FrameType.PONG)
        elif kind is FrameType.BRIDGE:
            if body not in (b"\0", b"\1"):
                raise RemoteProtocolError(Drop.MALFORMED, "the body of BRIDGE is 0 or 1")
            self._joins(body == b"\1")
        elif kind in TREE_FRAMES and self._tree is not None:
            self._tree(kind, body)
        elif kind is not FrameType.PONG:
            raise RemoteProtocolError(Drop.MALFORMED, f"{kind.name} after the handshake")

    def _watch(self) -> None:
        """Ping a peer after ping_s of silence, and give it up after SILENCE_S_MAX."""
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
