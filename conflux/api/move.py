"""One `conflux route move`: asks the node to move a stream to another path, and waits for the outcome."""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple

from conflux.errors import UserError
from conflux.ids import NodeId, format_node_id
from conflux.node import Node
from conflux.node.event import Event, EventKind, Reason
from conflux.realm.card import Card
from conflux.shell.pump import Pump
from conflux.shell.words import phrase, way

MOVE_TIMEOUT_S = 8.0  # a dial and a route through three relays; a relay gives its next hop 5 s


class Moved(NamedTuple):
    """The answer to `conflux route move NAME`.  before, after: the hops, by name."""

    name: str
    node: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    took_ms: float


class Move:
    """The move of one stream of ours to another path.  card: that of its destination."""

    def __init__(self, pump: Pump, node: Node, card: Card) -> None:
        self._pump = pump
        self._node = node
        self._card = card
        self._events: asyncio.Queue[Event] = asyncio.Queue()  # those of one destination, for a few seconds

    async def run(self, via: tuple[NodeId, ...] | None) -> Moved:
        """Move the stream, and return both paths and the time it took.

        via: the relays; empty: none, the direct path; None: those of the best path that it is not on.  Raises UserError
        if no stream flows, if no other path is known, or if the path cannot be opened.
        """
        name, destination = self._card.name, self._card.node_id
        before = self._path()
        if before is None:
            raise UserError(f"no stream flows to {name}: there is nothing to move")
        if via is not None:
            if self._node.member.node_id in via:
                raise UserError("this node itself is no relay of its own streams")
            if destination in via:
                raise UserError(f"{name} is where the stream goes: --via names the relays before it")
            if (*via, destination) == before:
                raise UserError(f"the stream to {name} goes {self._way(before)} already")
        else:
            via = self._best_measured(before)
        with self._pump.listening(self._note):
            began = time.monotonic()
            try:
                hops = self._pump.command(self._node.move, destination, via)
            except UserError as error:
                raise UserError(f"{name}: {error}") from None
            try:
                async with asyncio.timeout(MOVE_TIMEOUT_S):
                    await self._moved(hops)
            except TimeoutError:
                raise UserError(
                    f"{name}: no {self._wanted(hops)} after {MOVE_TIMEOUT_S:g} s;"
                    f" meanwhile packets go {self._way(before)}"
                ) from None
            took_s = time.monotonic() - began
        return Moved(
            name=name,
            node=format_node_id(destination),
            before=tuple(self._names(before)),
            after=tuple(self._names(hops)),
            took_ms=round(took_s * 1000, 3),
        )

    def _best_measured(self, before: tuple[NodeId, ...]) -> tuple[NodeId, ...] | None:
        """Return the relays of the best path that was measured and is not the one before; None if there is none.

        The search puts the direct path first, even if it may not be reachable; a person who waits wants one that is.
        """
        search, node, now = self._node.search, self._card.node_id, self._pump.now()
        measured = [each.hops for each in search.explain(node, now=now) if each.rtt_ms is not None]
        for path in search.paths(node, now=now):
            if path.hops in measured and path.hops != before:
                return path.relays
        return None

    def _note(self, event: Event) -> None:
        if event.node == self._card.node_id:
            self._events.put_nowait(event)

    async def _moved(self, hops: tuple[NodeId, ...]) -> None:
        """Wait until the stream is on the path.  Meanwhile other paths may be tried, fail, or carry it."""
        while True:
            event = await self._events.get()
            if event.kind is EventKind.MOVED and event.path == hops:
                return
            if event.kind is EventKind.FAILED and event.path == hops:
                raise UserError(f"{self._card.name}: no {self._wanted(hops)}: {self._explained(event.reason, hops)}")
            if event.kind in (EventKind.IDLE, EventKind.UNREACHABLE):
                raise UserError(f"the stream to {self._card.name} ended meanwhile")

    def _path(self) -> tuple[NodeId, ...] | None:
        """Return the hops that carry the stream now; None if it does not flow."""
        destinations = self._node.status(now=self._pump.now()).destinations
        return next((each.path for each in destinations if each.node == self._card.node_id), None)

    def _names(self, hops: tuple[NodeId, ...]) -> list[str]:
        return [self._node.name_of(hop) for hop in hops]

    def _way(self, hops: tuple[NodeId, ...]) -> str:
        return way(self._names(hops))

    def _wanted(self, hops: tuple[NodeId, ...]) -> str:
        return f"path {self._way(hops)}" if len(hops) > 1 else "direct path"

    def _explained(self, reason: Reason | None, hops: tuple[NodeId, ...]) -> str:
        if reason is None:
            return "no reason is known"
        who = self._node.name_of(reason.by or hops[0])
        return phrase(reason.step, reason.end.value, reason.said, who)
