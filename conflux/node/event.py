"""What happens in a node that a person may want to see: the log and `conflux watch` are made of these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from conflux.control.event import Unanswered
from conflux.control.who import Who
from conflux.ids import NodeId
from conflux.link.event import DialEnd, LinkEnd
from conflux.route.event import RouteEnd, RouteFailed
from conflux.route.message import RefusalWord
from conflux.stream.event import ReceiverEnd, SenderEnd


class EventKind(StrEnum):
    """What happened."""

    QUEUE = "queue"  # a packet waits for a destination
    WHO = "who"  # the owner of an address is asked for
    CARD = "card"  # its owner's card came
    DIAL = "dial"  # a link is being opened
    LINK = "link"  # a link is open
    CLOSED = "closed"  # a link is closed
    HANDSHAKE = "handshake"  # a stream is agreed
    FRAMES = "frames"  # packets flow
    MOVED = "moved"  # a stream goes another way
    REKEY = "rekey"  # a stream has new keys
    SUSPECT = "suspect"  # feedback stopped coming, or the route is lost
    FAILED = "failed"  # a path came to nothing
    UNREACHABLE = "unreachable"  # the destination is given up for now
    IDLE = "idle"  # nothing was sent for a while: the stream ends
    REVOKED = "revoked"  # a node is a member no more: all that was agreed with it has ended
    RESTARTED = "restarted"  # a peer came back as a new process
    RECEIVING = "receiving"  # a peer's stream delivers packets
    ENDED = "ended"  # it ended
    FOUND = "found"  # what was asked for has an owner
    NOT_FOUND = "not-found"  # or has none


class NodeEnd(StrEnum):
    """Why the node itself gave something up, before a machine was asked."""

    NO_PATH = "no path"  # the search offers none
    NO_RELAY = "no-relay"  # the card of a node on the path does not offer to relay, or may not
    NO_KEY = "no-key"  # the hop key of a far relay is not known
    BAD_KEY = "bad-key"  # a card on the path carries a key that is none
    UNKNOWN_RELAY = "unknown-relay"  # no node answers to the id of a relay on the path
    REVOKED = "revoked"  # a node on the path is a member no more


class Step(StrEnum):
    """What came to nothing.  It follows from the type of a reason's end, and says who found so."""

    PATH = "path"  # the node itself gave a path up before it asked a machine
    QUESTION = "question"
    HANDSHAKE = "handshake"
    STREAM = "stream"  # one that a peer sent here
    ROUTE = "route"
    HOP = "hop"  # a hop of the route said so
    LINK = "link"
    DIAL = "dial"


_STEPS: Mapping[type[StrEnum], Step] = {
    NodeEnd: Step.PATH,
    Unanswered: Step.QUESTION,
    SenderEnd: Step.HANDSHAKE,
    ReceiverEnd: Step.STREAM,
    RouteEnd: Step.ROUTE,
    RefusalWord: Step.HOP,
    LinkEnd: Step.LINK,
    DialEnd: Step.DIAL,
}
_NAMED_STEPS = (Step.HANDSHAKE, Step.DIAL)  # they stand before the words for why


class Reason(NamedTuple):
    """Why something ended.

    end: its type says whose word it is; RefusalWord: a hop of the route said so.  said: what a peer, the carrier or the
    control plane said, as it came: shown, and decides nothing.  by: the node whose word it is, or that it is about;
    None: the first hop, or the peer.
    """

    end: NodeEnd | Unanswered | SenderEnd | ReceiverEnd | RouteEnd | RefusalWord | LinkEnd | DialEnd
    said: str = ""
    by: NodeId | None = None

    @property
    def step(self) -> Step:
        """Return what came to nothing."""
        return _STEPS[type(self.end)]

    def __str__(self) -> str:
        """Return the words a person reads: "dial: timeout", "unknown-stream"."""
        step = f"{self.step}: " if self.step in _NAMED_STEPS else ""
        refused = "refused: " if step and self.said and self.end == "refused" else ""
        return step + refused + (self.said or self.end)


def reason_of(event: RouteFailed, hops: tuple[NodeId, ...] = ()) -> Reason:
    """Return why a route failed: a hop's own word where one refused it.  hops: those of the route."""
    refusal = event.refusal
    if refusal is None:
        return Reason(event.end)
    return Reason(refusal.word, refusal.said, hops[refusal.hop] if refusal.hop < len(hops) else None)


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened.

    node: the node it is about; None if its id is not known.  asked: what was asked for, with QUEUE, WHO, FOUND and
    NOT_FOUND; with REVOKED the name that the node had.  path: the hops that were tried or carry the stream, the
    destination last; empty where no path is meant.  took_s: how long it took, where that makes sense.  epoch: with
    REKEY only.
    """

    kind: EventKind
    node: NodeId | None = None
    asked: Who | None = None
    path: tuple[NodeId, ...] = ()
    reason: Reason | None = None
    took_s: float | None = None
    epoch: int | None = None
