"""mDNS while interfaces come and go."""

from __future__ import annotations

import asyncio
import errno
import logging
from ipaddress import ip_address, ip_interface
from typing import cast

import pytest
from kit.ear import WAIT_S
from zeroconf import ServiceStateChange, Zeroconf

from conflux.control.lan import discovery
from conflux.control.lan.config import LanConfig, Place
from conflux.control.lan.discovery import CHANGE_BURST, RESOLVE_COUNT_MAX, SERVICE, Discovery
from conflux.control.lan.interfaces import Interfaces, OnLink
from conflux.control.lan.sieve import SievedProtocol
from conflux.host.changes import Changes

TAG = b"realm"
LOOPBACK = (OnLink("lo", 1, ip_interface("127.0.0.1/8")),)
FIRST = Interfaces(("127.0.0.1",), (ip_address("127.0.0.1"),), links=LOOPBACK)
BOTH = Interfaces(("127.0.0.1", "127.0.0.2"), (ip_address("127.0.0.1"), ip_address("127.0.0.2")), links=LOOPBACK)
WITH_CONTAINER = Interfaces(("127.0.0.1", "127.0.0.2"), (ip_address("127.0.0.1"), ip_address("fe80::7")))


class Noting(Discovery):
    """Says when it has taken note of interfaces."""

    noted: asyncio.Event

    def _note(self, interfaces: Interfaces) -> None:
        super()._note(interfaces)
        self.noted.set()

    async def _put_sieve(self, zeroconf: Zeroconf) -> None:
        await super()._put_sieve(zeroconf)
        self.noted.set()


class Board:
    """Two nodes on this host: one whose interfaces change, and one that looks for it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = FIRST
        self.moved_count = 0
        self.found: dict[bytes, tuple[Place, ...]] = {}
        self.news = asyncio.Event()
        monkeypatch.setattr(discovery, "usable_interfaces", self._look)
        monkeypatch.setattr(discovery, "SETTLE_S", 0.0)
        self._noted = asyncio.Event()
        self.changing = self._make(b"\1" * 8, 7464)

    def _look(self, config: LanConfig) -> Interfaces:
        return self.now

    def _make(self, instance: bytes, port: int | None) -> Noting:
        made = Noting(
            tag=TAG, instance=instance, port=port, config=LanConfig(), found=self._found, gone=print, moved=self._moved
        )
        made.noted = self._noted
        return made

    def _found(self, instance: bytes, places: tuple[Place, ...]) -> None:
        self.found[instance] = places
        self.news.set()

    def _moved(self) -> None:
        self.moved_count += 1

    async def change(self, interfaces: Interfaces) -> None:
        """Have other interfaces, and wait until they are taken note of."""
        self.now = interfaces
        assert isinstance(self.changing._watch, Changes)
        while self.changing._interfaces != interfaces:
            self._noted.clear()
            self.changing._watch.changed.set()
            await asyncio.wait_for(self._noted.wait(), WAIT_S)

    async def until_sieved(self) -> None:
        """Wait until every socket of mDNS is behind the sieve."""
        assert self.changing._zeroconf is not None
        engine = self.changing._zeroconf.zeroconf.engine
        async with asyncio.timeout(WAIT_S):
            while not all(isinstance(each.transport.get_protocol(), SievedProtocol) for each in engine.readers):
                self._noted.clear()
                await self._noted.wait()

    async def up(self) -> None:
        """Start, and wait until it speaks."""
        await self.changing.start()
        await asyncio.wait_for(self._noted.wait(), WAIT_S)


async def test_interfaces_are_changed_in_place_without_a_warning(monkeypatch, caplog) -> None:
    board = Board(monkeypatch)
    with caplog.at_level(logging.WARNING):
        await board.up()
        try:
            zeroconf = board.changing._zeroconf
            for interfaces in (BOTH, FIRST, WITH_CONTAINER):
                await board.change(interfaces)
            assert board.changing._zeroconf is zeroconf, "it is the same one, with what it knows"
            await board.until_sieved()
        finally:
            await board.changing.stop()
    assert caplog.messages == []
    assert board.moved_count == 2, "a container's link-local address is no move"


async def test_interfaces_that_could_not_be_looked_at_are_looked_at_again(monkeypatch, caplog) -> None:
    board = Board(monkeypatch)
    await board.up()
    failed = asyncio.Event()

    def no_descriptor(config: LanConfig) -> Interfaces:
        failed.set()
        raise OSError(errno.EMFILE, "Too many open files")

    try:
        monkeypatch.setattr(discovery, "usable_interfaces", no_descriptor)
        assert board.changing._watch is not None
        board.changing._watch.changed.set()
        await asyncio.wait_for(failed.wait(), WAIT_S)
        assert "Too many open files" in str(board.changing.trouble)
        assert caplog.messages == ["mDNS: cannot look at the network interfaces: Too many open files"]
        monkeypatch.setattr(discovery, "usable_interfaces", board._look)
        await board.change(BOTH)
        await board.until_sieved()
    finally:
        await board.changing.stop()
    assert board.changing.trouble is None


class Slow(Discovery):
    """Finds out where a node is once it may."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.dropped: list[str] = []
        self.may = asyncio.Event()
        super().__init__(
            tag=TAG, instance=bytes(8), port=None, config=LanConfig(), found=print, gone=print, drop=self.dropped.append
        )

    async def _resolve(self, zeroconf: Zeroconf, name: str, instance: bytes) -> None:
        self.asked.append(int.from_bytes(instance))
        await self.may.wait()

    def see(self, number: int, change: ServiceStateChange = ServiceStateChange.Added) -> None:
        """Hear of a node."""
        self._seen(cast(Zeroconf, None), SERVICE, f"{number.to_bytes(8).hex()}.{SERVICE}", change)

    async def settle(self) -> None:
        """Wait until nothing is asked any more."""
        async with asyncio.timeout(WAIT_S):
            while self._resolving:
                await asyncio.wait(self._resolving)


