"""Word of the kernel that links, addresses or routes of this host changed."""

from __future__ import annotations

import asyncio
import socket

# From linux/rtnetlink.h
LINKS = 0x1
ADDRESSES = 0x10 | 0x100  # IPv4, IPv6
ROUTES = 0x40 | 0x400
_NETLINK_ROUTE = 0


class Changes:
    """A netlink socket whose messages are read and not looked at.  groups: LINKS, ADDRESSES, ROUTES, or several."""

    def __init__(self, groups: int) -> None:
        """Raises OSError."""
        self.changed = asyncio.Event()
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _NETLINK_ROUTE)
        try:
            self._socket.bind((0, groups))
        except OSError:
            self._socket.close()
            raise
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    def close(self) -> None:
        """Stop watching."""
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    def _read(self) -> None:
        try:
            while self._socket.recv(65536):
                pass
        except OSError:  # no message is left, or the kernel lost some: something changed in both cases
            pass
        self.changed.set()
