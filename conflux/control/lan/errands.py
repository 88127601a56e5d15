"""What waits for a connection that is opened for it alone.  Sans-IO."""

from __future__ import annotations

from typing import Final, NamedTuple

from conflux.control.lan.config import DIAL_COUNT_MAX
from conflux.ids import NodeId

WAITING_COUNT_MAX: Final = 16  # envelopes for one node
WAITING_BYTES_MAX: Final = 128 * 1024
INSTANCE_COUNT_MAX: Final = 32  # that are dialled at once
OTHERS_COUNT_MAX: Final = DIAL_COUNT_MAX // 2  # of them for other nodes alone: they leave dials to this one
WAIT_S: Final = 6.0  # one dial, with a handshake on a slow board


class Waiting(NamedTuple):
    """One envelope.  own: this node made it.  again: it was sent before, and brought no answer."""

    to: NodeId
    data: bytes
    own: bool
    again: bool = False


class Errands:
    """Envelopes by the instance that is being dialled for them."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, list[Waiting]] = {}
        self._until: dict[bytes, float] = {}

    def __contains__(self, instance: bytes) -> bool:
        return instance in self._waiting

    def add(self, instance: bytes, waiting: Waiting, now: float) -> bool:
        """Let an envelope wait; False: too many do."""
        queue = self._waiting.get(instance)
        if queue is None:
            if len(self._waiting) >= INSTANCE_COUNT_MAX or (not waiting.own and self._others() >= OTHERS_COUNT_MAX):
                return False
            queue = self._waiting[instance] = []
            self._until[instance] = now + WAIT_S
        if len(queue) >= WAITING_COUNT_MAX or sum(len(each.data) for each in queue) > WAITING_BYTES_MAX:
            return False
        queue.append(waiting)
        return True

    def _others(self) -> int:
        return sum(not any(each.own for each in queue) for queue in self._waiting.values())

    def take(self, instance: bytes) -> list[Waiting]:
        """Remove and return what waits for a node."""
        self._until.pop(instance, None)
        return self._waiting.pop(instance, [])

    def late(self, now: float) -> list[bytes]:
        """Return the instances for which it has taken too long."""
        return [instance for instance, until in self._until.items() if until <= now]
