"""What the daemon answers on its socket: one method per request, wired to the running node."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Any

from conflux import __version__, report
from conflux.api import Argument, Arguments, Operation
from conflux.echo import OVERHEAD_BYTES, Echo
from conflux.errors import ConfigError, UserError
from conflux.events import Event
from conflux.feed import Feed
from conflux.ids import NodeId, format_node_id, parse_node_id
from conflux.moving import Move
from conflux.pinging import Ping
from conflux.realm.card import Card

if TYPE_CHECKING:
    from conflux.daemon import Daemon

RESOLVE_TIMEOUT_S = 5.0  # a question is repeated for 3 s before it counts as unanswered
PING_COUNT_MAX = 1_000_000

NODE = Argument(str, required=True, least=1, most=128)  # a name, a node id or an overlay address


class Operations:
    """Answers requests about one daemon."""

    def __init__(self, daemon: Daemon, feed: Feed, echo: Echo) -> None:
        self._daemon = daemon
        self._feed = feed
        self._echo = echo

    def table(self) -> Mapping[str, Operation]:
        """Return every request there is."""
        return {
            "status": Operation(call=self._status),
            "streams": Operation(call=self._streams),
            "routes": Operation(call=self._routes),
            "links": Operation(call=self._links),
            "route": Operation(call=self._route, arguments={"name": NODE}),
            "move": Operation(
                call=self._move,
                arguments={
                    "name": NODE,
                    "via": Argument(str, default="", most=512),
                    "direct": Argument(bool, default=False),
                },
            ),
            "watch": Operation(stream=lambda arguments: self._feed.watch()),
            "ping": Operation(
                stream=self._ping,
                arguments={
                    "name": NODE,
                    "count": Argument(int, default=4, least=1, most=PING_COUNT_MAX),
                    "interval": Argument(float, default=1.0, least=0.01, most=3600),
                    "size": Argument(int, default=56, least=0, most=60000),
                },
            ),
            "down": Operation(stream=self._down),
        }

    # ── looking ──

    async def _status(self, arguments: Arguments) -> object:
        daemon, pump = self._daemon, self._daemon.pump
        status = pump.node.status(now=pump.now())
        credential = daemon.membership.member.chain.credential
        channels = [
            {
                "name": channel.name,
                "up": channel.state.up,
                "detail": channel.state.detail,
                "neighbours": channel.status(),
            }
            for channel in daemon.channels
        ]
        tun = daemon.tun
        read_count, written_count = daemon.device_counts()
        warnings = daemon.membership.warnings()
        trouble = tun.trouble(daemon.setup)
        if trouble is not None:
            warnings.append(trouble)
        return {
            "version": __version__,
            "pid": os.getpid(),
            "uptime_s": round(time.monotonic() - daemon.started_at, 1),
            **status,
            "credential": {
                "not_after": daemon.membership.member.chain.not_after,
                "renew_at": credential.renew_at,
                "serial": credential.serial,
                "issuer": format_node_id(credential.issuer),
                "tags": list(credential.tags),
                "capabilities": list(credential.capabilities),
            },
            "device": {
                "name": tun.name,
                "mtu": daemon.config.tun.mtu,
                "up": trouble is None,
                "read": read_count,
                "written": written_count,
            },
            "control": channels,
            "sockets": daemon.carrier.socket_count(),
            "tasks": pump.task_names(),
            "streams": report.streams(status, pump.node.plane),
            "links": self._link_rows(status),
            "relaying": self._relaying(),
            "relays": report.relays(status, pump.node.plane, now=pump.now()),
            "drops": self._drops(status["drops"]),
            "memory": report.memory(),
            "warnings": warnings,
        }

    def _drops(self, node_drops: Mapping[str, int]) -> Mapping[str, int]:
        daemon = self._daemon
        channels: Counter[str] = Counter()
        for channel in daemon.channels:
            channels.update(channel.drops)
        api = {"api-refused": daemon.api.refused_count} if daemon.api.refused_count else {}
        return report.merge_drops(
            node_drops, daemon.pump.drops, daemon.carrier.drop_counts, daemon.tun.drops, channels, api
        )

    async def _streams(self, arguments: Arguments) -> object:
        node = self._daemon.pump.node
        return {"streams": report.streams(node.status(now=self._daemon.pump.now()), node.plane)}

    async def _routes(self, arguments: Arguments) -> object:
        pump = self._daemon.pump
        return report.routes(pump.node.status(now=pump.now()), pump.node.plane, now=pump.now())

    async def _route(self, arguments: Arguments) -> object:
        pump, node = self._daemon.pump, self._daemon.pump.node
        card = await self._other(arguments["name"])
        candidates = node.search.explain(card.node_id, now=pump.now())
        return report.route(card, node.status(now=pump.now()), candidates, node.plane)

    async def _links(self, arguments: Arguments) -> object:
        return {"links": self._link_rows(self._daemon.pump.node.status(now=self._daemon.pump.now()))}

    def _link_rows(self, status: Mapping[str, Any]) -> list[report.Row]:
        pump = self._daemon.pump
        return report.links(status, pump.node.plane, self._daemon.carrier.measured, now=pump.now())

    def _relaying(self) -> str:
        """Say whether this node passes frames of others on, and if not, who does not want it."""
        if self._daemon.relaying:
            return "on"
        return "not-allowed" if self._daemon.config.relay.enabled else "off"

    # ── acting ──

    async def _move(self, arguments: Arguments) -> object:
        if arguments["direct"] and arguments["via"]:
            raise UserError("move: either via or direct")
        node = self._daemon.pump.node
        card = await self._other(arguments["name"])
        words = [word.strip().lower() for word in arguments["via"].split(",")] if arguments["via"] else []
        via = tuple(self._relay(word) for word in words) if words or arguments["direct"] else None
        return await Move(self._daemon.pump, node, card).run(via)

    def _relay(self, word: str) -> NodeId:
        """Return the node a person names as a relay.  Raises UserError if no such node is known here.

        Nobody is asked who it is, as for a destination: a far relay would learn from that who is about to use it.
        """
        member, plane = self._daemon.pump.node.member, self._daemon.pump.node.plane
        if word in {member.name, *map(str, member.addresses)}:
            return member.node_id
        try:
            return parse_node_id(word)
        except ConfigError:
            pass
        try:
            card = plane.card_by_address(ip_address(word))
        except ValueError:
            card = plane.card_by_name(word)
        if card is not None:
            return card.node_id
        for channel in self._daemon.channels:
            for neighbour in channel.status():
                if neighbour["name"] == word:
                    return parse_node_id(neighbour["node"])
        raise UserError(f"no relay {word!r} is known here: name a neighbour, or a far relay by its node id")

    async def _down(self, arguments: Arguments) -> AsyncIterator[object]:
        """Never answers: the connection ends when the daemon does."""
        self._daemon.stop()
        await asyncio.Event().wait()
        yield None

    async def _ping(self, arguments: Arguments) -> AsyncIterator[object]:
        pump, size = self._daemon.pump, arguments["size"]
        if size + OVERHEAD_BYTES > self._daemon.config.tun.mtu:
            raise UserError(f"{size} bytes do not fit the MTU: at most {self._daemon.config.tun.mtu - OVERHEAD_BYTES}")
        began = time.monotonic()
        card = await self._other(arguments["name"])
        member = pump.node.member
        source = next(each for each in member.addresses if isinstance(each, IPv6Address))
        destination = next(each for each in card.addresses if isinstance(each, IPv6Address))
        yield {
            "to": card.name,
            "node": format_node_id(card.node_id),
            "address": str(destination),
            "resolve_ms": round((time.monotonic() - began) * 1000, 3),
        }
        ping = Ping(pump.packet, self._echo, source, destination, arguments["count"], arguments["interval"], size)
        with pump.listening(lambda event: ping.note(event, card)):
            async with aclosing(ping.items()) as items:
                async for item in items:
                    yield item

    async def _other(self, target: str) -> Card:
        """Return the card of the node a person names, which is not this one.  Raises UserError."""
        member = self._daemon.pump.node.member
        if target.lower() in {member.name, format_node_id(member.node_id), *map(str, member.addresses)}:
            raise UserError(f"{target} is this node itself")
        return await self._resolve(target)

    async def _resolve(self, target: str) -> Card:
        """Return the card of the node a person names.  Raises UserError if nobody answers to that."""
        pump = self._daemon.pump
        answered = asyncio.Event()

        def note(event: Event) -> None:
            if event.kind in ("found", "not-found") and event.name == target:
                answered.set()

        with self._daemon.pump.listening(note):
            card: Card | None = pump.command(pump.node.resolve, target)
            if card is None:
                try:
                    async with asyncio.timeout(RESOLVE_TIMEOUT_S):
                        await answered.wait()
                except TimeoutError:
                    pass
                card = pump.command(pump.node.resolve, target)
        if card is None:
            raise UserError(f"no node of this realm answers to {target!r}: is it running, and is the name right?")
        return card
