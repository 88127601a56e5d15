"""What the daemon answers on its socket: one method per request."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from ipaddress import ip_address

from conflux import __version__
from conflux.api import nodes, rows
from conflux.api.echo import OVERHEAD_BYTES, Echo
from conflux.api.move import Move, Moved
from conflux.api.ping import REPLY_TIMEOUT_S, REPLY_TIMEOUT_S_MAX, Ping, PingTarget
from conflux.api.server import REQUEST_BYTES_MAX, Argument, Arguments, Operation
from conflux.api.usage import BudgetRow, Usage
from conflux.api.why import Explainer, Verdict, Why
from conflux.control.channel import ControlChannel
from conflux.control.who import Who
from conflux.errors import ConfigError, RemoteProtocolError, UserError, words_of
from conflux.host.memory import memory
from conflux.host.netlink import DeviceConfig
from conflux.host.tun import Tun
from conflux.ids import IPAddress, NodeId, fold_name, format_node_id, parse_node_id
from conflux.node.event import Event, EventKind
from conflux.node.naming import who_of
from conflux.node.relaying import NO_IPV6
from conflux.node.status import NodeStatus
from conflux.realm.card import Card
from conflux.realm.dates import span
from conflux.realm.lists import REASON_CHARS_MAX
from conflux.shell.feed import Feed
from conflux.shell.pump import Pump
from conflux.state.revoking import Revoked

RESOLVE_TIMEOUT_S = 5.0  # a question is repeated for 3 s before it counts as unanswered
PING_COUNT_MAX = 1_000_000

NODE = Argument(str, required=True, least=1, most=128)  # a name, a node id or an overlay address


@dataclass(frozen=True, slots=True, kw_only=True)
class Operations:
    """Answers requests about one running node."""

    pump: Pump
    channels: Sequence[ControlChannel]
    tun: Tun
    device: DeviceConfig
    relaying: Callable[[], rows.Relaying]
    warnings: Callable[[], list[str]]  # what a person should know: of the host, and of the credential's dates
    hand_over: Callable[[NodeId], Awaitable[bool]]  # a changed credential to its member; whether it uses it now
    find_issued: Callable[[str], NodeId | None]  # a node on this issuer's record; UserError if this node is none
    revoke: Callable[[NodeId, str], Revoked]  # as this issuer, or as the root
    look_at_broker: Callable[[], None]  # what `conflux control` left in the state directory
    look_at_policy: Callable[[], None]  # what `conflux policy publish` left there
    reload: Callable[[str], rows.Reloaded]  # take a configuration
    usage: Callable[[], Usage]  # how many bytes passed
    budget: Callable[[], BudgetRow]
    leave: Callable[[], Awaitable[bool]]  # tells the issuer that this node leaves; whether it knows
    feed: Feed
    echo: Echo
    api_drops: Mapping[str, int]  # requests that were refused
    stop: Callable[[], None]  # ends the daemon
    started_at: float  # monotonic seconds

    def table(self) -> Mapping[str, Operation]:
        """Return every request there is."""
        return {
            "status": Operation(call=self._status, looks=True),
            "nodes": Operation(call=self._nodes, looks=True),
            "address": Operation(
                call=self._address, arguments={"name": Argument(str, default="", most=128)}, looks=True
            ),
            "streams": Operation(call=self._streams, looks=True),
            "paths": Operation(call=self._paths, looks=True),
            "links": Operation(call=self._links, looks=True),
            "route": Operation(call=self._route, arguments={"name": NODE}, looks=True),
            "usage": Operation(call=self._usage, looks=True),
            "why": Operation(
                call=self._why, arguments={"name": NODE, "flow": Argument(str, default="", most=32)}, looks=True
            ),
            "move": Operation(
                call=self._move,
                arguments={
                    "name": NODE,
                    "via": Argument(str, default="", most=512),
                    "direct": Argument(bool, default=False),
                },
            ),
            "hand-over": Operation(call=self._hand_over, arguments={"node": NODE}),
            "revoke": Operation(
                call=self._revoke,
                arguments={"name": NODE, "reason": Argument(str, required=True, least=1, most=REASON_CHARS_MAX)},
            ),
            "look-at-broker": Operation(call=self._look_at_broker),
            "look-at-policy": Operation(call=self._look_at_policy),
            "leave": Operation(call=self._leave),
            "reload": Operation(
                call=self._reload, arguments={"text": Argument(str, required=True, most=REQUEST_BYTES_MAX)}
            ),
            "watch": Operation(stream=lambda arguments: self.feed.watch(), looks=True),
            "ping": Operation(
                looks=True,  # any user of this host may send packets by the device
                stream=self._ping,
                arguments={
                    "name": NODE,
                    "count": Argument(int, default=4, least=0, most=PING_COUNT_MAX),  # 0: without end
                    "interval": Argument(float, default=1.0, least=0.01, most=3600),
                    "size": Argument(int, default=56, least=0, most=60000),
                    "timeout": Argument(float, default=REPLY_TIMEOUT_S, least=0.01, most=REPLY_TIMEOUT_S_MAX),
                    "family": Argument(int, default=0, least=0, most=6),  # 4, 6; 0: IPv6 rather
                },
            ),
            "down": Operation(stream=self._down),
        }

    # ── looking ──

    def _trouble(self) -> str | None:
        try:
            return self.tun.trouble(self.device)
        except OSError as error:  # no descriptor left
            return f"cannot look at {self.device.device}: {words_of(error)}"

    async def _status(self, arguments: Arguments) -> rows.Status:
        pump, node = self.pump, self.pump.node
        status = node.status(now=pump.now())
        counts = pump.mover.device_counts()
        trouble = self._trouble()
        warnings = self.warnings() if trouble is None else [*self.warnings(), trouble]
        return rows.Status(
            version=__version__,
            pid=os.getpid(),
            uptime_s=round(time.monotonic() - self.started_at, 1),
            nodes=self._peers(status),
            node=rows.NodeRow(format_node_id(status.node), status.name, tuple(map(str, status.addresses))),
            realm=rows.RealmRow(status.realm_name, format_node_id(status.realm)),
            credential=rows.credential(node.member),
            device=rows.DeviceRow(self.device.device, self.device.mtu, trouble is None, counts.read, counts.written),
            control=tuple(
                rows.ChannelRow(channel.name, channel.state.up, channel.state.detail, channel.status())
                for channel in self.channels
            ),
            relaying=self.relaying(),
            policy_number=node.policing.enforced.number,
            memory=memory(),
            budget=self.budget(),
            warnings=tuple(warnings),
            sockets=pump.mover.carrier.socket_count(),
            tasks=tuple(pump.task_names()),
            streams=rows.streams(status, node.name_of),
            links=self._link_rows(status),
            routes=rows.paths(status, node.name_of, now=pump.now()).routes,
            relays=rows.relays(status, node.name_of, now=pump.now()),
            destinations=rows.destinations(status, node.name_of),
            datapath=rows.datapath(status.datapath),
            plane=status.plane,
            drops=self._drops(status.drops),
        )

    def _peers(self, status: NodeStatus) -> tuple[nodes.PeerRow, ...]:
        plane = self.pump.node.plane

        def owner(name: str) -> NodeId | None:
            card = plane.card_by_name(name)
            return None if card is None else card.node_id

        return nodes.nodes(
            status,
            [each for channel in self.channels for each in channel.status()],
            [each for channel in self.channels for each in channel.departed()],
            broker_up=any(channel.far and channel.state.up for channel in self.channels),
            owner_of=owner,
            clock=nodes.Clock(self.pump.now(), time.time()),
        )

    async def _nodes(self, arguments: Arguments) -> nodes.Nodes:
        status = self.pump.node.status(now=self.pump.now())
        return nodes.Nodes(nodes.address_row(status.name, status.node, status.addresses), self._peers(status))

    async def _address(self, arguments: Arguments) -> nodes.AddressRow:
        target, node = fold_name(arguments["name"]), self.pump.node
        member = node.member
        if target in {"", member.name, format_node_id(member.node_id), *map(str, member.addresses)}:
            return nodes.address_row(member.name, member.node_id, node.own)
        for each in self._peers(node.status(now=self.pump.now())):
            if target in {each.node, each.name if each.named else None}:
                return nodes.AddressRow(each.name, each.node, each.ipv6, each.ipv4)
        card = await self._resolve(target)
        own = [each for each in card.addresses if not (each.version == 6 and NO_IPV6 in card.features)]
        return nodes.address_row(card.name, card.node_id, own)

    def _drops(self, node_drops: Mapping[str, int]) -> Mapping[str, int]:
        channels: Counter[str] = Counter()
        for channel in self.channels:
            channels.update(channel.drops)
        pump = self.pump
        return rows.merge_drops(
            node_drops, pump.drops, pump.mover.carrier.drop_counts, self.tun.drops, channels, self.api_drops
        )

    async def _streams(self, arguments: Arguments) -> rows.Streams:
        node = self.pump.node
        return rows.Streams(rows.streams(node.status(now=self.pump.now()), node.name_of))

    async def _paths(self, arguments: Arguments) -> rows.Paths:
        pump = self.pump
        return rows.paths(pump.node.status(now=pump.now()), pump.node.name_of, now=pump.now())

    async def _route(self, arguments: Arguments) -> rows.Explained:
        pump, node = self.pump, self.pump.node
        card = await self._other(arguments["name"])
        candidates = node.search.explain(card.node_id, now=pump.now())
        return rows.route(card, node.status(now=pump.now()), candidates, node.name_of)

    async def _links(self, arguments: Arguments) -> rows.Links:
        return rows.Links(self._link_rows(self.pump.node.status(now=self.pump.now())))

    def _link_rows(self, status: NodeStatus) -> tuple[rows.LinkRow, ...]:
        pump = self.pump
        return rows.links(status, pump.node.name_of, pump.mover.carrier.measured, now=pump.now())

    async def _usage(self, arguments: Arguments) -> Usage:
        return self.usage()

    async def _why(self, arguments: Arguments) -> Why:
        target = arguments["name"]
        self._require_other(target)
        card = await self._ask(target)
        return self._unknown(target) if card is None else self._explainer().known(target, card, arguments["flow"])

    def _explainer(self) -> Explainer:
        return Explainer(self.pump.node, self.channels, self.pump.now())

    def _unknown(self, target: str) -> Why:
        """Explain why there is no card for a person's word."""
        asked, node = who_of(target), None
        if asked.node is not None:
            node = asked.node
        elif asked.name is not None:
            try:
                node = self.find_issued(asked.name)
            except UserError:  # this node issues nothing
                node = None
        return self._explainer().unknown(target, asked, node)

    # ── acting ──

    async def _move(self, arguments: Arguments) -> Moved:
        if arguments["direct"] and arguments["via"]:
            raise UserError("move: either via or direct")
        node = self.pump.node
        card = await self._other(arguments["name"])
        words = [fold_name(word) for word in arguments["via"].split(",")] if arguments["via"] else []
        via = tuple(self._relay(word) for word in words) if words or arguments["direct"] else None
        return await Move(self.pump, node, card).run(via)

    async def _hand_over(self, arguments: Arguments) -> rows.HandedOver:
        try:
            return rows.HandedOver(await self.hand_over(parse_node_id(arguments["node"])), "")
        except RemoteProtocolError as error:
            return rows.HandedOver(False, error.reason)

    async def _leave(self, arguments: Arguments) -> rows.Left:
        return rows.Left(await self.leave())

    async def _reload(self, arguments: Arguments) -> rows.Reloaded:
        return self.reload(arguments["text"])

    def _relay(self, word: str) -> NodeId:
        """Return the relay that a person names.  Raises UserError if no such node is known here.

        Unlike for a destination, no question is sent: a far relay would learn from it which node is about to use it.
        """
        member, plane = self.pump.node.member, self.pump.node.plane
        if word in {member.name, *map(str, member.addresses)}:
            return member.node_id
        try:
            return parse_node_id(word)
        except ConfigError:
            pass
        try:
            card = plane.card_of(Who(address=ip_address(word)))
        except ValueError:
            card = plane.card_by_name(word)
        if card is not None:
            return card.node_id
        for channel in self.channels:
            for neighbour in channel.status():
                if neighbour.name == word:
                    return parse_node_id(neighbour.node)
        raise UserError(f"no relay {word!r} is known here: name a neighbour, or a far relay by its node id")

    async def _look_at_broker(self, arguments: Arguments) -> bool:
        """Have the realm told of its broker."""
        self.look_at_broker()
        return True

    async def _look_at_policy(self, arguments: Arguments) -> bool:
        """Have the realm hear of the policy on the disk."""
        self.look_at_policy()
        return True

    async def _revoke(self, arguments: Arguments) -> rows.RevokedRow:
        target = arguments["name"]
        node = self.find_issued(fold_name(target))
        if node is None:
            node = (await self._resolve(target)).node_id
        name = self.pump.node.name_of(node)  # its card is forgotten when it is revoked
        done = self.revoke(node, arguments["reason"])
        return rows.RevokedRow(format_node_id(node), done.name or name, done.cancelled)

    async def _down(self, arguments: Arguments) -> AsyncIterator[object]:
        """Stop the daemon.  There is no answer: the connection ends when the daemon does."""
        self.stop()
        await asyncio.Event().wait()
        yield None

    async def _ping(self, arguments: Arguments) -> AsyncIterator[object]:
        pump, size = self.pump, arguments["size"]
        if size + OVERHEAD_BYTES > self.device.mtu:
            raise UserError(f"{size} bytes do not fit the MTU: at most {self.device.mtu - OVERHEAD_BYTES}")
        began = time.monotonic()
        card = await self._other(arguments["name"])
        source, destination = _ends(pump.node.own, card, arguments["family"])
        resolve_ms = round((time.monotonic() - began) * 1000, 3)
        yield PingTarget(card.name, format_node_id(card.node_id), str(destination), resolve_ms)
        ping = Ping(
            pump.packet,
            self.echo,
            source,
            destination,
            arguments["count"],
            arguments["interval"],
            size,
            timeout_s=arguments["timeout"],
            way=lambda: pump.node.path(card.node_id),
            name_of=pump.node.name_of,
        )
        with pump.listening(lambda event: ping.note(event, card)):
            async with aclosing(ping.items()) as items:
                async for item in items:
                    yield item

    async def _other(self, target: str) -> Card:
        """Return the card of the node that a person names.  Raises UserError if it is this node, or unknown."""
        self._require_other(target)
        return await self._resolve(target)

    def _require_other(self, target: str) -> None:
        member = self.pump.node.member
        if fold_name(target) in {member.name, format_node_id(member.node_id), *map(str, member.addresses)}:
            raise UserError(f"{target} is this node itself")

    async def _resolve(self, target: str) -> Card:
        """Return the card of the node that a person names.  Raises UserError, which says why, if there is none."""
        card = await self._ask(target)
        if card is None:
            raise UserError(_no_card(self._unknown(target)))
        return card

    async def _ask(self, target: str) -> Card | None:
        """Return the card of the node that a person names; None if no node answers to it."""
        pump, asked = self.pump, who_of(target)
        answered = asyncio.Event()

        def note(event: Event) -> None:
            if event.kind in (EventKind.FOUND, EventKind.NOT_FOUND) and event.asked == asked:
                answered.set()

        with self.pump.listening(note):
            card: Card | None = pump.command(pump.node.resolve, target)
            if card is None:
                try:
                    async with asyncio.timeout(RESOLVE_TIMEOUT_S):
                        await answered.wait()
                except TimeoutError:
                    pass
                card = pump.command(pump.node.resolve, target)
        return card


