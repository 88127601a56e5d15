"""Two connections to the broker, at different servers: one to talk and hear by, one for what gets no answer there.

    sender ── first copy ──► server A ══► main    inbox, area, buckets
           ── a retry ────► server B ══► spare    copies of what had no answer, for inbox and buckets

A server that hangs keeps its connections, so a node that only waits would not notice for minutes, nor would anybody
else.  A retry finds the spare at once.  If the main one ends, the spare takes its part.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

from conflux.control.nats.config import PAIR_PING_S, PING_S, Server
from conflux.control.nats.connection import Connection
from conflux.control.nats.supervisor import Supervisor


class Pair:
    """Keeps two connections; one, if only one server is known.

    connect: makes a connection to a server; raises ConnectError.  changed: main or spare is another one now, or None.
    """

    def __init__(
        self,
        servers: tuple[Server, ...],
        *,
        rng: random.Random,
        connect: Callable[[Server], Awaitable[Connection]],
        changed: Callable[[], None],
    ) -> None:
        first, second = (Supervisor(servers, rng=rng, connect=connect, up=self._made) for _ in range(2))
        self._changed = changed
        self._stretch = 1.0
        self._supervisors = (first, second) if len(servers) > 1 else (first,)
        self._lead = first
        if len(servers) > 1:
            second.stand_beside(first)

    def start(self) -> None:
        """Begin to connect."""
        for supervisor in self._supervisors:
            supervisor.start()

    async def stop(self) -> None:
        """End; afterwards there is no connection."""
        for supervisor in reversed(self._supervisors):
            await supervisor.stop()

    def replace(self) -> None:
        """Make new connections now; the present ones go on until there are some."""
        for supervisor in self._supervisors:
            supervisor.replace()

    def leave(self, server: Server) -> None:
        """Take note that a server goes down soon."""
        for supervisor in self._supervisors:
            if supervisor.connection is not None and supervisor.connection.server == server:
                supervisor.leave()

    @property
    def main(self) -> Connection | None:
        """The connection by which this node talks and hears."""
        return _up(self._lead)

    @property
    def spare(self) -> Connection | None:
        """The other one."""
        return next((_up(each) for each in self._supervisors if each is not self._lead), None)

    @property
    def best(self) -> Connection | None:
        """The connection to send by: the spare one, while the main one's server has yet to answer a ping."""
        main, spare = self.main, self.spare
        if main is None or spare is None:
            return main or spare
        return spare if main.in_doubt and not spare.in_doubt else main

    @property
    def trouble(self) -> str:
        """Why there is no connection, in words."""
        return self._supervisors[0].trouble

    @property
    def refused(self) -> bool:
        """Whether every server that answered refused."""
        return self._supervisors[0].refused

    def stretch(self, factor: float) -> None:
        """Ping so much more seldom than usual."""
        if factor != self._stretch:
            self._stretch = factor
            self._look()

    def _made(self, connection: Connection) -> None:
        connection.closed.add_done_callback(lambda _: self._look())
        self._look()

    def _look(self) -> None:
        """Have the connection lead that is up, if one is; the present one goes on if it can."""
        if self.main is None:
            self._lead = next((each for each in self._supervisors if _up(each) is not None), self._lead)
        both = [each for each in (self.main, self.spare) if each is not None]
        for connection in both:
            connection.ping_s = self._stretch * (PAIR_PING_S if len(both) > 1 else PING_S)
        self._changed()


def _up(supervisor: Supervisor) -> Connection | None:
    connection = supervisor.connection
    return connection if connection is not None and connection.up else None
