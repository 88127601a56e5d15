"""The listening sockets: who may connect, how often, and the TLS handshake.  What is said then is mesh.py's."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from ipaddress import ip_address

from conflux.control.budget import BudgetTable, TokenBucket
from conflux.control.lan.certificate import Certificate
from conflux.control.lan.config import CLOSE_S_MAX, HANDSHAKE_COUNT_MAX, HANDSHAKE_S, LanConfig
from conflux.control.lan.connection import Connection, prepare_socket
from conflux.errors import RemoteProtocolError, UserError

log = logging.getLogger(__name__)

BACKLOG = 64
ADDRESS_COUNT_MAX = 1024
ACCEPT_PAUSE_S = 0.5  # when the process has no descriptors left
EPHEMERAL_TRY_COUNT = 16


class Listener:
    """serve(connection) runs for every stranger, within the handshake's time; if it raises, the connection ends."""

    def __init__(
        self,
        config: LanConfig,
        certificate: Certificate,
        serve: Callable[[Connection], Awaitable[None]],
        drops: Counter[str],
    ) -> None:
        self.port = config.port
        self._config = config
        self._certificate = certificate
        self._serve = serve
        self._drops = drops
        self._sockets: list[socket.socket] = []
        self._accepting: list[asyncio.Task[None]] = []
        self._handshakes: set[asyncio.Task[None]] = set()
        self._budget = TokenBucket(config.accept_rate, config.accept_burst)
        self._address_budget = BudgetTable(
            config.accept_rate_per_address, config.accept_burst_per_address, ADDRESS_COUNT_MAX
        )

    def open(self) -> None:
        """Listen.  Raises UserError if the port is not to be had."""
        for attempt in range(EPHEMERAL_TRY_COUNT):
            try:
                self._sockets = self._bind()
                break
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    if self._config.port == 0 and attempt + 1 < EPHEMERAL_TRY_COUNT:
                        continue  # free for one family, taken for the other
                    what = f"TCP port {self._config.port} is taken by another program"
                else:
                    what = f"cannot listen on TCP port {self._config.port}: {error.strerror}"
                raise UserError(f"{what}; choose another with control.lan.port") from None
        self._accepting = [asyncio.create_task(self._accept(sock)) for sock in self._sockets]

    async def close(self) -> None:
        """Stop listening, and end what is not yet a neighbour."""
        tasks = [*self._accepting, *self._handshakes]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for sock in self._sockets:
            sock.close()
        self._sockets = []
        self._accepting = []

    def _bind(self) -> list[socket.socket]:
        port = self._config.port
        sockets: list[socket.socket] = []
        try:
            for host in self._config.listen:
                family = socket.AF_INET6 if ":" in host else socket.AF_INET
                try:
                    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
                except OSError as error:
                    if error.errno == errno.EAFNOSUPPORT:
                        continue
                    raise
                sockets.append(sock)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                try:
                    sock.bind((host, port))
                except OSError as error:
                    if family == socket.AF_INET6 and error.errno == errno.EADDRNOTAVAIL:  # IPv6 is switched off
                        sockets.pop().close()
                        continue
                    raise
                sock.listen(BACKLOG)
                port = sock.getsockname()[1]
        except OSError:
            for sock in sockets:
                sock.close()
            raise
        if not sockets:
            raise OSError(errno.EADDRNOTAVAIL, "no address to listen on")
        self.port = port
        return sockets

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, address = await loop.sock_accept(listening)
            except ConnectionError:
                continue  # gone before we looked
            except OSError as error:
                log.warning("cannot accept a neighbour's connection: %s", error)
                await asyncio.sleep(ACCEPT_PAUSE_S)
                continue
            reason = self._refusal(str(address[0]), loop.time())
            if reason is not None:
                self._drops[reason] += 1
                sock.close()
                continue
            task = asyncio.create_task(self._shake_hands(sock))
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)

    def _refusal(self, host: str, now: float) -> str | None:
        """Return why this connection is not worth a TLS handshake, or None."""
        if not self._config.allows(host):
            return "from-overlay"
        if len(self._handshakes) >= HANDSHAKE_COUNT_MAX:
            return "accept-busy"
        if not self._address_budget.take(budget_key(host), now) or not self._budget.take(now):
            return "accept-rate"
        return None

    async def _shake_hands(self, sock: socket.socket) -> None:
        connection = Connection()  # made here: uvloop returns another protocol than the factory's
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                prepare_socket(sock)
                await asyncio.get_running_loop().connect_accepted_socket(
                    lambda: connection,
                    sock,
                    ssl=self._certificate.context,
                    ssl_handshake_timeout=HANDSHAKE_S,
                    ssl_shutdown_timeout=CLOSE_S_MAX,
                )
                await self._serve(connection)
        except TimeoutError:
            self._end(sock, connection, "handshake-timeout")
        except RemoteProtocolError as error:
            self._end(sock, connection, error.reason)
        except UserError as error:  # the clock's floor could not be kept, or the like
            log.error("a neighbour's connection: %s", error)
            self._end(sock, connection, "local")
        except OSError as error:  # ssl.SSLError is one
            log.debug("handshake: %s", error)
            self._end(sock, connection, "handshake")
        except asyncio.CancelledError:
            self._end(sock, connection, "stopped")
            raise

    def _end(self, sock: socket.socket, connection: Connection, reason: str) -> None:
        self._drops[reason] += 1
        if connection.made:
            connection.abort(reason)
        else:
            sock.close()  # safe where TLS failed half-way and the transport has closed it already


def budget_key(host: str) -> str:
    """Return what an address is charged as: an IPv6 host has a /64 of addresses to itself."""
    address = ip_address(host.partition("%")[0])
    return str(address) if address.version == 4 else address.packed[:8].hex()
