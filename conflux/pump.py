"""The pump: carries every input to the node and everything that comes out of it to where it belongs.

    control ─arrival─►     ──transmit──► control channels
    carrier ──event──► node ──command──► carrier
    timer ───────────►     ──event────► log and watchers
    mover ─packets, frames, upcalls─► node's datapath ─► mover: shuttle.py in Python, or the engine

Whatever comes in during one turn of the loop is followed by one draining of the outputs at its end, so that a batch of
packets is bundled and one timer is set.  An exception in here is a bug of ours, never a peer's doing: it is handed to
fail(), which ends the daemon.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from typing import Any, Protocol

from conflux.carrier.interface import CarrierEvent, Command
from conflux.control.channel import Arrival, ControlChannel, Handoff
from conflux.control.event import Message, Transmit
from conflux.events import Event
from conflux.feed import Feed
from conflux.ids import LinkId, NodeId, format_node_id
from conflux.log import LOGGER
from conflux.node import Node

TIMER_S_MIN = 0.001  # a timer that is due is not polled faster: loops keep time in milliseconds
TRANSMIT_COUNT_MAX = 512  # envelopes being handed to engines at once; an engine that hangs must not fill memory

FAREWELL_S = 0.1  # chosen: a few round trips of a LAN; a farewell that is lost costs the far side its idle timeout

# Of several engines, the best result counts: one that took the envelope is enough.
_HANDOFF_RANK = {Handoff.ACCEPTED: 0, Handoff.ABSENT: 1, Handoff.REFUSED: 2, Handoff.DOWN: 3}


class Carrier(Protocol):
    """What the pump needs of a carrier."""

    def perform(self, command: Command) -> None:
        """Start what the command asks for; its outcome arrives as events."""


class Mover(Protocol):
    """Who moves frames and packets: shuttle.py in Python, or the engine."""

    def drain(self, wanted: tuple[NodeId, ...], *, now: float) -> None:
        """See to everything that may go now.  wanted: the destinations that have a queue."""

    def task_names(self) -> list[str]:
        """Return the names of the tasks that run for destinations."""

    async def close(self) -> None:
        """Stop moving."""


class Pump:
    """Runs one node."""

    def __init__(
        self,
        node: Node,
        *,
        feed: Feed,
        fail: Callable[[BaseException], None],
    ) -> None:
        self.node = node
        self.drops: Counter[str] = Counter()
        self.on_message: Callable[[Message], None] = lambda message: None
        self._carrier: Carrier
        self._mover: Mover
        self._channels: Sequence[ControlChannel] = ()
        self._feed = feed
        self._fail = fail
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._drain_due = False
        self._transmits: set[asyncio.Task[None]] = set()
        self._listeners: list[Callable[[Event], None]] = []
        self._running = True

    def attach(self, carrier: Carrier, mover: Mover, channels: Sequence[ControlChannel]) -> None:
        """Name what the node sends with.  Comes first: they are made with our inputs for their callbacks."""
        self._carrier = carrier
        self._mover = mover
        self._channels = channels

    @staticmethod
    def now() -> float:
        """Return the node's time: monotonic seconds.  The loop's own is too coarse to measure round trips with."""
        return time.monotonic()

    # ── inputs ──

    def packet(self, packet: bytes) -> None:
        """Take one IP packet of this host."""
        self._input(self.node.packet, packet)

    def frame(self, link: LinkId, data: bytes, channel: int) -> None:
        """Take one data-channel message of a tether; channel: the index of the channel it came on."""
        self._input(self.node.frame, link, data, channel)

    def upcalls(self) -> None:
        """Take note that a datapath with a thread of its own has something to say."""
        self._input(self.node.upcalls)

    def carrier_event(self, event: CarrierEvent) -> None:
        """Take one event of the carrier."""
        self._input(self.node.carrier_event, event)

    def arrival(self, arrival: Arrival) -> None:
        """Take one envelope of a control channel."""
        self._input(self.node.receive, arrival)

    def channel_changed(self, node: NodeId, up: bool) -> None:
        """Take note that a control channel gained or lost a neighbour."""
        self._input(self.node.channel_changed, node, up)

    def bridge_changed(self, node: NodeId, joins: bool) -> None:
        """Take note that a neighbour joins LANs, or does so no more."""
        self._input(self.node.bridge_changed, node, joins)

    def command(self, method: Callable[..., Any], *arguments: object) -> Any:
        """Call a method of the node that takes now=, and see to what comes of it."""
        result = method(*arguments, now=self.now())
        self.touch()
        return result

    def _input(self, method: Callable[..., None], *arguments: object) -> None:
        if not self._running:
            return
        try:
            method(*arguments, now=time.monotonic())
        except Exception as error:  # noqa: BLE001  # the callers are libraries that would swallow it
            self._fail(error)
            return
        if not self._drain_due:
            self.touch()

    def touch(self) -> None:
        """Drain the node's outputs at the end of this turn of the loop."""
        if not self._drain_due and self._running:
            self._drain_due = True
            self._loop.call_soon(self._drain)

    # ── outputs ──

    def _drain(self) -> None:
        self._drain_due = False
        if not self._running:
            return
        try:
            self._drain_outputs()
        except Exception as error:  # noqa: BLE001  # the loop would log it and go on with half of it done
            self._fail(error)

    def _drain_outputs(self) -> None:
        node = self.node
        now = time.monotonic()
        while (command := node.next_command()) is not None:
            self._carrier.perform(command)
        while (transmit := node.next_transmit()) is not None:
            self._transmit(transmit)
        while (event := node.next_event()) is not None:
            self._publish(event)
        while (message := node.next_message()) is not None:
            self.on_message(message)
        self._mover.drain(node.destinations(), now=now)
        self._set_timer(now)

    def _set_timer(self, now: float) -> None:
        wake_at = self.node.next_timeout()
        if wake_at is None:
            return  # a timer that fires for nothing is cheaper than cancelling it
        wake_at = max(wake_at, now + TIMER_S_MIN)
        if self._timer is not None:
            if self._timer_at <= wake_at:
                return  # fires early, finds nothing due, and is set again
            self._timer.cancel()
        self._timer_at = wake_at
        self._timer = self._loop.call_later(wake_at - now, self._timeout)

    def _timeout(self) -> None:
        self._timer = None
        if not self._running:
            return
        now = time.monotonic()
        try:
            wake_at = self.node.next_timeout()
            if wake_at is not None and wake_at <= now:
                self.node.handle_timeout(now=now)
        except Exception as error:  # noqa: BLE001  # the loop would log it and go on with half of it done
            self._fail(error)
            return
        self.touch()

    def _publish(self, event: Event) -> None:
        what: dict[str, object] = {"event": event.kind, "at": time.time(), "name": event.name, "text": event.text}
        what["node"] = None if event.node is None else format_node_id(event.node)
        what["took_s"] = None if event.took_s is None else round(event.took_s, 6)
        self._feed.publish(what)
        took = "" if event.took_s is None else f" ({event.took_s * 1000:.1f} ms)"
        LOGGER.info("%-11s  %s%s%s", event.kind, event.name, f" {event.text}" if event.text else "", took)

        for listener in self._listeners:
            listener(event)

    @contextlib.contextmanager
    def listening(self, listener: Callable[[Event], None]) -> Iterator[None]:
        """Call listener with every event while the context lasts."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    # ── control channels ──

    def _transmit(self, transmit: Transmit) -> None:
        if len(self._transmits) >= TRANSMIT_COUNT_MAX:
            self.drops["control-busy"] += 1
            self._loop.call_soon(self._handed_off, transmit.token, Handoff.REFUSED)
            return
        task = self._loop.create_task(self._hand_over(transmit), name="transmit")
        self._transmits.add(task)
        task.add_done_callback(self._transmits.discard)
        task.add_done_callback(self._watch)

    async def _hand_over(self, transmit: Transmit) -> None:
        results = [await self._offer(channel, transmit) for channel in self._channels]
        best = min(results, key=lambda result: _HANDOFF_RANK[result], default=Handoff.DOWN)
        self._handed_off(transmit.token, best)

    @staticmethod
    def _offer(channel: ControlChannel, transmit: Transmit) -> Awaitable[Handoff]:
        if transmit.to is None:
            return channel.announce(transmit.envelope)
        return channel.send(transmit.to, transmit.envelope)

    def _handed_off(self, token: int, result: Handoff) -> None:
        self._input(self.node.handoff, token, result)

    # ── tasks ──

    def task_names(self) -> list[str]:
        """Return the names of the tasks that run, one per destination whose packets move in Python."""
        return self._mover.task_names()

    def start(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run a coroutine whose failure is the daemon's."""
        task = self._loop.create_task(coroutine, name=name)
        task.add_done_callback(self._watch)
        return task

    def _watch(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    # ── the end ──

    async def close(self) -> None:
        """End every stream and let the farewells out; afterwards the node hears and says nothing more."""
        if self.node.destinations():
            self.command(self.node.close_all)
            await asyncio.sleep(FAREWELL_S)
        self._running = False
        if self._timer is not None:
            self._timer.cancel()
        for task in self._transmits:
            task.cancel()
        await asyncio.gather(*self._transmits, return_exceptions=True)
        await self._mover.close()
