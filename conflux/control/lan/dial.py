"""Connecting: which addresses, which of them first, and TLS."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl
from dataclasses import dataclass

from conflux.control.lan.config import CLOSE_S_MAX, HANDSHAKE_S, LanConfig
from conflux.control.lan.connection import Connection, prepare_socket

STAGGER_S = 0.2  # RFC 8305, section 5, recommends 250 ms; these are neighbours


@dataclass(frozen=True, slots=True)
class Address:
    """A resolved address: family and what connect() takes."""

    family: socket.AddressFamily
    sockaddr: tuple[str, int] | tuple[str, int, int, int]

    @property
    def host(self) -> str:
        return self.sockaddr[0]


async def resolve(host: str, port: int) -> list[Address]:
    """Return what a host name, or an address with its scope ("fe80::1%eth0"), stands for; empty if nothing."""
    try:
        # Not by the event loop: uvloop's getaddrinfo loses the scope.  A numeric host asks nobody and blocks nothing.
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except UnicodeError:  # a label that is empty or too long: no name of anything
        return []
    except OSError:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError:
            return []
    addresses = []
    for family, _, _, _, sockaddr in found:
        if family in (socket.AF_INET, socket.AF_INET6):
            addresses.append(Address(family, sockaddr))  # type: ignore[arg-type]  # typeshed's third form is no IP
    return addresses


async def connect_first(addresses: list[Address]) -> tuple[socket.socket, Address]:
    """Return a connected socket to whichever address answers first.  Raises OSError if none does."""
    tasks: dict[asyncio.Task[socket.socket], Address] = {}
    waiting = list(addresses)
    last_error: OSError = OSError("no address to connect to")
    try:
        while waiting or tasks:
            if waiting:
                address = waiting.pop(0)
                tasks[asyncio.create_task(_connect(address))] = address
            done, _ = await asyncio.wait(
                tasks, timeout=STAGGER_S if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                address = tasks.pop(task)
                error = task.exception()
                if error is None:
                    return task.result(), address
                if not isinstance(error, OSError):
                    raise error
                last_error = error
        raise last_error
    finally:
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, socket.socket):
                outcome.close()


async def _connect(address: Address) -> socket.socket:
    """Return a connected socket.  Not by loop.sock_connect(): uvloop's loses the scope of link-local addresses."""
    loop = asyncio.get_running_loop()
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    with contextlib.ExitStack() as unless_connected:
        unless_connected.callback(sock.close)
        prepare_socket(sock)
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


async def underlay_addresses(places: tuple[tuple[str, int], ...], config: LanConfig) -> list[Address]:
    """Return the addresses behind (host, port) pairs, without the overlay's own and without repeats."""
    addresses: dict[Address, None] = {}
    for host, port in places:
        for address in await resolve(host, port):
            if config.allows(address.host):
                addresses[address] = None
    return list(addresses)


async def open_connection(addresses: list[Address], context: ssl.SSLContext) -> tuple[Connection, Address]:
    """Return a TLS connection to whichever address answers first, and the address.  Raises OSError."""
    sock, address = await connect_first(addresses)
    connection = Connection()  # made here: see listener.py
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
        sock.close()
        raise
    return connection, address
