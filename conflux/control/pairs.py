"""Messages under an id that two nodes share: the control plane carries them, and verifies nothing of them.

    node ─ send() ─► Envelope(key id = the pair's id, payload = Paired) ─► channels ─► take() ─ next_message() ─► node

They have no sender, no number and no signature: who knows what the id is of, knows the sender, and opens the message.
"""

from __future__ import annotations

from collections import deque

from conflux.control.author import Author
from conflux.control.cards import CardBook
from conflux.control.channel import Arrival
from conflux.control.envelope import Paired, Pairing
from conflux.control.event import PairMessage, Transmit
from conflux.ids import NodeId

MESSAGE_COUNT_MAX = 256  # that were not looked at yet: what arrives is within the budget of its neighbour
NO_TOKEN = 0


class Pairs:
    """What goes out and what came in."""

    def __init__(self, author: Author, book: CardBook) -> None:
        self._author = author
        self._book = book
        self._messages: deque[PairMessage] = deque(maxlen=MESSAGE_COUNT_MAX)
        self._transmits: deque[Transmit] = deque()

    def next_seq(self) -> int:
        """Return a number that no message of this boot has, for what rides along and is none."""
        return self._author.next_seq()

    def send(self, peer: NodeId, id_: bytes, what: Pairing, body: bytes, *, again: bool = False) -> None:
        """Send a message once.  again: an earlier copy had no answer, so it takes every channel."""
        envelope = self._author.envelope(peer, id_, Paired(what, body).encode())
        self._transmits.append(Transmit(NO_TOKEN, envelope, again))

    def take(self, paired: Paired, arrival: Arrival) -> None:
        """Take what an arrival carries."""
        key_id, source = arrival.envelope.key_id, arrival.via
        assert key_id is not None
        if source is None and arrival.path is not None:
            source = self._book.owner(arrival.path)
        self._messages.append(PairMessage(key_id, paired.what, paired.body, source, arrival))

    def next_message(self) -> PairMessage | None:
        """Return one message, or None."""
        return self._messages.popleft() if self._messages else None

    def next_transmit(self) -> Transmit | None:
        """Return one envelope to send, or None."""
        return self._transmits.popleft() if self._transmits else None
