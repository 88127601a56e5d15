"""UDP sockets under asyncio whose descriptors can be handed to another reader.

The loop's own datagram transports cannot let go of a socket, and uvloop stops reading a descriptor at its first
POLLERR, which a socket that reports ICMP errors (IP_RECVERR) has often.  So the sockets of one link share an epoll
descriptor, and the loop watches that one.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

from conflux.usage.tally import UDP6_HEADER_BYTES, UDP_HEADER_BYTES, Kind, Traffic

READ_COUNT_MAX = 64  # datagrams per turn of the loop and socket, so that no socket starves the others
WAITING_COUNT_MAX = 1024  # datagrams kept while the socket's buffer is full; beyond it they are lost, as on any path
DTLS_APPLICATION_DATA = 23  # RFC 6347
DATAGRAM_BYTES_MAX = 16384  # above every MTU that SCTP would find (9216)


def is_dtls(data: bytes) -> bool:
    """Say whether a datagram is a DTLS record, by its first byte (RFC 7983)."""
    return len(data) > 0 and 20 <= data[0] <= 63


def header_bytes(sock: socket.socket) -> int:
    """Return the bytes of the headers of one datagram: IP's and UDP's."""
    return UDP6_HEADER_BYTES if sock.family == socket.AF_INET6 else UDP_HEADER_BYTES


class DatagramTraffic(Traffic):
    """Counts the datagrams of a link.

    is_open: until then, all of them set it up.  returned_bytes: received, and counted here, and given back to the
    socket, where an engine receives and counts them once more.
    """

    __slots__ = ("is_open", "returned_bytes")

    def __init__(self) -> None:
        super().__init__()
        self.is_open = False
        self.returned_bytes = 0

    def kind_of(self, data: bytes) -> Kind:
        """Say what a datagram is for."""
        if not self.is_open or not data:
            return Kind.SET_UP
        if data[0] <= 3:  # STUN asks for consent
            return Kind.KEEP_ALIVE
        return Kind.DATA if data[0] == DTLS_APPLICATION_DATA else Kind.SET_UP


class Watch:
    """Calls back when one of the sockets of a link is ready."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._epoll: select.epoll | None = None  # while there is something to watch
        self._callbacks: dict[int, Callable[[int], None]] = {}
        self.room = memoryview(bytearray(DATAGRAM_BYTES_MAX))  # datagrams are read into it, one at a time

    def add(self, fd: int, ready: Callable[[int], None]) -> None:
        """Call ready(epoll events) whenever something can be read, or an error waits."""
        if self._epoll is None:
            self._epoll = select.epoll()
            self._loop.add_reader(self._epoll.fileno(), self._ready)
        self._epoll.register(fd, select.EPOLLIN)
        self._callbacks[fd] = ready

    def want_write(self, fd: int, wanted: bool) -> None:
        """Call back when the socket's buffer has room too, or no longer."""
        if self._epoll is not None and fd in self._callbacks:
            self._epoll.modify(fd, select.EPOLLIN | (select.EPOLLOUT if wanted else 0))

    def discard(self, fd: int) -> None:
        """Forget a socket; no-op if unknown."""
        if self._epoll is None or self._callbacks.pop(fd, None) is None:
            return
        self._epoll.unregister(fd)
        if not self._callbacks:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None

    def _ready(self) -> None:
        if self._epoll is None:
            return
        for fd, events in self._epoll.poll(0):
            ready = self._callbacks.get(fd)
            if ready is not None:  # a callback before it in the list may have closed it
                ready(events)


class DatagramTransport(asyncio.DatagramTransport):
    """Owns one bound, non-blocking datagram socket.  protocol: is called as by the loop's own transports.

    traffic: counts what passes here.
    """

    def __init__(
        self,
        watch: Watch,
        sock: socket.socket,
        protocol: asyncio.DatagramProtocol,
        traffic: DatagramTraffic | None = None,
    ) -> None:
        super().__init__()
        self._traffic = DatagramTraffic() if traffic is None else traffic
        self._header_bytes = header_bytes(sock)
        self._watch = watch
        self._socket = sock
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[bytes, tuple[str, int] | None]] = deque()
        self._is_closing = False
        self._is_released = False
        watch.add(sock.fileno(), self._ready)
        protocol.connection_made(self)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return the socket ("socket") or its own address ("sockname")."""
        if name == "socket":
            return self._socket
        return self._socket.getsockname() if name == "sockname" else default

    def is_closing(self) -> bool:
        """Say whether close() was called."""
        return self._is_closing

    def release(self) -> socket.socket:
        """Stop reading, so that another can.  Sending and closing stay possible, and the socket stays ours."""
        self._is_released = True
        self._waiting.clear()
        self._watch.discard(self._socket.fileno())
        return self._socket

    def sendto(self, data: Any, addr: Any = None) -> None:
        """Send one datagram, now or when there is room; the protocol is told of the kernel's errors."""
        if self._is_closing:
            return
        if self._waiting:
            self._wait(data, addr)
            return
        try:
            self._send(data, addr)
        except BlockingIOError:
            if not self._is_released:
                self._wait(data, addr)
                self._watch.want_write(self._socket.fileno(), True)
        except OSError as error:
            # Most often the error of an earlier datagram, and this one has not been tried.
            self._protocol.error_received(error)
            with contextlib.suppress(OSError):
                self._send(data, addr)

    def close(self) -> None:
        """Close the socket; the protocol's connection_lost() follows."""
        if self._is_closing:
            return
        self._flush()
        self._is_closing = True
        self._watch.discard(self._socket.fileno())
        self._loop.call_soon(self._closed)

    def abort(self) -> None:
        """Close the socket, and drop what waits."""
        self._waiting.clear()
        self.close()

    def _closed(self) -> None:
        try:
            self._protocol.connection_lost(None)
        finally:
            self._socket.close()
            self._protocol = asyncio.DatagramProtocol()  # breaks a reference cycle with the real one

    def _send(self, data: Any, addr: Any) -> None:
        if addr is None:
            self._socket.send(data)
        else:
            self._socket.sendto(data, addr)
        self._traffic.add(self._traffic.kind_of(data), sent=len(data) + self._header_bytes)

    def _wait(self, data: Any, addr: Any) -> None:
        if len(self._waiting) < WAITING_COUNT_MAX:
            self._waiting.append((bytes(data), addr))

    def _flush(self) -> None:
        while self._waiting:
            try:
                self._send(*self._waiting[0])
            except BlockingIOError:
                return
            except OSError as error:
                self._protocol.error_received(error)
            self._waiting.popleft()

    def _ready(self, events: int) -> None:
        if events & select.EPOLLERR:
            number = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # reading it clears it
            self._protocol.error_received(OSError(number, "socket error"))
        if events & select.EPOLLOUT:
            self._flush()
            if not self._waiting and not self._is_closing:
                self._watch.want_write(self._socket.fileno(), False)
        if events & select.EPOLLIN:
            self._read()

    def _read(self) -> None:
        room = self._watch.room
        for _ in range(READ_COUNT_MAX):
            if self._is_closing or self._is_released:
                return
            try:
                size, address = self._socket.recvfrom_into(room)
            except BlockingIOError:
                return
            except OSError as error:
                self._protocol.error_received(error)
                continue
            data = bytes(room[:size])
            self._traffic.add(self._traffic.kind_of(data), received=size + self._header_bytes)
            self._protocol.datagram_received(data, address)
