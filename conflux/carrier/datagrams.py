"""UDP sockets under asyncio whose descriptors can be handed to another reader.

The loop's own datagram transports cannot let go of a socket; and uvloop's readers give a descriptor up at the first
POLLERR, which on a socket that reports ICMP errors (IP_RECVERR) is everyday life.  So the sockets of one link share an
epoll descriptor, and the loop watches that one.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

READ_COUNT_MAX = 64  # datagrams per turn of the loop and socket, so that no socket starves the others
WAITING_COUNT_MAX = 1024  # datagrams kept while the socket's buffer is full; beyond it they are lost, as on any path
DATAGRAM_BYTES_MAX = 16384  # above every MTU that SCTP would find (9216)


class Watch:
    """Calls back when sockets are ready."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._epoll: select.epoll | None = None  # while there is something to watch
        self._callbacks: dict[int, Callable[[int], None]] = {}
        self.room = memoryview(bytearray(DATAGRAM_BYTES_MAX))  # where datagrams are read to, one at a time

    def add(self, fd: int, ready: Callable[[int], None]) -> None:
        """Call ready(epoll events) whenever something can be read, or an error waits."""
        if self._epoll is None:
            self._epoll = select.epoll()
            self._loop.add_reader(self._epoll.fileno(), self._ready)
        self._epoll.register(fd, select.EPOLLIN)
        self._callbacks[fd] = ready

    def want_write(self, fd: int, wanted: bool) -> None:
        """Call back, or no more, when the socket's buffer has room too."""
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
            if ready is not None:  # else one before it in the list closed it
                ready(events)


class DatagramTransport(asyncio.DatagramTransport):
    """One bound, non-blocking datagram socket; closed with it.  protocol: told as by the loop's own transports."""

    def __init__(self, watch: Watch, sock: socket.socket, protocol: asyncio.DatagramProtocol) -> None:
        super().__init__()
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
        """Read no more: another does from now on.  Sending and closing stay possible, and the socket stays ours."""
        self._is_released = True
        self._waiting.clear()
        self._watch.discard(self._socket.fileno())
        return self._socket

    def sendto(self, data: Any, addr: Any = None) -> None:
        """Send one datagram, now or when there is room; what the kernel has to say against it, the protocol hears."""
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
            # Most often what became of an earlier datagram; then this one has not been tried yet.
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
        """Close the socket."""
        self._waiting.clear()
        self.close()

    def _closed(self) -> None:
        try:
            self._protocol.connection_lost(None)
        finally:
            self._socket.close()
            self._protocol = asyncio.DatagramProtocol()  # ours knows us: neither would go without the collector

    def _send(self, data: Any, addr: Any) -> None:
        if addr is None:
            self._socket.send(data)
        else:
            self._socket.sendto(data, addr)

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
            self._protocol.datagram_received(bytes(room[:size]), address)
