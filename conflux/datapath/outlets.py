"""What the parts of one datapath share: its limits, its timers, and where their products go."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from conflux.datapath.config import DatapathConfig
from conflux.datapath.interface import Upcall
from conflux.datapath.timers import Timers
from conflux.ids import StreamId

TYPE_CHECKING = False  # a node without a policy does without
if TYPE_CHECKING:
    from conflux.policy.guard import Guard


class Outlets(NamedTuple):
    """Given to every queue, sender and receiver at construction."""

    config: DatapathConfig
    timers: Timers
    own: set[bytes]  # our addresses, packed; the datapath changes the set in place
    guards: list[Guard]  # of the reference datapath: one while the realm has a policy, else none; changed in place
    drop: Callable[[str], None]  # count one dropped packet, frame or entry under a Drop or a reason of the node's
    deliver: Callable[[bytes], None]  # an IP packet for the TUN device
    upcall: Callable[[Upcall], None]  # an upcall that our own tables cause, and bound
    upcall_untrusted: Callable[[Upcall], None]  # an upcall that a peer causes; dropped when too many wait
    feedback_ready: Callable[[StreamId], None]  # the stream's receiver has feedback to send now
