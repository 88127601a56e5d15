"""Looking up host names, without waiting long for a resolver that does not answer.

getaddrinfo() cannot be stopped, and takes 10 to 40 s where no name server answers.  So each look-up has a thread that
the process does not wait for when it ends; event loops have pools whose threads they do wait for.  A caller waits for
LOOK_UP_S.  What a thread finds later is kept for a moment, for the next try.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

# Of one caller: glibc turns to the second name server after 5 s.
LOOK_UP_S = 6.0
KEPT_S = 10.0  # what was found, or that nothing was
KEPT_COUNT_MAX = 64  # names: those of the configuration and of tokens
THREAD_COUNT_MAX = 16  # each waits for a name server, and holds little but its stack

AddressInfo = tuple[Any, ...]
"""A row of socket.getaddrinfo()."""


class _Query(NamedTuple):
    host: str
    port: int
    family: int


class _Kept(NamedTuple):
    """What became of a look-up.  until: on the monotonic clock."""

    outcome: list[AddressInfo] | OSError
    until: float


class Names:
    """The look-ups of a process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[_Query, _Kept] = {}  # oldest first
        self._waiting: dict[_Query, list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]]] = {}

    async def look_up(self, host: str, port: int, *, family: int = 0, wait_s: float = LOOK_UP_S) -> list[AddressInfo]:
        """Return the TCP rows of socket.getaddrinfo().  family: 0: any.

        Raises OSError: the name is unknown, or no answer came within wait_s.
        """
        query = _Query(host, port, family)
        kept = self._find(query)
        if kept is None:
            await self._wait(query, wait_s)
            kept = self._find(query)
        if kept is None:
            raise OSError(f"no name server answers for {host}")
        if isinstance(kept.outcome, OSError):
            raise kept.outcome
        return kept.outcome

    async def prepare(self, places: Iterable[tuple[str, int]]) -> None:
        """Look names up, all at once, so that look_up() has them in the next seconds."""
        tries = (self.look_up(host, port) for host, port in places if not is_number(host))
        await asyncio.gather(*tries, return_exceptions=True)

    def _find(self, query: _Query) -> _Kept | None:
        kept = self._kept.get(query)
        return kept if kept is not None and time.monotonic() < kept.until else None

    async def _wait(self, query: _Query, wait_s: float) -> None:
        """Wait until the look-up is over, which perhaps begins now, or for wait_s."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        with self._lock:
            waiting = self._waiting.get(query)
            if waiting is None and len(self._waiting) >= THREAD_COUNT_MAX:
                raise OSError("too many names are being looked up")
            self._waiting.setdefault(query, []).append((loop, done))
        if waiting is None:
            threading.Thread(target=self._work, args=(query,), name="look-up", daemon=True).start()
        await asyncio.wait([done], timeout=wait_s)

    def _work(self, query: _Query) -> None:
        """Look one name up, in a thread of its own."""
        outcome: list[AddressInfo] | OSError
        try:
            outcome = list(socket.getaddrinfo(query.host, query.port, query.family, socket.SOCK_STREAM))
        except OSError as error:
            outcome = error
        except UnicodeError:  # a label is empty or too long
            outcome = OSError(f"{query.host!r} is no host name")
        with self._lock:
            self._kept.pop(query, None)
            self._kept[query] = _Kept(outcome, time.monotonic() + KEPT_S)
            if len(self._kept) > KEPT_COUNT_MAX:
                del self._kept[next(iter(self._kept))]
            waiting = self._waiting.pop(query)
        for loop, done in waiting:
            try:
                loop.call_soon_threadsafe(_finish, done)
            except RuntimeError:  # the loop is closed: who waited is gone
                continue


def _finish(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)


def is_number(host: str) -> bool:
    """Say whether a host is an address, perhaps with a scope, which needs no look-up."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host.partition("%")[0])
        except (OSError, ValueError):
            continue
        return True
    return False


NAMES = Names()
