"""The control messages of streams and links that want an answer, and the offers of peers that wait for this node's."""

from __future__ import annotations

from dataclasses import dataclass

from conflux.control.envelope import Kind
from conflux.control.event import Message
from conflux.control.plane import ControlPlane
from conflux.errors import RemoteProtocolError
from conflux.ids import NodeId, StreamId
from conflux.link.event import Signal
from conflux.link.links import Links
from conflux.stream import event as stream
from conflux.stream.event import SenderEnd
from conflux.stream.resume import Rider
from conflux.stream.streams import Streams

OFFER_COUNT_MAX = 256  # offers are answered within milliseconds: so many are never under way


@dataclass(frozen=True, slots=True)
class _Opening:
    """A request with an OPEN."""

    stream: StreamId


@dataclass(frozen=True, slots=True)
class _Signalling:
    """A request with a signal of an attempt to open a link."""

    peer: NodeId
    attempt: bytes


class Requests:
    """Which request of the plane belongs to which stream or link."""

    def __init__(self, plane: ControlPlane, streams: Streams, links: Links) -> None:
        self._plane = plane
        self._streams = streams
        self._links = links
        self._pending: dict[int, _Opening | _Signalling] = {}  # without an answer yet, by the plane's token
        self._riding: dict[NodeId, Signal] = {}  # offers that go along with a resumption
        self._offers: dict[tuple[NodeId, int], Message] = {}  # the offers that are not answered yet

    def transmit(self, transmit: stream.Transmit, now: float) -> None:
        """Send a message of the streams: an OPEN until it is answered, the answer to one, or one of a resumption."""
        if isinstance(transmit, stream.Pass):
            self._plane.pairs.send(transmit.peer, transmit.id, transmit.what, transmit.body, again=transmit.again)
        elif isinstance(transmit, stream.Send):
            token = self._plane.request(transmit.peer, transmit.kind, transmit.body, now=now)
            self._pending[token] = _Opening(transmit.stream)
        else:
            self._plane.reply(transmit.to, transmit.kind, transmit.body, now=now)

    def signal(self, signal: Signal, now: float) -> None:
        """Send a signal of the links: a request, an answer to an offer, or neither.

        An offer goes along with a resumption that waits for it, and so does the answer to such a one.
        """
        if signal.answered:
            rider = Rider(signal.kind, signal.body, self._plane.pairs.next_seq())
            if self._streams.resuming.ride(signal.peer, rider, now=now):
                self._riding[signal.peer] = signal
                return
            token = self._plane.request(signal.peer, signal.kind, signal.body, now=now)
            self._pending[token] = _Signalling(signal.peer, signal.attempt)
            return
        if signal.re is not None:
            rider = Rider(signal.kind, signal.body)
            keyed = self._links.can_be_keyed(signal.peer, signal.attempt)
            rode = self._streams.resuming.ride_back(signal.peer, signal.re, rider, keyed=keyed, now=now)
            if rode is not None:
                self._links.answered_by_secret(signal.peer, signal.attempt, rode.keys)
                return
        if signal.kind is Kind.LINK_REFUSED:  # of an offer of this node: it must not be repeated, no answer will come
            about = _Signalling(signal.peer, signal.attempt)
            for token in [token for token, request in self._pending.items() if request == about]:
                self._plane.withdraw(token)
        offer = None if signal.re is None else self._offers.pop((signal.peer, signal.re), None)
        if offer is None:
            self._plane.notify(signal.peer, signal.kind, signal.body, now=now)
        else:
            self._plane.reply(offer, signal.kind, signal.body, now=now)

    def rode(self, event: stream.Rode, now: float) -> None:
        """Hand a signal that came along with a resumption to the links.  Raises RemoteProtocolError."""
        if not event.seq:
            self._riding.pop(event.peer, None)
        if event.kind not in ((Kind.OFFER,) if event.seq else (Kind.ANSWER, Kind.LINK_REFUSED)):
            raise RemoteProtocolError("malformed", f"a message of kind {event.kind} along with a resumption")
        self._links.receive_signal(
            event.peer, Kind(event.kind), event.body, event.seq, by_secret=True, keys=event.keys, now=now
        )

    def ride_ended(self, event: stream.RideEnded, now: float) -> None:
        """Send an offer by itself whose resumption brought no answer, if that link is still wanted.

        If the resumption itself had no answer, it is another offer: the peer may have answered the first one, and may
        have keys for it that this node lacks.
        """
        signal = self._riding.pop(event.peer, None)
        if signal is None:
            return
        if not event.answered:
            self._links.offer_anew(event.peer, signal.attempt, now=now)
        elif self._links.offers(event.peer, signal.attempt):
            self.signal(signal, now)

    def remember_offer(self, message: Message) -> None:
        """Keep an offer, for the answer to name it."""
        self._offers[message.peer, message.seq] = message
        if len(self._offers) > OFFER_COUNT_MAX:
            del self._offers[next(iter(self._offers))]

    def answered(self, token: int) -> StreamId | None:
        """Take note that an answer came; return the stream if the request was an OPEN."""
        request = self._pending.pop(token, None)
        return request.stream if isinstance(request, _Opening) else None

    def failed(self, token: int, reason: str, now: float) -> None:
        """Tell the stream or the link that no answer came."""
        match self._pending.pop(token, None):
            case _Opening(id_):
                self._streams.open_failed(id_, SenderEnd.NO_ANSWER, reason)
            case _Signalling(peer, attempt):
                self._links.signal_failed(peer, attempt, reason, now=now)
