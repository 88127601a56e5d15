"""Look-ups of names where no name server answers."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from kit.lan import LanNode
from kit.resolver import ROW, Resolver, dead_resolver
from kit.tree import TREE

from conflux.control.lan.config import DIAL_COUNT_MAX
from conflux.host.names import THREAD_COUNT_MAX, Names, is_number


@pytest.fixture
def resolver() -> Iterator[Resolver]:
    with dead_resolver() as found:
        yield found


async def test_a_caller_waits_for_its_time_and_the_next_one_gets_what_came_later(resolver: Resolver) -> None:
    looked = Names()
    with pytest.raises(OSError, match="no name server answers"):
        await looked.look_up("a.example", 7464, wait_s=0.01)
    resolver.goes_on.set()
    assert await looked.look_up("a.example", 7464) == [ROW]
    assert await looked.look_up("a.example", 7464) == [ROW]
    assert resolver.asked == ["a.example"], "one look-up for all"


async def test_threads_have_a_bound(resolver: Resolver) -> None:
    looked = Names()
    for number in range(THREAD_COUNT_MAX):
        with pytest.raises(OSError, match="no name server"):
            await looked.look_up(f"{number}.example", 1, wait_s=0.0)
    with pytest.raises(OSError, match="too many"):
        await looked.look_up("more.example", 1, wait_s=0.0)
    assert len(resolver.asked) <= THREAD_COUNT_MAX


async def test_unknown_names_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*asked: object) -> object:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(socket.gaierror):
        await Names().look_up("a.example", 1)
    await Names().prepare([("a.example", 1), ("192.0.2.1", 1)])


@pytest.mark.parametrize(
    ("host", "number"), [("192.0.2.1", True), ("fe80::1%eth0", True), ("::1", True), ("a.example", False), ("", False)]
)
def test_numbers_need_no_look_up(host: str, number: bool) -> None:
    assert is_number(host) is number


async def test_names_without_an_answer_hold_no_dial_slot(resolver: Resolver) -> None:
    dead = tuple((f"{number}.example", 7464) for number in range(DIAL_COUNT_MAX + 4))
    async with LanNode("alice") as alice, LanNode("bob", alice.port, places=dead) as bob:
        await asyncio.wait_for(bob.ear.sees("alice"), 5)
    assert resolver.asked


def test_a_process_ends_although_a_name_has_no_answer() -> None:
    script = """
import asyncio, socket, threading, uvloop
from conflux.host import names
socket.getaddrinfo = lambda *asked: threading.Event().wait(60)
async def main():
    asyncio.create_task(names.NAMES.look_up("a.example", 1))
    await asyncio.sleep(0.1)
with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(main())
"""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(TREE)}, timeout=50, check=True)
    assert time.monotonic() - began < 30
