"""The pump: hands every input to the node, and every output of the node to the part that it is for.

    control ─arrival─►     ──transmit──► control channels
    carrier ──event──► node ──command──► carrier
    timer ───────────►     ──event────► log and watchers
    mover ─packets, frames, upcalls─► node's datapath ─► mover (see mover.py)

The outputs are drained once, at the end of the turn of the loop in which inputs came.  So a batch of packets is
bundled, and one timer is set.  An exception here is a bug of ours, never the fault of a peer: it is handed to fail(),
which ends the daemon.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from typing import Any

from conflux.carrier.interface import CarrierEvent
from conflux.control.channel import Arrival, ChannelInputs, ControlChannel
from conflux.control.choice import hand_over
from conflux.control.crossing import Crossing, may_cross
from conflux.control.event import Learnt, Message, Transmit
from conflux.ids import LinkId, NodeId
from conflux.node import Node
from conflux.node.event import Event
from conflux.realm.member import Member
from conflux.shell.feed import Feed, event_row
from conflux.shell.mover import Mover
from conflux.shell.telling import Telling

log = logging.getLogger(__name__)

TIMER_S_MIN = 0.001  # a shorter timer would fire too early and be set again: loops keep time in milliseconds

FAREWELL_S = 0.1  # chosen: a few round trips of a LAN; if a farewell is lost, the peer waits for its idle timeout


class Pump:
    """Runs one node.

    connect: makes the mover, whose callbacks are the pump's inputs; it may not call them before it has returned.
    channels: the nearest first; others may come and go later, see add() and remove().
    fail: told of an exception that is a bug of ours.  on_message: takes the control messages that are not the node's.
    """

    def __init__(
        self,
        node: Node,
        *,
        connect: Callable[[Pump], Mover],
        channels: list[ControlChannel],
        feed: Feed,
        fail: Callable[[BaseException], None],
        on_message: Callable[[Message], None] = lambda message: None,
    ) -> None:
        self.node = node
        self.channels = channels
        self.drops: Counter[str] = Counter()
        self._on_message = on_message
        self._feed = feed
        self._telling = Telling()
        self._fail = fail
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._drain_due = False
        self._listeners: list[Callable[[Event], None]] = []
        self._crossing = self._make_crossing()
        self._running = True
        self.mover = connect(self)

    @staticmethod
    def now() -> float:
        """Return the node's time, in monotonic seconds.  The loop's own time is too coarse to measure round trips."""
        return time.monotonic()

    # ── inputs ──

    def packet(self, packet: bytes) -> None:
        """Take one IP packet of this host."""
        self._input(self.node.packet, packet)

    def frame(self, link: LinkId, data: bytes, channel: int) -> None:
        """Take one data-channel message of a tether; channel: the index of the channel it came on."""
        self._input(self.node.frame, link, data, channel)

    def upcalls(self) -> None:
        """Have the node collect the upcalls of a datapath that has a thread of its own."""
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
        self._look()

    def neighbour_says(self, node: NodeId, features: frozenset[str], knows: bytes) -> None:
        """Take note of what a neighbour's build can do, and of what it has of ours."""
        self._input(self.node.neighbour_says, node, features, knows)

    def bridge_changed(self, node: NodeId, joins: bool) -> None:
        """Take note that a neighbour joins LANs, or no longer does."""
        self._input(self.node.bridge_changed, node, joins)

    def told(self, data: bytes) -> None:
        """Take a signed list from a node that did not let this one in."""
        self._input(self.node.told_untrusted, data)

    def absent(self, channel: str, node: NodeId) -> None:
        """Take note that nobody took what a channel had accepted for a node."""
        self._input(self.node.absent, node, channel)

    def turned(self, channel: str, up: bool) -> None:
        """Take note that a channel came up or went down by itself."""
        log.debug("%s: %s", channel, "up" if up else "down")  # the channel itself says why
        self._input(self.node.channel_turned, channel, up)
        self._look()

    def transit(self, arrival: Arrival) -> None:
        """Take an envelope that may cross from one control channel to another."""
        if self._crossing is not None:
            self._input(self._crossing.transit_untrusted, arrival)

    def adopt(self, member: Member) -> None:
        """Go on with a renewed credential."""
        self.command(self.node.adopt, member)
        for channel in self.channels:
            channel.adopt(member)
        if self._crossing is not None:
            self._crossing.allow(may_cross(member))

    def _look(self) -> None:
        if self._crossing is not None and self._running:
            self._crossing.look()

    def command(self, method: Callable[..., Any], *arguments: object) -> Any:
        """Call a method of the node that takes now=, drain the outputs later, and return its result."""
        result = method(*arguments, now=self.now())
        self.touch()
        return result

    def _input(self, method: Callable[..., None], *arguments: object) -> None:
        if not self._running:
            return
        try:
            method(*arguments, now=time.monotonic())
        except Exception as error:  # noqa: BLE001  # the callers are libraries, which would ignore it
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
        except Exception as error:  # noqa: BLE001  # the loop would only log it, with half of the work done
            self._fail(error)

    def _drain_outputs(self) -> None:
        node = self.node
        now = time.monotonic()
        while (command := node.next_command()) is not None:
            self.mover.carrier.perform(command)
        while (transmit := node.next_transmit()) is not None:
            self._transmit(transmit)
        while (nodes := node.next_exclusion()) is not None:
            for channel in self.channels:
                channel.exclude(nodes)
        while (event := node.next_event()) is not None:
            self._publish(event)
        while (message := node.next_message()) is not None:
            self._on_message(message)
        while (learnt := node.next_path()) is not None:
            self._learn(learnt)
        self.mover.drain(node.destinations(), now=now)
        self._set_timer(now)

    def _set_timer(self, now: float) -> None:
        wake_at = self.node.next_timeout()
        if wake_at is None:
            return  # the timer that is set may fire for nothing: cheaper than cancelling it
        wake_at = max(wake_at, now + TIMER_S_MIN)
        if self._timer is not None:
            if self._timer_at <= wake_at:
                return  # the timer fires early, finds nothing due, and is set again
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
        except Exception as error:  # noqa: BLE001  # the loop would only log it, with half of the work done
            self._fail(error)
            return
        self.touch()

    def _publish(self, event: Event) -> None:
        row = event_row(event, self.node.name_of, time.time())
        self._feed.publish(row)
        self._telling.tell(event, row)
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
        if self._crossing is not None:
            self._crossing.sent(transmit.envelope, now=self.now())
        self._input(self.node.handoff, transmit.token, hand_over(transmit, self.channels))

    def _make_crossing(self) -> Crossing | None:
        near = next((channel for channel in self.channels if not channel.far), None)
        far = next((channel for channel in self.channels if channel.far), None)
        if near is None or far is None:
            return None
        allowed = may_cross(self.node.member)
        return Crossing(near, far, allowed=allowed, seek=partial(self._input, self.node.seek), drop=self._count)

    def _count(self, reason: str) -> None:
        self.drops[reason] += 1

    def _learn(self, learnt: Learnt) -> None:
        for channel in self.channels:
            if channel.name == learnt.channel:
                channel.learn(learnt.node, learnt.path)

    def inputs(self, channel: ControlChannel) -> ChannelInputs:
        """Return what a channel is started with."""
        return ChannelInputs(
            deliver=self.arrival,
            changed=self.channel_changed,
            parted=partial(self._input, partial(self.node.channel_changed, up=False, is_there=True)),
            bridges=self.bridge_changed,
            absent=partial(self.absent, channel.name),
            turned=partial(self.turned, channel.name),
            transit=self.transit,
            says=self.neighbour_says,
        )

    async def add(self, channel: ControlChannel) -> None:
        """Start another channel, farther than those there are, and use it from now on.  Raises UserError."""
        await channel.start(self.inputs(channel))
        self.channels.append(channel)
        self._crossing = self._make_crossing()
        log.info("%s: %s", channel.name, channel.state.detail)

    async def remove(self, channel: ControlChannel) -> None:
        """Use a channel no more, and stop it.  What was agreed over it goes on."""
        was_up = channel.state.up
        await channel.stop()
        if was_up:
            self.turned(channel.name, False)
        self._look()  # nothing crosses any more
        self.channels.remove(channel)
        self._crossing = self._make_crossing()

    # ── tasks ──

    def task_names(self) -> list[str]:
        """Return the names of the tasks that run, one per destination whose packets move in Python."""
        return self.mover.task_names()

    def start(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run a coroutine as a task whose failure ends the daemon."""
        task = self._loop.create_task(coroutine, name=name)
        task.add_done_callback(self._watch)
        return task

    def _watch(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    # ── the end ──

    async def close(self) -> None:
        """End every stream and send the farewells; afterwards the node gets no input and gives no output."""
        if self.node.destinations():
            self.command(self.node.close_all)
            await asyncio.sleep(FAREWELL_S)
        self._running = False
        if self._timer is not None:
            self._timer.cancel()
        await self.mover.close()
