"""What the control plane hands out: events, envelopes to send, and its status."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from conflux.control.channel import Arrival
from conflux.control.envelope import Envelope, Kind, Pairing
from conflux.control.who import Who
from conflux.ids import BootId, NodeId
from conflux.realm.card import Card
from conflux.realm.lists import ListKey


class Unanswered(StrEnum):
    """Why a request or a question has no answer.  Each is this node's own finding, never the word of a peer."""

    TIMEOUT = "timeout"  # a request: every try was handed over, and no answer came
    NO_ANSWER = "no-answer"  # a question: likewise
    ABSENT = "absent"  # no channel knows the node to be there
    REFUSED = "refused"  # no channel takes the envelope
    UNKNOWN_PEER = "unknown-peer"  # a request: its receiver's card was not found
    BUSY = "busy"  # too many are pending
    REVOKED = "revoked"  # the node is a member no more


class Transmit(NamedTuple):
    """One envelope for the running channels: choice.py.  Tell the plane what became of it: handoff(token, ...).

    again: an earlier copy had no answer.
    """

    token: int
    envelope: Envelope
    again: bool = False


@dataclass(frozen=True, slots=True)
class Message:
    """A verified message of a member.  re: the token of our request that it answers, 0 if none."""

    peer: NodeId
    kind: Kind
    body: bytes
    seq: int
    re: int
    boot: BootId


@dataclass(frozen=True, slots=True)
class PairMessage:
    """A payload under an id of two nodes: nothing of it is verified.

    source: who handed it over, if that is known.  arrival: how it came.
    """

    id: bytes
    what: Pairing
    body: bytes
    source: NodeId | None
    arrival: Arrival | None = None


@dataclass(frozen=True, slots=True)
class RequestFailed:
    """No answer to a request came.  token: as request() returned it."""

    peer: NodeId
    token: int
    kind: Kind
    reason: Unanswered


@dataclass(frozen=True, slots=True)
class CardFound:
    """The answer to who(query)."""

    card: Card
    query: Who


@dataclass(frozen=True, slots=True)
class WhoFailed:
    """No answer to who(query) came."""

    query: Who
    reason: Unanswered


@dataclass(frozen=True, slots=True)
class CardChanged:
    """A peer whose card we hold runs as a new process: everything agreed with the old one is void."""

    card: Card


@dataclass(frozen=True, slots=True)
class Heard:
    """A verified message of node came.

    via: the neighbour that handed it over, perhaps node itself; or the node that it is behind at a broker.  None: it
    came over a broker, and node is not known to be behind another one.
    """

    node: NodeId
    via: NodeId | None


class Learnt(NamedTuple):
    """A verified message of node came by that path of a channel."""

    channel: str
    node: NodeId
    path: bytes


@dataclass(frozen=True, slots=True)
class ListLearnt:
    """A signed list is news.

    key: which list.  revoked: the nodes that are members no more, and were as far as was known; with their names, ""
    if the name is not known.  voided: an issuer may have lost its grant, so a node whose card is not here may be a
    member no more either.
    """

    key: ListKey
    revoked: Mapping[NodeId, str]
    voided: bool


Event = Heard | Message | RequestFailed | CardFound | WhoFailed | CardChanged | ListLearnt


class PlaneStatus(NamedTuple):
    """What a person may want to see of the control plane."""

    boot: str  # hex
    hop_key: str  # the id of the current hop key, in hex
    cards: int
    requests: int  # without an answer yet
    questions: tuple[str, ...]  # without an answer yet, in words
    drops: Mapping[str, int]
