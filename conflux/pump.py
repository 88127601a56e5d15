"""The pump: carries every input to the node and everything that comes out of it to where it belongs.

    tun ──packet──►        ──delivery──► tun (or a waiting ping)
    control ─arrival─►     ──transmit──► control channels
    carrier ──event──► node ──command──► carrier
    carrier ──frame──►     ──feedback──► carrier
    timer ───────────►     ──event────► log and watchers
                           ──frames───► one "egress NAME" task per destination ──► carrier

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
from conflux.datapath.interface import Hop, OutFrame
from conflux.echo import Echo
from conflux.events import Event
from conflux.feed import Feed
from conflux.ids import LinkId, NodeId, TetherId, format_node_id
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

    def write(self, frame: OutFrame) -> None:
        """Queue one frame.  One for a link or tether that is gone is dropped and counted."""

    async def drain(self, link: LinkId, tether: TetherId) -> None:
        """Wait until the tether has room for the next frame, or is gone."""

    def has_room(self, link: LinkId) -> bool:
        """Say whether drain_link() would return at once."""

    async def drain_link(self, link: LinkId) -> None:
        """Wait until little of all the link's tethers waits, or it is gone."""


class Pump:
    """Runs one node.  deliver: takes an IP packet for the TUN device."""

    def __init__(
        self,
        node: Node,
        *,
        deliver: Callable[[bytes], object],
        echo: Echo,
        feed: Feed,
        fail: Callable[[BaseException], None],
    ) -> None:
        self.node = node
        self.drops: Counter[str] = Counter()
        self.on_message: Callable[[Message], None] = lambda message: None
        self._carrier: Carrier
        self._channels: Sequence[ControlChannel] = ()
        self._deliver = deliver
        self._echo = echo
        self._feed = feed
        self._fail = fail
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._drain_due = False
        self._egress: dict[NodeId, _Egress] = {}
        self._relaying: dict[LinkId, asyncio.Task[None]] = {}
        self._transmits: set[asyncio.Task[None]] = set()
        self._listeners: list[Callable[[Event], None]] = []
        self._running = True

    def attach(self, carrier: Carrier, channels: Sequence[ControlChannel]) -> None:
        """Name what the node sends with.  Comes first: they are made with our inputs for their callbacks."""
        self._carrier = carrier
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
        node, datapath = self.node, self.node.datapath
        now = time.monotonic()
        while (command := node.next_command()) is not None:
            self._carrier.perform(command)
        while (frame := datapath.next_feedback(now=now)) is not None:
            self._carrier.write(frame)
        while (packet := datapath.next_delivery()) is not None:
            if not self._echo.take(packet, now=now):
                self._deliver(packet)
        while (transmit := node.next_transmit()) is not None:
            self._transmit(transmit)
        while (event := node.next_event()) is not None:
            self._publish(event)
        while (message := node.next_message()) is not None:
            self.on_message(message)
        self._update_egress()
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

    # ── egress: a task per destination ──

    def _update_egress(self) -> None:
        wanted, datapath = self.node.destinations(), self.node.datapath
        for link in datapath.relayable():
            if link not in self._relaying and not self._pass_on(link):
                self._relaying[link] = self.start(self._relay_frames(link), f"relay {link}")
        for destination in datapath.sendable():
            if (egress := self._egress.get(destination)) is not None:
                egress.wake.set()
                egress.go_on(datapath.hop(destination))
        if len(wanted) == len(self._egress) and all(destination in self._egress for destination in wanted):
            return
        for destination in set(self._egress).difference(wanted):
            self._egress.pop(destination).task.cancel()
        for destination in wanted:
            if destination not in self._egress:
                self._egress[destination] = _Egress(self, destination)

    def egress_names(self) -> list[str]:
        """Return the names of the tasks that run, one per destination."""
        return sorted(egress.task.get_name() for egress in self._egress.values())

    def start(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run a coroutine whose failure is the daemon's."""
        task = self._loop.create_task(coroutine, name=name)
        task.add_done_callback(self._watch)
        return task

    def _watch(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    async def send_frames(self, egress: _Egress) -> None:
        """Send what is queued for one destination whenever there is a way for it; the body of its task.

        While one frame is on its way into the tether, packets gather, and they go in the next.  A tether that takes
        nothing stops this task and no other.
        """
        datapath, carrier, destination = self.node.datapath, self._carrier, egress.destination
        while True:
            await egress.wake.wait()
            egress.wake.clear()
            while (frame := datapath.next_frame(destination, now=time.monotonic())) is not None:
                carrier.write(frame)
                self.touch()
                egress.draining = (frame.link, frame.tether)
                await carrier.drain(frame.link, frame.tether)
                egress.draining = None

    async def _relay_frames(self, link: LinkId) -> None:
        """Send what waits to be passed on over one link that had no room for it; a task that lives while it has not."""
        try:
            await self._carrier.drain_link(link)
            while not self._pass_on(link):
                await self._carrier.drain_link(link)
        finally:
            del self._relaying[link]

    def _pass_on(self, link: LinkId) -> bool:
        """Send what waits to be passed on over a link, in this turn of the loop; False if some must wait for room.

        Room is the link's total, not one tether's: the turns are the datapath's to give, so nothing may pile up behind
        it.
        """
        datapath, carrier = self.node.datapath, self._carrier
        while carrier.has_room(link):
            frame = datapath.next_relayed(link, now=time.monotonic())
            if frame is None:
                return True
            carrier.write(frame)
        return False

    # ── the end ──

    async def close(self) -> None:
        """End every stream and let the farewells out; afterwards the node hears and says nothing more."""
        if self.node.destinations():
            self.command(self.node.close_all)
            await asyncio.sleep(FAREWELL_S)
        self._running = False
        if self._timer is not None:
            self._timer.cancel()
        tasks = [egress.task for egress in self._egress.values()] + list(self._transmits)
        tasks += self._relaying.values()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._egress.clear()


class _Egress:
    """A destination's task, and how it is woken."""

    def __init__(self, pump: Pump, destination: NodeId) -> None:
        card = pump.node.plane.card(destination)
        self.destination = destination
        self.wake = asyncio.Event()
        self.draining: tuple[LinkId, TetherId] | None = None  # the tether it waits for
        self._name = f"egress {format_node_id(destination) if card is None else card.name}"
        self._pump = pump
        self._start()

    def _start(self) -> None:
        self.draining = None
        self.wake.set()
        self.task = self._pump.start(self._pump.send_frames(self), self._name)

    def go_on(self, hop: Hop | None) -> None:
        """Wait no longer for a tether that the stream has left: whoever went silent never takes anything again."""
        if self.draining is not None and hop is not None and self.draining != (hop.link, hop.tether):
            self.task.cancel()  # it is in drain(): nothing is under way in its hands
            self._start()
