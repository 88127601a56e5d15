"""Handing envelopes to neighbours: to one, or to all of them; along the tree where a LAN is a large one."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from conflux.control.drop import Drop
from conflux.control.envelope import Envelope
from conflux.control.lan.config import FORWARD_BACKLOG_BYTES_MAX
from conflux.control.lan.connection import Connection
from conflux.control.lan.frame import FrameType
from conflux.control.lan.neighbours import Neighbour, Neighbours
from conflux.control.lan.wide import Wide
from conflux.ids import NodeId

Near = Neighbour[Connection]


class Giving:
    """Sends to neighbours.  clock: unix seconds."""

    def __init__(
        self, neighbours: Neighbours[Connection], wide: Wide, clock: Callable[[], int], drop: Callable[[str], None]
    ) -> None:
        self._neighbours = neighbours
        self._wide = wide
        self._clock = clock
        self._drop = drop

    def holds(self, near: Near) -> bool:
        """Say whether a neighbour is still a member; if not, it has to connect again with a newer credential."""
        if self._clock() < near.peer.not_after:
            return True
        self._drop(Drop.EXPIRED)
        near.connection.close("expired")
        return False

    def send(self, near: Near, data: bytes) -> bool:
        """Send an envelope of this node to one neighbour."""
        if not self.holds(near):
            return False
        self._wide.used(near.peer.instance)
        return near.connection.send(FrameType.ENVELOPE, data)

    def pass_on(self, near: Near, data: bytes) -> bool:
        """Send an envelope of another node to one neighbour, which must keep up."""
        if near.connection.backlog_bytes + len(data) > FORWARD_BACKLOG_BYTES_MAX:
            self._drop(Drop.FORWARD_SLOW)
            return False
        return self.send(near, data)

    def give(
        self, envelope: Envelope, data: bytes, nodes: Iterable[NodeId], send: Callable[[Near, bytes], bool]
    ) -> bool:
        """Send an envelope to neighbours; say whether any took it.  send: send(), or pass_on() for another node's."""
        found = [near for near in map(self._neighbours.find, nodes) if near is not None]
        spread = False
        if envelope.to is None:
            wide = [near.peer.instance for near in found if self._wide.in_ring(near.peer.instance)]
            spread = bool(wide) and self._wide.say(envelope, data, wide)
            stand = [near for near in found if self._wide.stands(near.peer.instance)]
            found = [near for near in stand if not self._wide.in_tree(near.peer.instance)]
        sent = [send(near, data) for near in found]
        return spread or any(sent)
