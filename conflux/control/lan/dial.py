"""Dialling: resolve, try the addresses beside each other, and do the TLS handshake."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple, TypeVar

from conflux.control.lan.config import CLOSE_S_MAX, HANDSHAKE_S, LanConfig, Place
from conflux.control.lan.connection import Connection, give_up, prepare_socket, use_device
from conflux.errors import RemoteProtocolError, UserError
from conflux.host.names import NAMES

STAGGER_S = 0.2  # between tries; RFC 8305, section 5, recommends 250 ms, and neighbours are nearer
PATIENCE_S = 1.5  # after the last try, if something answered one: three times what a slow board takes for all
TRIED_COUNT_MAX = 16  # addresses in one dial: a node has a few, and anybody on a LAN can add to them

T = TypeVar("T")


class Address(NamedTuple):
    """A resolved address: its family, and the argument of connect().  device: the interface to go by; "": any."""

    family: socket.AddressFamily
    sockaddr: tuple[str, int] | tuple[str, int, int, int]
    device: str = ""

    @property
    def host(self) -> str:
        """The address as text, with its scope if it has one."""
        return self.sockaddr[0]

    @property
    def place(self) -> Place:
        """The address as text, and the port."""
        return self.sockaddr[0], self.sockaddr[1]


async def resolve(host: str, port: int) -> list[Address]:
    """Return the addresses of a host name, or of an address with its scope ("fe80::1%eth0"); none: unknown."""
    try:
        # Not by the event loop: uvloop's getaddrinfo loses the scope.  For a numeric host this does not block.
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except UnicodeError:  # a label is empty or too long, so this is no host name
        return []
    except OSError:
        try:
            found = await NAMES.look_up(host, port)
        except OSError:
            return []
    addresses = []
    for family, _, _, _, sockaddr in found:
        if family in (socket.AF_INET, socket.AF_INET6):
            addresses.append(Address(family, sockaddr))  # type: ignore[arg-type]  # typeshed's third form is no IP
    return addresses


async def race(
    addresses: list[Address],
    attempt: Callable[[Address, asyncio.Event], Coroutine[Any, Any, T]],
    discard: Callable[[T], None],
) -> T:
    """Return what the first attempt that succeeds returns.

    Raises an error of one, if none does: OSError, RemoteProtocolError or UserError.
    attempt(address, answered): is made for each address in turn, beside those that were begun.  It sets answered once
    something is there, which gets a little more time before the next.  discard: takes what a second one returns.
    """
    loop = asyncio.get_running_loop()
    tasks: dict[asyncio.Task[T], asyncio.Event] = {}
    waiting = list(addresses)
    last_error: Exception = OSError("no address to connect to")
    begun, is_next_due = 0.0, True
    try:
        while waiting or tasks:
            if waiting and is_next_due:
                answered, begun = asyncio.Event(), loop.time()
                tasks[asyncio.create_task(attempt(waiting.pop(0), answered))] = answered
            done, _ = await asyncio.wait(
                tasks, timeout=STAGGER_S if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                del tasks[task]
                error = task.exception()
                if error is None:
                    return task.result()
                if not isinstance(error, (OSError, RemoteProtocolError, UserError)):
                    raise error
                if isinstance(last_error, OSError):  # what a peer says tells more
                    last_error = error
            is_patient = any(answered.is_set() for answered in tasks.values())
            is_next_due = bool(done) or not is_patient or loop.time() - begun >= PATIENCE_S
        raise last_error
    finally:
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if not isinstance(outcome, BaseException):
                discard(outcome)


async def connect_first(
    addresses: list[Address], *, small: Callable[[Address], bool] = lambda address: True
) -> tuple[socket.socket, Address]:
    """Return a connected socket and its address: the one that answers first.  Raises OSError if none does.

    small: says whether the way to an address gets small segments.
    """

    async def attempt(address: Address, answered: asyncio.Event) -> tuple[socket.socket, Address]:
        return await _connect(address, has_small_segments=small(address)), address

    return await race(addresses, attempt, lambda found: found[0].close())


async def _connect(address: Address, *, has_small_segments: bool = True) -> socket.socket:
    """Return a connected socket.  Not by loop.sock_connect(): uvloop's loses the scope of link-local addresses."""
    loop = asyncio.get_running_loop()
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    with contextlib.ExitStack() as unless_connected:
        unless_connected.callback(sock.close)
        prepare_socket(sock, has_small_segments=has_small_segments)
        use_device(sock, address.device)
        error = sock.connect_ex(address.sockaddr)
        if error == errno.EINPROGRESS:
            writable = asyncio.Event()
            loop.add_writer(sock, writable.set)
            try:
                await writable.wait()
            finally:
                loop.remove_writer(sock)
            error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))
        unless_connected.pop_all()
    return sock


async def underlay_addresses(places: tuple[Place, ...], config: LanConfig) -> list[Address]:
    """Return the addresses of places, by each interface that may be used; none of the overlay, and no repeats."""
    addresses: dict[Address, None] = {}
    for host, port in places:
        for address in await resolve(host, port):
            if config.allows(address.host):
                addresses |= dict.fromkeys(address._replace(device=device) for device in config.interfaces or ("",))
    return list(addresses)


async def open_connection(address: Address, context: ssl.SSLContext, answered: asyncio.Event) -> Connection:
    """Return a TLS connection; set answered once TCP stands.  Raises OSError."""
    sock = await _connect(address)
    answered.set()
    connection = Connection()  # made here, as uvloop returns another protocol than the factory makes
    try:
        await asyncio.get_running_loop().create_connection(
            lambda: connection,
            sock=sock,
            ssl=context,
            server_hostname="",
            ssl_handshake_timeout=HANDSHAKE_S,
            ssl_shutdown_timeout=CLOSE_S_MAX,
        )
    except BaseException:
        give_up(sock)
        raise
    return connection
