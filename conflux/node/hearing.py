"""What the node does about what the control plane tells it: messages, cards, ways to other nodes, signed lists."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager

from conflux.control.envelope import Kind
from conflux.control.event import (
    CardChanged,
    CardFound,
    Heard,
    ListLearnt,
    Message,
    RequestFailed,
    WhoFailed,
)
from conflux.control.event import Event as PlaneEvent
from conflux.control.plane import ControlPlane
from conflux.control.who import Who
from conflux.errors import RemoteProtocolError
from conflux.link.links import Links
from conflux.node.destinations import Destinations
from conflux.node.event import Event, EventKind, Reason
from conflux.node.precedence import Precedence
from conflux.node.relaying import Relaying
from conflux.node.requests import Requests
from conflux.node.revoking import Revoking
from conflux.node.trail import Trails
from conflux.node.vantage import Vantages
from conflux.realm.card import Card
from conflux.search.interface import Search
from conflux.stream.event import SenderEnd
from conflux.stream.streams import Streams

MESSAGE_COUNT_MAX = 64  # control messages for other parts of the program; the oldest goes first


class Hearing:
    """Hands every event of the plane to the machines that it concerns.

    tell: takes what a person may want to see.  counting_drops: counts what a peer said and a machine refused.
    settle_links: tells of every link that ended, and of every route that ended with one.
    """

    def __init__(
        self,
        *,
        plane: ControlPlane,
        links: Links,
        streams: Streams,
        search: Search,
        destinations: Destinations,
        relaying: Relaying,
        revoking: Revoking,
        requests: Requests,
        precedence: Precedence,
        vantages: Vantages,
        trails: Trails,
        tell: Callable[[Event], None],
        counting_drops: Callable[[], AbstractContextManager[None]],
        settle_links: Callable[[float], None],
    ) -> None:
        self._plane = plane
        self._links = links
        self._streams = streams
        self._search = search
        self._destinations = destinations
        self._relaying = relaying
        self._revoking = revoking
        self._requests = requests
        self._precedence = precedence
        self._vantages = vantages
        self._trails = trails
        self._tell = tell
        self._counting_drops = counting_drops
        self._settle_links = settle_links
        self._messages: deque[Message] = deque(maxlen=MESSAGE_COUNT_MAX)

    def next_message(self) -> Message | None:
        """Return one control message for another part of the program, or None."""
        return self._messages.popleft() if self._messages else None

    def on_event(self, event: PlaneEvent, now: float) -> None:
        """Take one event of the plane."""
        match event:
            case Message():
                self._on_message(event, now)
            case RequestFailed(token=token, reason=reason):
                self._requests.failed(token, reason, now)
            case CardFound(card=card, query=Who(feature=str())):
                self._destinations.relay_found(card, now)
            case WhoFailed(query=Who(feature=str())):
                pass  # no node is a public relay
            case CardFound(card=card, query=query):
                self._relaying.card_found(card.node_id, now)
                self._destinations.card_found(card, now)
                self._tell(Event(EventKind.FOUND, card.node_id, query))
            case WhoFailed(query=query, reason=reason):
                self._relaying.who_failed(query)
                self._destinations.who_failed(query, now)
                self._tell(Event(EventKind.NOT_FOUND, asked=query, reason=Reason(reason)))
            case Heard(node=node, via=via):
                self._search.heard(node, via)
                self._trails.heard(node, via, now)
                if via not in (node, None):
                    self._vantages.know(via, now)
            case CardChanged(card=card):
                self._on_restarted(card, now)
            case ListLearnt():
                self._revoking.learnt(event, now)

    def paired(self, heard: Heard, now: float) -> None:
        """Take note which way a message of a resumption came, and that its sender is told of relays."""
        self.on_event(heard, now)
        self._vantages.freshen(heard.node, now)

    def _on_restarted(self, card: Card, now: float) -> None:
        """Forget all that was agreed with a peer's old process."""
        self._tell(Event(EventKind.RESTARTED, card.node_id))
        self._links.peer_lost(card.node_id, now=now)
        self._streams.peer_restarted(card.node_id)
        self._settle_links(now)  # else what ends with the old process would be held against the new one
        self._destinations.restarted(card, now)

    def _on_message(self, message: Message, now: float) -> None:
        opened = self._requests.answered(message.re) if message.re else None
        with self._counting_drops():
            self._dispatch(message, now)
        if opened is not None:  # a request gets one answer; no-op if it made the stream agreed
            self._streams.open_failed(opened, SenderEnd.BAD_ANSWER)

    def _dispatch(self, message: Message, now: float) -> None:
        match message.kind:
            case Kind.OPEN:
                if not self._revoking.holds(message, now) and not self._precedence.holds(message, now):
                    self._receive_open(message, now)
            case Kind.ACCEPT:
                self._streams.receive_accept(message.peer, message.body, now=now)
            case Kind.OPEN_REFUSED:
                self._streams.receive_refused(message.peer, message.body)
            case Kind.RESUME_CONFLICT:
                self._streams.resuming.conflict_told(message.peer, now=now)
            case Kind.OFFER | Kind.ANSWER | Kind.CANDIDATES | Kind.LINK_REFUSED:
                if message.kind is Kind.OFFER:
                    self._requests.remember_offer(message)
                self._links.receive_signal(message.peer, message.kind, message.body, message.seq, now=now)
            case (
                Kind.RENEW | Kind.RENEWED | Kind.LEAVE | Kind.GRANT | Kind.ACK | Kind.ADMIT | Kind.ADMITTED
            ):  # for other parts of the program
                self._messages.append(message)
            case _:
                raise RemoteProtocolError("unexpected", f"message {message.kind}")

    def _receive_open(self, message: Message, now: float) -> None:
        card = self._plane.card(message.peer)
        if card is None:
            raise RemoteProtocolError("no-card", "an open from a node whose card is not here")
        self._streams.receive_open(card, message.body, message, now=now)
        self._vantages.freshen(message.peer, now)

    def open_held(self, message: Message, now: float) -> None:
        """Take an OPEN that waited here."""
        with self._counting_drops():
            self._receive_open(message, now)
