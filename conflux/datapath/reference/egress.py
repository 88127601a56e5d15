"""One destination: its queue, its addresses, and the stream that empties the queue, if there is one."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any, Generic, TypeVar

from conflux.datapath.outlets import Outlets
from conflux.datapath.reference.queue import AllQueues, FlowQueue
from conflux.datapath.sending import Sending
from conflux.datapath.status import EgressStatus
from conflux.datapath.timers import Timer
from conflux.ids import NodeId, format_node_id

S = TypeVar("S", bound=Sending[Any])


class Egress(Generic[S]):
    """Without a sender that has a route, packets wait here; those that wait too long are dropped as "aged"."""

    __slots__ = ("_config", "_timer", "_timers", "active_at", "addresses", "destination", "queue", "sender")

    def __init__(self, destination: NodeId, queues: AllQueues, outlets: Outlets, now: float) -> None:
        config = outlets.config
        self.destination = destination
        self.addresses: tuple[bytes, ...] = ()
        self.sender: S | None = None
        self.active_at = now  # when a packet was last queued or sent
        self.queue = FlowQueue(
            bytes_max=config.queue_bytes_max,
            packets_max=config.queue_packets_max,
            bundle_bytes_max=config.bundle_bytes_max,
            together=queues,
            drop=outlets.drop,
        )
        self._config = config
        self._timers = outlets.timers
        self._timer = Timer(self._deadline, self._fire)

    @property
    def moving(self) -> bool:
        """Whether there is a route for the packets."""
        return self.sender is not None and self.sender.hop is not None

    def push(self, entry: tuple[int, bytes], flow: int, now: float) -> None:
        """Queue one (PACKET, packet)."""
        self.queue.push(entry, flow, now)
        self.active_at = now
        if self._timer.at is None and not self.moving:
            self._timers.arm(self._timer)

    def update(self, now: float) -> None:
        """Take note that the sender or its route changed."""
        if self.moving:
            self.queue.move(now)
        else:
            self.hold()

    def hold(self) -> None:
        """Take note that there is no route: packets wait, and their age counts."""
        self.queue.move(None)
        self._timers.arm(self._timer)

    def close(self, reason: str) -> None:
        """Drop what is queued, counted under reason."""
        self.queue.clear(reason)
        self._timers.end(self._timer)

    def _deadline(self) -> float | None:
        oldest_at = None if self.moving else self.queue.oldest_at()
        return None if oldest_at is None else oldest_at + self._config.hold_age_s_max

    def _fire(self, now: float) -> None:
        self.queue.drop_aged(self._config.hold_age_s_max, now)

    def status(self) -> EgressStatus:
        """Return what `conflux status` shows of it."""
        return EgressStatus(
            destination=format_node_id(self.destination),
            addresses=tuple(str(ip_address(address)) for address in self.addresses),
            stream=None if self.sender is None else self.sender.stream.hex(),
            packets=self.queue.packet_count,
            bytes=self.queue.bytes,
            marked_packets=self.queue.marked_count,
        )
