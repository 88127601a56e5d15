"""What the parts of one datapath share: its limits, its timers, and where what they produce goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from conflux.datapath.config import DatapathConfig
from conflux.datapath.interface import Upcall
from conflux.datapath.queue import AllQueues
from conflux.datapath.timers import Timers
from conflux.ids import StreamId


@dataclass(frozen=True, slots=True)
class Outlets:
    """Handed to every queue, sender and receiver at construction."""

    config: DatapathConfig
    timers: Timers
    queues: AllQueues
    own: set[bytes]  # our addresses, packed; the datapath changes the set in place
    drop: Callable[[str], None]
    deliver: Callable[[bytes], None]
    upcall: Callable[[Upcall], None]  # what our own tables cause: bounded by them
    upcall_untrusted: Callable[[Upcall], None]  # what a peer causes: dropped when too many wait
    feedback_ready: Callable[[StreamId], None]  # the receiver of this stream has feedback to send now
