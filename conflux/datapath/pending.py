"""Packets whose destination nobody knows yet, under the address they are for, until the node answers the Miss."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from heapq import merge
from ipaddress import ip_address

from conflux.datapath.interface import Miss
from conflux.datapath.outlets import Outlets
from conflux.datapath.timers import Timer

Waiting = tuple[float, int, tuple[int, bytes]]  # when it came, its flow, (PACKET, packet)


class Address:
    """What waits under one address, oldest first."""

    __slots__ = ("bytes", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[Waiting] = deque()
        self.bytes = 0


class Pending:
    """Addresses asked for.  One Miss each, until resolved, refused, or forgotten with the last packet, grown too old.

    Drop reasons: pending-full (too many addresses), queue-full (too much under one; its oldest go), aged.
    """

    def __init__(self, outlets: Outlets) -> None:
        self._outlets = outlets
        self._config = outlets.config
        self._addresses: dict[bytes, Address] = {}
        self._timer = Timer(self._deadline, self._fire)

    def push(self, address: bytes, entry: tuple[int, bytes], flow: int, now: float) -> None:
        """Keep one (PACKET, packet) for an address; the first one asks for it."""
        place = self._addresses.get(address)
        if place is None:
            if len(self._addresses) >= self._config.pending_address_count_max:
                self._outlets.drop("pending-full")
                return
            place = self._addresses[address] = Address()
            self._outlets.upcall(Miss(ip_address(address)))
        place.waiting.append((now, flow, entry))
        place.bytes += len(entry[1])
        while place.bytes > self._config.pending_bytes_max:
            self._shorten(place, "queue-full")
        if self._timer.at is None:  # else it looks no later: what comes now is the newest
            self._outlets.timers.arm(self._timer)

    def take(self, addresses: Iterable[bytes]) -> list[Waiting]:
        """Return what waits under any of the addresses, oldest first, and forget them."""
        places = [self._addresses.pop(address) for address in addresses if address in self._addresses]
        return list(merge(*(place.waiting for place in places), key=lambda waiting: waiting[0]))

    def refuse(self, address: bytes, reason: str) -> None:
        """Drop what waits under an address.  No-op if nothing does."""
        place = self._addresses.pop(address, None)
        if place is not None:
            for _ in place.waiting:
                self._outlets.drop(reason)

    def _shorten(self, place: Address, reason: str) -> None:
        place.bytes -= len(place.waiting.popleft()[2][1])
        self._outlets.drop(reason)

    def _deadline(self) -> float | None:
        oldest = min((place.waiting[0][0] for place in self._addresses.values() if place.waiting), default=None)
        return None if oldest is None else oldest + self._config.hold_age_s_max

    def _fire(self, now: float) -> None:
        for address, place in tuple(self._addresses.items()):
            while place.waiting and place.waiting[0][0] + self._config.hold_age_s_max <= now:
                self._shorten(place, "aged")
            if not place.waiting:
                del self._addresses[address]

    def status(self) -> list[dict[str, object]]:
        """Every address asked for, with what waits under it."""
        return [
            {"address": str(ip_address(address)), "packets": len(place.waiting), "bytes": place.bytes}
            for address, place in self._addresses.items()
        ]
