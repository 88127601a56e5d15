"""Keeping a connection to the broker: which server is tried when, and what happens when a connection ends.

wait at random ─► round: every server, one after the other ─► connected ═══ until it ends ─► wait at random ─► …
                    │ all failed                              │ a newer credential, or the server says it leaves
                    └─► back off ─► round                     └─► round ─► the new one takes over, the old one retires
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable

from conflux.control.nats.back_off import BackOff
from conflux.control.nats.config import (
    RETIRE_S,
    ROUND_S,
    SPARE_LOST_S_MAX,
    SPARE_RETRY_S,
    SPARE_START_S_MAX,
    STEADY_S,
    Server,
)
from conflux.control.nats.connection import Connection
from conflux.control.nats.end import ConnectError, End
from conflux.control.nats.staggered import first_connection
from conflux.host.folding import Folded

log = logging.getLogger(__name__)

SHOWN_COUNT_MAX = 4  # servers whose trouble is told; more are no help


class Supervisor:
    """Keeps one connection.

    connect: makes a connection to a server; raises ConnectError.  up: is given every new connection, before the one
    that it replaces is retired.  trouble: why there is no connection, in words.

    beside: another one of the same node, which has a server of its own; while it is connected this one is in no hurry.
    second: this one waits until the other is connected.
    """

    def __init__(
        self,
        servers: tuple[Server, ...],
        *,
        rng: random.Random,
        connect: Callable[[Server], Awaitable[Connection]],
        up: Callable[[Connection], None],
    ) -> None:
        self.connection: Connection | None = None
        self.trouble = "connecting"
        self.refused = False
        self._servers = servers
        self._rng = rng
        self._connect = connect
        self._up = up
        self._round_refused = False  # by every server that answered; there may be a connection all the same
        self._back_off = BackOff(rng)
        self._made_at = 0.0
        self._used: Server | None = None
        self._beside: Supervisor | None = None
        self._is_second = False
        self._has_connection = asyncio.Event()
        self._replace = asyncio.Event()
        self._wake = asyncio.Event()  # wait no longer
        self._open: set[Connection] = set()
        self._folded = Folded(log)
        self._task: asyncio.Task[None] | None = None

    # ── the interface ─────────────────────────────────────────────────────────────────────────────────────────────────

    def stand_beside(self, other: Supervisor) -> None:
        """Be the second one of two, before either starts."""
        self._beside, self._is_second = other, True
        other._beside = self

    def start(self) -> None:
        """Begin to connect."""
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._run(), name="broker")
        self._task.add_done_callback(_raise_in_loop)

    async def stop(self) -> None:
        """End; afterwards there is no connection."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        for connection in self._open:
            connection.close(End.STOPPED)
        for connection in list(self._open):
            await connection.gone()
        self.connection = None

    def replace(self) -> None:
        """Make a new connection now; the present one goes on until there is one."""
        self._replace.set()
        self._wake.set()

    def leave(self) -> None:
        """Take note that the server goes down soon.  One that says so all the time is not followed all the time."""
        if self._is_steady:
            self.replace()

    # ── the life of the connection ────────────────────────────────────────────────────────────────────────────────────

    async def _run(self) -> None:
        await self._wait(self._back_off.start_s())
        if self._is_second and self._beside is not None:
            await self._beside._has_connection.wait()
            await asyncio.sleep(self._rng.uniform(0.0, SPARE_START_S_MAX))
        while True:
            if self._is_second and self._beside is not None and self.connection is None:
                await self._beside._has_connection.wait()
            self._replace.clear()
            self._wake.clear()
            began = _now()
            connection = await self._round()
            if connection is None:
                await self._wait(self._after_failure_s(began))
                continue
            self._take_over(connection)
            await self._until_end_or_replacement(connection)
            if connection.end is not None:
                lost_s = self._back_off.lost_s(steady=self._is_steady)
                await self._wait(self._rng.uniform(0.0, SPARE_LOST_S_MAX) if self._is_spare else lost_s)

    @property
    def _is_spare(self) -> bool:
        """Whether the other one is connected, so that nothing waits for this one."""
        return self._beside is not None and self._beside.connection is not None

    def _after_failure_s(self, began: float) -> float:
        """Return how long to wait after a round that failed."""
        if self._round_refused:
            return self._back_off.refused_s()
        failed_s = self._back_off.failed_s(round_s=_now() - began)
        return self._rng.uniform(*SPARE_RETRY_S) if self._is_spare and self.connection is None else failed_s

    @property
    def _is_steady(self) -> bool:
        """Whether the present connection, or the last one, lived long enough to be no flap."""
        return _now() - self._made_at > STEADY_S

    def _take_over(self, connection: Connection) -> None:
        before, self.connection = self.connection, connection
        self._has_connection.set()
        self.trouble, self.refused = "", False
        self._made_at, self._used = _now(), connection.server
        self._folded.say("connection", f"broker: connected to {shown(connection.server)}")
        self._up(connection)
        if before is not None and before.end is None:
            before.retire(RETIRE_S)

    def _lost(self, connection: Connection) -> None:
        assert connection.end is not None
        self.connection = None
        self._has_connection.clear()
        if self._beside is not None and self._beside.connection is None:
            self._beside._wake.set()  # both are lost now
        self.refused = connection.end.is_refusal
        self.trouble = f"{shown(connection.server)}: {connection.end}"
        self._folded.say("connection", f"broker: lost {self.trouble}")

    async def _until_end_or_replacement(self, connection: Connection) -> None:
        replace = asyncio.get_running_loop().create_task(self._replace.wait())
        connection.closed.add_done_callback(lambda _: replace.cancel())
        await asyncio.wait([replace])

    async def _wait(self, seconds: float) -> None:
        """Wait, but no longer than until a new connection is wanted."""
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass

    # ── a round ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _round(self) -> Connection | None:
        """Try every server, and return the first connection; None: there is none, and trouble says why."""
        failed: dict[Server, ConnectError] = {}

        async def attempt(server: Server) -> Connection:
            failed[server] = ConnectError(End.SILENT)  # until it answers
            return await self._try(server)

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ROUND_S):
                connection = await first_connection(self._order(), attempt, failed.__setitem__)
                if connection is not None:
                    return connection
        self._see_why(failed)
        return None

    async def _try(self, server: Server) -> Connection:
        connection = await self._connect(server)
        self._open.add(connection)
        connection.closed.add_done_callback(lambda _: self._closed(connection))
        return connection

    def _closed(self, connection: Connection) -> None:
        """Take note of the end; keep a closed connection known until its socket is gone."""
        if connection is self.connection:
            self._lost(connection)
        task = asyncio.ensure_future(connection.gone())
        task.add_done_callback(lambda _: self._open.discard(connection))

    def _order(self) -> list[Server]:
        """Return the servers in a random order, the one that is or was in use last, without the other one's."""
        taken = None if self._beside is None or self._beside.connection is None else self._beside.connection.server
        order = [server for server in self._servers if server != taken]
        self._rng.shuffle(order)
        return sorted(order, key=lambda server: server == self._used)

    def _see_why(self, failed: dict[Server, ConnectError]) -> None:
        """Say in words why there is no connection: a refusal first, as it is what a person can act on."""
        refusals = {server: error for server, error in failed.items() if error.end.is_refusal}
        reached = [error for error in failed.values() if error.end not in (End.UNREACHABLE, End.SILENT)]
        self._round_refused = bool(refusals) and len(refusals) == len(reached)
        if self.connection is not None:
            return
        self.refused = self._round_refused
        told = refusals or failed
        words = [f"{shown(server)}: {told[server]}" for server in self._servers if server in told]
        before, self.trouble = self.trouble, "; ".join(words[:SHOWN_COUNT_MAX])
        if self.trouble != before:
            what = "no second connection" if self._is_spare else "not connected"
            self._folded.say("trouble", f"broker: {what}: {self.trouble}")


def _raise_in_loop(task: asyncio.Task[None]) -> None:
    """Tell the event loop of a bug of ours: an exception that ended the task."""
    if not task.cancelled() and (error := task.exception()) is not None:
        asyncio.get_running_loop().call_exception_handler({"message": "the broker's task ended", "exception": error})


def _now() -> float:
    return asyncio.get_running_loop().time()


def shown(server: Server) -> str:
    """Return a server as a person writes it."""
    host, port = server
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