async def test_a_node_that_is_announced_among_many_others_is_found_when_it_is_its_turn() -> None:
    slow, count = Slow(), RESOLVE_COUNT_MAX + 4
    for number in range(1, count + 1):
        slow.see(number)
    slow.see(count - 1, ServiceStateChange.Removed)
    slow.see(count, ServiceStateChange.Updated)  # waits already
    await asyncio.sleep(0)
    assert slow.asked == list(range(1, RESOLVE_COUNT_MAX + 1)), "no more at once"
    slow.may.set()
    await slow.settle()
    assert slow.asked == [*range(1, count - 1), count]
    assert slow.dropped == []


async def test_announcements_that_wait_are_bounded_and_end_with_their_mdns(monkeypatch) -> None:
    monkeypatch.setattr(discovery, "WAITING_COUNT_MAX", 2)
    slow = Slow()
    for number in range(1, RESOLVE_COUNT_MAX + 4):
        slow.see(number)
    assert (len(slow._waiting), slow.dropped) == (2, ["mdns-flood"])
    await asyncio.sleep(0)
    await asyncio.wait_for(slow.stop(), WAIT_S)
    assert slow.asked == list(range(1, RESOLVE_COUNT_MAX + 1))
    assert not slow._resolving


async def test_many_changes_are_followed_at_their_rate(monkeypatch) -> None:
    board = Board(monkeypatch)
    await board.up()
    try:
        for number in range(int(CHANGE_BURST) - 1):
            await board.change((BOTH, FIRST)[number % 2])
        assert board.changing._changes.wait_s(board.changing._now()) > 1.0
    finally:
        await board.changing.stop()


async def test_changed_address_is_announced(monkeypatch) -> None:
    board = Board(monkeypatch)
    looking = board._make(b"\2" * 8, None)
    await board.up()
    await looking.start()
    try:
        await asyncio.wait_for(board.news.wait(), WAIT_S)
        board.news.clear()
        await board.change(BOTH)
        while ("127.0.0.2", 7464) not in board.found.get(b"\1" * 8, ()):
            await asyncio.wait_for(board.news.wait(), WAIT_S)
            board.news.clear()
    finally:
        await looking.stop()
        await board.changing.stop()
