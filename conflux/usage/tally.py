"""The count of bytes that leave and enter this process's sockets: by kind, and by who is at the other end.

Sockets are of many shells, and each says what it moved.  A datagram is counted when it passes; of a TCP connection the
kernel counts, and its owner asks it again and again (see watch()).  One process is one node, so there is one tally.

Bytes are those of IP packets: payload, and an estimate of the headers.  Ethernet's own 14 bytes are not in it.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Final, NamedTuple

from conflux.ids import NodeId

UDP_HEADER_BYTES: Final = 28  # IPv4 and UDP
UDP6_HEADER_BYTES: Final = 48
TCP_HEADER_BYTES: Final = 52  # IPv4, and TCP with its timestamps
TCP6_HEADER_BYTES: Final = 72
PEER_COUNT_MAX: Final = 1024  # in one tally, which is emptied every few seconds; who comes later is counted as unknown


class Kind(StrEnum):
    """What bytes are for."""

    DATA = "data"  # frames, relayed ones too, with what acknowledges and reports them
    CONTROL = "control"  # messages of the control channels: questions, cards, presence, set-ups of streams
    SET_UP = "set-up"  # handshakes of connections and links, and messages about routes
    KEEP_ALIVE = "keep-alive"  # pings, and checks of whether a link's other end still consents


KINDS: Final = tuple(Kind)


class Other(StrEnum):
    """Who is at the other end, if it is no node."""

    BROKER = "broker"
    MULTICAST = "multicast"  # mDNS: every device on the LAN
    UNKNOWN = "unknown"  # a handshake that came to nothing, a joiner, or a STUN server


Who = NodeId | Other


class Both(NamedTuple):
    """Bytes of both directions."""

    sent: int = 0
    received: int = 0

    @property
    def total(self) -> int:
        """The sum."""
        return self.sent + self.received

    def plus(self, other: Both) -> Both:
        """Return the sum of two counts."""
        return Both(self.sent + other.sent, self.received + other.received)

    def less(self, other: Both) -> Both:
        """Return what is more here than there; never below 0."""
        return Both(max(0, self.sent - other.sent), max(0, self.received - other.received))


NOTHING: Final = Both()
Counts = dict[Kind, Both]


class Traffic:
    """What passed on one socket, or a few that belong together, since it was last taken."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: Counts = {}

    def add(self, kind: Kind, *, sent: int = 0, received: int = 0) -> None:
        """Count bytes."""
        self._counts[kind] = self._counts.get(kind, NOTHING).plus(Both(sent, received))

    def take(self) -> Counts:
        """Return what was counted, and begin anew."""
        taken, self._counts = self._counts, {}
        return taken


class Tally:
    """What passed since it was last taken, by who is at the other end."""

    def __init__(self) -> None:
        self._counts: dict[Who, Counts] = {}
        self._watched: set[Callable[[], None]] = set()

    def add(self, who: Who, kind: Kind, *, sent: int = 0, received: int = 0) -> None:
        """Count bytes."""
        if not sent and not received:
            return
        if who not in self._counts and len(self._counts) >= PEER_COUNT_MAX:
            who = Other.UNKNOWN
        counts = self._counts.setdefault(who, {})
        counts[kind] = counts.get(kind, NOTHING).plus(Both(sent, received))

    def add_all(self, who: Who, counts: Counts) -> None:
        """Count what Traffic.take() returned."""
        for kind, both in counts.items():
            self.add(who, kind, sent=both.sent, received=both.received)

    def watch(self, count: Callable[[], None]) -> None:
        """Have a function called before the tally is taken: it adds what it knows since it was called last."""
        self._watched.add(count)

    def unwatch(self, count: Callable[[], None]) -> None:
        """Have it called no more.  No-op if it is not watched."""
        self._watched.discard(count)

    def take(self) -> dict[Who, Counts]:
        """Return what passed, and begin anew."""
        for count in tuple(self._watched):
            count()
        taken, self._counts = self._counts, {}
        return taken


TALLY: Final = Tally()
