"""What of multicast DNS reaches zeroconf.

zeroconf keeps up to 10,000 records of whatever devices say, each as large as a datagram.  Of a house full of printers
and televisions nothing concerns this node but its own service.  So a datagram passes only if it is small, names the
service or an instance of it, and its sender is not over its budget.  What zeroconf can hold is then 10,000 records of
1.4 kB at the very most, about 25 MB in memory; a realm of a hundred nodes has five hundred records of 0.1 kB.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

from conflux.budget import BudgetTable, TokenBucket
from conflux.control.drop import Drop
from conflux.control.lan.config import REMOTE_COUNT_MAX
from conflux.usage.tally import TALLY, UDP6_HEADER_BYTES, UDP_HEADER_BYTES, Kind, Other

DATAGRAM_BYTES_MAX = 1500  # zeroconf itself sends 1460 at most; larger ones (RFC 6762, section 17) are no node's

# A node says what it has three times when it starts, and answers each that asks: a few datagrams per neighbour.
# In all: a hundred nodes that start together after a power cut.
RATE_PER_ADDRESS, BURST_PER_ADDRESS = 20.0, 200.0
RATE, BURST = 200.0, 2000.0

# The labels of the service, or of an instance: 8 bytes in hex.
_OURS = re.compile(rb"\x08_conflux\x04_tcp|\x10[0-9a-f]{16}", re.IGNORECASE)


class Sieve:
    """Says which datagrams pass.  drop: counts those that concern this node and do not.  Sans-IO."""

    def __init__(self, drop: Callable[[str], None]) -> None:
        self._drop = drop
        self._budget = TokenBucket(RATE, BURST)
        self._address_budget = BudgetTable(RATE_PER_ADDRESS, BURST_PER_ADDRESS, REMOTE_COUNT_MAX)

    def passes_untrusted(self, data: bytes, host: str, now: float) -> bool:
        """Say whether zeroconf gets a datagram."""
        if len(data) > DATAGRAM_BYTES_MAX or _OURS.search(data) is None:
            return False
        if not self._address_budget.take(host, now) or not self._budget.take(now):
            self._drop(Drop.MDNS_FLOOD)
            return False
        return True


class CountedTransport:
    """Stands before the transport of one of zeroconf's sockets, and counts what is sent."""

    def __init__(self, inner: asyncio.DatagramTransport) -> None:
        self._inner = inner

    def sendto(self, data: bytes, addr: tuple[Any, ...] | None = None) -> None:
        """Send a datagram."""
        TALLY.add(Other.MULTICAST, Kind.CONTROL, sent=len(data) + _header_bytes(addr))
        self._inner.sendto(data, addr)

    def __getattr__(self, name: str) -> Any:
        """Return what else the transport has."""
        return getattr(self._inner, name)


def _header_bytes(address: tuple[Any, ...] | None) -> int:
    return UDP6_HEADER_BYTES if address is not None and ":" in str(address[0]) else UDP_HEADER_BYTES


class SievedProtocol(asyncio.DatagramProtocol):
    """Stands before the protocol of one of zeroconf's sockets."""

    def __init__(self, inner: asyncio.DatagramProtocol, sieve: Sieve) -> None:
        self._inner = inner
        self._sieve = sieve
        self._loop = asyncio.get_running_loop()

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        """Pass a datagram on, or not."""
        if self._sieve.passes_untrusted(data, str(addr[0]), self._loop.time()):
            self._inner.datagram_received(data, addr)

    def error_received(self, exc: Exception) -> None:
        """Pass on."""
        self._inner.error_received(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass on."""
        self._inner.connection_lost(exc)