def _no_card(why: Why) -> str:
    """Return why no node answers to a word, and what a person can do."""
    name = why.name or why.asked
    at = why.expires_at if why.revoked_at is None else why.revoked_at
    ago = "" if at is None else f"{span(max(0, int(why.realm_at - at)))} ago"
    match why.verdict:
        case Verdict.EXPIRED:
            return f"{name}: its credential ended {ago}: start it near the node that let it in"
        case Verdict.REVOKED:
            return f"{name} was revoked {ago}" + (f" ({why.because})" if why.because not in (None, "revoked") else "")
        case Verdict.OWN_EXPIRED:
            return f"this node's own credential ended {ago}, so no other node answers it: see `conflux status`"
        case Verdict.OWN_REVOKED:
            return "this node was revoked, so no other node answers it: see `conflux status`"
    if why.neighbours or why.broker:
        return f"no node of this realm answers to {why.asked!r}: is it running, and is the name right?"
    return (
        f"no node of this realm answers to {why.asked!r}: this node has no neighbour and no broker; "
        "see `conflux status`, control"
    )


def _ends(own: Sequence[IPAddress], card: Card, family: int) -> tuple[IPAddress, IPAddress]:
    """Return an address of ours and one of a node, of a family that both have: IPv6 rather, if family is 0.

    Raises UserError.
    """
    for source in sorted(own, key=lambda address: -address.version):
        for destination in card.addresses:
            fits = destination.version == source.version and family in (0, source.version)
            if fits and not (source.version == 6 and NO_IPV6 in card.features):
                return source, destination
    if family:
        raise UserError(f"{card.name} and this node do not both have an IPv{family} address on their devices")
    raise UserError(f"{card.name} has no address of a family that this node's device has")
