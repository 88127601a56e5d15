"""One `conflux route move`: asks the node for another path under a stream, and waits for what becomes of it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from conflux.errors import UserError
from conflux.events import Event
from conflux.ids import NodeId, format_node_id
from conflux.node import Node
from conflux.pump import Pump
from conflux.realm.card import Card

MOVE_TIMEOUT_S = 8.0  # a dial and a route through three relays; a relay gives its next hop 5 s

# What a path may fail for, as far as a person would not guess it from the word.
REASONS = {
    "no-relay": "a node on it does not relay: it is switched off there, or its credential does not allow it",
    "no-key": "the key of a relay on it is not known here: it is no neighbour, and the destination has not named it",
    "unknown-relay": "no node of this realm answers to that id",
    "unknown-next": "a relay on it does not know the next one",
    "unreachable": "a relay on it cannot reach the next one",
    "dial: timeout": "no link to its first hop can be opened",
    "timeout": "no answer came",
    "busy": "a relay on it carries all it can",
    "loop": "it comes by a node twice",
}


class Move:
    """A stream of ours on its way to another path."""

    def __init__(self, pump: Pump, node: Node, card: Card) -> None:
        self._pump = pump
        self._node = node
        self._card = card
        self._events: asyncio.Queue[Event] = asyncio.Queue()  # those of one destination, for a few seconds

    async def run(self, via: tuple[NodeId, ...] | None) -> dict[str, Any]:
        """Move the stream through via, directly if that is empty, or as the search likes best; say what it cost.

        Raises UserError if there is nothing to move or to move to, or if the path is not to be had.
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
            if self._names((*via, destination)) == before:
                raise UserError(f"the stream to {name} goes {way(before)} already")
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
                wanted = _path(self._names(hops))
                raise UserError(
                    f"{name}: no {wanted} after {MOVE_TIMEOUT_S:g} s; meanwhile packets go {way(before)}"
                ) from None
            took_s = time.monotonic() - began
        return {
            "name": name,
            "node": format_node_id(destination),
            "before": before,
            "after": self._names(hops),
            "took_ms": round(took_s * 1000, 3),
        }

    def _best_measured(self, before: list[str]) -> tuple[NodeId, ...] | None:
        """Return the relays of the best path that is known to work and is not the one before; None if there is none.

        The search puts the direct path first, reachable or not; a person who waits is better off with one that is.
        """
        search, node, now = self._node.search, self._card.node_id, self._pump.now()
        measured = [row["hops"] for row in search.explain(node, now=now) if row["rtt_ms"] is not None]
        for path in search.paths(node, now=now):
            if [format_node_id(hop) for hop in path.hops] in measured and self._names(path.hops) != before:
                return path.relays
        return None

    def _note(self, event: Event) -> None:
        if event.node == self._card.node_id:
            self._events.put_nowait(event)

    async def _moved(self, hops: tuple[NodeId, ...]) -> None:
        """Wait until the stream is on the path.  Other paths may be tried, fail and even carry it meanwhile."""
        while True:
            event = await self._events.get()
            words = way(self._names(hops))  # a neighbour's card may come while we wait
            path, _, reason = event.text.partition(": ")
            if event.kind == "moved" and event.text == words:
                return
            if event.kind == "failed" and path == words:
                wanted = _path(self._names(hops))
                raise UserError(f"{self._card.name}: no {wanted}: {REASONS.get(reason, reason)}")
            if event.kind in ("idle", "unreachable"):
                raise UserError(f"the stream to {self._card.name} ended meanwhile")

    def _path(self) -> list[str] | None:
        """Return the hops that carry the stream now, by name; None if it does not flow."""
        rows = self._node.status(now=self._pump.now())["destinations"]
        shown = format_node_id(self._card.node_id)
        return next((row["path"] for row in rows if row["node"] == shown), None)

    def _names(self, hops: tuple[NodeId, ...]) -> list[str]:
        cards = [(hop, self._node.plane.card(hop)) for hop in hops]
        return [format_node_id(hop) if card is None else card.name for hop, card in cards]


def way(hops: list[str]) -> str:
    """Return a path in the words of the events."""
    return "via " + ", ".join(hops[:-1]) if len(hops) > 1 else "direct"


def _path(hops: list[str]) -> str:
    return f"path {way(hops)}" if len(hops) > 1 else "direct path"
