"""Packets for addresses that no egress serves: they wait until the node answers the Miss."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from heapq import merge
from ipaddress import ip_address
from typing import NamedTuple

from conflux.anchor.frame import OFFLOAD, OFFLOAD_HEADER_BYTES
from conflux.budget import TokenBucket
from conflux.datapath.drop import Drop
from conflux.datapath.interface import Miss
from conflux.datapath.outlets import Outlets
from conflux.datapath.status import PendingStatus
from conflux.datapath.timers import Timer
from conflux.datapath.unreachable import unreachable

ANSWER_RATE = 50.0  # chosen: a second, of "unreachable"; what a program repeats hears it the next time
ANSWER_BURST = 50.0


class Waiting(NamedTuple):
    """One packet."""

    came_at: float
    flow: int
    entry: tuple[int, bytes]  # (PACKET, packet) or (OFFLOAD, header and packet)


class Address:
    """The packets that wait for one address, oldest first."""

    __slots__ = ("bytes", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[Waiting] = deque()
        self.bytes = 0


class Pending:
    """The addresses that the node was asked for, one Miss each.

    An address is forgotten when it is resolved or refused, and when its last packet is too old.
    Drops: pending-full (too many addresses), queue-full (too many bytes for one; its oldest packets go), aged.
    """

    def __init__(self, outlets: Outlets) -> None:
        self._outlets = outlets
        self._config = outlets.config
        self._addresses: dict[bytes, Address] = {}
        self._answers = TokenBucket(ANSWER_RATE, ANSWER_BURST)
        self._timer = Timer(self._deadline, self._fire)

    def push(self, address: bytes, entry: tuple[int, bytes], flow: int, now: float) -> None:
        """Keep one packet, as an entry, for an address; the first one makes a Miss."""
        place = self._addresses.get(address)
        if place is None:
            if len(self._addresses) >= self._config.pending_address_count_max:
                self._outlets.drop(Drop.PENDING_FULL)
                return
            place = self._addresses[address] = Address()
            self._outlets.upcall(Miss(ip_address(address)))
        place.waiting.append(Waiting(now, flow, entry))
        place.bytes += len(entry[1])
        while place.bytes > self._config.pending_bytes_max:
            self._shorten(place, Drop.QUEUE_FULL)
        if self._timer.at is None:  # an armed timer fires no later than this packet asks for: older packets wait
            self._outlets.timers.arm(self._timer)

    def take(self, addresses: Iterable[bytes]) -> list[Waiting]:
        """Return what waits for any of the addresses, oldest first, and forget them."""
        places = [self._addresses.pop(address) for address in addresses if address in self._addresses]
        return list(merge(*(place.waiting for place in places), key=lambda waiting: waiting.came_at))

    def refuse(self, address: bytes, reason: str) -> None:
        """Drop what waits for an address, and tell its senders why.  No-op if nothing waits."""
        place = self._addresses.pop(address, None)
        if place is None:
            return
        for waiting in place.waiting:
            self._outlets.drop(reason)
            kind, data = waiting.entry
            self.answer(data[OFFLOAD_HEADER_BYTES:] if kind == OFFLOAD else data, reason, waiting.came_at)

    def answer(self, packet: bytes, reason: str, now: float) -> None:
        """Tell the sender of a packet why it was dropped, unless many are told."""
        answer = unreachable(packet, reason)
        if answer is not None and self._answers.take(now):
            self._outlets.deliver(answer)

    def _shorten(self, place: Address, reason: str) -> None:
        place.bytes -= len(place.waiting.popleft().entry[1])
        self._outlets.drop(reason)

    def _deadline(self) -> float | None:
        oldest = min((place.waiting[0].came_at for place in self._addresses.values() if place.waiting), default=None)
        return None if oldest is None else oldest + self._config.hold_age_s_max

    def _fire(self, now: float) -> None:
        for address, place in tuple(self._addresses.items()):
            while place.waiting and place.waiting[0].came_at + self._config.hold_age_s_max <= now:
                self._shorten(place, Drop.AGED)
            if not place.waiting:
                del self._addresses[address]

    def status(self) -> tuple[PendingStatus, ...]:
        """Return every address that was asked for, with what waits for it."""
        return tuple(
            PendingStatus(str(ip_address(address)), packets=len(place.waiting), bytes=place.bytes)
            for address, place in self._addresses.items()
        )
