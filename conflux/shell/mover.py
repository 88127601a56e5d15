"""What moves a node's packets and frames between the TUN device and the links.

native.py    the engine moves them, in a thread of its own
shuttle.py   asyncio tasks move them in Python, for the reference datapath
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from conflux.carrier.interface import Command, Measured
from conflux.ids import LinkId, NodeId
from conflux.usage.tally import Counts


class DeviceCounts(NamedTuple):
    """Packets that passed the TUN device."""

    read: int  # the device gave them to us
    written: int  # the device took them from us


class Carrier(Protocol):
    """What the shell and the API need of a carrier."""

    drop_counts: Counter[str]

    def perform(self, command: Command) -> None:
        """Start what the command asks for; its outcome arrives as events."""

    def measured(self, link: LinkId | None) -> Measured | None:
        """Return what the carrier knows of a link's hop; None if there is nothing."""

    def socket_count(self) -> int:
        """Return how many sockets are open."""

    def take_ended(self) -> Iterator[tuple[LinkId, Counts]]:
        """Yield what passed last on each link that ended meanwhile."""

    def take_traffic(self) -> Iterator[tuple[LinkId, Counts]]:
        """Yield what passed on each link since the last time, also on those that ended meanwhile."""

    def address_changed(self) -> None:
        """End every link whose local address is gone."""

    async def close(self) -> None:
        """Close every link."""


class Mover(Protocol):
    """Moves one node's bytes, and owns the carrier of its links."""

    @property
    def carrier(self) -> Carrier:
        """The carrier of the node's links."""

    def start(self) -> None:
        """Take packets from the TUN device from now on.  Called once, in the running loop."""

    def drain(self, wanted: tuple[NodeId, ...], *, now: float) -> None:
        """Move everything that may go now.  wanted: the destinations that have a queue."""

    def task_names(self) -> list[str]:
        """Return the names of the tasks that run, one per destination; none where the engine moves packets."""

    def device_counts(self) -> DeviceCounts:
        """Return how many packets passed the TUN device; answers after stop() too."""

    async def close(self) -> None:
        """Stop moving packets; links stay open, so that they can say goodbye."""

    def stop(self) -> None:
        """Stop everything and erase the keys.  Comes last, after the carrier is closed."""
