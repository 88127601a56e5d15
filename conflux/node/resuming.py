"""Messages of a resumption, between the control plane that carries them and the streams that open by them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

from conflux.budget import BudgetTable
from conflux.control.envelope import Pairing
from conflux.control.event import Heard, PairMessage
from conflux.control.plane import ControlPlane
from conflux.errors import RemoteProtocolError
from conflux.ids import NodeId
from conflux.stream.resumptions import Drop
from conflux.stream.streams import Streams

# How often one neighbour hears that an id is not known here: each such word costs a stream one opening with signatures.
UNKNOWN_RATE, UNKNOWN_BURST = 10.0, 32.0
UNKNOWN_COUNT_MAX = 1024

HELD_COUNT_MAX = 16  # an acceptor resumes at once, and its message may overtake the ACCEPT

# Of these nobody is told: the bytes may be anybody's, and who holds the secret repeats what was damaged.
_SILENT = frozenset({Drop.SEAL, Drop.FLOOD, Drop.LATE, "malformed", "version", "oversized"})


class Resuming:
    """Hands every message under an id of two nodes to the streams, and says which id is not known.

    counting_drops: counts what a peer said and a machine refused.  tell: takes which way a peer was heard.
    """

    def __init__(
        self,
        plane: ControlPlane,
        streams: Streams,
        counting_drops: Callable[[], AbstractContextManager[None]],
        tell: Callable[[Heard, float], None],
    ) -> None:
        self._plane = plane
        self._streams = streams
        self._counting_drops = counting_drops
        self._tell = tell
        self._unknown = BudgetTable(UNKNOWN_RATE, UNKNOWN_BURST, UNKNOWN_COUNT_MAX)
        self._held: deque[PairMessage] = deque(maxlen=HELD_COUNT_MAX)  # ahead of the ACCEPT that they follow

    def receive(self, message: PairMessage, now: float) -> None:
        """Take one message; nothing of it is verified."""
        with self._counting_drops():
            match message.what:
                case Pairing.RESUME:
                    self._receive_resume(message, now)
                case Pairing.RESUMED:
                    self._streams.resuming.receive_resumed(
                        message.id, message.body, self._plane.card, partial(self._hear, message, now), now=now
                    )
                case Pairing.UNKNOWN:
                    self._streams.resuming.resume_unknown(message.id, now=now)

    def next_held(self) -> PairMessage | None:
        """Return a message that came before the secret it is for, which is here now; or None."""
        found = next((held for held in self._held if self._streams.resuming.secrets.peer_of(held.id) is not None), None)
        if found is not None:
            self._held.remove(found)
        return found

    def _hear(self, message: PairMessage, now: float, peer: NodeId) -> None:
        """Take note which way a message came that opened: so it is with every message that verifies."""
        heard = None if message.arrival is None else self._plane.hear(peer, message.arrival)
        if heard is not None:
            self._tell(heard, now)

    def _receive_resume(self, message: PairMessage, now: float) -> None:
        try:
            if self._plane.lists.settles_at(now) is not None:  # others may know that the peer is denied: as for an OPEN
                raise RemoteProtocolError(Drop.STALE, "this node asks the others first who is a member")
            heard = partial(self._hear, message, now)
            self._streams.resuming.receive_resume(message.id, message.body, self._plane.card, heard, now=now)
        except RemoteProtocolError as error:
            if error.reason == Drop.UNKNOWN and self._streams.resuming.awaits_secret():
                self._held.append(message)
                return
            source = message.source
            if error.reason not in _SILENT and source is not None and self._unknown.take(source, now):
                self._plane.pairs.send(source, message.id, Pairing.UNKNOWN, b"")
            raise
