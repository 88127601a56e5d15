"""The listening sockets: which addresses may connect, how often, and the TLS handshake.  channel.py does the rest."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from conflux.budget import BudgetTable, TokenBucket
from conflux.control.drop import Drop
from conflux.control.lan.certificate import Certificate
from conflux.control.lan.config import (
    CLOSE_S_MAX,
    HANDSHAKE_COUNT_MAX,
    HANDSHAKE_S,
    REMOTE_COUNT_MAX,
    SETTLE_S,
    LanConfig,
    budget_key,
)
from conflux.control.lan.connection import Connection, give_up, prepare_socket, use_device
from conflux.control.lan.lans import SocketAddress
from conflux.errors import RemoteProtocolError, UserError
from conflux.host.changes import ADDRESSES, LINKS, Changes
from conflux.host.tcp import bound_segments

log = logging.getLogger(__name__)

BACKLOG = 64
ACCEPT_PAUSE_S = 0.5  # when the process has no descriptors left
EPHEMERAL_TRY_COUNT = 16


class _Ear(NamedTuple):
    """What hears one interface.  number: the index of the interface; another one of the same name has another."""

    number: int
    sockets: list[socket.socket]
    tasks: list[asyncio.Task[None]]


class Listener:
    """Runs serve(connection, certificate) for every stranger, within HANDSHAKE_S; if it raises, the connection ends.

    is_on_link: says whether an address is on a link of ours.
    """

    def __init__(
        self,
        config: LanConfig,
        certificate: Certificate,
        serve: Callable[[Connection, Certificate], Awaitable[None]],
        drop: Callable[[str], None],
        is_on_link: Callable[[str], bool],
    ) -> None:
        self._is_on_link = is_on_link
        self.port = config.port
        self._config = config
        self._certificate = certificate
        self._serve = serve
        self._drop = drop
        self._ears: dict[str, _Ear] = {}  # by interface; "": all of them
        self._absent: list[str] = []
        self._watch: Changes | None = None
        self._watching: asyncio.Task[None] | None = None
        self._handshakes: set[asyncio.Task[None]] = set()
        self._budget = TokenBucket(config.accept_rate, config.accept_burst)
        self._address_budget = BudgetTable(
            config.accept_rate_per_address, config.accept_burst_per_address, REMOTE_COUNT_MAX
        )

    def open(self) -> None:
        """Listen.  Raises UserError if the port is taken or not permitted.

        If the configuration names interfaces, only what arrives by one of them is heard, also of those that come later.
        """
        for attempt in range(EPHEMERAL_TRY_COUNT):
            try:
                self._follow_interfaces()
                break
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    if self._config.port == 0 and attempt + 1 < EPHEMERAL_TRY_COUNT:
                        continue  # the port is free for IPv4 and taken for IPv6
                    what = f"TCP port {self._config.port} is taken by another program"
                else:
                    what = f"cannot listen on TCP port {self._config.port}: {error.strerror}"
                raise UserError(f"{what}; choose another with control.lan.port") from None
        if self._config.interfaces:
            with contextlib.suppress(OSError):
                self._watch = Changes(LINKS | ADDRESSES)
                self._watching = asyncio.create_task(self._keep_following(self._watch))

    async def close(self) -> None:
        """Stop listening, and end every connection that is still in its handshake."""
        tasks = [*self._handshakes, *(task for each in self._ears.values() for task in each.tasks)]
        if self._watching is not None:
            tasks.append(self._watching)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for device in list(self._ears):
            self._leave(device)
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    async def _keep_following(self, watch: Changes) -> None:
        while True:
            await watch.changed.wait()
            await asyncio.sleep(SETTLE_S)
            watch.changed.clear()
            try:
                self._follow_interfaces()
            except OSError as error:
                log.warning("cannot listen on TCP port %d: %s", self.port, error)

    def _follow_interfaces(self) -> None:
        """Listen on the interfaces that there are now, and on no others.  Raises OSError."""
        now = _indices(self._config.interfaces) if self._config.interfaces else {"": 0}
        for device, ear in list(self._ears.items()):
            if now.get(device) != ear.number:
                self._leave(device)
        for device, index in now.items():
            if device not in self._ears:
                sockets = self._bind(device)
                self._ears[device] = _Ear(index, sockets, [asyncio.create_task(self._accept(sock)) for sock in sockets])
        absent = [device for device in self._config.interfaces if device not in now]
        if absent != self._absent and absent:
            log.warning("control.lan.interfaces: there is no interface %s now", " and no ".join(absent))
        self._absent = absent

    def _leave(self, device: str) -> None:
        ear = self._ears.pop(device)
        for task in ear.tasks:
            task.cancel()
        for sock in ear.sockets:
            sock.close()

    def _bind(self, device: str) -> list[socket.socket]:
        port = self.port
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
                bound_segments(sock)  # what it accepts has it from here: a peer hears of it as it connects
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                use_device(sock, device)
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
                continue  # the peer was faster
            except OSError as error:
                log.warning("cannot accept a neighbour's connection: %s", error)
                await asyncio.sleep(ACCEPT_PAUSE_S)
                continue
            reason = self._refusal(_host(address), loop.time())
            if reason is not None:
                self._drop(reason)
                sock.close()
                continue
            task = asyncio.create_task(self._shake_hands(sock))
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)

    def _refusal(self, host: str, now: float) -> str | None:
        """Return why this connection is not worth a TLS handshake, or None."""
        if not self._config.allows(host):
            return Drop.FROM_OVERLAY
        if len(self._handshakes) >= HANDSHAKE_COUNT_MAX:
            return Drop.ACCEPT_BUSY
        if not self._address_budget.take(budget_key(host, self._is_on_link), now) or not self._budget.take(now):
            return Drop.ACCEPT_RATE
        return None

    async def _shake_hands(self, sock: socket.socket) -> None:
        connection = Connection()  # made here, as uvloop returns another protocol than the factory makes
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
                await self._serve(connection, self._certificate)
        except TimeoutError:
            self._end(sock, connection, Drop.HANDSHAKE_TIMEOUT)
        except RemoteProtocolError as error:
            self._end(sock, connection, error.reason)
        except UserError as error:  # the floor of the clock could not be kept, or the like
            log.error("a neighbour's connection: %s", error)
            self._end(sock, connection, Drop.LOCAL)
        except OSError as error:  # ssl.SSLError is one
            log.debug("handshake: %s", error)
            self._end(sock, connection, Drop.HANDSHAKE)
        except asyncio.CancelledError:
            self._end(sock, connection, Drop.STOPPED)
            raise

    def _end(self, sock: socket.socket, connection: Connection, reason: str) -> None:
        self._drop(reason)
        if connection.made:
            connection.abort(reason)
        else:
            give_up(sock)  # does no harm if TLS failed half-way and the transport closed it already


def _indices(names: tuple[str, ...]) -> dict[str, int]:
    """Return those interfaces that there are, with their indices."""
    return {name: index for index, name in socket.if_nameindex() if name in names}


def _host(address: SocketAddress) -> str:
    """Return the host of an address, with its scope if it has one."""
    host, scope = str(address[0]), address[3] if len(address) > 3 else 0
    return f"{host}%{scope}" if scope else host
